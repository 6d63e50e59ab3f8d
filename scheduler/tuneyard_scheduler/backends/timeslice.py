"""Replicas of NVIDIA's device plugin: several pods on one GPU, by time-slicing or by MPS.

The plugin's labels say how many replicas it makes of each GPU, and in which way. It renames the resource if it is told
to, and else adds -SHARED to the product's name. MPS limits each replica's memory to its part, time-slicing limits
nothing.

Source: https://github.com/NVIDIA/k8s-device-plugin: README ("Shared Access to GPUs"),
docs/gpu-feature-discovery/README.md (labels), internal/lm/resource.go (how they are made)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tuneyard_scheduler.backends import VENDORS, Object, Pool, labels_of, memory_of, offered
from tuneyard_scheduler.devices import Kind, amount

NAME: Final = "timeslice"
SHARED: Final = "nvidia.com/gpu.shared"
_NVIDIA: Final = VENDORS["nvidia"]


def capacity(node: Object) -> list[Pool]:
    """The replicas of a node. One is handed out as one: two to a pod would not be twice the GPU."""
    labels, resources = labels_of(node), offered(node)
    made = replicas(labels, _NVIDIA.resource)
    model = labels.get(_NVIDIA.model_label, "")
    if made <= 1 or "-MIG-" in model:
        return []
    name = SHARED if SHARED in resources else _NVIDIA.resource
    memory = memory_of(labels, _NVIDIA.memory_label)
    kind = Kind(
        _NVIDIA.resource,
        model.removesuffix("-SHARED") or None,
        memory // made if memory else None,
        size=amount(1 / made),
        whole=NAME,
    )
    return [Pool(name, int(resources[name]), kind)] if int(resources.get(name, 0)) > 0 else []


def replicas(labels: Mapping[str, str], resource: str) -> int:
    """How many the plugin makes of each device that it would else offer under this name; 1: it is not shared."""
    text = labels.get(f"{resource}.replicas", "1")
    strategy = labels.get(f"{resource}.sharing-strategy", "none")
    shared = strategy not in {"none", ""} or labels.get(f"{resource}.product", "").endswith("-SHARED")
    return max(1, int(text)) if shared and text.isdigit() else 1
