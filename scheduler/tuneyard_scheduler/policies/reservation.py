"""A node is kept for the first in line that fits nowhere, and others fill in what they give back in time.

A trial that needs several GPUs of one node, or a whole one beside shares, or more CPU or memory than others, would else
wait for ever: whatever falls free goes to smaller ones at once. So the node that is expected to have room for it first
is kept for it, from when that is decided until the trial has a place, wherever that is. Another trial may use the node
meanwhile if it is expected to end before, or needs only what is left beside. Source (EASY): A. Mu'alem, D. Feitelson,
"Utilization, Predictability, Workloads, and User Runtime Estimates in Scheduling the IBM SP2 with Backfilling", IEEE
TPDS 12(6), 2001.

There is one such reservation at a time. Its time does not move: once it has passed, nobody fills in any more, so that
the node empties however wrong the estimates were. The reservation goes to whoever is first in line, but an hour of
waiting goes before the line. So nobody waits for ever whose queue may have the GPUs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import gt
from typing import Final, NamedTuple

from tuneyard_scheduler import expected
from tuneyard_scheduler.books import Reservation, StudyBook
from tuneyard_scheduler.devices import GpuRequest
from tuneyard_scheduler.durations import CAUTIOUS, LIKELY
from tuneyard_scheduler.inventory import Offer
from tuneyard_scheduler.policies import nodes
from tuneyard_scheduler.policies.nodes import Spot
from tuneyard_scheduler.policies.ordering import AGING, rank, waited
from tuneyard_scheduler.queues import QueueBook
from tuneyard_scheduler.reasons import Reason
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import StudyView, Waiting

PATIENCE: Final = 300.0
"""Seconds for which a trial waits before a node is kept for it of which nobody knows when it has room.

