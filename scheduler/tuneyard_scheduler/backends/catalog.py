"""All backends: what a node offers by whichever of them, and a placement into a pod by the one that it names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from tuneyard_api.common import GROUP
from tuneyard_scheduler.backends import Object, Pool, mig, pin, reservation, timeslice, whole
from tuneyard_scheduler.devices import Part, amount

GPUS_ANNOTATION: Final = f"{GROUP}/gpus"
"""On a trial's pod: what it holds of the node's GPUs, where its resources do not say it."""
_RENDER: Final[Mapping[str, Callable[[Mapping[str, Any], Object], None]]] = {
    whole.NAME: whole.render,
    timeslice.NAME: timeslice.render,
    mig.NAME: mig.render,
    reservation.NAME: reservation.render,
}


def pools(node: Object, parts: str | None = None) -> list[Pool]:
    """The GPUs of a node, as the API server has it.

    Args:
        node: The Node.
        parts: The backend that divides whole NVIDIA GPUs on this cluster, if there is one.
    """
    slices = [*timeslice.capacity(node), *mig.capacity(node)]
    sliced = {pool.resource for pool in slices}
    return [*(pool for pool in whole.capacity(node, parts) if pool.resource not in sliced), *slices]


def render(placement: Mapping[str, Any], template: Object, container: Object) -> None:
    """Make a pod ask for its place, in place: the GPUs, and the node.

    Args:
        placement: As in the trial's status: node, gpus, resource, backend, devices.
        template: The pod's metadata and spec. Its own affinity is kept.
        container: The container of it that uses the GPUs.
    """
    if placement.get("resource") and placement.get("gpus"):
        _RENDER[placement.get("backend") or whole.NAME](placement, container)
        if placement.get("backend") == reservation.NAME:
            reservation.hide_others(placement, template["spec"], container)
        _say(placement, template)
        # Nodes with GPUs are often tainted by the resource's name, for those to tolerate that need it.
        tolerations = template["spec"].setdefault("tolerations", [])
        tolerations.append({"key": placement["resource"], "operator": "Exists", "effect": "NoSchedule"})
    if placement.get("node"):
        pin(placement["node"], template["spec"])


def _say(placement: Mapping[str, Any], template: Object) -> None:
    """Leave on the pod what it holds, for whoever counts pods."""
    said = {key: placement[key] for key in ("gpus", "resource", "devices") if placement.get(key)}
    annotations = template.setdefault("metadata", {}).setdefault("annotations", {})
    annotations[GPUS_ANNOTATION] = json.dumps(said, sort_keys=True)


def said(annotations: Mapping[str, str]) -> tuple[float | None, tuple[Part, ...]]:
    """What `render` left on a pod: how many GPUs it is charged for, and the parts of certain GPUs that it holds."""
    try:
        found = json.loads(annotations[GPUS_ANNOTATION])
        gpus, devices = float(found["gpus"]), found.get("devices") or ()
        parts = tuple(Part(str(found["resource"]), str(each), amount(gpus / len(devices))) for each in devices)
    except (KeyError, TypeError, ValueError):
        return None, ()
    return max(0.0, gpus), parts
