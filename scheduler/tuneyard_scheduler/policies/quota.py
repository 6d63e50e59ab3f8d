"""A queue serves the namespaces that it names, up to its limit of GPUs and the limits of all above it."""

from __future__ import annotations

import math

from tuneyard_scheduler.books import StudyBook
from tuneyard_scheduler.devices import amount
from tuneyard_scheduler.queues import QueueBook
from tuneyard_scheduler.reasons import Reason, Refusal
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import StudyView


def gate(state: ClusterState, study: StudyBook, view: StudyView) -> Refusal | None:
    """Refuse where the study's queue cannot be used by it, or has no GPUs left for a further trial."""
    queue = state.queue_of(study)
    if queue is None or queue.view is None:
        return Refusal(
            Reason.QUEUE_NOT_FOUND, f"there is no GpuQueue '{view.queue}'; create it, or change spec.queue of the study"
        )
    return _closed(queue, view) or _full(queue, view)


def _closed(queue: QueueBook, view: StudyView) -> Refusal | None:
    """Why the queue is not for this study."""
    if queue.problem is not None:
        return Refusal(Reason.QUEUE_NOT_READY, f"GpuQueue '{queue.name}' cannot be used: {queue.problem.message}")
    if queue.children:
        parts = ", ".join(sorted(child.name for child in queue.children))
        return Refusal(
            Reason.QUEUE_HAS_PARTS,
            f"GpuQueue '{queue.name}' has parts, and trials are of one of these; write it as spec.queue of the study: "
            f"{parts}",
        )
    for each in queue.path:
        if each.view is not None and each.view.namespaces is not None and view.namespace not in each.view.namespaces:
            return Refusal(
                Reason.QUEUE_NOT_ALLOWED,
                f"GpuQueue '{each.name}' is not for namespace '{view.namespace}'; add it to spec.namespaces of the "
                "queue, or change spec.queue of the study",
            )
    return None


def _full(queue: QueueBook, view: StudyView) -> Refusal | None:
    """Whether a further trial would take more than a limit allows."""
    full = over_limit(queue, view.gpu.gpus) if view.gpu is not None else None
    if view.gpu is None or full is None:
        return None
    return Refusal(
        Reason.QUEUE_LIMIT,
        f"needs {view.gpu.gpus:g} of GpuQueue '{full.name}', of whose {full.limit:g} GPUs {full.used:g} are in use",
    )


def over_limit(queue: QueueBook, gpus: float) -> QueueBook | None:
    """The queue itself, or the nearest one above it, whose limit does not allow this many GPUs more."""
    return next((each for each in queue.path if each.limit is not None and amount(each.used + gpus) > each.limit), None)


def headroom(queue: QueueBook | None) -> tuple[QueueBook | None, float]:
    """How many GPUs more the queue's trials may have, and the queue (it, or one above it) that allows the fewest."""
    limited = (each for each in (queue.path if queue is not None else ()) if each.limit is not None)
    rooms = [(amount((each.limit or 0.0) - each.used), each) for each in limited]
    room, tightest = min(rooms, key=lambda found: found[0], default=(math.inf, None))
    return tightest, room
