"""Whole GPUs through the vendors' device plugins: a node offers them, and a container asks for them, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Vendor:
    """A vendor's names."""

    resource: str
    model_label: str


VENDORS: Final[Mapping[str, Vendor]] = {
    "nvidia": Vendor("nvidia.com/gpu", "nvidia.com/gpu.product"),
    "amd": Vendor("amd.com/gpu", "amd.com/gpu.product-name"),
    "intel": Vendor("gpu.intel.com/i915", "gpu.intel.com/product"),
}
"""By the names in a study's spec.gpu.vendor."""
RESOURCES: Final = frozenset(vendor.resource for vendor in VENDORS.values())


def capacity(status: Mapping[str, Any]) -> dict[str, int]:
    """Whole GPUs of a node by resource name, from its status: those that work (allocatable)."""
    offered = status.get("allocatable") or status.get("capacity") or {}
    return {name: int(offered[name]) for name in sorted(RESOURCES & offered.keys()) if int(offered[name]) > 0}


def models(labels: Mapping[str, str]) -> dict[str, str]:
    """The GPU models that a node's labels name, by resource name."""
    return {v.resource: labels[v.model_label] for v in VENDORS.values() if v.model_label in labels}


def render(placement: Mapping[str, Any], pod: Object, container: Object) -> None:
    """Make a pod ask for its place, in place: a resource limit of the container, and a required node.

    The node is required in the way of DaemonSets, not set as `nodeName`: so kube-scheduler still binds the pod and the
    kubelet still finds the device free, and a pod that would not fit waits instead of failing.

    Args:
        placement: As in the trial's status: node, gpus and resource.
        pod: The pod's spec. Its own affinity is kept.
        container: The container of it that uses the GPUs.
    """
    if placement.get("resource") and placement.get("gpus"):
        resources = container.setdefault("resources", {})
        resources.setdefault("limits", {})[placement["resource"]] = str(placement["gpus"])
        # A request of its own would have to be equal; left out, it follows the limit.
        (resources.get("requests") or {}).pop(placement["resource"], None)
    if placement.get("node"):
        pin = {"key": "metadata.name", "operator": "In", "values": [placement["node"]]}
        node_affinity = pod.setdefault("affinity", {}).setdefault("nodeAffinity", {})
        required = node_affinity.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
        # Terms are alternatives, so the node is required in each. A term without a requirement would match no node.
        terms = required.get("nodeSelectorTerms") or [{}]
        required["nodeSelectorTerms"] = [{**term, "matchFields": [*term.get("matchFields", ()), pin]} for term in terms]
