"""When what runs is expected to end, and what of a node is free then."""

from __future__ import annotations

import math
from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

from tuneyard_scheduler.books import Held, StudyBook, TrialBook
from tuneyard_scheduler.devices import Portion, amount
from tuneyard_scheduler.inventory import Offer
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import StudyView


def seconds(study: StudyBook, share: float, ran: float = 0.0) -> float | None:
    """How long an attempt of a study runs in all, by this quantile, after it has run so long; None: not known.

    No longer than the study's time-out, which is all that is known before the first attempt has ended.
    """
    total = study.durations.total(share, ran)
    limit = study.view.timeout if study.view is not None else None
    if total is None or limit is None:
        return limit if total is None else total
    return min(total, limit)


def end(study: StudyBook, trial: TrialBook, now: float, share: float) -> float | None:
    """When a trial that has a place gives it back, by this quantile; not before now. None: not known."""
    view = trial.view
    begun = now if trial.assumed is not None else view.started or view.since if view is not None else 0.0
    total = seconds(study, share, max(0.0, now - begun)) if begun else None
    return None if total is None else max(now, begun + total)


class End(NamedTuple):
    """A trial gives back what it holds of a node."""

    at: float
    """Infinite where that is not known."""
    held: Held
    cpu: float
    memory: float


def ends(state: ClusterState, node: str, resource: str, now: float, share: float) -> list[End]:
    """The ends of those that have a place on a node, by this quantile, the first one first."""
    found: list[End] = []
    for key, index, held in state.occupants(node, resource):
        study, trial = state.study(key), state.trial(key, index)
        at = end(study, trial, now, share) if study is not None and trial is not None else None
        view = study.fitted(index) if study is not None else None
        cpu, memory = (view.cpu, view.memory) if view is not None else (0.0, 0.0)
        found.append(End(math.inf if at is None else at, held, cpu, memory))
    return sorted(found, key=attrgetter("at"))


class Emptying:
    """A node's GPUs of one resource name, and its CPU and memory, as trials end."""

    def __init__(self, state: ClusterState, node: str, resource: str) -> None:
        self._inventory, self._node, self._resource = state.inventory, node, resource
        self.units: float = state.inventory.left(node, resource)
        """GPUs of which nobody has anything."""
        self.cpu, self.memory = state.inventory.spare(node)
        self._parts: dict[str, float] = {}
        """What is left of the GPUs that are divided."""

    def left(self, device: str) -> float:
        """What is free of one GPU."""
        left = self._parts.get(device)
        return self._inventory.part_left(self._node, self._resource, device) if left is None else left

    def take(self, units: int, share: float = 0.0, devices: Iterable[str] = ()) -> None:
        """A further trial has a place there: so many whole ones, or a share of each of these."""
        for device in devices if share else ():
            left = self.left(device)
            self.units -= left >= 1.0  # it was whole
            self._parts[device] = amount(left - share)
        self.units -= units

    def give(self, held: Held) -> None:
        """A trial gives back what it holds."""
        for device in held.devices:
            left = amount(self.left(device) + held.share)
            self._parts[device] = left
            self.units += left >= 1.0
        self.units += held.units

    def end(self, end: End) -> None:
        """A trial gives back all that it holds."""
        self.give(end.held)
        self.cpu, self.memory = self.cpu + end.cpu, self.memory + end.memory

    def fits(self, portion: Portion, view: StudyView) -> bool:
        """Whether there is room for a trial of the study, which takes this of the GPUs."""
        if view.cpu > amount(self.cpu) or view.memory > self.memory:
            return False
        if portion.units:
            return self.units >= portion.units
        return self.units >= 1 or any(left >= portion.share for left in self._parts.values())


def room(state: ClusterState, node: str, offer: Offer, view: StudyView, known: Iterable[End]) -> float | None:
    """When a node that has no room for a trial of the study is expected to have it (infinite: not known).

    None where it would not have it even if all trials on it ended, or has it now: then something else is lacking.
    """
    emptying = Emptying(state, node, offer.resource)
    if emptying.fits(offer.portion, view):
        return None
    for end in known:
        emptying.end(end)
        if emptying.fits(offer.portion, view):
            return end.at
    return None
