"""DRA against the real kube-scheduler: kwok's nodes, and ResourceSlices that these tests write (fakes, of a driver that
does not run). What is checked is what kube-scheduler has allocated, as the ResourceClaims themselves say."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from _studies import Studies, study, until

from devcluster.cluster import Cluster
from tuneyard_scheduler import quantity

Object = dict[str, Any]
DRIVER = "gpu.nvidia.com"
API = "resource.k8s.io/v1"
ENDLESS = {"duration-ms": "3600000"}

pytestmark = pytest.mark.usefixtures("stack")


class Lab:
    """Nodes whose GPUs are in ResourceSlices, and who has them."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.studies = Studies(cluster, namespace)
        self.model = namespace
        """The GPUs' model: no other test's study asks for it."""
        self.nodes: list[str] = []

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

    def running(self, name: str) -> int:
        return self.studies.status(name).get("trials", {}).get("running", 0)

    def until_running(self, name: str, count: int) -> None:
        until(lambda: self.running(name) == count, f"{count} trials of {name} run", 60)

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


@pytest.fixture(scope="module", autouse=True)
def device_class(cluster: Cluster) -> Iterator[None]:
    """The DeviceClass that NVIDIA's driver brings."""
    if "resource.k8s.io/v1" not in cluster.kubectl("api-versions").stdout:
        pytest.skip("this cluster has no resource.k8s.io/v1")
    text = f"device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].type == 'gpu'"
    spec = {"selectors": [{"cel": {"expression": text}}]}
    cluster.kubectl(
        "apply", "-f", "-",
        stdin=json.dumps({"apiVersion": API, "kind": "DeviceClass", "metadata": {"name": DRIVER}, "spec": spec}),
    )  # fmt: skip
    yield
    cluster.kubectl("delete", "deviceclass", DRIVER)


@pytest.fixture
def lab(cluster: Cluster, namespace: str) -> Iterator[Lab]:
    made = Lab(cluster, namespace)
    yield made
    made.studies.kubectl("delete", "studies,pods", "--all", "--wait=false")
    until(lambda: not made.studies.objects("pods"), "the pods are gone")
    for kind in ("resourceslices", "nodes"):
        cluster.kubectl("delete", kind, *made.nodes, "--wait=false")


def test_halves_fill_the_gpus_and_a_third_waits(lab: Lab) -> None:
    lab.node(lab.gpu(0, shared=True), lab.gpu(1, shared=True))
    lab.run("half", {"fraction": 0.5}, trials=5)
    lab.until_running("half", 4)
    assert sorted(map(sorted, lab.allocated().values())) == [[40, 40], [40, 40]]
    assert lab.reason("half") == (
        "NoNodeFits",
        f"needs 0.5 of 1 nvidia.com/gpu ({lab.model}); of 1 node, the GPU that is used least has 0 left",
    )
    for place in lab.places("half"):
        node, (device,) = place["node"], place["devices"]
        assert f"{node}/{device}" in lab.allocated()
        assert place["memory"] == 40 * 1024
    [container] = lab.studies.objects("pods")[0]["spec"]["containers"]
    assert container["resources"]["claims"] == [{"name": "tuneyard-gpu"}]
    templates = lab.studies.objects("resourceclaimtemplates")
    assert len(templates) == 2, "one for each GPU, however many trials run on it"
    assert {owner["kind"] for template in templates for owner in template["metadata"]["ownerReferences"]} == {"Study"}
    lab.studies.kubectl("delete", "study", "half")
    until(lambda: not lab.allocated(), "all is given back")
    until(lambda: not lab.studies.objects("resourceclaimtemplates"), "the templates are gone")


def test_each_gpu_is_as_its_place_says(lab: Lab) -> None:
    """The books of the scheduler and what kube-scheduler allocated, device by device."""
    for _ in range(2):
        lab.node(*(lab.gpu(number, shared=True) for number in range(3)))
    lab.run("third", {"memory": "26Gi"}, trials=9)
    lab.run("spread", {"fraction": 0.25, "packing": "Spread"}, trials=4)
    lab.until_running("third", 9)
    lab.until_running("spread", 4)
    booked = Counter()
    for name in ("third", "spread"):
        booked.update(f"{place['node']}/{place['devices'][0]}" for place in lab.places(name))
    allocated = lab.allocated()
    assert booked == Counter({device: len(amounts) for device, amounts in allocated.items()})
    assert all(sum(amounts) <= 80 for amounts in allocated.values())