Then what falls free there stands idle until it is enough, since nobody is known to end in time.
"""
_NODES: Final = 32
"""So many nodes of a kind are looked at, those with the most free GPUs."""
_STUDIES: Final = 4
"""So many studies are looked at, until a node is found for one."""


_Asks = tuple[float, float, float]
"""GPUs, cores and bytes of memory of a trial."""


class _Room(NamedTuple):
    """A node, and when it is expected to have room. The smallest is the best one."""

    at: float
    """Infinite where that is not known."""
    free: float
    """Whole GPUs that are free there already, with a minus."""
    node: str
    resource: str


def standing(state: ClusterState) -> Reservation | None:
    """The reservation that holds in this cycle; one that has lost its reason is forgotten.

    While its trial has a place that is not on record yet it does not hold, but is not forgotten either: should the
    place come to nothing, all that was kept would be gone.
    """
    held = state.reservation
    if held is None:
        return None
    study, trial = state.study(held.study), state.trial(held.study, held.trial)
    if trial is not None and trial.assumed is not None:
        return None
    waits = trial is not None and trial.share.pending is not None
    view = study.fitted(held.trial) if study is not None else None
    if not waits or view is None or not _can_have_room(state, held, view):
        state.reservation = None
    return state.reservation


def _can_have_room(state: ClusterState, held: Reservation, view: StudyView) -> bool:
    """Whether the node would have room if all trials on it ended, and what they give back is promised to nobody."""
    offer = _offer(state, held, view)
    if offer is None or state.giving.leaving_from(held.node, held.resource):
        return False
    emptied = expected.Emptying(state, held.node, held.resource)
    for end in expected.ends(state, held.node, held.resource, 0.0, LIKELY):
        emptied.end(end)
    narrow = view.cpu > emptied.cpu or view.memory > emptied.memory
    enough = state.ours(held.node, held.resource) >= max(offer.portion.units, offer.portion.share)
    return enough and not narrow


def _offer(state: ClusterState, held: Reservation, view: StudyView) -> Offer | None:
    """The GPUs of the node that is kept, and what a trial of the study takes of them."""
    offers = state.inventory.offers(view.gpu, view.needs) if view.gpu is not None else []
    return next((offer for offer in offers if offer.resource == held.resource and held.node in offer.free), None)


# Who may use the node meanwhile ------------------------------------------------------------------------------------


def is_no_delay(state: ClusterState, held: Reservation, study: StudyBook, spot: Spot, now: float) -> bool:
    """Whether a trial of this study may have this spot on the node that is kept for another one.

    It may if it goes before the other one by right, or will not be in its way.
    """
    owner = state.study(held.study)
    if owner is None or owner.view is None or _goes_before(state, study, owner, now):
        return True
    runs = expected.seconds(study, CAUTIOUS)
    if runs is not None and now + runs <= held.at:
        return True
    view = owner.fitted(held.trial)
    offer = _offer(state, held, view) if view is not None else None
    if offer is None or view is None or study.view is None:
        return False
    emptying = expected.Emptying(state, held.node, held.resource)
    emptying.cpu, emptying.memory = emptying.cpu - study.view.cpu, emptying.memory - study.view.memory
    if spot.resource == held.resource:
        emptying.take(spot.portion.units, spot.portion.share, spot.devices)
    for end in expected.ends(state, held.node, held.resource, now, CAUTIOUS):
        if end.at <= held.at:
            emptying.end(end)
    return emptying.fits(offer.portion, view)


def _goes_before(state: ClusterState, study: StudyBook, owner: StudyBook, now: float) -> bool:
    """Whether a study need not respect a reservation: a guarantee goes before it, and a priority within the queue."""
    queue, other = state.queue_of(study), state.queue_of(owner)
    assert study.view is not None, "only known studies stand in line"
    assert owner.view is not None, "see is_no_delay"
    if queue is None or other is None:
        return False
    if queue is not other:  # they compare where they meet
        return _is_due(state, study.view, queue.path_beside(other)[-1])
    if rank(study, study.view, now) > rank(owner, owner.view, now):
        return True
    return _is_due(state, study.view, queue) and not _is_due(state, owner.view, queue)


def _is_due(state: ClusterState, view: StudyView, queue: QueueBook) -> bool:
    """Whether a queue is guaranteed what a further trial of a study in it needs."""
    if view.gpu is None:
        return False
    return queue.used + state.inventory.least(view.gpu, view.needs) <= queue.guaranteed


# For whom a node is kept -------------------------------------------------------------------------------------------


def for_the_first_that_fits_nowhere(state: ClusterState, waiting: list[Waiting], now: float) -> Reservation | None:
    """The reservation from now on: the present one for as long as its trial waits for nothing but room."""
    held = state.reservation
    if held is not None:
        mine = next((each for each in waiting if each.study == held.study), None)
        if (mine is None or mine.reason == Reason.NO_NODE_FITS) and held.study not in _helped(state):
            return held
    search = _Search(state, now)
    for study, view, index in islice(_candidates(state, waiting, now), _STUDIES):
        room = search.soonest(study, view, index, patient=waited(study, now) < PATIENCE)
        if room is not None:
            return Reservation(view.key, index, room.node, room.resource, room.at if room.at < math.inf else now)
    return None


def _candidates(
    state: ClusterState, waiting: Iterable[Waiting], now: float
) -> Iterator[tuple[StudyBook, StudyView, int]]:
    """Those that no node fits and that are not helped otherwise, if there are smaller ones that get before them."""
    lacking = [each for each in waiting if each.reason == Reason.NO_NODE_FITS]
    if not lacking:
        return
    helped, smallest = _helped(state), _smallest(state)
    books = [(state.study(each.study), each.index) for each in lacking if each.study not in helped]
    known = [(s, view, index) for s, index in books if s is not None and (view := s.fitted(index)) is not None]
    for study, view, index in sorted(known, key=lambda each: -(waited(each[0], now) // AGING)):
        if view.gpu is None:
            continue
        gpus, *more = map(gt, _asks(state, view, view.gpu), smallest[view.gpu.resource])
        if gpus or (any(more) and nodes.is_narrow(state.inventory, view)):
            yield study, view, index


def _helped(state: ClusterState) -> set[str]:
    """The studies for whom others give way."""
    return {leaving.study for leaving in state.giving.leaving.values()}


def _asks(state: ClusterState, view: StudyView, gpu: GpuRequest) -> _Asks:
    return state.inventory.least(gpu, view.needs), view.cpu, view.memory


def _smallest(state: ClusterState) -> dict[str, _Asks]:
    """By vendor, the least that a trial takes of each of those that run or wait."""
    found: dict[str, _Asks] = {}
    for study in state.studies():
        view = study.view
        if view is not None and view.gpu is not None and (study.gpus or study.pending):
            gpus, cpu, memory = _asks(state, view, view.gpu)
            least = found.get(view.gpu.resource, (math.inf, math.inf, math.inf))
            found[view.gpu.resource] = min(gpus, least[0]), min(cpu, least[1]), min(memory, least[2])
    return found


class _Search:
    """Finds the node that has room first; what it has found out of a node it does not find out again."""

    def __init__(self, state: ClusterState, now: float) -> None:
        self._state = state
        self._now = now
        self._ends: dict[tuple[str, str], list[expected.End]] = {}

    def soonest(self, study: StudyBook, view: StudyView, index: int, *, patient: bool) -> _Room | None:
        """Of the emptiest nodes, the one that is expected to have room first; one that the trial avoids if need be.

        As long as it is patient, one of which that is not known is none.
        """
        trial = study.trials[index].view
        avoid = trial.avoid if trial is not None else ()
        offers = self._state.inventory.offers(view.gpu, view.needs) if view.gpu is not None else []
        looked_at = ((offer, node) for offer in offers for node in offer.free.roomiest(_NODES))
        rooms = [room for offer, node in looked_at if (room := self._room(node, offer, view, patient)) is not None]
        return min(rooms, key=lambda room: (room.node in avoid, room), default=None)

    def _room(self, node: str, offer: Offer, view: StudyView, patient: bool) -> _Room | None:
        """When a node is expected to have room; None where it would not even if all trials on it ended."""
        resource = offer.resource
        if self._state.giving.leaving_from(node, resource):
            return None  # what falls free there is promised
        known = self._ends.get((node, resource))
        if known is None:
            known = self._ends[node, resource] = expected.ends(self._state, node, resource, self._now, LIKELY)
        if patient and (not known or known[0].at == math.inf):
            return None
        at = expected.room(self._state, node, offer, view, known)
        if at is None or (patient and at == math.inf):
            return None
        return _Room(at, -self._state.inventory.left(node, resource), node, resource)
