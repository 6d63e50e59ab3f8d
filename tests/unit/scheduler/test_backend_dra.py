"""DRA: what slices offer, what claims take, in whatever order it is heard, and what pods claim."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneyard_scheduler.backends import catalog, dra
from tuneyard_scheduler.backends.dra import Device
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.devices import GpuRequest, Kind, Part, Portion, Sizes, portion
from tuneyard_scheduler.mirror import Mirror
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Place

Object = dict[str, Any]
GPU, DRIVER = "nvidia.com/gpu", "gpu.nvidia.com"
IS_GPU = f"device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].type == 'gpu'"
IS_MIG = IS_GPU.replace("'gpu'", "'mig'")
CLASSES = {DRIVER: IS_GPU, "mig.nvidia.com": IS_MIG}


def device(name: str, *, shared: bool = False, memory: Any = "80Gi", **more: Any) -> Object:
    """As NVIDIA's driver publishes it, or as KEP-5075 has it."""
    attributes = {"type": "gpu", "productName": "NVIDIA A100-SXM4-80GB", "uuid": f"GPU-{name}"}
    attributes |= more.pop("attributes", {})
    capacity = {"memory": memory, **more.pop("capacity", {})}
    item = {
        "name": name,
        "attributes": {key: {"string": value} for key, value in attributes.items() if value is not None},
        "capacity": {key: {"value": each} if isinstance(each, str) else each for key, each in capacity.items() if each},
        **more,
    }
    return item | ({"allowMultipleAllocations": True} if shared else {})


def supply(*devices: Object, classes: dict[str, str] | None = None, given: Iterable[str] = ()) -> dra.Supply:
    found = [Device("n1", item) for item in devices]
    return dra.supply(DRIVER, "n1", found, CLASSES if classes is None else classes, given)


