"""Whole GPUs: what a node offers, and what a pod asks for."""

from typing import Any

import pytest

from tuneyard_scheduler.backends import whole

PIN = {"key": "metadata.name", "operator": "In", "values": ["n1"]}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PLACE = {"attempt": 0, "node": "n1", "gpus": 2, "resource": "nvidia.com/gpu"}


@pytest.mark.parametrize(
    ("status", "want"),
    [
        ({"allocatable": {"cpu": "8", "nvidia.com/gpu": "4"}}, {"nvidia.com/gpu": 4}),
        ({"capacity": {"amd.com/gpu": "8"}, "allocatable": {"amd.com/gpu": "7"}}, {"amd.com/gpu": 7}),
        ({"allocatable": {"gpu.intel.com/i915": "2", "nvidia.com/gpu": "0"}}, {"gpu.intel.com/i915": 2}),
        ({"allocatable": {"cpu": "8"}}, {}),
        ({}, {}),
    ],
)
def test_capacity(status: dict[str, Any], want: dict[str, int]) -> None:
    assert whole.capacity(status) == want


def test_models() -> None:
    labels = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB", "kubernetes.io/os": "linux"}
    assert whole.models(labels) == {"nvidia.com/gpu": "NVIDIA-A100-SXM4-80GB"}


def rendered(placement: dict[str, Any], pod: dict[str, Any]) -> dict[str, Any]:
    pod.setdefault("containers", [{"name": "main"}])
    whole.render(placement, pod, pod["containers"][0])
    return pod


class TestRender:
    def test_pins_the_node_and_asks_for_the_gpus(self) -> None:
        pod = rendered(PLACE, {})
        assert pod["affinity"] == {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchFields": [PIN]}]}}}
        assert pod["containers"] == [{"name": "main", "resources": {"limits": {"nvidia.com/gpu": "2"}}}]

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
        affinity = rendered(PLACE, {"affinity": own})["affinity"]
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
        pod = rendered(PLACE, {"containers": [{"name": "main", "resources": resources}]})
        assert pod["containers"][0]["resources"] == {
            "limits": {"nvidia.com/gpu": "2", "memory": "1Gi"},
            "requests": {"cpu": "1"},
        }

    def test_without_a_node_nothing_is_asked_for(self) -> None:
        assert rendered({"attempt": 0, "gpus": 0}, {}) == {"containers": [{"name": "main"}]}
