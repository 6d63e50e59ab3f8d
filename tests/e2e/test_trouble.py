"""What goes wrong in real clusters: programs that fail, images that are not there, nodes that go away."""

import json
import time

import pytest
from _e2e import condition, real_study
from _studies import Studies, until

from devcluster.cluster import Cluster, ClusterError

SPREAD = {
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"tuneyard.dev/study": "lost"}},
        }
    ]
}


def test_a_program_that_fails_once_is_retried(studies: Studies) -> None:
    program = """\
import os, sys, tuneyard
if os.environ["TUNEYARD_ATTEMPT"] == "0":
    sys.exit("the data server was busy")
tuneyard.report(step=0, loss=tuneyard.parameters(x=0.5)["x"])
"""
    studies.apply(
        real_study("again", program, retry={"limit": 2, "backoff": {"initial": "1s"}}, trials={"max": 2, "parallel": 2})
    )
    assert studies.wait("again", timeout=300)["trials"]["succeeded"] == 2
    for trial in studies.trials("again"):
        first, second = trial["status"]["attempts"]
        assert first["outcome"] == "ProgramFailed"
        assert "the data server was busy" in first["message"]
        assert second["outcome"] == "Succeeded"


def test_a_program_that_eats_too_much_memory_is_told_apart(studies: Studies) -> None:
    studies.apply(real_study("glutton", "x = bytearray(2_000_000_000)", trials={"max": 1, "parallel": 1}))
    studies.wait("glutton", timeout=300)
    trial = studies.trials("glutton")[0]["status"]
    assert (trial["phase"], trial["attempts"][0]["outcome"]) == ("Infeasible", "OutOfMemory")


def test_an_image_that_cannot_be_pulled_pauses_the_study_until_it_is_mended(studies: Studies) -> None:
    manifest = real_study("typo", image="tuneyard/exmaples:0.1.0", trials={"max": 4, "parallel": 2})
    studies.apply(manifest)
    status = studies.wait("typo", "Blocked", timeout=300)
    blocked = condition(status, "Blocked")
    assert blocked["reason"] == "TrialsCannotStart"
    assert "tuneyard/exmaples:0.1.0" in blocked["message"]
    assert status["phase"] == "Blocked"
    time.sleep(3)
    assert len(studies.trials("typo")) <= 4, "nothing is burnt"
    manifest["spec"]["template"]["spec"]["containers"][0]["image"] = "tuneyard/examples:0.1.0"
    studies.apply(manifest)
    assert studies.wait("typo", timeout=300)["trials"]["succeeded"] == 4


def test_a_pod_that_the_namespace_does_not_admit_is_said_on_the_study(cluster: Cluster, studies: Studies) -> None:
    cluster.kubectl("label", "namespace", studies.namespace, "pod-security.kubernetes.io/enforce=restricted")
    manifest = real_study("privileged", trials={"max": 2, "parallel": 1})
    manifest["spec"]["template"]["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    studies.apply(manifest)
    blocked = condition(studies.wait("privileged", "Blocked", timeout=300), "Blocked")
    assert "violates PodSecurity" in blocked["message"]
    assert studies.objects("pods") == []


def test_trials_of_a_node_that_is_drained_run_elsewhere(cluster: Cluster, studies: Studies) -> None:
    if len(nodes := [node["metadata"]["name"] for node in cluster.objects("nodes")]) < 2:
        pytest.skip("this cluster has one node")
    studies.apply(real_study("moved", steps=8, trials={"max": 8, "parallel": 4}))
    running = until(
        lambda: [pod for pod in studies.objects("pods") if pod["status"]["phase"] == "Running"][3:], "four run", 120
    )
    drained = running[0]["spec"]["nodeName"]
    try:
        cluster.kubectl(
            "drain", drained, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s",
            "--pod-selector=tuneyard.dev/study=moved",
        )  # fmt: skip
        status = studies.wait("moved", timeout=360)
    finally:
        cluster.kubectl("uncordon", drained)
    assert status["trials"]["succeeded"] == 8
    moved = [trial["status"]["attempts"] for trial in studies.trials("moved") if len(trial["status"]["attempts"]) > 1]
    assert moved, json.dumps(nodes)
    for first, *_, last in moved:
        assert first["outcome"] == "Infrastructure"
        assert last["outcome"] == "Succeeded"


def test_trials_of_a_node_that_dies_run_elsewhere(cluster: Cluster, studies: Studies) -> None:
    """Nobody removes the node, so its pods stay there for ever, neither running nor ended; the trials need not."""
    manifest = real_study("lost", steps=40, trials={"max": 2, "parallel": 2})
    manifest["spec"]["template"]["spec"] |= SPREAD | {
        "tolerations": [
            {"key": f"node.kubernetes.io/{what}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
            for what in ("not-ready", "unreachable")
        ]
    }
    studies.apply(manifest)
    running = until(
        lambda: [pod for pod in studies.objects("pods") if pod["status"]["phase"] == "Running"][1:], "both run", 120
    )
    node = running[0]["spec"]["nodeName"]
    try:
        cluster.kill_node(node)
    except ClusterError:
        pytest.skip("the nodes of this cluster are not ours to kill")
    try:
        status = studies.wait("lost", timeout=300)
        assert status["trials"]["succeeded"] == 2
        attempts = [trial["status"]["attempts"] for trial in studies.trials("lost")]
        lost = [first for first, *more in attempts if more]
        assert {(first["outcome"], first["node"]) for first in lost} == {("Infrastructure", node)}
    finally:
        cluster.start_node(node)


def test_whole_gpus_are_given_one_to_a_trial(cluster: Cluster, studies: Studies) -> None:
    """By a fake device plugin on the real kubelet: each container sees the device that it was given."""
    gpus = sum(int(node["status"]["allocatable"].get("nvidia.com/gpu", 0)) for node in cluster.objects("nodes"))
    if not gpus:
        pytest.skip("this cluster has no GPUs, not even fake ones")
    program = """\
import os, time, tuneyard
print("device", os.environ["NVIDIA_VISIBLE_DEVICES"], "on", os.environ["NODE"], flush=True)
time.sleep(2)
tuneyard.report(step=0, loss=tuneyard.parameters(x=0.5)["x"])
"""
    manifest = real_study("gpus", program, gpu={"count": 1}, trials={"max": gpus + 2, "parallel": gpus + 2})
    node = {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    manifest["spec"]["template"]["spec"]["containers"][0]["env"].append(node)
    studies.apply(manifest)
    most = 0

    def over() -> bool:
        nonlocal most
        most = max(most, sum(pod["status"]["phase"] == "Running" for pod in studies.objects("pods")))
        return studies.status("gpus").get("phase") == "Complete"

    until(over, "the study completes", 180)
    assert 1 <= most <= gpus
    seen = {studies.kubectl("logs", f"job/{trial['metadata']['name']}-0").strip() for trial in studies.trials("gpus")}
    assert all(line.startswith("device ") for line in seen)
    assert len(seen) <= gpus
