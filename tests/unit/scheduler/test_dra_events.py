"""DRA as a cluster tells of it: what claims take, in whatever order it is heard."""

from typing import Any

import pytest
from dra_objects import DRIVER, GPU, IS_GPU, Object, device
from hypothesis import given
from hypothesis import strategies as st

from tuneyard_scheduler.backends import catalog
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.mirror import Mirror
from tuneyard_scheduler.state import ClusterState

NODE: Object = {
    "metadata": {"name": "n1", "uid": "n1"},
    "spec": {},
    "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"cpu": "64"}},
}


def slice_(*devices: Object, uid: str = "s1", generation: int = 1, count: int = 1, driver: str = DRIVER) -> Object:
    pool = {"name": "n1", "generation": generation, "resourceSliceCount": count}
    spec = {"driver": driver, "nodeName": "n1", "pool": pool, "devices": list(devices)}
    return {"metadata": {"name": uid, "uid": uid}, "spec": spec}


def class_(name: str = DRIVER, text: str = IS_GPU) -> Object:
    return {"metadata": {"name": name, "uid": name}, "spec": {"selectors": [{"cel": {"expression": text}}]}}


def claim(uid: str, name: str, memory: str | None = None, *, pod: str | None = None, **result: Any) -> Object:
    found = {"driver": DRIVER, "pool": "n1", "device": name, "request": "gpu", **result}
    if memory is not None:
        found["consumedCapacity"] = {"memory": memory}
    owners = [{"kind": "Pod", "uid": pod}] if pod is not None else []
    allocation = {"devices": {"results": [found]}}
    meta = {"name": uid, "uid": uid, "namespace": "ns", "ownerReferences": owners}
    return {"metadata": meta, "status": {"allocation": allocation}}


def pod(uid: str, device_name: str, gpus: float = 0.5, index: int = 0) -> Object:
    """A trial's, bound, as it is made of its place."""
    said = f'{{"gpus": {gpus}, "resource": "{DRIVER}", "devices": ["{device_name}"]}}'
    meta = {"uid": uid, "name": uid, "namespace": "ns", "annotations": {catalog.GPUS_ANNOTATION: said}}
    meta["labels"] = {"tuneyard.dev/study": "a", "tuneyard.dev/index": str(index)}
    spec = {"nodeName": "n1", "containers": [{}], "resourceClaims": [{"name": "tuneyard-gpu"}]}
    return {"metadata": meta, "spec": spec}


class Cluster:
    def __init__(self) -> None:
        self.state = ClusterState()
        self.mirror = Mirror(self.state)

    def tell(self, kind: str, *items: Object, event: str = "ADDED") -> bool:
        changed = [self.mirror.take(kind, event, item) for item in items]
        return any(changed)

    def left(self, name: str) -> float:
        return self.state.inventory.part_left("n1", DRIVER, name)

    @property
    def capacity(self) -> dict[str, int]:
        node = self.state.inventory.node("n1")
        return dict(node.capacity) if node is not None else {}


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster()
    made.tell("nodes", NODE)
    made.tell("deviceclasses", class_())
    made.tell("resourceslices", slice_(device("gpu-0", shared=True), device("gpu-1", shared=True)))
    return made


