"""Which node: the fullest one that fits, so that whole nodes stay free for those who need many GPUs."""

from __future__ import annotations

from tuneyard_api.common import timestamp
from tuneyard_scheduler.books import TrialBook
from tuneyard_scheduler.reasons import Reason, Refusal
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import StudyView


def fullest_that_fits(state: ClusterState, view: StudyView, trial: TrialBook) -> str | Refusal | None:
    """The node with the fewest free GPUs that are enough; one that is avoided only where no other fits.

    None for a trial without GPUs: Kubernetes chooses its node.
    """
    gpu = view.gpu
    if gpu is None:
        return None
    free = state.inventory.free(gpu.resource, gpu.model)
    avoid = trial.view.avoid if trial.view is not None else ()
    health = state.health
    node = free.fullest(gpu.count, health.avoided.union(avoid)) or free.fullest(gpu.count, health.closed)
    if node is not None:
        return node
    closed = free.fullest(gpu.count) if health.closed else None
    if closed is not None:
        return _left_alone(state, closed)
    if not free:
        model = f" of model {gpu.model}" if gpu.model else ""
        return Refusal(Reason.NO_GPU_NODES, f"no node that is ready and schedulable has {gpu.resource}{model}")
    nodes = "1 node" if len(free) == 1 else f"{len(free)} nodes"
    return Refusal(Reason.NO_NODE_FITS, f"needs {gpu} on one node; the freest of {nodes} has {free.most_free()} free")


def _left_alone(state: ClusterState, node: str) -> Refusal:
    """The only nodes that fit are closed for the moment."""
    at = timestamp(state.health.reopens(node))
    return Refusal(
        Reason.NODES_AVOIDED,
        f"the nodes that fit are left alone for a while, because trials were lost there; {node} is tried after {at}",
    )
