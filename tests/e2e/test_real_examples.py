"""The examples as a user applies them: real programs, trained in real containers."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from _e2e import EXAMPLES
from _studies import Studies


def example(name: str, **trials: Any) -> dict[str, Any]:
    """An example's manifest, with fewer trials."""
    manifest: dict[str, Any] = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    manifest["spec"]["trials"] |= trials
    return manifest


@pytest.mark.parametrize(("name", "metric"), [("digits", "accuracy"), ("svm", "f1"), ("xgboost", "accuracy")])
def test_an_example_finds_a_good_configuration(studies: Studies, name: str, metric: str) -> None:
    studies.apply(example(name, max=4))
    status = studies.wait(name, timeout=300)
    assert status["trials"]["succeeded"] == 4
    best = status["best"]
    assert best["metrics"][metric] == best["value"] >= 0.5
    table = studies.kubectl("get", "studies", name)
    assert "4/4" in table
    assert "Complete" in table


def test_a_program_that_cannot_be_changed_is_read_by_its_log(studies: Studies) -> None:
    """The metric comes out of the container's real log."""
    studies.apply(example("logline", max=3))
    status = studies.wait("logline", timeout=360)
    assert status["trials"]["succeeded"] == 3
    trial = studies.trials("logline")[0]
    log = studies.kubectl("logs", f"job/{trial['metadata']['name']}-0")
    assert str(trial["status"]["value"])[:5] in log


def test_the_curve_comes_through_the_service(studies: Studies) -> None:
    """The SDK finds the operator by its Service's name, and is known by its pod's token."""
    studies.apply(example("digits", max=2))
    studies.wait("digits", timeout=360)
    for trial in studies.trials("digits"):
        steps = [point["step"] for point in trial["status"]["curve"]]
        assert len(steps) >= 5, json.dumps(trial["status"])
        assert steps == sorted(steps)


@pytest.fixture
def volume() -> Iterator[Path]:
    """A folder that is not within one that is root's alone."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_members_of_a_population_hand_their_state_on_through_a_claim(studies: Studies, volume: Path) -> None:
    """They are no root, write to one volume, train nothing twice, and delete what nobody needs."""
    if os.environ.get("TUNEYARD_E2E_KUBECONFIG"):
        pytest.skip("the nodes of a cluster that is given do not have this machine's folders")
    volume.chmod(0o777)
    studies.claim("population", str(volume))
    manifest = example("population")
    manifest["spec"]["strategy"]["population"] = 4
    manifest["spec"]["fidelity"] |= {"min": 2, "max": 12}
    manifest["spec"]["checkpoints"]["keep"] = 8
    studies.apply(manifest)
    status = studies.wait("population", timeout=360)
    assert status["reason"] == "SpaceExhausted"
    trials = {trial["spec"]["index"]: trial for trial in studies.trials("population")}
    assert len(trials) == status["trials"]["succeeded"] == 24
    for trial in trials.values():
        rung = trial["spec"]["rung"]
        begun = trials[rung["continues"]]["spec"]["rung"]["fidelity"] if "continues" in rung else 0
        steps = [point["step"] for point in trial["status"]["curve"]]
        assert steps == list(range(begun, rung["fidelity"])), "it goes on where the one that it continues came to"
    [folder] = volume.iterdir()
    states = {int(each.name.partition("-")[0]) for each in folder.iterdir() if (each / "state.npz").exists()}
    assert status["best"]["index"] in states
    assert len(states) == len(list(folder.iterdir())) <= 2 * 8 + 2 * 3