def test_whole_ones_and_parts_on_the_same_nodes(lab: Lab) -> None:
    lab.node(*(lab.gpu(number, shared=True) for number in range(4)))
    lab.run("part", {"fraction": 0.5}, trials=2)
    lab.until_running("part", 2)
    lab.run("whole", {"count": 3}, trials=2)
    lab.until_running("whole", 1)
    allocated = lab.allocated()
    assert sorted(map(sorted, allocated.values())) == [[40, 40], [80], [80], [80]]
    assert lab.reason("whole")[0] == "NoNodeFits"
    lab.studies.kubectl("delete", "study", "part")
    lab.run("two", {"count": 1}, trials=1)
    lab.until_running("two", 1)
    assert sorted(map(sorted, lab.allocated().values())) == [[80]] * 4


def test_gpus_that_are_not_shared_are_whole(lab: Lab) -> None:
    lab.node(*(lab.gpu(number, shared=False) for number in range(2)))
    lab.run("part", {"fraction": 0.5}, trials=1)
    assert lab.reason("part")[0] == "NoGpuNodes"
    lab.run("whole", {"count": 1}, trials=3)
    lab.until_running("whole", 2)
    assert lab.reason("whole")[0] == "NoNodeFits"
    assert sorted(lab.allocated().values()) == [[80], [80]]


def test_what_others_claim_counts(lab: Lab) -> None:
    lab.node(*(lab.gpu(number, shared=True) for number in range(3)))
    everything = {
        "selectors": [{"cel": {"expression": f"device.attributes['{DRIVER}'].uuid.startsWith('GPU-{lab.model}')"}}]
    }
    lab.claim("whole", **everything)
    lab.claim("part", capacity={"requests": {"memory": "50Gi"}}, **everything)
    lab.run("s", {"fraction": 0.5}, trials=4)
    lab.until_running("s", 2)
    assert sorted(map(sorted, lab.allocated().values())) == [[40, 40], [50], [80]]
    assert lab.reason("s")[0] == "NoNodeFits"
    lab.studies.kubectl("delete", "pod", "whole")
    lab.studies.kubectl("delete", "resourceclaim", "whole")
    lab.until_running("s", 4)


def test_a_policy_rounds_what_is_asked_for(lab: Lab) -> None:
    policy = {"default": "20Gi", "validRange": {"min": "20Gi", "step": "20Gi"}}
    lab.node(lab.gpu(0, shared=True, capacity={"memory": {"value": "80Gi", "requestPolicy": policy}}))
    lab.run("s", {"memory": "25Gi"}, trials=3)
    lab.until_running("s", 2)
    assert list(lab.allocated().values()) == [[40, 40]]
    assert [place["gpus"] for place in lab.places("s")] == [0.5, 0.5]


def test_other_capacities_are_shared_alike(lab: Lab) -> None:
    """One that is not asked for would be consumed whole, and leave nothing for a second claim."""
    lab.node(lab.gpu(0, shared=True, capacity={"cores": {"value": "100"}}))
    lab.run("s", {"fraction": 0.5}, trials=3)
    lab.until_running("s", 2)
    assert list(lab.allocated().values()) == [[40, 40]]


def test_gpus_that_cannot_be_told_from_others(lab: Lab) -> None:
    """kube-scheduler chooses the device, and the books take it from the claim."""
    lab.node(*(lab.gpu(number, shared=True, uuid=False) for number in range(2)))
    lab.run("s", {"fraction": 0.5}, trials=5)
    lab.until_running("s", 4)
    assert sorted(map(sorted, lab.allocated().values())) == [[40, 40], [40, 40]]
    assert lab.reason("s")[0] == "NoNodeFits"


def test_short_trials_use_the_gpus_again_and_again(lab: Lab) -> None:
    lab.node(lab.gpu(0, shared=True))
    lab.studies.apply(study("s", gpu={"fraction": 0.5, "model": lab.model}, trials={"max": 12, "parallel": 6}))
    seen: list[float] = []

    def complete() -> bool:
        seen.extend(sum(amounts) for amounts in lab.allocated().values())
        return lab.studies.status("s").get("phase") == "Complete"

    until(complete, "the study completes", 90)
    assert lab.studies.status("s")["trials"]["succeeded"] == 12
    assert max(seen) == 80, "both halves at a time, and never more"
