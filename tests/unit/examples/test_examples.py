"""The examples: their manifests are valid, and their programs learn."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tuneyard_api.manifest import load
from tuneyard_api.validation import validate_study

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
MANIFESTS = sorted(EXAMPLES.glob("*.yaml"))


def container_of(manifest: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = manifest["spec"]["template"]["spec"]["containers"][0]
    return container


@pytest.fixture(params=MANIFESTS, ids=lambda path: path.name)
def manifest(request: pytest.FixtureRequest) -> dict[str, Any]:
    (document,) = load(request.param.read_text())
    assert document["metadata"]["name"] == request.param.stem
    return document


def run(
    program: str, *arguments: str, files: Path, parameters: Mapping[str, Any] | None = None, **environment: str
) -> list[Any]:
    """Run a program as a trial; what it printed, its points, and its last metrics."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("TUNEYARD_")}
    trial = {
        "TUNEYARD_TRIAL": "example-0",
        "TUNEYARD_REPORT_FILE": str(files / "reports.jsonl"),
        "TUNEYARD_TERMINATION_FILE": str(files / "last.json"),
        "OMP_NUM_THREADS": "1",
    }
    if parameters is not None:
        trial["TUNEYARD_PARAMETERS"] = json.dumps(parameters)
    done = subprocess.run(
        [sys.executable, program, *arguments],
        cwd=EXAMPLES,
        env=given | trial | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    reports, last = files / "reports.jsonl", files / "last.json"
    points = [json.loads(line) for line in reports.read_text().splitlines()] if reports.exists() else []
    return [done.stdout, points, json.loads(last.read_text()) if last.exists() else {}]


def test_there_is_an_example_of_each_strategy() -> None:
    assert {load(path.read_text())[0]["spec"]["strategy"]["name"] for path in MANIFESTS} == {
        "asha",
        "grid",
        "manual",
        "pbt",
        "random",
        "sobol",
    }


def test_the_manifest_is_a_valid_study(manifest: dict[str, Any]) -> None:
    study = validate_study(manifest)

    assert study.spec.trials.timeout is not None, "an example must not run for ever"


def test_the_program_is_there_and_every_reference_is_a_parameter(manifest: dict[str, Any]) -> None:
    container = container_of(manifest)
    python, program = container["command"]
    references = set(re.findall(r"\$\{(\w+)\}", " ".join(container.get("args", []))))
    names = {parameter["name"] for parameter in manifest["spec"]["parameters"]}

    assert python == "python"
    assert (EXAMPLES / program).is_file()
    assert references in (set(), names), "a program gets all its parameters in one way"


def test_the_pod_fits_a_namespace_with_restricted_pod_security(manifest: dict[str, Any]) -> None:
    pod = manifest["spec"]["template"]["spec"]
    container = container_of(manifest)

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert all(container["resources"][kind].keys() == {"cpu", "memory"} for kind in ("requests", "limits"))
    assert {"name": "OMP_NUM_THREADS", "value": "1"} in container["env"]


@pytest.mark.parametrize(
    "optimizer", [{"optimizer": "sgd", "lr": 0.1, "momentum": 0.8}, {"optimizer": "adam", "lr": 0.01}]
)
def test_digits_learns(tmp_path: Path, optimizer: dict[str, Any]) -> None:
    _, points, last = run("digits.py", files=tmp_path, parameters={"layers": 2, "width": 64, "batch": 64, **optimizer})

    accuracies = [point["metrics"]["accuracy"] for point in points]
    assert [point["step"] for point in points] == list(range(300))
    assert accuracies[0] < 0.96 < accuracies[-1] <= 1
    assert points[-1]["metrics"]["loss"] < 0.01 < points[0]["metrics"]["loss"]
    assert last == points[-1]["metrics"]


def test_digits_tells_bad_configurations_from_good_ones(tmp_path: Path) -> None:
    bad = {"layers": 4, "width": 8, "batch": 128, "optimizer": "sgd", "lr": 0.0001, "momentum": 0.0}
    _, _, last = run("digits.py", files=tmp_path, parameters=bad)

    assert last["accuracy"] < 0.5


def test_digits_gives_the_same_result_again(tmp_path: Path) -> None:
    small = {"layers": 1, "width": 8, "batch": 128, "optimizer": "adam", "lr": 0.01}
    first = run("digits.py", files=tmp_path, parameters=small)[2]

    assert run("digits.py", files=tmp_path, parameters=small)[2] == first


def test_population_goes_on_from_a_checkpoint_with_another_configuration(tmp_path: Path) -> None:
    config = {"lr": 0.3, "momentum": 0.2, "batch": 32}
    kept, new = str(tmp_path / "kept"), str(tmp_path / "new")
    known = {**config, "epochs": 10}
    _, points, _ = run("population.py", files=tmp_path, parameters=known, TUNEYARD_CHECKPOINT_DIR=kept)
    assert [point["step"] for point in points] == list(range(10))
    source = {"TUNEYARD_CHECKPOINT_DIR": new, "TUNEYARD_CHECKPOINT_FROM": kept}
    (tmp_path / "reports.jsonl").unlink()
    _, more, _ = run("population.py", files=tmp_path, parameters={**config, "lr": 0.03, "epochs": 15}, **source)
    assert [point["step"] for point in more] == list(range(10, 15))
    before, after = points[-1]["metrics"]["loss"], more[-1]["metrics"]["loss"]
    assert after < before < 0.2


def test_svm_learns(tmp_path: Path) -> None:
    _, points, last = run("svm.py", files=tmp_path, parameters={"C": 10.0, "gamma": 0.01})

    assert len(points) == 1
    assert 0.96 < last["f1"] < last["accuracy"] < 1


def test_xgboost_learns(tmp_path: Path) -> None:
    config = {
        "max_depth": 4,
        "min_child_weight": 0.5,
        "eta": 0.3,
        "n_estimators": 60,
        "colsample_bytree": 0.6,
        "subsample": 0.8,
    }
    _, points, last = run("train_xgboost.py", files=tmp_path, parameters=config)

    assert [point["step"] for point in points] == list(range(60))
    assert points[0]["metrics"]["accuracy"] < 0.9 < 0.95 < last["accuracy"] <= 1


def test_logline_learns_and_its_line_is_the_one_that_the_manifests_look_for(tmp_path: Path) -> None:
    printed, points, last = run(
        "logline.py", "--neighbours", "9", "--weights", "distance", "--scaling", "standard", files=tmp_path
    )

    assert (points, last) == ([], {})
    for name in ("logline", "grid"):
        (objective,) = load((EXAMPLES / f"{name}.yaml").read_text())[0]["spec"]["objectives"]
        (value,) = re.findall(re.escape(objective["logPattern"]).replace(r"\{value\}", r"(\S+)"), printed)
        assert 0.9 < float(value) <= 1