class TestEvents:
    def test_a_trial_is_placed_and_told_what_to_claim(self, cluster: Cluster) -> None:
        study = {
            "metadata": {"name": "a", "namespace": "ns", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"gpu": {"fraction": 0.5, "sharing": "dra"}, "trials": {"parallel": 9}},
        }
        cluster.tell("studies", study)
        owners = [{"kind": "Study", "name": "a", "uid": "u"}]
        for index in range(5):
            meta = {"name": f"a-{index}", "namespace": "ns", "uid": f"t{index}", "ownerReferences": owners}
            cluster.tell("trials", {"metadata": meta})
        decided = schedule(cluster.state, 0.0)
        assert [place.devices for place in decided.placements] == [("gpu-0",), ("gpu-0",), ("gpu-1",), ("gpu-1",)]
        assert [waiting.reason for waiting in decided.waiting] == ["NoNodeFits"]
        found = decided.placements[0].claim
        assert found is not None
        assert found.device_class == DRIVER

    def test_others_claims_take_what_they_consume(self, cluster: Cluster) -> None:
        assert cluster.tell("resourceclaims", claim("c1", "gpu-0", "20Gi"))
        assert cluster.left("gpu-0") == 0.75
        assert cluster.tell("resourceclaims", claim("c2", "gpu-0", "60Gi"), claim("c3", "gpu-1"))
        assert (cluster.left("gpu-0"), cluster.left("gpu-1")) == (0, 0)
        assert cluster.tell("resourceclaims", claim("c1", "gpu-0"), event="DELETED")
        assert cluster.left("gpu-0") == 0.25
        unallocated = {"metadata": {"name": "c2", "uid": "c2", "namespace": "ns"}, "status": {}}
        assert cluster.tell("resourceclaims", unallocated, event="MODIFIED")
        assert cluster.left("gpu-0") == 1

    def test_what_takes_nothing(self, cluster: Cluster) -> None:
        cluster.tell("resourceclaims", claim("c1", "gpu-0", adminAccess=True))
        cluster.tell("resourceclaims", claim("c2", "gpu-0", driver="nic.example.com"))
        cluster.tell("resourceclaims", claim("c3", "unheard-of"))
        assert (cluster.left("gpu-0"), cluster.state.inventory.left("n1", DRIVER)) == (1, 2)

    def test_a_pod_and_its_claim_are_one(self, cluster: Cluster) -> None:
        cluster.tell("pods", pod("p", "gpu-0"))
        assert cluster.left("gpu-0") == 0.5
        cluster.tell("resourceclaims", claim("c", "gpu-0", "40Gi", pod="p"))
        assert cluster.left("gpu-0") == 0.5
        cluster.tell("pods", pod("p", "gpu-0"), event="DELETED")
        assert cluster.left("gpu-0") == 0.5, "the device is taken until the claim is given back"
        cluster.tell("resourceclaims", claim("c", "gpu-0", pod="p"), event="DELETED")
        assert cluster.left("gpu-0") == 1

    def test_the_claim_is_right_where_it_is_on_another_gpu(self, cluster: Cluster) -> None:
        """kube-scheduler chooses among GPUs that no attribute tells apart."""
        cluster.tell("pods", pod("p", "gpu-0"))
        cluster.tell("resourceclaims", claim("c", "gpu-1", "40Gi", pod="p"))
        assert (cluster.left("gpu-0"), cluster.left("gpu-1")) == (1, 0.5)
        cluster.tell("resourceclaims", claim("c", "gpu-1", pod="p"), event="DELETED")
        assert (cluster.left("gpu-0"), cluster.left("gpu-1")) == (0.5, 1), "as its place says, for want of better"

    def test_no_more_is_given_while_kube_scheduler_packs_otherwise(self, cluster: Cluster) -> None:
        """Four halves fill two GPUs that nothing tells apart, whichever the claims are on; a fifth waits all along."""
        nameless = [device(f"gpu-{n}", shared=True, attributes={"uuid": None}) for n in range(2)]
        cluster.tell("resourceslices", slice_(*nameless), event="MODIFIED")
        study = {
            "metadata": {"name": "a", "namespace": "ns", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"gpu": {"fraction": 0.5}, "trials": {"parallel": 9}},
        }
        owners = [{"kind": "Study", "name": "a", "uid": "u"}]
        metas = [
            {"name": f"a-{n}", "namespace": "ns", "uid": f"t{n}", "ownerReferences": owners, "resourceVersion": "1"}
            for n in range(5)
        ]
        cluster.tell("studies", study)
        cluster.tell("trials", *({"metadata": meta} for meta in metas))
        placed = schedule(cluster.state, 0.0).placements
        assert [place.devices for place in placed] == [("gpu-0",), ("gpu-0",), ("gpu-1",), ("gpu-1",)]
        for place, actual in zip(placed, ("gpu-1", "gpu-1", "gpu-0", "gpu-0"), strict=True):
            name = f"p{place.index}"
            cluster.tell("resourceclaims", claim(f"c-{name}", actual, "40Gi", pod=name))
            assert schedule(cluster.state, 0.0).placements == []
            cluster.tell("pods", pod(name, place.devices[0], index=place.index))
            assert schedule(cluster.state, 0.0).placements == []
        assert (cluster.left("gpu-0"), cluster.left("gpu-1")) == (0, 0)
        cluster.tell("pods", pod("p0", "gpu-0"), event="DELETED")
        assert schedule(cluster.state, 0.0).placements == []
        cluster.tell("resourceclaims", claim("c-p0", "gpu-1", pod="p0"), event="DELETED")
        assert [place.index for place in schedule(cluster.state, 0.0).placements] == [4]

    def test_a_pool_counts_once_all_of_it_is_there(self, cluster: Cluster) -> None:
        cluster.tell("resourceslices", slice_(device("gpu-2"), uid="s2", generation=2, count=2))
        assert cluster.capacity == {DRIVER: 2}, "as before, until the driver has told all"
        cluster.tell("resourceslices", slice_(device("gpu-3"), uid="s3", generation=2, count=2))
        assert cluster.capacity == {DRIVER: 2}
        node = cluster.state.inventory.node("n1")
        assert node is not None
        assert node.devices == {DRIVER: ("gpu-2", "gpu-3")}
        cluster.tell("resourceslices", slice_(), event="DELETED")
        cluster.tell("resourceslices", slice_(uid="s2", generation=2, count=2), event="DELETED")
        cluster.tell("resourceslices", slice_(uid="s3", generation=2, count=2), event="DELETED")
        assert cluster.capacity == {}

    def test_without_a_device_class_nothing_is_offered(
        self, cluster: Cluster, caplog: pytest.LogCaptureFixture
    ) -> None:
        cluster.tell("deviceclasses", class_(), event="DELETED")
        assert cluster.capacity == {}
        caplog.clear()
        cluster.tell("deviceclasses", class_("other", "device.driver == 'nic.example.com'"))
        cluster.tell("resourceslices", slice_(device("gpu-0", shared=True)), event="MODIFIED")
        assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
            f"no DeviceClass has a selector that names '{DRIVER}'"
        ]
        cluster.tell(
            "resourceslices", slice_(device("gpu-0", shared=True), device("gpu-1", shared=True)), event="MODIFIED"
        )
        cluster.tell("deviceclasses", class_("mine"))
        assert cluster.capacity == {"mine": 2}

    def test_what_a_device_plugin_offers_is_not_counted_twice(self, cluster: Cluster) -> None:
        both = NODE | {"status": NODE["status"] | {"allocatable": {GPU: "2"}}}
        cluster.tell("nodes", both, event="MODIFIED")
        assert cluster.capacity == {GPU: 2}

    def test_drivers_may_use_the_same_names(self, cluster: Cluster) -> None:
        amd = "gpu.amd.com"
        cluster.tell("deviceclasses", class_(amd, f"device.driver == '{amd}'"))
        cluster.tell("resourceslices", slice_(device("gpu-0", attributes={"type": "amdgpu"}), uid="s2", driver=amd))
        cluster.tell("resourceclaims", claim("c", "gpu-0", driver=amd))
        assert cluster.left("gpu-0") == 1
        assert cluster.state.inventory.part_left("n1", amd, "gpu-0") == 0

    def test_other_drivers_are_none_of_our_business(self, cluster: Cluster) -> None:
        assert not cluster.tell("resourceslices", slice_(device("nic"), uid="s9", driver="nic.example.com"))

    def test_the_same_again_changes_nothing(self, cluster: Cluster) -> None:
        again = slice_(device("gpu-0", shared=True), device("gpu-1", shared=True))
        cluster.tell("resourceclaims", claim("c", "gpu-0", "40Gi"))
        assert not cluster.tell("resourceslices", again, event="MODIFIED")
        assert not cluster.tell("resourceclaims", claim("c", "gpu-0", "40Gi"), event="MODIFIED")
        assert not cluster.tell("deviceclasses", class_(), event="MODIFIED")

    @given(st.randoms(use_true_random=False))
    def test_the_order_in_which_it_is_heard_does_not_matter(self, rng: Any) -> None:
        events = [
            ("nodes", "ADDED", NODE),
            ("deviceclasses", "ADDED", class_()),
            ("resourceslices", "ADDED", slice_(device("gpu-0", shared=True), count=2)),
            ("resourceslices", "ADDED", slice_(device("gpu-1", shared=True), uid="s2", count=2)),
            ("resourceclaims", "ADDED", claim("c1", "gpu-0", "20Gi", pod="p1")),
            ("resourceclaims", "ADDED", claim("c2", "gpu-0", "40Gi")),
            ("resourceclaims", "ADDED", claim("c3", "gpu-1")),
            ("pods", "ADDED", pod("p1", "gpu-0", 0.25)),
            ("pods", "ADDED", pod("p2", "gpu-0", 0.1, index=1)),
        ]
        rng.shuffle(events)
        made = Cluster()
        for kind, event, item in events:
            made.mirror.take(kind, event, item)
        assert made.capacity == {DRIVER: 2}
        assert (made.left("gpu-0"), made.left("gpu-1")) == (0.15, 0)
