"""All backends: what a node offers by whichever of them, and a placement into a pod by the one that it names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from tuneyard_api.common import GROUP
from tuneyard_scheduler.backends import (
    VENDORS,
    Object,
    Pool,
    dra,
    hami,
    kai,
    limits,
    mig,
    pin,
    reservation,
    timeslice,
    whole,
)
from tuneyard_scheduler.devices import Part, amount

GPUS_ANNOTATION: Final = f"{GROUP}/gpus"
"""On a trial's pod: what it holds of the node's GPUs, where its resources do not say it."""


def pools(node: Object, parts: str | None = None) -> list[Pool]:
    """The GPUs of a node, as the API server has it.

    Args:
        node: The Node.
        parts: The backend that divides whole NVIDIA GPUs on this cluster, if there is one.
    """
    slices = [*(hami.capacity(node) or timeslice.capacity(node)), *mig.capacity(node)]
    sliced = {pool.resource for pool in slices}
    return [*(pool for pool in whole.capacity(node, parts) if pool.resource not in sliced), *slices]


def render(
    placement: Mapping[str, Any],
    template: Object,
    container: Object,
    *,
    vendor: str = "nvidia",
    name: str = "trial",
    uid: str = "",
) -> list[Object]:
    """Make a pod ask for its place, in place: the GPUs, and the node.

    Args:
        placement: As in the trial's status: node, gpus, resource, backend, devices.
        template: The pod's metadata and spec. Its own affinity is kept.
        container: The container of it that uses the GPUs.
        vendor: Whose GPUs the study asks for.
        name: What the names of other objects begin with.
        uid: Of whatever owns those.

    Returns:
        Objects that have to be there before the pod; one that is there already will do.
    """
    needed: list[Object] = []
    if placement.get("resource") and placement.get("gpus"):
        match placement.get("backend") or whole.NAME:
            case dra.NAME:
                needed.append(dra.render(placement, template["spec"], container, name, uid))
            case hami.NAME:
                hami.render(placement, template, container)
            case kai.NAME:
                kai.render(placement, template)
                limits.tell(placement, container, of_visible=float(placement["gpus"]))
            case reservation.NAME:
                reservation.render(placement, container)
                reservation.hide_others(placement, template["spec"], container)
            case timeslice.NAME:
                whole.ask(container, placement["resource"], 1)
                limits.tell(placement, container, of_visible=float(placement["gpus"]))
            case mig.NAME:
                whole.ask(container, placement["resource"], 1)
                limits.tell(placement, container)
            case _:
                whole.render(placement, container)
        _say(placement, template)
        # Nodes with GPUs are often tainted by the resource's name, for those to tolerate that need it.
        tolerations = template["spec"].setdefault("tolerations", [])
        tolerations.append({"key": VENDORS[vendor].resource, "operator": "Exists", "effect": "NoSchedule"})
    if placement.get("node"):
        pin(placement["node"], template["spec"])
    return needed


def _say(placement: Mapping[str, Any], template: Object) -> None:
    """Leave on the pod what it holds, for whoever counts pods."""
    said = {key: placement[key] for key in ("gpus", "resource", "devices") if placement.get(key)}
    annotations = template.setdefault("metadata", {}).setdefault("annotations", {})
    annotations[GPUS_ANNOTATION] = json.dumps(said, sort_keys=True)


def said(pod: Object, *, ours: bool) -> tuple[float | None, tuple[Part, ...]]:
    """What is left on a pod of its place: how many GPUs it is charged for, and the parts of certain GPUs that it holds.

    Args:
        pod: The Pod.
        ours: Whether it is a trial's: then it says what `render` left on it.
    """
    annotations = pod["metadata"].get("annotations") or {}
    gpus, parts = _ours(annotations) if ours else (None, hami.said(annotations))
    return gpus, kai.said(pod, gpus) or parts


def holds_for_others(pod: Object) -> bool:
    """Whether a pod only holds GPUs for others, who are counted themselves."""
    return kai.holds_for_others(pod["metadata"])


def _ours(annotations: Mapping[str, str]) -> tuple[float | None, tuple[Part, ...]]:
    try:
        found = json.loads(annotations[GPUS_ANNOTATION])
        gpus, devices = float(found["gpus"]), found.get("devices") or ()
        parts = tuple(Part(str(found["resource"]), str(each), amount(gpus / len(devices))) for each in devices)
    except (KeyError, TypeError, ValueError):
        return None, ()
    return max(0.0, gpus), parts
