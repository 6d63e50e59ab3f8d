"""From a pod or a Job, as the API server has it, to what is seen of an attempt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tuneyard_api.common import ATTEMPT_LABEL, INDEX_LABEL, TRIAL_UID_LABEL, UID_LABEL, epoch_seconds
from tuneyard_operator.attempts import AttemptSeen
from tuneyard_operator.render import GENERATION_ANNOTATION

Object = dict[str, Any]
_OVERDUE_SECONDS: Final = 30.0
_ORDINARY_WAITS: Final = frozenset({None, "ContainerCreating", "PodInitializing"})


@dataclass(frozen=True, slots=True)
class AttemptKey:
    """Which attempt a pod is of."""

    study_uid: str
    trial_uid: str
    """A trial that was deleted is made again under the same name: its pods are not those of the new one."""
    index: int
    attempt: int


def key(item: Object) -> AttemptKey | None:
    """The attempt that a pod or Job belongs to by its labels; None when it is not ours."""
    labels = item["metadata"].get("labels") or {}
    try:
        return AttemptKey(
            labels[UID_LABEL], labels[TRIAL_UID_LABEL], int(labels[INDEX_LABEL]), int(labels[ATTEMPT_LABEL])
        )
    except (KeyError, ValueError):
        return None


def seen(pod: Object, attempt: int) -> AttemptSeen:
    """What a pod shows of its attempt."""
    status = pod.get("status") or {}
    phase = status.get("phase", "Pending")
    if phase in {"Succeeded", "Failed"}:
        return _ended(pod, attempt)
    node = (pod.get("spec") or {}).get("nodeName")
    disrupted = _disruption(pod) is not None or "deletionTimestamp" in pod["metadata"]
    generation = _generation(pod)
    statuses = status.get("containerStatuses") or []
    if phase == "Running":
        started = _time(_state(statuses, "running").get("startedAt")) or _time(status.get("startTime"))
        return AttemptSeen(attempt, "running", node, started, disrupted=disrupted, generation=generation)
    reason, message = _waiting(status)
    return AttemptSeen(
        attempt, "waiting", node, reason=reason, message=message, disrupted=disrupted, generation=generation
    )


def gone(pod: Object, attempt: int, now: float) -> AttemptSeen:
    """A pod was deleted: where it had not ended before, its attempt is lost."""
    if ((pod.get("status") or {}).get("phase")) in {"Succeeded", "Failed"}:
        return _ended(pod, attempt)
    started = _time((pod.get("status") or {}).get("startTime"))
    reason, message = _disruption(pod) or ("PodGone", "the pod was deleted before it had ended")
    node = (pod.get("spec") or {}).get("nodeName")
    return AttemptSeen(attempt, "ended", node, started, now, reason=reason, message=message, disrupted=True)


def overdue(pod: Object) -> float | None:
    """When a pod that was told to end, and has not, is given up: its node does not answer. None while it may run.

    A kubelet that lives ends a pod within its grace period. One that is dead leaves it so until somebody removes the
    node, which may be never; the trial need not wait for that.
    """
    told = pod["metadata"].get("deletionTimestamp")
    if told is None or (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}:
        return None
    return epoch_seconds(told) + _OVERDUE_SECONDS  # the API server has added the grace period to it


def job_without_pod(job: Object | None, attempt: int, now: float, last_event: str | None) -> AttemptSeen | None:
    """What a Job (None: it is gone) means of which no pod is to be seen."""
    conditions = {c["type"] for c in ((job or {}).get("status") or {}).get("conditions") or [] if c["status"] == "True"}
    if job is None or conditions & {"Failed", "Complete", "FailureTarget", "SuccessCriteriaMet"}:
        lost = "the pod was deleted before its end was seen"
        return AttemptSeen(attempt, "ended", finished=now, reason="PodGone", message=lost, disrupted=True)
    if last_event is not None:
        return AttemptSeen(attempt, "waiting", reason="PodsNotCreated", message=last_event)
    return None


def _ended(pod: Object, attempt: int) -> AttemptSeen:
    status = pod["status"]
    statuses = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    ends = [end for end in (entry.get("state", {}).get("terminated") for entry in statuses) if end]
    # The first container is the training program; a failed one beside it explains a failed pod, but a sidecar that is
    # stopped at the end has a code of its own, which says nothing.
    main = _state(status.get("containerStatuses") or [], "terminated")
    over = [main, *ends] if status["phase"] == "Failed" else []
    failed = next((end for end in over if end.get("exitCode")), None)
    shown = failed or main
    finished = _time(shown.get("finishedAt"))
    disruption = _disruption(pod) or _deleted_before(pod, finished)
    return AttemptSeen(
        attempt,
        "ended",
        node=(pod.get("spec") or {}).get("nodeName"),
        started=_time(main.get("startedAt")) or _time(status.get("startTime")),
        finished=finished,
        exit_code=0 if status["phase"] == "Succeeded" else shown.get("exitCode"),
        reason=status.get("reason") or (disruption[0] if disruption else None) or shown.get("reason"),
        message=status.get("message") or (disruption[1] if disruption else None),
        termination=main.get("message") if failed is None else failed.get("message"),
        disrupted=disruption is not None,
        generation=_generation(pod),
    )


def _state(statuses: list[Object], kind: str) -> Object:
    """The first container's state of a kind; {} when it has none."""
    found: Object = (statuses[0].get("state") or {}).get(kind) or {} if statuses else {}
    return found


def _waiting(status: Object) -> tuple[str | None, str | None]:
    """Why a pod waits, where that is out of the ordinary."""
    for entry in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (entry.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in _ORDINARY_WAITS:
            return waiting["reason"], waiting.get("message")
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return "Unschedulable", condition.get("message")
    return None, None


def _disruption(pod: Object) -> tuple[str, str] | None:
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return condition.get("reason") or "Disrupted", condition.get("message") or "the pod was disrupted"
    return None


def _deleted_before(pod: Object, finished: float | None) -> tuple[str, str] | None:
    """A pod that was deleted while it ran was told to end; one that had ended before was not."""
    meta = pod["metadata"]
    if "deletionTimestamp" not in meta:
        return None
    asked = epoch_seconds(meta["deletionTimestamp"]) - meta.get("deletionGracePeriodSeconds", 0)
    if finished is not None and finished < asked:
        return None
    return "PodDeleted", "the pod was deleted while it ran"


def _generation(pod: Object) -> int | None:
    value = (pod["metadata"].get("annotations") or {}).get(GENERATION_ANNOTATION)
    return int(value) if value and value.isdigit() else None


def _time(text: str | None) -> float | None:
    return epoch_seconds(text) if text else None
