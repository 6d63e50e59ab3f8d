"""What nodes offer by each backend, and what pods are made to ask for."""

from typing import Any

import pytest

from tuneyard_scheduler.backends import catalog
from tuneyard_scheduler.devices import Part

PIN = {"key": "metadata.name", "operator": "In", "values": ["n1"]}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PLACE = {"attempt": 0, "node": "n1", "gpus": 2, "resource": "nvidia.com/gpu", "backend": "whole"}
A100 = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB", "nvidia.com/gpu.memory": "81920"}
REPLICAS = {"nvidia.com/gpu.replicas": "4", "nvidia.com/gpu.sharing-strategy": "time-slicing"}


def pools(allocatable: dict[str, str], labels: dict[str, str] | None = None) -> list[tuple[Any, ...]]:
    node = {"metadata": {"name": "n1", "labels": labels or {}}, "status": {"allocatable": allocatable}}
    found = catalog.pools(node, "reservation")
    return [(p.resource, p.units, p.kind.family, p.kind.memory, p.kind.size, p.kind.whole, p.kind.parts) for p in found]


NVIDIA = "nvidia.com/gpu"


@pytest.mark.parametrize(
    ("allocatable", "labels", "want"),
    [
        ({"cpu": "8", NVIDIA: "4"}, {}, [(NVIDIA, 4, NVIDIA, None, 1.0, "whole", "reservation")]),
        ({NVIDIA: "4"}, A100, [(NVIDIA, 4, NVIDIA, 81920, 1.0, "whole", "reservation")]),
        ({"amd.com/gpu": "7"}, {}, [("amd.com/gpu", 7, "amd.com/gpu", None, 1.0, "whole", None)]),
        (
            {"gpu.intel.com/i915": "2", NVIDIA: "0"},
            {"gpu.intel.com/memory.max": "16Gi"},
            [("gpu.intel.com/i915", 2, "gpu.intel.com/i915", 16384, 1.0, "whole", None)],
        ),
        ({"cpu": "8"}, {}, []),
        ({}, {}, []),
        ({NVIDIA: "32"}, A100 | REPLICAS, [(NVIDIA, 32, NVIDIA, 20480, 0.25, "timeslice", None)]),
        (
            {"nvidia.com/gpu.shared": "32", NVIDIA: "0"},
            A100 | REPLICAS,
            [("nvidia.com/gpu.shared", 32, NVIDIA, 20480, 0.25, "timeslice", None)],
        ),
        ({NVIDIA: "8"}, {"nvidia.com/gpu.replicas": "1"}, [(NVIDIA, 8, NVIDIA, None, 1.0, "whole", "reservation")]),
        (
            {"nvidia.com/mig-1g.10gb": "7", "nvidia.com/mig-3g.40gb": "2", NVIDIA: "6"},
            {**A100, "nvidia.com/mig-1g.10gb.memory": "9728"},
            [
                (NVIDIA, 6, NVIDIA, 81920, 1.0, "whole", "reservation"),
                ("nvidia.com/mig-1g.10gb", 7, NVIDIA, 9728, 0.1429, "mig", None),
                ("nvidia.com/mig-3g.40gb", 2, NVIDIA, 38146, 0.4286, "mig", None),
            ],
        ),
        (  # all GPUs are cut alike (MIG strategy "single")
            {NVIDIA: "14"},
            {"nvidia.com/gpu.product": "A100-SXM4-40GB-MIG-3g.20gb", "nvidia.com/gpu.memory": "19968"},
            [(NVIDIA, 14, NVIDIA, 19968, 0.4286, "mig", None)],
        ),
        (
            {NVIDIA: "28"},
            {
                "nvidia.com/gpu.product": "A100-SXM4-40GB-MIG-3g.20gb-SHARED",
                "nvidia.com/gpu.memory": "19968",
                "nvidia.com/gpu.replicas": "2",
                "nvidia.com/gpu.sharing-strategy": "time-slicing",
            },
            [(NVIDIA, 28, NVIDIA, 9984, 0.2143, "mig", None)],
        ),
        (
            {"nvidia.com/mig-3g.40gb.shared": "8"},
            {"nvidia.com/mig-3g.40gb.replicas": "4", "nvidia.com/mig-3g.40gb.sharing-strategy": "time-slicing"},
            [("nvidia.com/mig-3g.40gb.shared", 8, NVIDIA, 9536, 0.1071, "mig", None)],
        ),
        (
            {"nvidia.com/mig-1g.10gb.me": "1"},
            {},
            [("nvidia.com/mig-1g.10gb.me", 1, NVIDIA, 9536, 0.1429, "mig", None)],
        ),
        (
            {"nvidia.com/mig-4g.24gb": "1"},
            {"nvidia.com/gpu.product": "NVIDIA-A30"},
            [("nvidia.com/mig-4g.24gb", 1, NVIDIA, 22888, 0.9999, "mig", None)],
        ),
        (
            {NVIDIA: "32"},
            A100 | REPLICAS | {"nvidia.com/gpu.sharing-strategy": "mps"},
            [(NVIDIA, 32, NVIDIA, 20480, 0.25, "timeslice", None)],
        ),
    ],
)  # fmt: skip
def test_what_a_node_offers(allocatable: dict[str, str], labels: dict[str, str], want: list[Any]) -> None:
    assert pools(allocatable, labels) == want


def test_the_model_of_a_shared_gpu_is_that_of_the_gpu() -> None:
    labels = REPLICAS | {"nvidia.com/gpu.product": "Tesla-T4-SHARED"}
    node = {"metadata": {"name": "n1", "labels": labels}, "status": {"allocatable": {NVIDIA: "4"}}}
    assert [pool.kind.model for pool in catalog.pools(node)] == ["Tesla-T4"]


