"""Which node and GPU: the fullest that fits, so that whole GPUs and whole nodes stay free for those who need them.

Or the emptiest, for studies that ask for it (`gpu.packing: Spread`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tuneyard_api.common import timestamp
from tuneyard_api.gpuqueue import DEFAULT_QUEUE
from tuneyard_scheduler.books import TrialBook
from tuneyard_scheduler.devices import GpuRequest, Portion
from tuneyard_scheduler.free import Fits
from tuneyard_scheduler.inventory import Inventory, Offer
from tuneyard_scheduler.policies.quota import headroom
from tuneyard_scheduler.reasons import Reason, Refusal
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import StudyView


class Spot(NamedTuple):
    """Where a trial may run."""

    node: str
    resource: str | None
    """None: no GPU."""
    portion: Portion
    devices: tuple[str, ...] = ()
    """The GPUs themselves, where they have names or one is divided."""


class _Found(NamedTuple):
    """A node that fits; the smallest is the best."""

    gpus: float
    order: tuple[float, ...]
    node: str
    offer: Offer
    device: str | None = None
    """The GPU of which a part is taken already."""


def fullest_that_fits(
    state: ClusterState, view: StudyView, trial: TrialBook, *, charged: bool = False
) -> Spot | Refusal | None:
    """The spot that takes the least of a GPU, and of these the fullest; a node that the trial avoids only if need be.

    None for a trial without GPUs: Kubernetes chooses its node. One that is `charged` already need not fit its queue.
    """
    gpu, inventory = view.gpu, state.inventory
    if gpu is None:
        return None
    offers = inventory.offers(gpu, view.needs)
    if not offers:
        return inventory.until_nodes_change((gpu, view.needs), lambda: _no_offer(inventory, gpu, view))
    queue, room = headroom(state.queues.get(view.queue or DEFAULT_QUEUE))
    allowed = [offer for offer in offers if charged or offer.portion.gpus <= room]
    if not allowed:
        assert queue is not None, "only a queue limits"
        said = f"needs {gpu}, and GpuQueue '{queue.name}' has {room:g} GPUs of its {queue.limit:g} left"
        return Refusal(Reason.QUEUE_LIMIT, said)
    health = state.health
    own = trial.view.avoid if trial.view is not None else ()
    avoid = health.avoided.union(own) if own else health.avoided
    roomy = _roomy(inventory, view)
    best = _best(allowed, gpu, _elsewhere(avoid, roomy)) if avoid else None
    best = best or _best(allowed, gpu, _elsewhere(health.closed, roomy))
    if best is not None:
        return _spot(inventory, best)
    left_alone = _best(allowed, gpu, roomy) if health.closed else None
    return _full(allowed, gpu, view) if left_alone is None else _left_alone(state, left_alone.node)


def _elsewhere(avoid: frozenset[str], fits: Fits | None) -> Fits | None:
    """Whether a node is none of these, and will do in all else."""
    return (lambda name: name not in avoid and (fits is None or fits(name))) if avoid else fits


def _left_alone(state: ClusterState, node: str) -> Refusal:
    """The only nodes that fit are closed for the moment."""
    at = timestamp(state.health.reopens(node))
    said = f"the nodes that fit are left alone for a while, because trials were lost there; {node} is tried after {at}"
    return Refusal(Reason.NODES_AVOIDED, said)


def is_narrow(inventory: Inventory, view: StudyView) -> bool:
    """Whether some node has the GPUs free for a trial that fits nowhere: then it lacks CPU or memory."""
    return view.gpu is not None and _best(inventory.offers(view.gpu, view.needs), view.gpu, None) is not None


def has_room(inventory: Inventory, offers: list[Offer], view: StudyView) -> bool:
    """Whether a further trial of the study fits somewhere."""
    return view.gpu is not None and _best(offers, view.gpu, _roomy(inventory, view)) is not None


def _roomy(inventory: Inventory, view: StudyView) -> Fits | None:
    """Whether a node has CPU and memory for the trial's pod, and is not set aside; None: any will do."""
    if not (view.cpu or view.memory or inventory.aside):
        return None
    return lambda name: inventory.fits(name, view.cpu, view.memory)