class TestSupply:
    def test_whole_gpus(self) -> None:
        [pool] = supply(device("gpu-1"), device("gpu-0")).pools
        assert (pool.resource, pool.units, pool.devices) == (DRIVER, 2, ("gpu-0", "gpu-1"))
        assert pool.kind == Kind(GPU, "NVIDIA-A100-SXM4-80GB", 80 * 1024, whole="dra")

    def test_shared_gpus_are_divided(self) -> None:
        [pool] = supply(device("gpu-0", shared=True)).pools
        assert (pool.kind.whole, pool.kind.parts) == ("dra", "dra")

    @pytest.mark.parametrize(
        "item",
        [
            device("gpu-0", taints=[{"key": "x", "effect": "NoSchedule"}]),
            device("gpu-0", taints=[{"key": "x", "effect": "NoExecute"}]),
            device("gpu-0", attributes={"type": "vfio"}),
            device("gpu-0", attributes={"type": "mig", "profile": "unheard of"}),
        ],
    )
    def test_what_trials_do_not_get(self, item: Object) -> None:
        assert supply(item).pools == ()

    def test_a_taint_without_effect_closes_nothing(self) -> None:
        assert len(supply(device("gpu-0", taints=[{"key": "x", "effect": "None"}])).pools) == 1

    def test_gpus_that_differ_have_names_of_their_own(self) -> None:
        old = {"productName": "Tesla V100"}
        pools = supply(
            device("gpu-0"), device("gpu-1", memory="32Gi", attributes=old), device("gpu-2", shared=True)
        ).pools
        assert [(pool.resource, pool.devices) for pool in pools] == [
            (f"{DRIVER}/NVIDIA-A100-SXM4-80GB-81920Mi", ("gpu-0",)),
            (f"{DRIVER}/Tesla-V100-32768Mi", ("gpu-1",)),
            (f"{DRIVER}/NVIDIA-A100-SXM4-80GB-81920Mi-shared", ("gpu-2",)),
        ]

    def test_slices_that_are_there(self) -> None:
        """MIG devices as NVIDIA's driver publishes them where it does not make them on demand."""
        more: Object = {"memory": "10Gi", "attributes": {"type": "mig", "profile": "1g.10gb", "parentUUID": "GPU-0"}}
        [pool] = supply(*(device(f"gpu-0-mig-{number}", **more) for number in range(7))).pools
        assert (pool.resource, pool.units) == ("mig.nvidia.com/1g.10gb", 7)
        assert (pool.kind.size, pool.kind.memory, pool.kind.whole, pool.kind.parts) == (0.1429, 10240, "dra", None)
        assert pool.claim is not None
        assert pool.claim.device_class == "mig.nvidia.com"

    @pytest.mark.parametrize(
        ("vendor", "attributes", "family", "model"),
        [
            (
                "gpu.amd.com",
                {"type": "amdgpu", "productName": "AMD Instinct MI300X"},
                "amd.com/gpu",
                "AMD_Instinct_MI300X",
            ),
            (
                "gpu.intel.com",
                {"type": None, "productName": None, "model": "Max 1550"},
                "gpu.intel.com/i915",
                "Max_1550",
            ),
        ],
    )
    def test_other_vendors(self, vendor: str, attributes: Object, family: str, model: str) -> None:
        item = device("a", attributes=attributes | {"uuid": None, "resource.kubernetes.io/pciBusID": "0000:01:00.0"})
        [pool] = dra.supply(vendor, "n1", [Device("n1", item)], {vendor: f"device.driver == '{vendor}'"}, ()).pools
        assert (pool.kind.family, pool.kind.model) == (family, model)
        assert pool.claim is not None
        [selector] = [pool.claim.claim(("a",), Portion("dra", 1, gpus=1)).selector]
        assert selector is not None
        assert selector.endswith('device.attributes["resource.kubernetes.io"].pciBusID in ["0000:01:00.0"]')

    @pytest.mark.parametrize(
        ("classes", "given", "want"),
        [
            ({}, (), None),
            ({"other": "device.driver == 'gpu.example.com'"}, (), None),
            ({"b": IS_GPU, "a": IS_MIG}, (), "b"),
            ({"b": IS_GPU, "a": IS_GPU}, (), "a"),
            ({"a": IS_GPU, DRIVER: IS_GPU}, (), DRIVER),
            ({"z": IS_GPU, DRIVER: IS_GPU}, ("z",), "z"),
        ],
    )
    def test_the_device_class_is_found(self, classes: dict[str, str], given: tuple[str, ...], want: str | None) -> None:
        found = supply(device("gpu-0"), classes=classes, given=given).pools
        assert [pool.resource for pool in found] == ([] if want is None else [want])

    def test_what_can_be_told_from_nothing_else_is_not_mixed(self) -> None:
        """A pod could get another kind of GPU than it asks for."""
        nameless: Object = {"attributes": {"uuid": None}}
        assert len(supply(device("a", **nameless), device("b", **nameless)).pools) == 1
        assert supply(device("a", **nameless), device("b", memory="40Gi", **nameless)).pools == ()

    def test_a_partition_takes_the_gpu(self) -> None:
        """Partitions made on demand: of those, only the whole GPU is given, and not while somebody has a partition."""
        counters = [{"counterSet": "gpu-0", "counters": {"slice-0": {"value": "1"}, "slice-1": {"value": "1"}}}]
        half = [{"counterSet": "gpu-0", "counters": {"slice-1": {"value": "1"}}}]
        slice_ = device(
            "gpu-0-mig-1", memory="40Gi", consumesCounters=half, attributes={"type": "mig", "profile": "3g.40gb"}
        )
        found = supply(device("gpu-0", consumesCounters=counters), device("gpu-1"), slice_)
        [pool] = found.pools
        assert pool.devices == ("gpu-0", "gpu-1")
        [part] = found.parts({"pool": "n1", "device": "gpu-0-mig-1"})
        assert part == Part(DRIVER, "gpu-0", 1.0)


class TestPolicies:
    """What a capacity's requestPolicy allows."""

    @staticmethod
    def kind(**policy: Any) -> Kind | None:
        pools = supply(device("gpu-0", shared=True, memory={"value": "80Gi", "requestPolicy": policy})).pools
        return pools[0].kind if pools else None

    @pytest.mark.parametrize(
        ("policy", "share", "memory", "want"),
        [
            ({}, 0.25, None, (0.25, 20480)),
            ({"default": "1Gi"}, 0.25, None, (0.25, 20480)),
            ({"default": "10Gi", "validValues": ["10Gi", "40Gi", "80Gi"]}, 0.2, None, (0.5, 40960)),
            ({"default": "10Gi", "validValues": ["10Gi", "20Gi"]}, 0.5, None, None),
            ({"default": "8Gi", "validRange": {"min": "8Gi"}}, None, 1024, (0.1, 8192)),
            ({"default": "8Gi", "validRange": {"min": "8Gi", "step": "8Gi"}}, None, 9000, (0.2, 16384)),
            ({"default": "8Gi", "validRange": {"min": "8Gi", "max": "16Gi"}}, 0.5, None, None),
        ],
    )
    def test_requests_are_rounded_up(self, policy: Object, share: float, memory: int, want: Any) -> None:
        kind = self.kind(**policy)
        assert kind is not None
        found = portion(GpuRequest(GPU, share=share, memory=memory), kind)
        assert (found if found is None else (found.share, found.memory)) == want

    @pytest.mark.parametrize(
        ("policy", "whole"),
        [
            ({"default": "8Gi"}, "dra"),
            ({"default": "10Gi", "validValues": ["10Gi", "80Gi"]}, "dra"),
            ({"default": "10Gi", "validValues": ["10Gi"]}, None),
            ({"default": "8Gi", "validRange": {"min": "8Gi", "max": "16Gi"}}, None),
            ({"default": "8Gi", "validRange": {"min": "8Gi", "step": "8Gi"}}, "dra"),
            ({"default": "8Gi", "validRange": {"min": "8Gi", "step": "7Gi"}}, None),
        ],
    )
    def test_whole_ones_where_one_claim_may_have_all(self, policy: Object, whole: str | None) -> None:
        kind = self.kind(**policy)
        assert kind is not None
        assert kind.whole == whole

    def test_another_capacity_with_steps_is_not_divided(self) -> None:
        cores = {"value": "100", "requestPolicy": {"default": "10", "validRange": {"min": "10"}}}
        [pool] = supply(device("gpu-0", shared=True, capacity={"cores": cores})).pools
        assert (pool.kind.whole, pool.kind.parts) == ("dra", None)

    @given(st.integers(0, 10**6), st.integers(0, 10**4), st.integers(0, 10**4))
    def test_up_is_enough_and_a_step(self, memory: int, least: int, step: int) -> None:
        found = Sizes(least=least, step=step).up(memory)
        assert found is not None
        assert found >= max(memory, least)
        assert not step or ((found - least) % step == 0 and found - max(memory, least) < step)


