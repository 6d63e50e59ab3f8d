"""asha on a real API server: a report stops a trial, its pod goes, and the GPU is another trial's at once."""

import time

import pytest
from _reports import post, token
from _studies import Object, Studies, study, until

from devcluster.cluster import Cluster
from devcluster.stack import Stack

FIDELITY = {"parameter": "epochs", "min": 1, "max": 9}


@pytest.fixture
def studies(cluster: Cluster, stack: Stack, namespace: str) -> Studies:
    return Studies(cluster, namespace)


def test_a_trial_that_does_worse_is_stopped_and_its_gpu_goes_to_the_next(studies: Studies, stack: Stack) -> None:
    studies.apply(
        study(
            "early",
            annotations={"duration-ms": "600000"},
            strategy={"name": "asha"},
            fidelity=FIDELITY,
            trials={"max": 3, "parallel": 2, "maxFailed": 0},
        )
    )
    running = until(lambda: len(pods := live(studies)) == 2 and pods, "two pods")
    first, second = sorted(running, key=index)  # any two of the three: who is heard of first gets a place first
    (last,) = {0, 1, 2} - {index(first), index(second)}
    env = {entry["name"]: entry.get("value") for entry in first["spec"]["containers"][0]["env"]}
    assert env["TUNEYARD_PARAM_epochs"] == "9"
    say(studies, stack, first, 0, 0.1)
    judged = until(lambda: status_of(studies, index(first)).get("judged"), "the first is let go on")
    assert judged == 1
    begun = time.monotonic()
    say(studies, stack, second, 0, 0.5)
    stopped = until(lambda: (s := status_of(studies, index(second)))["phase"] == "Stopped" and s, "it is stopped")
    print(f"on record {time.monotonic() - begun:.2f} s after the report")
    assert (stopped["reason"], stopped["value"], stopped["judged"]) == ("EarlyStopped", 0.5, 1)
    assert stopped["message"] == (
        "0.5 at fidelity 1 is number 2 of the 2 trials that came so far; asha lets the best one in 3 go on"
    )
    third = until(lambda: [p for p in live(studies) if index(p) == last][:1], "the third trial runs in its place")[0]
    print(f"the next one runs {time.monotonic() - begun:.2f} s after the report")
    say(studies, stack, third, 0, 0.6)
    until(lambda: status_of(studies, last)["phase"] == "Stopped", "the third is stopped, too")
    until(lambda: [index(pod) for pod in live(studies)] == [index(first)], "their pods are gone")
    status = studies.status("early")
    assert "best" not in status, "of all of the fidelity there is no result yet"
    assert (status["trials"]["failed"], status["trials"]["infeasible"]) == (0, 0)


def index(pod: Object) -> int:
    return int(pod["metadata"]["labels"]["tuneyard.dev/index"])


def status_of(studies: Studies, number: int) -> Object:
    status: Object = studies.trials("early")[number]["status"]
    return status


def live(studies: Studies) -> list[Object]:
    pods = studies.objects("pods")
    return [p for p in pods if p["status"]["phase"] == "Running" and "deletionTimestamp" not in p["metadata"]]


def say(studies: Studies, stack: Stack, pod: Object, step: int, loss: float) -> None:
    bearer = token(studies, pod)
    report = {"reports": [{"step": step, "metrics": {"loss": loss}}]}
    assert until(lambda: post(stack, bearer, report)[0] == 200, "the report is taken")
