"""The examples as a user applies them: real programs, trained in real containers."""

import json
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
