"""Trials that share GPUs: real kubelets, real containers, a device plugin whose GPUs are fake."""

import json
from typing import Any

import pytest
from _e2e import real_study
from _release import Release
from _studies import Studies, until

from devcluster.cluster import Cluster

SHARES = """\
import json, os, time, tuneyard
began = time.time()
for step in range(8):
    time.sleep(0.5)
    tuneyard.report(step=step, loss=tuneyard.parameters(x=0.5)["x"])
names = ("NVIDIA_VISIBLE_DEVICES", "TUNEYARD_GPU_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
print(json.dumps({"began": began, "ended": time.time(), **{name: os.environ.get(name) for name in names}}))
"""

Object = dict[str, Any]


def said(studies: Studies, study: str) -> list[Object]:
    """The last line of each trial's log."""
    pods = studies.objects("pods", "-l", f"tuneyard.dev/study={study}")
    return [json.loads(studies.kubectl("logs", pod["metadata"]["name"]).splitlines()[-1]) for pod in pods]


def most_at_once(runs: list[Object]) -> dict[str, float]:
    """How much of each GPU was in use at the busiest moment."""
    shares = [(run["NVIDIA_VISIBLE_DEVICES"], float(run["TUNEYARD_GPU_FRACTION"] or 1), run) for run in runs]
    return {
        gpu: max(
            sum(s for other, s, run in shares if other == gpu and run["began"] <= at["began"] < run["ended"])
            for found, _, at in shares
            if found == gpu
        )
        for gpu in {gpu for gpu, _, _ in shares}
    }


@pytest.fixture
def gpus(cluster: Cluster, release: Release) -> set[str]:
    """The fake GPUs of the cluster, by name."""
    names = set()
    for node in cluster.objects("nodes"):
        count = int(node["status"]["allocatable"].get("nvidia.com/gpu", 0))
        names |= {f"GPU-fake-{node['metadata']['name']}-{number}" for number in range(count)}
    if not names:
        pytest.skip("this cluster's nodes have no GPUs")
    return names


def holders(release: Release) -> list[Object]:
    return release.cluster.objects("-n", f"{release.name}-reservations", "pods")


def test_trials_share_gpus_that_are_held_for_them_and_given_back(
    studies: Studies, release: Release, gpus: set[str]
) -> None:
    parallel = 2 * len(gpus)
    manifest = real_study(
        "halves", SHARES, gpu={"fraction": 0.5}, trials={"max": 2 * parallel, "parallel": 2 * parallel}
    )
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]
    studies.apply(manifest)
    seen: dict[str, int] = {}

    def done() -> bool:
        for pod in holders(release):
            seen[pod["metadata"]["uid"]] = 1
        return bool(studies.status("halves").get("phase") == "Complete")

    until(done, "the study completes", 240)
    trials = studies.trials("halves")
    assert [trial["status"]["phase"] for trial in trials] == ["Succeeded"] * 2 * parallel
    assert not [trial for trial in trials if len(trial["status"]["attempts"]) > 1], "nobody lost a place"
    runs = said(studies, "halves")
    assert {run["NVIDIA_VISIBLE_DEVICES"] for run in runs} == gpus, "whatever the template says"
    assert {run["TUNEYARD_GPU_FRACTION"] for run in runs} == {"0.5"}
    assert {run["XLA_PYTHON_CLIENT_MEM_FRACTION"] for run in runs} == {"0.45"}
    assert set(most_at_once(runs).values()) == {1.0}, "two at a time on each GPU, and never more"
    assert len(seen) == len(gpus), "each GPU was held once for all of its trials"
    for pod in studies.objects("pods", "-l", "tuneyard.dev/study=halves"):
        assert "nvidia.com/gpu" not in json.dumps(pod["spec"]["containers"][0].get("resources", {}))

    studies.apply(real_study("wholes", SHARES, gpu={"count": 1}, trials={"max": len(gpus), "parallel": len(gpus)}))
    studies.wait("wholes", timeout=120)
    assert {run["NVIDIA_VISIBLE_DEVICES"] for run in said(studies, "wholes")} == gpus
    until(lambda: not holders(release), "nobody holds a GPU any more")


def test_a_pod_that_holds_a_gpu_is_replaced_and_its_trials_come_to_their_end(
    studies: Studies, release: Release, gpus: set[str]
) -> None:
    studies.apply(real_study("robbed", SHARES, gpu={"fraction": 0.25}, trials={"max": 4, "parallel": 4}))
    running = until(lambda: [t for t in studies.trials("robbed") if t["status"].get("phase") == "Running"], "one", 120)
    assert running[0]["status"]["placement"]["uuid"] in gpus
    [holder, *_] = holders(release)
    release.cluster.kubectl("delete", "pod", "-n", holder["metadata"]["namespace"], holder["metadata"]["name"])
    assert studies.wait("robbed", timeout=180)["trials"]["succeeded"] == 4
    assert max(most_at_once(said(studies, "robbed")).values()) <= 1.0
