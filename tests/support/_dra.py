"""What the tests of DRA share: nodes of kwok's whose GPUs are in ResourceSlices that the tests write, and claims.

The slices are fakes, of a driver that does not run; kube-scheduler, which allocates the claims, is the real one.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from _studies import Studies, study, until

from devcluster.cluster import Cluster
from tuneyard_scheduler import quantity

Object = dict[str, Any]
DRIVER = "gpu.nvidia.com"
API = "resource.k8s.io/v1"
ENDLESS = {"duration-ms": "3600000"}


@contextmanager
def nvidia_class(cluster: Cluster) -> Iterator[None]:
    """The DeviceClass that NVIDIA's driver brings, for the time of the block."""
    text = f"device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].type == 'gpu'"
    spec = {"selectors": [{"cel": {"expression": text}}]}
    item = {"apiVersion": API, "kind": "DeviceClass", "metadata": {"name": DRIVER}, "spec": spec}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(item))
    yield
    cluster.kubectl("delete", "deviceclass", DRIVER)


class Lab:
    """Nodes whose GPUs are in ResourceSlices, and who has them."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.studies = Studies(cluster, namespace)
        self.model = namespace
        """The GPUs' model: no other test's study asks for it."""
        self.nodes: list[str] = []
        uuid = f"device.attributes['{DRIVER}'].uuid.startsWith('GPU-{namespace}')"
        self.any_gpu = [{"cel": {"expression": uuid}}]
        """Selects the GPUs of this test's nodes."""

    def node(self, *devices: Object) -> str:
        """A node with no GPU but these, which its fake driver publishes."""
        name = f"{self.model}-{len(self.nodes)}"
        meta = {
            "name": name,
            "labels": {"kubernetes.io/hostname": name},
            "annotations": {"kwok.x-k8s.io/node": "fake", "kwok.tuneyard.dev/gpus": "0"},
        }
        self.cluster.create({"apiVersion": "v1", "kind": "Node", "metadata": meta})
        self.nodes.append(name)
        pool = {"name": name, "generation": 1, "resourceSliceCount": 1}
        self.cluster.create({
            "apiVersion": API, "kind": "ResourceSlice", "metadata": {"name": name},
            "spec": {"driver": DRIVER, "nodeName": name, "pool": pool, "devices": list(devices)},
        })  # fmt: skip
        return name

    def gpu(self, number: int, *, shared: bool, uuid: bool = True, capacity: Object | None = None) -> Object:
        """A device as NVIDIA's driver publishes it; `shared` as KEP-5075 has it."""
        attributes: Object = {"type": {"string": "gpu"}, "productName": {"string": self.model.replace("-", " ")}}
        if uuid:
            attributes["uuid"] = {"string": f"GPU-{self.model}-{len(self.nodes)}-{number}"}
        device: Object = {
            "name": f"gpu-{number}",
            "attributes": attributes,
            "capacity": {"memory": {"value": "80Gi"}} | (capacity or {}),
        }
        return device | ({"allowMultipleAllocations": True} if shared else {})

    def run(self, name: str, gpu: Object, trials: int, **spec: Any) -> None:
        """Begin a study whose trials run until they are stopped."""
        asked = {"model": self.model} | gpu
        self.studies.apply(
            study(name, annotations=ENDLESS, gpu=asked, trials={"max": trials, "parallel": trials}, **spec)
        )

    def allocated(self) -> dict[str, list[float]]:
        """What is allocated of the GPUs' memory, in GiB, by node and device; of one that is not divided, all of it."""
        found = defaultdict(list)
        for claim in self.cluster.objects("resourceclaims", "-A"):
            results = claim.get("status", {}).get("allocation", {}).get("devices", {}).get("results", [])
            for each in results:
                if each["pool"] in self.nodes:
                    gib = quantity.parse(each.get("consumedCapacity", {}).get("memory", "80Gi")) / 2**30
                    found[f"{each['pool']}/{each['device']}"].append(gib)
        return dict(found)

    def reason(self, name: str) -> tuple[str, str]:
        """Why the first trial that waits does so."""

        def told() -> Object | None:
            waiting = [t.get("status", {}) for t in self.studies.trials(name)]
            return next((s for s in waiting if s.get("phase", "Pending") == "Pending" and "reason" in s), None)

        found: Object = until(told, f"a trial of {name} says why it waits")
        return found["reason"], found["message"]

    def places(self, name: str) -> list[Object]:
        return [t["status"]["placement"] for t in self.studies.trials(name) if "placement" in t.get("status", {})]

    def claim(self, name: str, count: int = 1, **exactly: Any) -> None:
        """Somebody else's claim, with a pod that uses it."""
        request = {"name": "gpu", "exactly": {"deviceClassName": DRIVER, "count": count, **exactly}}
        self.studies.apply({
            "apiVersion": API, "kind": "ResourceClaim", "metadata": {"name": name},
            "spec": {"devices": {"requests": [request]}},
        })  # fmt: skip
        self.studies.apply({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "resourceClaims": [{"name": "gpu", "resourceClaimName": name}],
                "containers": [
                    {"name": "main", "image": "example.test/other:1", "resources": {"claims": [{"name": "gpu"}]}}
                ],
            },
        })  # fmt: skip
        self.studies.kubectl("wait", "--for=jsonpath={.status.phase}=Running", f"pod/{name}", "--timeout=30s")

    def clean(self) -> None:
        """Remove all that was made."""
        self.studies.kubectl("delete", "studies,pods", "--all", "--wait=false")
        until(lambda: not self.studies.objects("pods"), "the pods are gone")
        for kind in ("resourceslices", "nodes"):
            self.cluster.kubectl("delete", kind, *self.nodes, "--wait=false")
