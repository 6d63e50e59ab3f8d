"""A queue serves the namespaces that it names, up to its limit of GPUs."""

from __future__ import annotations

from tuneyard_scheduler.books import StudyBook
from tuneyard_scheduler.reasons import Reason, Refusal
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import StudyView


def gate(state: ClusterState, study: StudyBook, view: StudyView) -> Refusal | None:
    """Refuse where the study's queue does not exist, is not for it, or has no GPUs left for a further trial."""
    del study
    if view.queue is None:
        return None
    queue = state.queue(view.queue)
    if queue is None or queue.view is None:
        return Refusal(
            Reason.QUEUE_NOT_FOUND, f"there is no GpuQueue '{view.queue}'; create it, or change spec.queue of the study"
        )
    if queue.view.namespaces is not None and view.namespace not in queue.view.namespaces:
        return Refusal(
            Reason.QUEUE_NOT_ALLOWED,
            f"GpuQueue '{view.queue}' is not for namespace '{view.namespace}'; add it to spec.namespaces of the queue, "
            "or change spec.queue of the study",
        )
    if view.gpu is None or queue.view.limit is None or queue.used + view.gpu.count <= queue.view.limit:
        return None
    return Refusal(
        Reason.QUEUE_LIMIT,
        f"needs {view.gpu.count} of GpuQueue '{view.queue}', of whose {queue.view.limit} GPUs {queue.used} are in use",
    )
