"""API objects (raw dicts) as the views that the state takes, and decisions as patches."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
    timestamp,
)
from tuneyard_api.trial import Outcome, Phase, Placement
from tuneyard_scheduler import memory, quantity, selection
from tuneyard_scheduler.backends import VENDORS, catalog
from tuneyard_scheduler.devices import GpuRequest
from tuneyard_scheduler.durations import Run
from tuneyard_scheduler.memory import UNSAID
from tuneyard_scheduler.views import (
    NOTHING,
    AttemptKey,
    Need,
    Node,
    Outlook,
    Place,
    PodView,
    Preempt,
    QueueView,
    StudyView,
    TakeBack,
    Taken,
    TrialView,
    Waiting,
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
    taken = _taken(item, ours=attempt is not None)
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


def _taken(item: Object, *, ours: bool) -> Taken:
    """What a pod takes of its node: by what it asks for, and by what whoever placed it left on it."""
    pod = item["spec"]
    gpus, parts = catalog.said(item, ours=ours)
    units = {name: int(count) for name in _gpu_names(pod) if (count := asks(pod, name))}
    for part in parts:
        units.pop(part.resource, None)
    if catalog.holds_for_others(item):
        units = {}
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
    gpu = _request(spec.get("gpu"), (item.get("status") or {}).get("sizing") or {})
    trials = spec.get("trials") or {}
    pod = (spec.get("template") or {}).get("spec") or {"containers": []}
    return StudyView(
        key=study_key(meta["namespace"], meta["name"]),
        uid=meta["uid"],
        namespace=meta["namespace"],
        priority=spec.get("priority", 0),
        created=epoch_seconds(meta["creationTimestamp"]),
        parallel=trials.get("parallel", 1),
        suspended=spec.get("suspend", False),
        gpu=gpu,
        needs=selection.needs(pod, *((gpu.resource,) if gpu is not None else ())),
        cpu=asks(pod, "cpu"),
        memory=asks(pod, "memory"),
        container=memory.of(pod["containers"][0]) if pod["containers"] else UNSAID,
        queue=spec.get("queue"),
        phase=(item.get("status") or {}).get("phase"),
        deleting="deletionTimestamp" in meta,
        timeout=seconds(trials["timeout"]) if trials.get("timeout") else None,
        fidelity=_ranked_by(spec),
    )


def _ranked_by(spec: Mapping[str, Any]) -> float | None:
    """The most of the fidelity, where who was let go far is the more promising.

    In a population everybody is to come to the end, and those behind must not wait for those ahead.
    """
    return None if (spec.get("strategy") or {}).get("name") == "pbt" else (spec.get("fidelity") or {}).get("max")


def _request(gpu: Mapping[str, Any] | None, sizing: Mapping[str, Any]) -> GpuRequest | None:
    """What each trial asks for; a size that is still to be found out is a whole GPU."""
    if gpu is None:
        return None
    vendor, spread = VENDORS[gpu.get("vendor", "nvidia")], gpu.get("packing") == "Spread"
    whole = GpuRequest(vendor.resource, gpu.get("count") or 1, gpu.get("model"), spread=spread)
    if "auto" in {gpu.get("fraction"), gpu.get("memory")}:
        share, size = sizing.get("fraction"), sizing.get("memory")
        if share == 1 or not (share or size):
            return whole
        return replace(whole, count=0, share=share, memory=size, backend=gpu.get("sharing"), or_whole=True)
    text, count = gpu.get("memory"), gpu.get("count") or 0
    size = int(quantity.parse(text) // 2**20) if text else None
    return replace(whole, count=count, share=gpu.get("fraction"), memory=size, backend=gpu.get("sharing"))


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
        need=_need(status.get("needs")),
        avoid=_lost_on(status.get("attempts") or ()),
        lost=_losses(status.get("attempts") or ()),
        proved=_proved(status.get("attempts") or ()),
        owner=next((o["uid"] for o in meta.get("ownerReferences") or () if o["kind"] == "Study"), None),
        uid=meta["uid"],
        since=_waits_since(item) if phase is Phase.PENDING else _placed_at(placement),
        started=epoch_seconds(status["startTime"]) if status.get("startTime") else 0.0,
        run=_run(status.get("attempts")),
        promise=_promise((item.get("spec") or {}).get("rung") or {}, status),
        preempted=sum(attempt["outcome"] == Outcome.PREEMPTED for attempt in status.get("attempts") or ()),
        version=meta.get("resourceVersion"),
    )


def _promise(rung: Mapping[str, Any], status: Mapping[str, Any]) -> float:
    """A trial on the first rung was let go nowhere yet."""
    return max(float(rung["fidelity"]) if rung.get("level") else 0.0, float(status.get("judged") or 0))


def _waits_since(item: Object) -> float:
    """When the trial was created, or its last attempt ended; 0 where that one never began."""
    attempts = (item.get("status") or {}).get("attempts")
    since = attempts[-1].get("finished") if attempts else item["metadata"].get("creationTimestamp")
    return epoch_seconds(since) if since else 0.0


_RAN_TO_THE_END: Final = frozenset({Outcome.SUCCEEDED, Outcome.BAD_METRICS, Outcome.TIMED_OUT})


def _run(attempts: Any) -> Run | None:
    """How long the last attempt ran; None where it has not ended, or not as its siblings are expected to."""
    last = attempts[-1] if attempts else None
    if last is None or last["outcome"] not in _RAN_TO_THE_END or not last.get("started") or not last.get("finished"):
        return None
    finished = epoch_seconds(last["finished"])
    return Run(finished, finished - epoch_seconds(last["started"]))


def _placed_at(placement: Mapping[str, Any] | None) -> float:
    time = placement.get("time") if placement else None
    return epoch_seconds(time) if time else 0.0


def _lost_on(attempts: Any) -> tuple[str, ...]:
    """The nodes on which the trial was lost since it last ended by its own doing."""
    ended = (attempt for attempt in reversed(attempts) if attempt["outcome"] != Outcome.PREEMPTED)
    lost = takewhile(lambda attempt: attempt["outcome"] == Outcome.INFRASTRUCTURE, ended)
    return tuple(sorted({attempt["node"] for attempt in lost if attempt.get("node")}))


def _need(needs: Mapping[str, Any] | None) -> Need | None:
    """What the trial needs beyond what its study asks for."""
    return Need(needs.get("gpuFraction"), needs.get("gpuMemory"), needs.get("memory")) if needs else None


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
        unplaced=(spec.get("elastic") or {}).get("unplaced", 0),
        patience=seconds((spec.get("elastic") or {}).get("timeout", "10m")),
        generation=meta.get("generation"),
        conditions=tuple((item.get("status") or {}).get("conditions") or ()),
    )


def placed(place: Place, version: str | None, now: float, uuid: str | None = None) -> Object:
    """The patch that gives a trial its place, if its object is still the one that was decided on.

    Every field is in it: a merge patch would else keep one of an earlier placement. `uuid`: the GPU, where it is known.
    """
    placement = place.placement(now).model_dump(mode="json", by_alias=True) | {"uuid": uuid}
    told = {"reason": None, "message": None, "waiting": None}
    return _patch(version, {"phase": Phase.PLACED, "placement": placement, **told})


def told_to_leave(told: Preempt | TakeBack, version: str | None, now: float) -> Object:
    """The patch that has a trial's attempt stopped, if its object is still the one that was decided on."""
    reclaim = told.reclaim(now).model_dump(mode="json", by_alias=True)
    return _patch(version, {"placement": {"reclaim": reclaim}})


def shown(uuid: str, version: str | None) -> Object:
    """The patch that tells which GPU a trial's place is on: its attempt may start now."""
    return _patch(version, {"placement": {"uuid": uuid}})


def lost(message: str, version: str | None) -> Object:
    """The patch that tells that a trial's place is no more."""
    return _patch(version, {"placement": {"lost": message}})


def waits(waiting: Waiting, outlook: Outlook, version: str | None) -> Object:
    """The patch that tells why a trial waits, and for how long.

    Every field is in it: a merge patch would else keep one of what was told before.
    """
    expected = timestamp(outlook.start) if outlook.start is not None else None
    standing = {"position": outlook.position, "expectedStart": expected}
    return _patch(version, {"reason": waiting.reason, "message": waiting.message[:1024], "waiting": standing})


def _patch(version: str | None, status: Object) -> Object:
    return {"metadata": {"resourceVersion": version}, "status": status}