class TestClaim:
    def test_a_part_asks_for_its_share_of_every_capacity(self) -> None:
        [pool] = supply(device("gpu-0", shared=True, capacity={"cores": "100"})).pools
        assert pool.claim is not None
        claim = pool.claim.claim(("gpu-0",), Portion("dra", share=0.25, gpus=0.25, memory=20480))
        assert claim.model_dump(by_alias=True) == {
            "deviceClass": DRIVER,
            "count": 1,
            "selector": f'device.driver == "{DRIVER}" && "type" in device.attributes["{DRIVER}"] && '
            f'device.attributes["{DRIVER}"].type == "gpu" && "uuid" in device.attributes["{DRIVER}"] && '
            f'device.attributes["{DRIVER}"].uuid in ["GPU-gpu-0"]',
            "capacity": [{"name": "memory", "amount": "20480Mi"}, {"name": "cores", "amount": "25"}],
        }

    def test_whole_shared_ones_ask_for_all(self) -> None:
        [pool] = supply(device("gpu-0", shared=True), device("gpu-1", shared=True)).pools
        assert pool.claim is not None
        claim = pool.claim.claim(("gpu-0", "gpu-1"), Portion("dra", 2, gpus=2))
        assert claim.count == 2
        assert [(each.name, each.amount) for each in claim.capacity or ()] == [("memory", "80Gi")]
        assert (claim.selector or "").endswith('uuid in ["GPU-gpu-0", "GPU-gpu-1"]')

    def test_rendered(self) -> None:
        [pool] = supply(device("gpu-0", shared=True)).pools
        assert pool.claim is not None
        claim = pool.claim.claim(("gpu-0",), Portion("dra", share=0.5, gpus=0.5, memory=40960))
        place = Place("ns/s", 0, 0, "n1", 0.5, DRIVER, "dra", ("gpu-0",), 40960, claim).placement(0)
        placement = place.model_dump(mode="json", by_alias=True, exclude_none=True)
        container: Object = {"name": "main"}
        template: Object = {"spec": {"containers": [container]}}
        [made] = catalog.render(placement, template, container, name="s", uid="u-s")
        name = made["metadata"]["name"]
        assert made["kind"] == "ResourceClaimTemplate"
        assert made["spec"] == {
            "spec": {"devices": {"requests": [{
                "name": "gpu",
                "exactly": {
                    "deviceClassName": DRIVER,
                    "count": 1,
                    "selectors": [{"cel": {"expression": claim.selector}}],
                    "capacity": {"requests": {"memory": "40960Mi"}},
                },
            }]}}
        }  # fmt: skip
        assert template["spec"]["resourceClaims"] == [{"name": "tuneyard-gpu", "resourceClaimTemplateName": name}]
        assert container["resources"] == {"claims": [{"name": "tuneyard-gpu"}]}
        assert template["spec"]["tolerations"][0]["key"] == GPU

        def name_of(name: str, uid: str, **change: Any) -> str:
            again: Object = {"spec": {"containers": [{}]}}
            [found] = catalog.render(placement | change, again, again["spec"]["containers"][0], name=name, uid=uid)
            return str(found["metadata"]["name"])

        assert name_of("s", "u-s", attempt=7) == name, "the next trial on the same part of a GPU has the same template"
        assert name_of("s", "u-later") != name, "a later study of the same name has its own"
        assert name_of("s", "u-s", claim=placement["claim"] | {"count": 2}) != name


# What the cluster says, as events

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