def _best(offers: list[Offer], gpu: GpuRequest, fits: Fits | None) -> _Found | None:
    return min((found for offer in offers for found in _candidates(offer, gpu.spread, fits)), default=None)


def _candidates(offer: Offer, spread: bool, fits: Fits | None) -> Iterator[_Found]:
    """The best node of the offer; of those with a GPU that is divided already, and of those with whole free ones."""
    free, portion, sign = offer.free, offer.portion, -1 if spread else 1
    if portion.share:
        divided = (free.loosest if spread else free.tightest)(portion.share, fits)
        if divided is not None:
            node, device = divided
            yield _Found(portion.gpus, (0, 0), node, offer, device)
        fits = _divisible(offer, fits)
    whole = (free.emptiest if spread else free.fullest)(max(1, portion.units), fits)
    if whole is not None:
        yield _Found(portion.gpus, (sign * bool(portion.share), sign * free.units(whole)), whole, offer)


def _divisible(offer: Offer, fits: Fits | None) -> Fits | None:
    """The same, but for nodes of which no further GPU is divided now."""
    undivided = offer.free.undivided
    return (lambda name: name not in undivided and (fits is None or fits(name))) if undivided else fits


def _spot(inventory: Inventory, found: _Found) -> Spot:
    name, resource, portion = found.node, found.offer.resource, found.offer.portion
    if found.device is not None:
        return Spot(name, resource, portion, (found.device,))
    node = inventory.node(name)
    named = node is not None and resource in node.devices
    devices = inventory.devices(name, resource, portion.units or 1) if portion.share or named else ()
    return Spot(name, resource, portion, devices)


def _full(offers: list[Offer], gpu: GpuRequest, view: StudyView) -> Refusal:
    """Why none of the nodes that could serve it does now."""
    count = sum(len(offer.free) for offer in offers)
    nodes = "1 node" if count == 1 else f"{count} nodes"
    if _best(offers, gpu, None) is not None:
        asks = [f"{view.cpu:g} CPU"] if view.cpu else []
        asks += [f"{view.memory / 2**30:.3g} GiB"] if view.memory else []
        said = f"each trial's pod asks for {' and '.join(asks)}, and no node with the GPUs free has that left"
        return Refusal(Reason.NO_NODE_FITS, said)
    if gpu.count:
        most = max(offer.free.most_free() for offer in offers)
        return Refusal(Reason.NO_NODE_FITS, f"needs {gpu} on one node; the freest of {nodes} has {most} free")
    left = max(_most_left(offer) for offer in offers)
    return Refusal(Reason.NO_NODE_FITS, f"needs {gpu}; of {nodes}, the GPU that is used least has {left:g} left")


def _most_left(offer: Offer) -> float:
    return offer.free.most_left() if offer.portion.share else float(offer.free.most_free() > 0)


def _no_offer(inventory: Inventory, gpu: GpuRequest, view: StudyView) -> Refusal:
    """Why no node could ever serve it, as the nodes are."""
    of = gpu.resource + (f" of model {gpu.model}" if gpu.model else "")
    open_nodes = [node for node in inventory.nodes() if node.ready and node.schedulable]
    kinds = [(node, node.kind(resource)) for node in open_nodes for resource in node.capacity]
    having = [(node, kind) for node, kind in kinds if kind.family == gpu.resource and gpu.model in {None, kind.model}]
    if not having:
        return Refusal(Reason.NO_GPU_NODES, f"no node that is ready and schedulable has {of}")
    if not any(view.needs.accepts(node.name, node.labels, node.taints) for node, _ in having):
        said = f"no node with {of} is one that spec.template accepts: see its nodeSelector, affinity and tolerations"
        return Refusal(Reason.NO_GPU_NODES, said)
    if gpu.count:
        return Refusal(
            Reason.NO_GPU_NODES, f"no node hands out whole {of}" + (f" by {gpu.backend}" if gpu.backend else "")
        )
    if gpu.memory and not any(kind.memory for _, kind in having):
        said = f"no node says how much memory its {of} have (label {gpu.resource}.memory); write spec.gpu.fraction"
        return Refusal(Reason.NO_GPU_NODES, said)
    said = f"no node can serve {gpu}: its GPUs cannot be shared, or are too small"
    return Refusal(Reason.NO_GPU_NODES, said)
