"""DRA: what slices offer, and what pods claim."""

from collections.abc import Iterable
from typing import Any

import pytest
from dra_objects import CLASSES, DRIVER, GPU, IS_GPU, IS_MIG, Object, device
from hypothesis import given
from hypothesis import strategies as st

from tuneyard_scheduler.backends import catalog, dra
from tuneyard_scheduler.backends.dra import Device
from tuneyard_scheduler.devices import GpuRequest, Kind, Part, Portion, Sizes, portion
from tuneyard_scheduler.views import Place


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
