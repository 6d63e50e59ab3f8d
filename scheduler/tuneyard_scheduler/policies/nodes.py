"""Which node: the fullest one that fits, so that whole nodes stay free for those who need many GPUs."""

from __future__ import annotations

from tuneyard_scheduler.books import TrialBook
from tuneyard_scheduler.reasons import Reason, Refusal
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import StudyView


def fullest_that_fits(state: ClusterState, view: StudyView, trial: TrialBook) -> str | Refusal | None:
    """The node with the fewest free GPUs that are enough; one that the trial avoids only where no other fits.

    None for a trial without GPUs: Kubernetes chooses its node.
    """
    gpu = view.gpu
    if gpu is None:
        return None
    free = state.inventory.free(gpu.resource, gpu.model)
    avoid = trial.view.avoid if trial.view is not None else ()
    node = free.fullest(gpu.count, avoid) or free.fullest(gpu.count)
    if node is not None:
        return node
    if not free:
        model = f" of model {gpu.model}" if gpu.model else ""
        return Refusal(Reason.NO_GPU_NODES, f"no node that is ready and schedulable has {gpu.resource}{model}")
    nodes = "1 node" if len(free) == 1 else f"{len(free)} nodes"
    return Refusal(Reason.NO_NODE_FITS, f"needs {gpu} on one node; the freest of {nodes} has {free.most_free()} free")
