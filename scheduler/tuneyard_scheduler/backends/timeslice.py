"""Replicas of NVIDIA's device plugin: several pods on one GPU, by time-slicing or by MPS.

The plugin says with labels how many replicas it makes of each GPU, and renames the resource if it is told to.
Source: https://github.com/NVIDIA/k8s-device-plugin (README, "Shared Access to GPUs")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tuneyard_scheduler.backends import VENDORS, Object, Pool, labels_of, limits, memory_of, offered, whole
from tuneyard_scheduler.devices import Kind, amount

NAME: Final = "timeslice"
_SHARED: Final = "nvidia.com/gpu.shared"
_REPLICAS: Final = "nvidia.com/gpu.replicas"
_STRATEGY: Final = "nvidia.com/gpu.sharing-strategy"


def shares(node: Object) -> bool:
    """Whether the plugin makes replicas on this node: then nvidia.com/gpu, too, are no whole GPUs."""
    return _replicas(labels_of(node)) > 1


def capacity(node: Object) -> list[Pool]:
    """The replicas of a node. One is handed out as one: two to a pod would not be twice the GPU."""
    labels, resources = labels_of(node), offered(node)
    replicas, nvidia = _replicas(labels), VENDORS["nvidia"]
    if replicas <= 1:
        return []
    name = _SHARED if _SHARED in resources else nvidia.resource
    memory = memory_of(labels, nvidia.memory_label)
    kind = Kind(
        nvidia.resource,
        labels.get(nvidia.model_label, "").removesuffix("-SHARED") or None,
        memory // replicas if memory else None,
        size=amount(1 / replicas),
        whole=NAME,
    )
    return [Pool(name, int(resources[name]), kind)] if int(resources.get(name, 0)) > 0 else []


def render(placement: Mapping[str, Any], container: Object) -> None:
    """Make a container ask for one replica. It sees the whole GPU."""
    whole.ask(container, placement["resource"], 1)
    limits.tell(placement, container, of_visible=float(placement["gpus"]))


def _replicas(labels: Mapping[str, str]) -> int:
    text = labels.get(_REPLICAS, "1")
    shared = labels.get(_STRATEGY, "none") != "none" or labels.get(VENDORS["nvidia"].model_label, "").endswith(
        "-SHARED"
    )
    return int(text) if shared and text.isdigit() else 1
