"""Parts of GPUs by NVIDIA's KAI Scheduler: it places the pod, on the node that we chose, and chooses the GPU itself.

It limits no memory: programs have to keep to theirs. What our books say of the GPU is a guess until the pod is bound:
then its label names the GPU's group, and the pod counts there, as other pods of that group do. A pod that KAI packs
otherwise than we did may so find no GPU: it waits, and is never put on a GPU that is full. The pod with which KAI
holds a shared GPU is not counted beside those that share it.

Source: https://github.com/NVIDIA/KAI-Scheduler: docs/gpu-sharing/README.md and gpu-sharing.yaml (what pods ask for),
docs/quickstart/README.md (queues), pkg/common/constants/constants.go (labels),
pkg/binder/binding/resourcereservation (the pods that hold GPUs), deployments/kai-scheduler/crds (Config)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tuneyard_scheduler.backends import VENDORS, Object
from tuneyard_scheduler.devices import Part, amount

NAME: Final = "kai"
CONFIG: Final = "/apis/kai.scheduler/v1/configs/kai-config"
"""How KAI is set up; there is none where it is not installed."""
_SCHEDULER: Final = "kai-scheduler"
_QUEUE_LABEL: Final = "kai.scheduler/queue"
_QUEUE: Final = "default-queue"
_FRACTION: Final = "gpu-fraction"
_MEMORY: Final = "gpu-memory"
_GROUP: Final = "runai-gpu-group"
_HOLDERS: Final = "kai-resource-reservation"


def shares(config: Object) -> bool:
    """Whether KAI is set up to share GPUs (its chart's global.gpuSharing, which is off unless it is asked for)."""
    spec = config.get("spec") or {}
    return bool((spec.get("admission") or {}).get("gpuSharing"))


def render(placement: Mapping[str, Any], template: Object) -> None:
    """Have a pod placed by KAI, in place; in the queue that its template's own label names, or else in the default one.

    The part goes to the pod's first container.
    """
    meta = template.setdefault("metadata", {})
    meta["labels"] = {_QUEUE_LABEL: _QUEUE, **(meta.get("labels") or {})}
    # A fraction has to be below 1.
    whole = placement["gpus"] >= 1 and placement.get("memory")
    asked = {_MEMORY: str(placement["memory"])} if whole else {_FRACTION: f"{min(placement['gpus'], 0.9999):.4g}"}
    meta["annotations"] = {**(meta.get("annotations") or {}), **asked}
    template["spec"]["schedulerName"] = _SCHEDULER


def holds_for_others(meta: Mapping[str, Any]) -> bool:
    """Whether a pod only holds a GPU for the pods that share it."""
    return meta["namespace"] == _HOLDERS and _GROUP in (meta.get("labels") or {})


def said(pod: Object, share: float | None) -> tuple[Part, ...]:
    """What a pod that KAI has placed has a part of.

    Args:
        pod: As the API server has it.
        share: How much, where that is known; else the pod's annotation says it. A GPU of which somebody else's pod has
            so many MiB, on a node that is not known here, counts whole.
    """
    meta = pod["metadata"]
    group = (meta.get("labels") or {}).get(_GROUP)
    if group is None or pod["spec"].get("schedulerName") != _SCHEDULER:
        return ()
    if share is None:
        try:
            share = amount(float((meta.get("annotations") or {})[_FRACTION]))
        except (KeyError, ValueError):
            share = 1.0
    return (Part(VENDORS["nvidia"].resource, group, min(max(share, 0.0), 1.0)),)