def rendered(placement: dict[str, Any], pod: dict[str, Any]) -> dict[str, Any]:
    pod.setdefault("containers", [{"name": "main"}])
    template: dict[str, Any] = {"spec": pod}
    assert catalog.render(placement, template, pod["containers"][0]) == []
    return template


def said(template: dict[str, Any]) -> tuple[float | None, tuple[Part, ...]]:
    return catalog.said({"spec": {}, **template}, ours=True)


class TestRender:
    def test_pins_the_node_and_asks_for_the_gpus(self) -> None:
        template = rendered(PLACE, {})
        pod = template["spec"]
        assert pod["affinity"] == {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchFields": [PIN]}]}}}
        assert pod["containers"] == [{"name": "main", "resources": {"limits": {"nvidia.com/gpu": "2"}}}]
        assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        assert said(template) == (2.0, ())

    def test_pins_every_alternative_of_the_templates_own_affinity(self) -> None:
        zones = [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]} for zone in "ab"]
        preferred = [{"weight": 1, "preference": zones[0]}]
        own = {
            "nodeAffinity": {
                REQUIRED: {"nodeSelectorTerms": zones},
                "preferredDuringSchedulingIgnoredDuringExecution": preferred,
            },
            "podAntiAffinity": {"x": 1},
        }
        affinity = rendered(PLACE, {"affinity": own})["spec"]["affinity"]
        assert affinity["nodeAffinity"][REQUIRED]["nodeSelectorTerms"] == [
            {**zone, "matchFields": [PIN]} for zone in zones
        ]
        assert affinity["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] == preferred
        assert affinity["podAntiAffinity"] == {"x": 1}

    def test_the_placement_overrides_the_containers_own_number(self) -> None:
        resources = {
            "limits": {"nvidia.com/gpu": "8", "memory": "1Gi"},
            "requests": {"nvidia.com/gpu": "8", "cpu": "1"},
        }
        pod = rendered(PLACE, {"containers": [{"name": "main", "resources": resources}]})["spec"]
        assert pod["containers"][0]["resources"] == {
            "limits": {"nvidia.com/gpu": "2", "memory": "1Gi"},
            "requests": {"cpu": "1"},
        }

    @pytest.mark.parametrize(
        ("backend", "resource", "limit"),
        [("timeslice", "nvidia.com/gpu.shared", "0.225"), ("mig", "nvidia.com/mig-1g.10gb", None)],
    )
    def test_a_slice_is_one_of_its_resource(self, backend: str, resource: str, limit: str | None) -> None:
        place = {"attempt": 0, "node": "n1", "gpus": 0.25, "resource": resource, "backend": backend}
        template = rendered(place, {})
        [main] = template["spec"]["containers"]
        assert main["resources"] == {"limits": {resource: "1"}}
        env = {entry["name"]: entry["value"] for entry in main["env"]}
        assert env["TUNEYARD_GPU_FRACTION"] == "0.25"
        assert env.get("XLA_PYTHON_CLIENT_MEM_FRACTION") == limit
        assert [toleration["key"] for toleration in template["spec"]["tolerations"]] == [NVIDIA]
        assert said(template) == (0.25, ())

    def test_without_a_node_nothing_is_asked_for(self) -> None:
        assert rendered({"attempt": 0, "gpus": 0}, {})["spec"] == {"containers": [{"name": "main"}]}


@pytest.mark.parametrize("text", ["", "x", "[]", '{"gpus": "many"}', '{"gpus": 1, "devices": 3}', '{"gpus": null}'])
def test_what_makes_no_sense_on_a_pod_is_not_believed(text: str) -> None:
    assert said({"metadata": {"annotations": {catalog.GPUS_ANNOTATION: text}}}) == (None, ())


def test_parts_are_said_and_read_back() -> None:
    annotations = {catalog.GPUS_ANNOTATION: '{"devices": ["3"], "gpus": 0.25, "resource": "nvidia.com/gpu"}'}
    assert said({"metadata": {"annotations": annotations}}) == (0.25, (Part("nvidia.com/gpu", "3", 0.25),))


@pytest.mark.parametrize(
    ("backend", "gpus", "told"),
    [
        ("kai", 0.25, {"TUNEYARD_GPU_FRACTION": "0.25", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.225"}),
        ("dra", 0.25, {"TUNEYARD_GPU_FRACTION": "0.25", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.225"}),
        ("timeslice", 0.25, {"TUNEYARD_GPU_FRACTION": "0.25", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.225"}),
        ("mig", 0.4286, {"TUNEYARD_GPU_FRACTION": "0.4286"}),
        ("hami", 0.25, {"TUNEYARD_GPU_FRACTION": "0.25"}),
        ("dra", 2, {}),
        ("hami", 1, {}),
        ("whole", 1, {}),
    ],
)
def test_a_program_is_told_of_its_part(backend: str, gpus: float, told: dict[str, str]) -> None:
    place: dict[str, Any] = {"node": "n1", "gpus": gpus, "resource": NVIDIA, "backend": backend, "devices": ["a"]}
    container: dict[str, Any] = {"name": "main"}
    claim = {"deviceClass": "gpu.nvidia.com", "count": 1}
    catalog.render(place | {"claim": claim}, {"spec": {"containers": [container]}}, container)
    found = {entry["name"]: entry["value"] for entry in container.get("env") or ()}
    wanted = {"TUNEYARD_GPU_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"}
    assert {name: value for name, value in found.items() if name in wanted} == told
