"""API objects (raw dicts) as the views that the state takes, and decisions as patches."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import takewhile
from typing import Any, Final

from tuneyard_api.common import (
    ATTEMPT_LABEL,
    INDEX_LABEL,
    STUDY_LABEL,
    TRIAL_UID_LABEL,
    UID_LABEL,
    epoch_seconds,
    seconds,
)
from tuneyard_api.trial import Outcome, Phase, Placement
from tuneyard_scheduler import quantity, selection
from tuneyard_scheduler.backends import VENDORS, catalog
from tuneyard_scheduler.devices import GpuRequest
from tuneyard_scheduler.views import (
    NOTHING,
    AttemptKey,
    Node,
    Place,
    PodView,
    Preempt,
    QueueView,
    StudyView,
    TakeBack,
    Taken,
    TrialView,
)

Object = dict[str, Any]

_CLOSING_TAINTS: Final = (
    "node.kubernetes.io/",
    "node.cloudprovider.kubernetes.io/",
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disrupted",
)
"""Taints (by the start of their key) that say that a node takes nobody now; others are for templates to tolerate."""
_WHOLE: Final = frozenset(vendor.resource for vendor in VENDORS.values())
_SLICES: Final = ("nvidia.com/gpu.shared", "nvidia.com/mig-")


def study_key(namespace: str, name: str) -> str:
    """The key of a study in a cluster."""
    return sys.intern(f"{namespace}/{name}")


def node(item: Object, parts: str | None = None) -> Node:
    """A Node. `parts`: the backend that divides whole NVIDIA GPUs on this cluster, if there is one."""
    meta, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    pools = catalog.pools(item, parts)
    allocatable = status.get("allocatable") or {}
    taints = selection.taints(spec)
    closing = any(taint.key.startswith(_CLOSING_TAINTS) for taint in taints)
    return Node(
        name=meta["name"],
        capacity={pool.resource: pool.units for pool in pools},
        ready=any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ()),
        schedulable=not (spec.get("unschedulable") or closing or "deletionTimestamp" in meta),
        kinds={pool.resource: pool.kind for pool in pools},
        devices={pool.resource: pool.devices for pool in pools if pool.devices},
        labels=meta.get("labels") or {},
        taints=taints,
        cpu=quantity.parse(allocatable["cpu"]) if "cpu" in allocatable else None,
        memory=quantity.parse(allocatable["memory"]) if "memory" in allocatable else None,
    )


def pod(item: Object) -> PodView | None:
    """A Pod; None when it is no trial's and holds no GPU."""
    meta, spec = item["metadata"], item["spec"]
    labels = meta.get("labels") or {}
    attempt = _attempt(meta["namespace"], labels)
    taken = _taken(spec, (meta.get("annotations") or {}) if attempt is not None else {})
    if attempt is None and taken == NOTHING:
        return None
    return PodView(
        meta["uid"], spec.get("nodeName"), taken, attempt, labels.get(UID_LABEL), labels.get(TRIAL_UID_LABEL)
    )


def _attempt(namespace: str, labels: Mapping[str, str]) -> AttemptKey | None:
    """The attempt that a pod is of. Anybody can write labels: a pod whose labels make no sense is somebody else's."""
    try:
        study = study_key(namespace, labels[STUDY_LABEL])
        return AttemptKey(study, int(labels[INDEX_LABEL]), int(labels.get(ATTEMPT_LABEL, 0)))
    except (KeyError, ValueError):
        return None


def _taken(pod: Mapping[str, Any], annotations: Mapping[str, str]) -> Taken:
    """What a pod takes of its node: by what it asks for, and by what was left on it of the place of a trial."""
    gpus, parts = catalog.said(annotations)
    units = {name: int(count) for name in _gpu_names(pod) if (count := asks(pod, name))}
    for part in parts:
        units.pop(part.resource, None)
    return Taken(units, parts, gpus, asks(pod, "cpu"), asks(pod, "memory"))


def _gpu_names(pod: Mapping[str, Any]) -> list[str]:
    """The resources that a pod's containers ask for and that are GPUs, or slices of such."""
    containers = (*pod["containers"], *(pod.get("initContainers") or ()))
    given = [each.get("resources") or {} for each in containers]
    names = {name for each in given for kind in ("requests", "limits") for name in each.get(kind) or ()}
    return sorted(name for name in names if name in _WHOLE or name.startswith(_SLICES))


def asks(pod: Mapping[str, Any], resource: str) -> float:
    """How much of a resource a pod asks for: its containers and side-cars together, or the largest init container.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers
    """
    init = pod.get("initContainers") or ()
    together = [*pod["containers"], *(c for c in init if c.get("restartPolicy") == "Always")]
    return max(sum(_asks(c, resource) for c in together), *(_asks(c, resource) for c in init), 0.0)


def _asks(container: Mapping[str, Any], resource: str) -> float:
    resources = container.get("resources")
    if not resources:
        return 0.0
    # The API server makes the requests of an extended resource equal to its limits.
    asked = (resources.get("requests") or {}).get(resource, (resources.get("limits") or {}).get(resource, 0))
    return quantity.parse(asked)


