"""MIG and time-slicing against the real kube-scheduler, on nodes of kwok's that offer what NVIDIA's device plugin does.

Names of resources and labels: https://github.com/NVIDIA/k8s-device-plugin, README ("Shared Access to GPUs") and
docs/gpu-feature-discovery/README.md.
"""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from _studies import Studies, study, until

from devcluster.cluster import Cluster

Object = dict[str, Any]
ENDLESS = {"duration-ms": "3600000"}

pytestmark = pytest.mark.usefixtures("stack")


class Lab:
    """Nodes that offer what they are told to, and the pods that kube-scheduler puts there."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.studies = Studies(cluster, namespace)
        self.model = namespace
        """The GPUs' model: no other test's study asks for it."""
        self.nodes: list[str] = []

    def node(self, resources: dict[str, int], labels: dict[str, str], product: str = "{}") -> str:
        """A node with these resources."""
        name = f"{self.model}-{len(self.nodes)}"
        known = {"kubernetes.io/hostname": name, "nvidia.com/gpu.product": product.format(self.model)}
        annotations = {"kwok.x-k8s.io/node": "fake", "kwok.tuneyard.dev/gpus": "0"}
        meta = {"name": name, "labels": known | labels, "annotations": annotations}
        # What GPU nodes often have, so that nothing else runs there.
        spec = {"taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]}
        self.cluster.create({"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": spec})
        self.nodes.append(name)
        self.cluster.kubectl("wait", "--for=condition=Ready", f"node/{name}", "--timeout=30s")
        offered = {resource: str(count) for resource, count in resources.items()}
        patch = json.dumps({"status": {"capacity": offered, "allocatable": offered}})
        self.cluster.kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", patch)
        return name

    def run(self, name: str, gpu: Object, trials: int) -> None:
        """Begin a study whose trials run until they are stopped."""
        asked = {"model": self.model} | gpu
        self.studies.apply(study(name, annotations=ENDLESS, gpu=asked, trials={"max": trials, "parallel": trials}))

    def reason(self, name: str) -> str:
        """Why the first trial that waits does so."""

        def told() -> Object | None:
            waiting = [t.get("status", {}) for t in self.studies.trials(name)]
            return next((s for s in waiting if s.get("phase", "Pending") == "Pending" and "reason" in s), None)

        found: Object = until(told, f"a trial of {name} says why it waits")
        return str(found["reason"])

    def asked(self) -> Counter[str]:
        """What the pods that are bound ask for, by resource."""
        found: Counter[str] = Counter()
        for pod in self.studies.objects("pods"):
            if pod["spec"].get("nodeName") in self.nodes:
                limits = pod["spec"]["containers"][0]["resources"]["limits"]
                found.update({name: int(count) for name, count in limits.items()})
        return found

    def places(self, name: str) -> list[Object]:
        return [t["status"]["placement"] for t in self.studies.trials(name) if "placement" in t.get("status", {})]


@pytest.fixture
def lab(cluster: Cluster, namespace: str) -> Iterator[Lab]:
    made = Lab(cluster, namespace)
    yield made
    made.studies.kubectl("delete", "studies,pods", "--all", "--wait=false")
    until(lambda: not made.studies.objects("pods"), "the pods are gone")
    cluster.kubectl("delete", "nodes", *made.nodes, "--wait=false")


def test_the_smallest_slice_that_is_enough(lab: Lab) -> None:
    small, large = "nvidia.com/mig-1g.10gb", "nvidia.com/mig-3g.40gb"
    lab.node(
        {small: 3, large: 2},
        {f"{small}.memory": "9728", f"{large}.memory": "40192", "nvidia.com/mig.strategy": "mixed"},
    )
    lab.run("large", {"memory": "30Gi", "sharing": "mig"}, 1)
    lab.studies.until_running("large", 1)
    lab.run("small", {"memory": "8Gi"}, 5)
    lab.studies.until_running("small", 4)
    assert lab.asked() == {small: 3, large: 2}, "the last one takes a larger slice, as no other is free"
    assert lab.reason("small") == "NoNodeFits"
    assert {(place["backend"], place["gpus"]) for place in lab.places("small")} == {("mig", 0.1429), ("mig", 0.4286)}
    lab.run("huge", {"memory": "60Gi"}, 1)
    assert lab.reason("huge") == "NoGpuNodes"


def test_a_node_whose_gpus_are_all_cut_alike(lab: Lab) -> None:
    """MIG strategy "single": what is called nvidia.com/gpu is a slice, and no whole GPU."""
    lab.node(
        {"nvidia.com/gpu": 2}, {"nvidia.com/gpu.memory": "19968", "nvidia.com/mig.strategy": "single"}, "{}-MIG-3g.20gb"
    )
    lab.run("whole", {"count": 1}, 1)
    lab.run("part", {"fraction": 0.4}, 3)
    lab.studies.until_running("part", 2)
    assert lab.reason("part") == "NoNodeFits"
    assert lab.reason("whole") == "NoGpuNodes"
    assert {place["gpus"] for place in lab.places("part")} == {0.4286}


@pytest.mark.parametrize(
    ("resource", "strategy", "product"),
    [("nvidia.com/gpu", "time-slicing", "{}-SHARED"), ("nvidia.com/gpu.shared", "mps", "{}")],
)
def test_replicas_of_a_gpu(lab: Lab, resource: str, strategy: str, product: str) -> None:
    labels = {
        "nvidia.com/gpu.replicas": "4",
        "nvidia.com/gpu.sharing-strategy": strategy,
        "nvidia.com/gpu.memory": "81920",
        "nvidia.com/gpu.count": "1",
    }
    lab.node({resource: 4}, labels, product)
    lab.run("part", {"fraction": 0.25, "sharing": "timeslice"}, 3)
    lab.studies.until_running("part", 3)
    lab.run("memory", {"memory": "20Gi"}, 2)
    lab.studies.until_running("memory", 1)
    assert lab.asked() == {resource: 4}
    assert lab.reason("memory") == "NoNodeFits"
    lab.run("half", {"fraction": 0.5}, 1)
    assert lab.reason("half") == "NoGpuNodes", "a replica is no half of a GPU"
    lab.run("whole", {"count": 1}, 1)
    assert lab.reason("whole") == "NoGpuNodes"


def test_what_others_have_counts(lab: Lab) -> None:
    slice_ = "nvidia.com/mig-1g.10gb"
    node = lab.node({slice_: 2}, {})
    container = {"name": "main", "image": "example.test/other:1", "resources": {"limits": {slice_: "1"}}}
    spec = {
        "containers": [container],
        "nodeSelector": {"kubernetes.io/hostname": node},
        "tolerations": [{"operator": "Exists"}],
        "terminationGracePeriodSeconds": 0,
    }
    lab.studies.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other"}, "spec": spec})
    lab.studies.kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod/other", "--timeout=30s")
    lab.run("s", {"memory": "5Gi"}, 2)
    lab.studies.until_running("s", 1)
    assert lab.reason("s") == "NoNodeFits"
    lab.studies.kubectl("delete", "pod", "other")
    lab.studies.until_running("s", 2)
