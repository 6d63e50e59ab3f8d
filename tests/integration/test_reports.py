"""The metric intake with real tokens: a pod reports for its own trial and for nothing else."""

import pytest
from _reports import post, token
from _studies import Studies, study, until

from devcluster.cluster import Cluster
from devcluster.stack import Stack


@pytest.fixture
def studies(cluster: Cluster, stack: Stack, namespace: str) -> Studies:
    return Studies(cluster, namespace)


def test_a_pod_reports_for_its_own_trial_only(studies: Studies, stack: Stack) -> None:
    silent = {"duration-ms": "5000", "message": "done"}
    studies.apply(study("r", annotations=silent, trials={"max": 2, "parallel": 2}))
    running = until(lambda: [p for p in studies.objects("pods") if p["status"]["phase"] == "Running"][1:2], "two pods")
    pod = running[0]
    index = int(pod["metadata"]["labels"]["tuneyard.dev/index"])
    bearer = token(studies, pod)

    reports = [{"step": step, "metrics": {"loss": 1 / step}} for step in range(1, 101)]
    assert post(stack, bearer, {"reports": reports}) == (200, {"accepted": 100})

    assert post(stack, None, {"reports": reports})[0] == 401
    assert post(stack, token(studies, pod, "elsewhere"), {"reports": reports})[0] == 401
    assert post(stack, studies.kubectl("create", "token", "default", "--audience=tuneyard").strip(), {})[0] == 401
    assert post(stack, bearer[:-8] + "AAAAAAAA", {"reports": reports})[0] == 401
    assert post(stack, bearer, {"metrics": 1})[0] == 400
    assert post(stack, bearer, {"reports": [1]})[0] == 400

    studies.wait("r")
    trials = studies.trials("r")
    mine, other = trials[index]["status"], trials[1 - index]["status"]
    assert (mine["phase"], mine["value"]) == ("Succeeded", 0.01)
    assert 10 <= len(mine["curve"]) <= 50
    assert mine["curve"][0] == {"step": 1, "metrics": {"loss": 1.0}}
    assert other["phase"] == "Infeasible", "the other trial reported nothing"
    # The pod has ended: what it might still say is not taken.
    assert post(stack, bearer, {"reports": reports})[0] == 503
