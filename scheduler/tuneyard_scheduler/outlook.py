"""What those who wait may expect: their place in line, and when they may start.

Estimates, made of how long siblings of the trials that run took, and honest: there is none where that is not known.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from operator import attrgetter
from typing import Final, NamedTuple

from tuneyard_scheduler import expected
from tuneyard_scheduler.books import Reservation, StudyBook
from tuneyard_scheduler.durations import LIKELY, TYPICAL
from tuneyard_scheduler.inventory import Offer
from tuneyard_scheduler.policies import DEFAULT, Policies
from tuneyard_scheduler.policies.quota import over_limit
from tuneyard_scheduler.queues import QueueBook
from tuneyard_scheduler.reasons import Reason
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Outlook, StudyView, Waiting

IN_LINE: Final = frozenset({Reason.NO_NODE_FITS, Reason.HELD, Reason.QUEUE_LIMIT})
"""The reasons of those who wait for GPUs."""

_ROUNDING: Final = 1e-6


class _End(NamedTuple):
    """When a trial gives its GPUs back."""

    at: float
    gpus: float
    node: str
    resource: str
    queue: QueueBook | None


def outlook(
    state: ClusterState, waiting: Iterable[Waiting], now: float, policies: Policies = DEFAULT
) -> dict[str, Outlook]:
    """What each study that waits may expect; costs a look at every trial that holds GPUs.

    Args:
        state: what is known.
        waiting: who waits and why, in the order of the line.
        now: epoch seconds.
        policies: the rules by which they stand in line.
    """
    waits = [(each, study) for each in waiting if (study := state.study(each.study)) is not None]
    positions = _positions(state, waits, now, policies)
    estimates = _Estimates(state, now)
    return {study.key: Outlook(positions.get(study.key), estimates.start(each, study)) for each, study in waits}


def _positions(
    state: ClusterState, waits: Iterable[tuple[Waiting, StudyBook]], now: float, policies: Policies
) -> dict[str, int]:
    """Places in the lines of the queues."""
    lines: defaultdict[str, list[tuple[tuple[float, ...], str]]] = defaultdict(list)
    for each, study in waits:
        if each.reason in IN_LINE and study.view is not None and study.queue is not None:
            lines[study.queue].append((policies.order(study, study.view, now), study.key))
    return {key: number for line in lines.values() for number, (_, key) in enumerate(sorted(line), 1)}


class _Estimates:
    """Goes down the line: who comes first takes what falls free first."""

    def __init__(self, state: ClusterState, now: float) -> None:
        self._state = state
        self._now = now
        self._ends = sorted((end for study in state.studies() for end in self._of(study)), key=attrgetter("at"))
        self._ahead: defaultdict[str, int] = defaultdict(int)
        """Who stands before the next one in line, by resource."""

    def _of(self, study: StudyBook) -> list[_End]:
        """The ends of a study's trials that hold GPUs, as far as they are known."""
        queue = self._state.queue_of(study)
        found = []
        for *_, negative in study.holding:
            trial = study.trials[-negative]
            end = expected.end(study, trial, self._now, TYPICAL)
            if trial.holding is not None and end is not None:
                held = trial.holding.held
                found.append(_End(end, held.gpus, held.node, held.resource, queue))
        return found

    def start(self, waiting: Waiting, study: StudyBook) -> float | None:
        """When the next trial of a study may start."""
        view = study.view
        match waiting.reason:
            case Reason.BACKOFF:
                return study.trials[waiting.index].share.pending
            case Reason.PARALLEL_LIMIT:
                return self._next_of(study)
            case Reason.QUEUE_LIMIT if view is not None and view.gpu is not None:
                return self._within_limit(study, self._state.inventory.least(view.gpu, view.needs))
            case Reason.NO_NODE_FITS | Reason.HELD if view is not None and view.gpu is not None:
                return self._with_room(view, self._state.inventory.offers(view.gpu, view.needs))
        return None

    def _next_of(self, study: StudyBook) -> float | None:
        """When one of its own ends. Those without GPUs are supposed to end one after the other at equal intervals."""
        if study.holding:
            return min((end.at for end in self._of(study)), default=None)
        each = expected.seconds(study, TYPICAL)
        return self._now + each / study.attempts if each is not None and study.attempts else None

    def _within_limit(self, study: StudyBook, gpus: float) -> float | None:
        """When so many GPUs of the full queue are given back as are missing."""
        queue = self._state.queue_of(study)
        full = over_limit(queue, gpus) if queue is not None else None
        if full is None or full.limit is None or full.limit < gpus:
            return None
        missing = full.used + gpus - full.limit
        for end in self._ends:
            if end.queue is not None and full in end.queue.path:
                missing -= end.gpus
                if missing <= _ROUNDING:
                    return end.at
        return None

    def _with_room(self, view: StudyView, offers: list[Offer]) -> float | None:
        """When the node that is kept for it has room; else when a trial ends, for each who stands before it as well.

        Only ends count that give back as much as it needs: how several that give less come together on one node
        nobody knows.
        """
        held = self._state.reservation
        if held is not None and held.study == view.key:
            return self._room_on(held, view, offers)
        turns = self._ahead[view.gpu.resource if view.gpu is not None else ""]
        self._ahead[view.gpu.resource if view.gpu is not None else ""] += 1
        for end in self._ends:
            kept = held is not None and end.node == held.node
            if not kept and any(
                end.resource == offer.resource and end.node in offer.free and end.gpus >= offer.portion.gpus
                for offer in offers
            ):
                turns -= 1
                if turns < 0:
                    return end.at
        return None

    def _room_on(self, held: Reservation, view: StudyView, offers: list[Offer]) -> float | None:
        """When the node has room that is kept, as it looks now."""
        known = expected.ends(self._state, held.node, held.resource, self._now, LIKELY)
        offer = next((offer for offer in offers if offer.resource == held.resource), None)
        at = expected.room(self._state, held.node, offer, view, known) if offer is not None else None
        return None if at == math.inf else at


def noticeably(before: Outlook, after: Outlook, now: float) -> bool:
    """Whether people would call it news: another place in line, or a start that moves by more than a fifth."""
    if before.position != after.position or (before.start is None) != (after.start is None):
        return True
    if before.start is None or after.start is None:
        return False
    return not math.isclose(before.start, after.start, abs_tol=max(_LEAST, (after.start - now) / 5))


_LEAST: Final = 30.0
