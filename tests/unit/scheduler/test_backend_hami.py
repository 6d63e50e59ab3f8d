"""HAMi: what its nodes say, what its pods ask for and have, against the forms in its own documents and source."""

import json
from typing import Any

import pytest

from tuneyard_scheduler import translate
from tuneyard_scheduler.backends import catalog, hami
from tuneyard_scheduler.devices import GpuRequest, Part, portion
from tuneyard_scheduler.views import Taken

GPU = "nvidia.com/gpu"
FIRST, SECOND = "GPU-00552014-5c87-89ac-b1a6-7b53aa24b0ec", "GPU-0fc3eda5-e98b-a25b-5b0d-cf5c855d1448"
DOCUMENTED = (
    f"{FIRST},10,32768,100,NVIDIA-Tesla V100-PCIE-32GB,0,true:{SECOND},10,32768,100,NVIDIA-Tesla V100-PCIE-32GB,0,true:"
)
"""From docs/develop/protocol.md."""
NOW = [
    {"id": FIRST, "index": 0, "count": 10, "devmem": 32768, "devcore": 100, "type": "NVIDIA-Tesla V100-PCIE-32GB",
     "mode": "hami-core", "health": True},
    {"id": SECOND, "index": 1, "count": 10, "devmem": 32768, "devcore": 100, "type": "NVIDIA-Tesla V100-PCIE-32GB",
     "mode": "hami-core", "health": True},
]  # fmt: skip
"""By the fields of DeviceInfo in pkg/device/devices.go."""


def node(register: str, gpus: str = "20", labels: dict[str, str] | None = None) -> dict[str, Any]:
    meta = {"name": "n1", "annotations": {"hami.io/node-nvidia-register": register}, "labels": labels or {}}
    return {"metadata": meta, "status": {"allocatable": {GPU: gpus}}}


@pytest.mark.parametrize("register", [DOCUMENTED, json.dumps(NOW)])
def test_gpus_as_registered(register: str) -> None:
    [pool] = catalog.pools(node(register))
    assert (pool.resource, pool.units, pool.devices) == (GPU, 2, (FIRST, SECOND))
    kind = pool.kind
    assert (kind.model, kind.memory, kind.size, kind.whole, kind.parts) == (
        "Tesla-V100-PCIE-32GB", 32768, 1.0, "hami", "hami",
    )  # fmt: skip


def test_the_label_of_the_model_comes_first() -> None:
    [pool] = catalog.pools(node(DOCUMENTED, labels={"nvidia.com/gpu.product": "Tesla-V100"}))
    assert pool.kind.model == "Tesla-V100"


@pytest.mark.parametrize(
    ("change", "left"),
    [({"health": False}, (SECOND,)), ({"mode": "mig"}, (SECOND,)), ({"count": 0}, (SECOND,)), ({}, (FIRST, SECOND))],
)
def test_what_is_of_no_use_is_left_out(change: dict[str, Any], left: tuple[str, ...]) -> None:
    [pool] = hami.capacity(node(json.dumps([NOW[0] | change, NOW[1]])))
    assert pool.devices == left


@pytest.mark.parametrize(("register", "gpus"), [("", "8"), (DOCUMENTED, "0"), ("[]", "8")])
def test_nodes_without_it(register: str, gpus: str) -> None:
    assert hami.capacity(node(register, gpus)) == []


def test_no_more_pods_share_a_gpu_than_hami_allows() -> None:
    [pool] = hami.capacity(node(DOCUMENTED))
    found = portion(GpuRequest(GPU, share=0.01), pool.kind)
    assert found is not None
    assert found.share >= 1 / 10


def rendered(**placement: Any) -> dict[str, Any]:
    template: dict[str, Any] = {"spec": {"containers": [{"name": "main"}]}}
    place = {"node": "n1", "resource": GPU, "backend": "hami", **placement}
    catalog.render(place, template, template["spec"]["containers"][0])
    return template


def test_a_part_asks_as_documented() -> None:
    """examples/nvidia/example.yaml, specify_uuid_to_use.yaml."""
    template = rendered(gpus=0.3, devices=[FIRST], memory=9830)
    [container] = template["spec"]["containers"]
    assert container["resources"]["limits"] == {
        "nvidia.com/gpu": "1", "nvidia.com/gpumem": "9830", "nvidia.com/gpucores": "30",
    }  # fmt: skip
    assert template["metadata"]["annotations"]["nvidia.com/use-gpuuuid"] == FIRST
    assert "schedulerName" not in template["spec"], "HAMi's webhook sets it"


def test_whole_ones_ask_as_documented() -> None:
    """examples/nvidia/use_exclusive_card.yaml."""
    template = rendered(gpus=2, devices=[FIRST, SECOND])
    [container] = template["spec"]["containers"]
    assert container["resources"]["limits"] == {
        "nvidia.com/gpu": "2", "nvidia.com/gpumem-percentage": "100", "nvidia.com/gpucores": "100",
    }  # fmt: skip
    assert template["metadata"]["annotations"]["nvidia.com/use-gpuuuid"] == f"{FIRST},{SECOND}"


def pod(template: dict[str, Any], **meta: Any) -> dict[str, Any]:
    given = {"uid": "p", "namespace": "ns", **template.get("metadata", {}), **meta}
    return {"metadata": given, "spec": {"nodeName": "n1", **template["spec"]}}


def test_a_pod_of_ours_has_what_its_place_says() -> None:
    template = rendered(gpus=0.3, devices=[FIRST], memory=9830)
    labels = {"tuneyard.dev/study": "s", "tuneyard.dev/index": "0"}
    view = translate.pod(pod(template, labels=labels))
    assert view is not None
    assert view.taken == Taken(parts=(Part(GPU, FIRST, 0.3),), gpus=0.3)


def test_somebody_elses_pod_has_what_hami_gave_it() -> None:
    """Two containers on one GPU, as in docs/develop/protocol.md."""
    allocated = f"{SECOND},NVIDIA,3000,0:;{SECOND},NVIDIA,5000,0:;"
    limits = {"resources": {"limits": {GPU: "1", "nvidia.com/gpumem": "3000"}}}
    item: dict[str, Any] = {"spec": {"containers": [limits, limits]}}
    annotations = {"hami.io/vgpu-devices-allocated": allocated}
    view = translate.pod(pod(item, annotations=annotations))
    assert view is not None
    assert view.taken == Taken({GPU: 2}), "the annotation alone says nothing"
    item["spec"]["schedulerName"] = "hami-scheduler"
    view = translate.pod(pod(item, annotations=annotations))
    assert view is not None
    assert view.taken == Taken(parts=(Part(GPU, SECOND, 1.0),))
