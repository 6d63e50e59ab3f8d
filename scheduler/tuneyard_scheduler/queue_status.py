"""What a queue's status says: its figures, and whether it is as it should be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tuneyard_api.common import timestamp
from tuneyard_scheduler.queues import QueueBook, QueueTree
from tuneyard_scheduler.reasons import QueueReason, Refusal

Object = dict[str, Any]


def status(
    tree: QueueTree, queue: QueueBook, capacity: float, conditions: Iterable[Mapping[str, Any]], now: float
) -> Object:
    """The status of a queue that exists.

    Args:
        tree: all queues.
        queue: this one.
        capacity: the cluster's GPUs.
        conditions: those that it has.
        now: epoch seconds; the time of conditions that change.
    """
    before = {condition["type"]: condition for condition in conditions}
    problems = {"Ready": queue.problem, "Guaranteed": _unkept(tree, queue, capacity)}
    generation = queue.view.generation if queue.view is not None else None
    return {
        "guaranteed": queue.guaranteed,
        "used": queue.used,
        "borrowed": queue.borrowed,
        "pending": queue.pending,
        "conditions": [
            _condition(kind, problem, before.get(kind), now)
            | ({"observedGeneration": generation} if generation else {})
            for kind, problem in problems.items()
        ],
    }


def _condition(kind: str, problem: Refusal | None, before: Mapping[str, Any] | None, now: float) -> Object:
    """A condition that is true unless there is a problem; its time is that of its last change."""
    holds = "True" if problem is None else "False"
    since = before["lastTransitionTime"] if before is not None and before["status"] == holds else timestamp(now)
    reason, message = problem or (_WELL[kind], "")
    return {"type": kind, "status": holds, "reason": str(reason), "message": message, "lastTransitionTime": since}


_WELL = {"Ready": "Usable", "Guaranteed": "Kept"}


def _unkept(tree: QueueTree, queue: QueueBook, capacity: float) -> Refusal | None:
    """Why the guarantee cannot always be kept."""
    if not queue.guaranteed:
        return None
    above = queue.parent
    if above is not None and above.promised > above.guaranteed:
        said = (
            f"the parts of GpuQueue '{above.name}' are guaranteed {above.promised:g} GPUs together, and it has "
            f"{above.guaranteed:g}; lower spec.guaranteed of them, or raise that of '{above.name}'"
        )
        return Refusal(QueueReason.ABOVE_PARENT, said)
    tight = next((each for each in queue.path if each.limit is not None and each.limit < queue.guaranteed), None)
    if tight is not None:
        said = (
            f"{queue.guaranteed:g} GPUs are more than the limit of GpuQueue '{tight.name}' ({tight.limit:g}); "
            "lower spec.guaranteed, or raise that limit"
        )
        return Refusal(QueueReason.ABOVE_LIMIT, said)
    if tree.promised > capacity:
        said = (
            f"all queues are guaranteed {tree.promised:g} GPUs together, and the cluster has {capacity:g}; lower "
            "spec.guaranteed of some, or add nodes"
        )
        return Refusal(QueueReason.ABOVE_CAPACITY, said)
    return None
