"""Queues on a real API server: what it refuses, what the scheduler and the operator make of them."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from _studies import Studies, study, until

from devcluster.cluster import Cluster
from devcluster.processes import ClusterError
from devcluster.stack import Stack

ENDLESS = {"duration-ms": "600000"}


class Queues:
    """Queues of one test; they have no namespace, so their names begin with the test's."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._made: list[str] = []

    def name(self, name: str) -> str:
        return f"{self._namespace}-{name}"

    def create(self, name: str, **spec: Any) -> str:
        if "parent" in spec:
            spec["parent"] = self.name(spec["parent"])
        meta = {"name": self.name(name)}
        self._cluster.create(
            {"apiVersion": "tuneyard.dev/v1alpha1", "kind": "GpuQueue", "metadata": meta, "spec": spec}
        )
        self._made.append(meta["name"])
        return meta["name"]

    def status(self, name: str) -> dict[str, Any]:
        found = next(item for item in self._cluster.objects("gpuqueues") if item["metadata"]["name"] == self.name(name))
        status: dict[str, Any] = found.get("status") or {}
        return status

    def condition(self, name: str, kind: str) -> tuple[str, str]:
        told = {each["type"]: (each["status"], each["reason"]) for each in self.status(name).get("conditions", ())}
        return told.get(kind, ("", ""))

    def clean(self) -> None:
        for name in self._made:
            with contextlib.suppress(ClusterError):  # a test may have deleted it
                self._cluster.kubectl("delete", "gpuqueue", name)


@pytest.fixture
def queues(cluster: Cluster, namespace: str) -> Iterator[Queues]:
    made = Queues(cluster, namespace)
    yield made
    made.clean()


@pytest.fixture
def studies(stack: Stack, cluster: Cluster, namespace: str) -> Iterator[Studies]:
    del stack  # it works on them
    made = Studies(cluster, namespace)
    yield made
    made.kubectl("delete", "studies", "--all")
    until(lambda: not made.objects("pods"), "no pod is left")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"guaranteed": 5, "limit": 4}, "guaranteed must not be above limit; lower guaranteed, or raise limit"),
        ({"weight": 0}, "should be greater than 0"),
        ({"guaranteed": -1}, "should be greater than or equal to 0"),
        ({"elastic": {"unplaced": 0}}, "should be greater than or equal to 1"),
        ({"preemption": {"reclaim": "Always"}}, 'supported values: "Any", "LowerPriority", "Never"'),
        ({"parent": "itself"}, "a queue is not a part of itself; name another parent, or leave parent out"),
    ],
)
def test_what_makes_no_sense_never_gets_in(queues: Queues, spec: dict[str, Any], says: str) -> None:
    with pytest.raises(ClusterError, match="is invalid") as refused:
        queues.create("itself", **spec)
    assert says in str(refused.value)


def test_a_queue_gets_back_what_it_is_guaranteed(queues: Queues, studies: Studies, cluster: Cluster) -> None:
    """Whole GPUs of all nodes are borrowed; three go back, their trials run again later and nothing else changes."""
    gpus = sum(int(node["status"]["allocatable"].get("nvidia.com/gpu", 0)) for node in cluster.objects("nodes"))
    own = queues.create("own", guaranteed=3)
    lent = queues.create("lent")
    trials = {"max": gpus + 2, "parallel": gpus}
    studies.apply(study("greedy", annotations=ENDLESS, trials=trials, queue=lent, retry={"limit": 0}))
    until(lambda: queues.status("lent").get("borrowed") == gpus, "all GPUs are lent", 60)

    studies.apply(study("owed", annotations=ENDLESS, trials={"max": 8, "parallel": 5}, queue=own))
    until(lambda: queues.status("own").get("used") == 3, "the queue has what it is guaranteed", 30)
    greedy = [trial["status"] for trial in studies.trials("greedy")]
    outcomes = Counter(attempt["outcome"] for status in greedy for attempt in status.get("attempts", ()))
    assert outcomes == {"Preempted": 3}
    back = [status for status in greedy if status.get("attempt")]
    assert {(status["phase"], status["attempt"]) for status in back} == {("Pending", 1)}
    assert all("notBefore" not in status for status in back)
    running = [trial for trial in studies.trials("owed") if trial["status"]["phase"] in {"Placed", "Running"}]
    assert len(running) == 3
    assert queues.status("lent")["used"] == gpus - 3
    shown = cluster.kubectl("get", "gpuqueue", own).stdout.splitlines()
    assert shown[0].split() == ["NAME", "GUARANTEED", "USED", "BORROWED", "PENDING", "READY", "AGE"]
    assert shown[1].split()[1:4] == ["3", "3", "0"]
    until(lambda: cluster.kubectl("get", "gpuqueue", own).stdout.splitlines()[1].split()[5] == "True", "it is ready")

    studies.kubectl("delete", "study", "owed")
    until(lambda: queues.status("lent").get("used") == gpus, "what is idle is lent again", 30)


