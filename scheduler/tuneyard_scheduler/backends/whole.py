"""Whole GPUs through the vendors' device plugins: a node offers them, and a container asks for them, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuneyard_scheduler.backends import VENDORS, Object, Pool, labels_of, memory_of, offered
from tuneyard_scheduler.devices import Kind

NAME = "whole"


def capacity(node: Object, parts: str | None = None) -> list[Pool]:
    """The whole GPUs of a node.

    Args:
        node: As the API server has it.
        parts: The backend that divides NVIDIA's GPUs on this cluster, if there is one.
    """
    labels, resources = labels_of(node), offered(node)
    return [
        Pool(
            vendor.resource,
            int(resources[vendor.resource]),
            Kind(
                vendor.resource,
                labels.get(vendor.model_label),
                memory_of(labels, vendor.memory_label),
                parts=parts if name == "nvidia" else None,
            ),
        )
        for name, vendor in VENDORS.items()
        if int(resources.get(vendor.resource, 0)) > 0
    ]


def render(placement: Mapping[str, Any], container: Object) -> None:
    """Make a container ask for the GPUs of its place.

    Args:
        placement: As in the trial's status: gpus and resource.
        container: The one that uses the GPUs; changed in place.
    """
    ask(container, placement["resource"], int(placement["gpus"]))


def ask(container: Object, resource: str, units: int) -> None:
    """Make a container ask for so many of a resource."""
    resources = container.setdefault("resources", {})
    resources.setdefault("limits", {})[resource] = str(units)
    # A request of its own would have to be equal; left out, it follows the limit.
    (resources.get("requests") or {}).pop(resource, None)
