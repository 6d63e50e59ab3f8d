"""Ways to hand GPUs to pods, one a file: `capacity` of a node, and `render` of a placement into a pod."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from tuneyard_scheduler.devices import ClaimForm, Kind

Object = dict[str, Any]


class Pool(NamedTuple):
    """GPUs of a node that are alike."""

    resource: str
    units: int
    kind: Kind
    devices: tuple[str, ...] = ()
    """Their names, where pods are given a certain one."""
    claim: ClaimForm | None = None
    """How pods claim them, where they are handed out by ResourceClaims."""


class Vendor(NamedTuple):
    """A vendor's names."""

    resource: str
    model_label: str
    memory_label: str
    """Of the MiB of memory of each GPU."""


VENDORS: Final[Mapping[str, Vendor]] = {
    "nvidia": Vendor("nvidia.com/gpu", "nvidia.com/gpu.product", "nvidia.com/gpu.memory"),
    "amd": Vendor("amd.com/gpu", "amd.com/gpu.product-name", "amd.com/gpu.vram"),
    "intel": Vendor("gpu.intel.com/i915", "gpu.intel.com/product", "gpu.intel.com/memory.max"),
}
"""By the names in a study's spec.gpu.vendor."""


def labels_of(node: Object) -> Mapping[str, str]:
    """A node's labels."""
    return node["metadata"].get("labels") or {}


def offered(node: Object) -> Mapping[str, str]:
    """The resources of a node that work (allocatable), by name."""
    status = node.get("status") or {}
    return status.get("allocatable") or status.get("capacity") or {}


def memory_of(labels: Mapping[str, str], label: str) -> int | None:
    """MiB that a label says: a plain number, or one with Mi, M, Gi or G. None where it says nothing that is known."""
    text = labels.get(label, "")
    for suffix, factor in (("Gi", 1024), ("G", 1024), ("Mi", 1), ("M", 1), ("", 1)):
        digits = text.removesuffix(suffix) if suffix else text
        if text.endswith(suffix) and digits.isdigit():
            return int(digits) * factor or None
    return None


def pin(node: str, pod: Object) -> None:
    """Require the node in the way of DaemonSets, not as `nodeName`.

    So kube-scheduler still binds the pod and the kubelet still finds the device free, and a pod that would not fit
    waits instead of failing.
    """
    require = {"key": "metadata.name", "operator": "In", "values": [node]}
    node_affinity = pod.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    required = node_affinity.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
    # Terms are alternatives, so the node is required in each. A term without a requirement would match no node.
    terms = required.get("nodeSelectorTerms") or [{}]
    required["nodeSelectorTerms"] = [{**term, "matchFields": [*term.get("matchFields", ()), require]} for term in terms]
