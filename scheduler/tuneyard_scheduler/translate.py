"""API objects (raw dicts) as the views that the state takes, and decisions as patches."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, Final

from tuneyard_api.common import ATTEMPT_LABEL, INDEX_LABEL, STUDY_LABEL, TRIAL_UID_LABEL, UID_LABEL, epoch_seconds
from tuneyard_api.trial import Outcome, Phase, Placement
from tuneyard_scheduler.backends import whole
from tuneyard_scheduler.views import (
    AttemptKey,
    GpuRequest,
    Node,
    Place,
    PodView,
    Preempt,
    QueueView,
    StudyView,
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
_NOT_THE_NODE: Final = frozenset(
    {"PreemptionByScheduler", "EvictionByEvictionAPI", "PodGone", "PodDeleted", "Preempted", "Preempting"}
    | {"Interrupted", "ProcessGone"}
)
"""Reasons of a loss that say nothing of the node: somebody deleted the pod, drained the node, or needed its place."""
_OWN_ENDS: Final = frozenset(
    {Outcome.SUCCEEDED, Outcome.PROGRAM_FAILED, Outcome.OUT_OF_MEMORY, Outcome.BAD_METRICS, Outcome.TIMED_OUT}
)


def study_key(namespace: str, name: str) -> str:
    """The key of a study in a cluster."""
    return sys.intern(f"{namespace}/{name}")


def node(item: Object) -> Node:
    """A Node."""
    meta, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    closing = any(
        taint["effect"] != "PreferNoSchedule" and taint["key"].startswith(_CLOSING_TAINTS)
        for taint in spec.get("taints") or ()
    )
    return Node(
        name=meta["name"],
        capacity=whole.capacity(status),
        ready=any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ()),
        schedulable=not (spec.get("unschedulable") or closing or "deletionTimestamp" in meta),
        models=whole.models(meta.get("labels") or {}),
    )


def pod(item: Object) -> PodView | None:
    """A Pod; None when it is no trial's and holds no GPU."""
    meta, spec = item["metadata"], item["spec"]
    labels = meta.get("labels") or {}
    resources = _gpus(spec)
    attempt = _attempt(meta["namespace"], labels)
    if attempt is None and not resources:
        return None
    return PodView(
        meta["uid"], spec.get("nodeName"), resources, attempt, labels.get(UID_LABEL), labels.get(TRIAL_UID_LABEL)
    )


def _attempt(namespace: str, labels: Mapping[str, str]) -> AttemptKey | None:
    """The attempt that a pod is of. Anybody can write labels: a pod whose labels make no sense is somebody else's."""
    try:
        study = study_key(namespace, labels[STUDY_LABEL])
        return AttemptKey(study, int(labels[INDEX_LABEL]), int(labels.get(ATTEMPT_LABEL, 0)))
    except (KeyError, ValueError):
        return None


def _gpus(spec: Mapping[str, Any]) -> dict[str, int]:
    """GPUs that a pod holds: what its containers and side-cars ask for together, or the largest init container.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers
    """
    init = spec.get("initContainers") or ()
    together = [*spec["containers"], *(c for c in init if c.get("restartPolicy") == "Always")]
    return {
        resource: count
        for resource in sorted(whole.RESOURCES)
        if (count := max(sum(_asks(c, resource) for c in together), *(_asks(c, resource) for c in init), 0))
    }


def _asks(container: Mapping[str, Any], resource: str) -> int:
    resources = container.get("resources")
    if not resources:
        return 0
    # The API server makes the requests of an extended resource equal to its limits.
    return int((resources.get("requests") or resources.get("limits") or {}).get(resource, 0))


def study(item: Object) -> StudyView:
    """A Study."""
    meta, spec = item["metadata"], item["spec"]
    gpu = spec.get("gpu")
    request = None
    if gpu is not None:
        vendor = whole.VENDORS[gpu.get("vendor", "nvidia")]
        request = GpuRequest(vendor.resource, gpu["count"], gpu.get("model"))
    return StudyView(
        key=study_key(meta["namespace"], meta["name"]),
        uid=meta["uid"],
        namespace=meta["namespace"],
        priority=spec.get("priority", 0),
        created=epoch_seconds(meta["creationTimestamp"]),
        parallel=(spec.get("trials") or {}).get("parallel", 1),
        suspended=spec.get("suspend", False),
        gpu=request,
        queue=spec.get("queue"),
        phase=(item.get("status") or {}).get("phase"),
        deleting="deletionTimestamp" in meta,
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
        lost=_losses(status.get("attempts") or ()),
        proved=_proved(status.get("attempts") or ()),
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


def _losses(attempts: Sequence[Object]) -> tuple[tuple[str, float], ...]:
    """Where and when attempts were lost in a way that the node may be to blame for."""
    return tuple(
        (attempt["node"], epoch_seconds(attempt["finished"]))
        for attempt in attempts
        if attempt["outcome"] == Outcome.INFRASTRUCTURE
        and attempt.get("reason") not in _NOT_THE_NODE
        and attempt.get("node")
        and attempt.get("finished")
    )


def _proved(attempts: Sequence[Object]) -> tuple[str, float, float] | None:
    """The last attempt that ran on a node to an end of its own."""
    last = attempts[-1] if attempts else {}
    if last.get("outcome") not in _OWN_ENDS or not last.get("node") or not last.get("started"):
        return None
    return last["node"], epoch_seconds(last["started"]), epoch_seconds(last["finished"])


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
        generation=meta.get("generation"),
        conditions=tuple((item.get("status") or {}).get("conditions") or ()),
    )


def placed(place: Place, version: str | None, now: float) -> Object:
    """The patch that gives a trial its place, if its object is still the one that was decided on.

    Every field is in it: a merge patch would else keep one of an earlier placement.
    """
    placement = place.placement(now).model_dump(mode="json", by_alias=True)
    return _patch(version, {"phase": Phase.PLACED, "placement": placement, "reason": None, "message": None})


def told_to_leave(told: Preempt, version: str | None, now: float) -> Object:
    """The patch that has a trial's attempt stopped, if its object is still the one that was decided on."""
    reclaim = told.reclaim(now).model_dump(mode="json", by_alias=True)
    return _patch(version, {"placement": {"reclaim": reclaim}})


def waits(reason: str, message: str, version: str | None) -> Object:
    """The patch that tells why a trial waits."""
    return _patch(version, {"reason": reason, "message": message[:1024]})


def _patch(version: str | None, status: Object) -> Object:
    return {"metadata": {"resourceVersion": version}, "status": status}