def test_trials_wait_for_a_node_that_is_added(queues: Queues, studies: Studies, cluster: Cluster) -> None:
    """An autoscaler sees two pods that wait; a node comes, takes them, and the others follow as usual."""
    model = queues.create("elastic", elastic={"unplaced": 2})
    gpu, trials = {"count": 1, "model": model}, {"max": 6, "parallel": 4}
    studies.apply(study("patient", trials=trials, queue=model, gpu=gpu))
    until(lambda: len(studies.objects("pods")) == 2, "two pods are to be seen", 30)
    assert [pod["spec"].get("nodeName") for pod in studies.objects("pods")] == [None, None]
    until(lambda: queues.status("elastic").get("used") == 2, "they count as in use", 30)
    assert len(studies.objects("pods")) == 2

    meta = {
        "name": model,
        "labels": {"kubernetes.io/hostname": model, "nvidia.com/gpu.product": model},
        "annotations": {"kwok.x-k8s.io/node": "fake", "kwok.tuneyard.dev/gpus": "2"},
    }
    cluster.create({"apiVersion": "v1", "kind": "Node", "metadata": meta})
    try:
        assert studies.wait("patient")["trials"]["succeeded"] == 6
        attempts = [each for trial in studies.trials("patient") for each in trial["status"]["attempts"]]
        assert {(each["node"], each["outcome"]) for each in attempts} == {(model, "Succeeded")}
        until(lambda: queues.status("elastic").get("used") == 0, "nothing is in use", 30)
    finally:
        cluster.kubectl("delete", "node", model)


def test_bad_queues_say_so_and_stop_nothing_else(queues: Queues, studies: Studies) -> None:
    lost = queues.create("lost", parent="nowhere")
    queues.create("a", parent="b")
    queues.create("b", parent="a")
    queues.create("huge", guaranteed=1_000)
    held = {"max": 1, "parallel": 1}
    studies.apply(study("held", trials=held, queue=lost))
    studies.apply(study("unknown", trials=held, queue=queues.name("never")))
    studies.apply(study("free"))
    assert studies.wait("free")["trials"]["succeeded"] == 6

    until(lambda: queues.condition("lost", "Ready") == ("False", "ParentNotFound"), "it says what it lacks")
    until(lambda: queues.condition("a", "Ready") == ("False", "ParentCycle"), "it says that it is in a ring")
    until(lambda: queues.condition("huge", "Guaranteed") == ("False", "AboveCapacity"), "it says that it is too much")
    assert queues.condition("huge", "Ready")[0] == "True"
    for name, reason in (("held", "QueueNotReady"), ("unknown", "QueueNotFound")):
        until(lambda n=name, r=reason: studies.trials(n)[0]["status"].get("reason") == r, f"{name} says why it waits")
    queues.create("nowhere")
    assert studies.wait("held")["trials"]["succeeded"] == 1
    until(lambda: queues.condition("lost", "Ready") == ("True", "Usable"), "it is mended")