def study(item: Object) -> StudyView:
    """A Study."""
    meta, spec = item["metadata"], item["spec"]
    gpu = _request(spec.get("gpu"))
    pod = (spec.get("template") or {}).get("spec") or {"containers": []}
    return StudyView(
        key=study_key(meta["namespace"], meta["name"]),
        uid=meta["uid"],
        namespace=meta["namespace"],
        priority=spec.get("priority", 0),
        created=epoch_seconds(meta["creationTimestamp"]),
        parallel=(spec.get("trials") or {}).get("parallel", 1),
        suspended=spec.get("suspend", False),
        gpu=gpu,
        needs=selection.needs(pod, *((gpu.resource,) if gpu is not None else ())),
        cpu=asks(pod, "cpu"),
        memory=asks(pod, "memory"),
        queue=spec.get("queue"),
        phase=(item.get("status") or {}).get("phase"),
        deleting="deletionTimestamp" in meta,
    )


def _request(gpu: Mapping[str, Any] | None) -> GpuRequest | None:
    if gpu is None:
        return None
    memory = gpu.get("memory")
    return GpuRequest(
        VENDORS[gpu.get("vendor", "nvidia")].resource,
        gpu.get("count") or 0,
        gpu.get("model"),
        share=gpu.get("fraction"),
        memory=int(quantity.parse(memory) // 2**20) if memory else None,
        backend=gpu.get("sharing"),
        spread=gpu.get("packing") == "Spread",
    )


def trial_name(study: str, index: int) -> tuple[str, str]:
    """Namespace and name of a Trial, from its study's key."""
    namespace, name = study.split("/", 1)
    return namespace, f"{name}-{index}"


def trial_key(item: Object) -> tuple[str, int]:
    """The study's key and the index, from the metadata alone."""
    meta = item["metadata"]
    name, index = meta["name"].rsplit("-", 1)
    return study_key(meta["namespace"], name), int(index)


def trial(item: Object) -> TrialView:
    """A Trial. One that is being deleted does not wait for a place any more."""
    meta, status = item["metadata"], item.get("status") or {}
    key, index = trial_key(item)
    phase = Phase(status.get("phase", Phase.PENDING))
    if phase is Phase.PENDING and "deletionTimestamp" in meta:
        phase = Phase.STOPPED
    placement, not_before = status.get("placement"), status.get("notBefore")
    return TrialView(
        study=key,
        index=index,
        phase=phase,
        attempt=status.get("attempt", 0),
        placement=Placement.model_validate(placement) if placement else None,
        not_before=epoch_seconds(not_before) if not_before else None,
        avoid=_lost_on(status.get("attempts") or ()),
        owner=next((o["uid"] for o in meta.get("ownerReferences") or () if o["kind"] == "Study"), None),
        uid=meta["uid"],
        since=_waits_since(item) if phase is Phase.PENDING else _placed_at(placement),
        preempted=sum(attempt["outcome"] == Outcome.PREEMPTED for attempt in status.get("attempts") or ()),
        version=meta.get("resourceVersion"),
    )


def _waits_since(item: Object) -> float:
    """When the trial was created, or its last attempt ended; 0 where that one never began."""
    attempts = (item.get("status") or {}).get("attempts")
    since = attempts[-1].get("finished") if attempts else item["metadata"].get("creationTimestamp")
    return epoch_seconds(since) if since else 0.0


def _placed_at(placement: Mapping[str, Any] | None) -> float:
    time = placement.get("time") if placement else None
    return epoch_seconds(time) if time else 0.0


def _lost_on(attempts: Any) -> tuple[str, ...]:
    """The nodes on which the trial was lost since it last ended by its own doing."""
    ended = (attempt for attempt in reversed(attempts) if attempt["outcome"] != Outcome.PREEMPTED)
    lost = takewhile(lambda attempt: attempt["outcome"] == Outcome.INFRASTRUCTURE, ended)
    return tuple(sorted({attempt["node"] for attempt in lost if attempt.get("node")}))


def queue(item: Object) -> QueueView:
    """A GpuQueue."""
    meta, spec = item["metadata"], item.get("spec") or {}
    namespaces = spec.get("namespaces")
    return QueueView(
        meta["name"],
        limit=spec.get("limit"),
        namespaces=None if namespaces is None else frozenset(namespaces),
        guaranteed=spec.get("guaranteed"),
        weight=spec.get("weight", 1.0),
        parent=spec.get("parent"),
        reclaim=(spec.get("preemption") or {}).get("reclaim", "Any"),
        unplaced=(spec.get("elastic") or {}).get("unplaced", 0),
        patience=seconds((spec.get("elastic") or {}).get("timeout", "10m")),
        generation=meta.get("generation"),
        conditions=tuple((item.get("status") or {}).get("conditions") or ()),
    )


def placed(place: Place, version: str | None, now: float) -> Object:
    """The patch that gives a trial its place, if its object is still the one that was decided on.

    Every field is in it: a merge patch would else keep one of an earlier placement.
    """
    placement = place.placement(now).model_dump(mode="json", by_alias=True)
    return _patch(version, {"phase": Phase.PLACED, "placement": placement, "reason": None, "message": None})


def told_to_leave(told: Preempt | TakeBack, version: str | None, now: float) -> Object:
    """The patch that has a trial's attempt stopped, if its object is still the one that was decided on."""
    reclaim = told.reclaim(now).model_dump(mode="json", by_alias=True)
    return _patch(version, {"placement": {"reclaim": reclaim}})


def waits(reason: str, message: str, version: str | None) -> Object:
    """The patch that tells why a trial waits."""
    return _patch(version, {"reason": reason, "message": message[:1024]})


def _patch(version: str | None, status: Object) -> Object:
    return {"metadata": {"resourceVersion": version}, "status": status}
