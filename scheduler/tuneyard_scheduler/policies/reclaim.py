"""Who gives way: a queue gets back what it is guaranteed from those that borrow it.

A trial that gets no place, of a queue below its guarantee, has others stopped for it: the least advanced of the queue
that borrows most, and on one node. None is stopped that is not needed, none of a queue that would then be below its own
guarantee, and none again and again.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

from tuneyard_scheduler.books import Holding, StudyBook
from tuneyard_scheduler.prospect import Prospect
from tuneyard_scheduler.queues import QueueBook
from tuneyard_scheduler.reasons import Reason
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import GpuRequest, Preempt, StudyView, Waiting

OFTEN: Final = 8
"""A trial that was stopped so often for others is not stopped again."""
_HELPED: Final = frozenset({Reason.NO_NODE_FITS, Reason.HELD, Reason.QUEUE_LIMIT})


class Victim(NamedTuple):
    """A trial that may be stopped. The smallest is the least advanced: it had its place last."""

    order: tuple[float, int]
    study: str
    trial: int
    attempt: int
    queue: str
    holding: Holding

    @property
    def gpus(self) -> float:
        """What it gives back."""
        return self.holding.gpus


@dataclass(frozen=True, slots=True)
class Need:
    """A further trial of a study, and where others may give way for it."""

    queue: QueueBook
    gpu: GpuRequest
    priority: int
    within: QueueBook | None
    """The queue above within which others give way; None: anywhere."""
    excess: float
    """By how much the trial would take this queue above its limit."""


def least_advanced_borrowers(state: ClusterState, waiting: Iterable[Waiting], most: int | None = None) -> list[Preempt]:
    """Whom to stop for the studies that got no (further) place. Each is applied to the state as it is decided.

    Args:
        state: what is known.
        waiting: these studies, in the order in which they are to be helped.
        most: stop no more than this.
    """
    told: list[Preempt] = []
    plan: _Plan | None = None
    for each in waiting:
        study = state.study(each.study)
        if each.reason not in _HELPED or study is None or study.view is None:
            continue
        queue = state.queue_of(study)
        if queue is None or queue.view is None or queue.view.reclaim == "Never" or queue.used >= queue.guaranteed:
            continue
        held = state.reservation if each.reason == Reason.HELD else None
        state.inventory.set_aside(held.node if held is not None else None)
        for trial in _unhelped(state, study, study.view):
            plan = plan or _Plan(state)
            victims = plan.victims(queue, study.view)
            if not victims or (most is not None and len(told) + len(victims) > most):
                break
            told += plan.tell(victims, queue, trial, study.view)
    state.inventory.set_aside(None)
    return told


def _unhelped(state: ClusterState, study: StudyBook, view: StudyView) -> Iterator[str]:
    """The trials of a study that could run, if only they had a place, and for whom nobody gives way yet."""
    helped = {leaving.trial for leaving in state.leaving.values() if leaving.study == study.key}
    more = max(0, min(len(study.ready), view.parallel - study.attempts) - len(helped))
    trials = (f"{study.key}-{index}" for index in study.ready.ascending())
    return islice((trial for trial in trials if trial not in helped), more)


class _Plan:
    """Finds victims, and reckons with those that are found."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._prospect = Prospect(state)
        self._studies: defaultdict[str, list[StudyBook]] | None = None

    def victims(self, queue: QueueBook, view: StudyView) -> list[Victim]:
        """Whom to stop for a further trial of this study; empty where nobody can, or need be."""
        need = self._need(queue, view)
        if need is None:
            return []
        borrowers = self._borrowers(need)
        latest = (victim for name in borrowers for victim in self._latest(name, need))
        free = self._state.inventory.free(need.gpu.resource, need.gpu.model)
        if free.fullest(need.gpu.count) is not None:
            return self._enough(latest, need, need.excess)
        tried: set[str] = set()
        for first in latest:
            node, resource = first.holding.node, first.holding.resource
            if node in tried or resource != need.gpu.resource or node not in free:
                continue
            tried.add(node)
            missing = need.gpu.count - self._prospect.left(node, resource)
            if missing <= 0:
                return []  # it fits as soon as those have gone who were told to
            chosen = self._enough(self._on(node, need, borrowers), need, max(missing, need.excess))
            if chosen:
                return chosen
        return []

    def _by_queue(self) -> defaultdict[str, list[StudyBook]]:
        """The studies that hold GPUs, by their queue; looked for once a cycle, and only if need be."""
        if self._studies is None:
            self._studies = defaultdict(list)
            for study in self._state.studies():
                if study.holding and study.queue is not None:
                    self._studies[study.queue].append(study)
        return self._studies

    def _latest(self, queue: str, need: Need) -> Iterator[Victim]:
        """The trials of a queue that may be stopped, the least advanced first."""
        studies = [self._holders(study) for study in self._by_queue()[queue] if _may_go(study, need)]
        return heapq.merge(*studies)

    def _holders(self, study: StudyBook) -> Iterator[Victim]:
        for _, negative in study.holding.ascending():
            victim = self._victim(study, -negative)
            if victim is not None:
                yield victim

    def _on(self, node: str, need: Need, borrowers: list[str]) -> list[Victim]:
        """The trials on a node that may be stopped: of the queue that borrows most first, the least advanced first."""
        found: list[Victim] = []
        for key, index in self._state.holders(node, need.gpu.resource):
            study = self._state.study(key)
            if study is not None and study.queue in borrowers and _may_go(study, need):
                victim = self._victim(study, index)
                found += [victim] if victim is not None else []
        return sorted(found, key=lambda victim: (borrowers.index(victim.queue), victim[:3]))

    def _victim(self, study: StudyBook, index: int) -> Victim | None:
        trial = study.trials[index]
        view, holding = trial.view, trial.holding
        if view is None or holding is None or study.queue is None or view.preempted >= OFTEN:
            return None
        return Victim(holding.order, study.key, index, view.attempt, study.queue, holding)

    def tell(self, victims: list[Victim], queue: QueueBook, trial: str, view: StudyView) -> list[Preempt]:
        """Decide it, and reckon with it from now on."""
        needs = view.gpu.count if view.gpu is not None else 0
        told = [Preempt(v.study, v.trial, v.attempt, queue.name, trial, needs) for v in victims]
        for each, victim in zip(told, victims, strict=True):
            self._state.preempt(each)
            self._prospect.expect(self._state.leaving[each.study, each.index], self._state.queues.get(victim.queue))
        return told

    def _need(self, queue: QueueBook, view: StudyView) -> Need | None:
        """What a further trial needs; None where its queue has no right to it.

        Where a queue above has all that it is guaranteed, or may not have more, those give way that are in it as well.
        """
        if view.gpu is None or not self._is_due(queue, view.gpu.count):
            return None
        path = list(queue.path())
        excess = {
            each.name: self._prospect.used(each) + view.gpu.count - each.limit
            for each in path
            if each.limit is not None
        }
        if any(above > view.gpu.count for above in excess.values()):
            return None  # a limit was lowered: first those end that run
        within = (each for each in path if excess.get(each.name, 0) > 0 or not self._is_due(each, view.gpu.count))
        return Need(queue, view.gpu, view.priority, next(within, None), max(0, *excess.values(), 0))

    def _is_due(self, queue: QueueBook, gpus: float) -> bool:
        """Whether the queue is guaranteed so many GPUs more."""
        return self._prospect.used(queue) + gpus <= queue.guaranteed

    def _borrowers(self, need: Need) -> list[str]:
        """The queues of which trials may be stopped, the one that borrows most first: compared from the top down."""
        found: list[tuple[list[float], str]] = []
        for name in self._by_queue():
            queue = self._state.queues.get(name)
            assert queue is not None, "a queue that is charged is known"
            if queue is need.queue or (need.within is not None and need.within not in queue.path()):
                continue
            excess = [(self._prospect.used(q) - q.guaranteed) / q.weight for q in _below(queue, need.queue)]
            if all(above > 0 for above in excess):
                found.append((excess[::-1], name))
        return [name for _, name in sorted(found, reverse=True)]

    def _enough(self, victims: Iterable[Victim], need: Need, gpus: float) -> list[Victim]:
        """The first of these that together give so many GPUs, without any that is not needed; none if all do not."""
        chosen: list[Victim] = []
        freed: defaultdict[str, float] = defaultdict(float)
        got = 0.0
        for victim in victims:
            if got >= gpus:
                break
            holder = self._state.queues.get(victim.queue)
            below = _below(holder, need.queue) if holder is not None else []
            if any(self._prospect.used(q) - freed[q.name] - victim.gpus < q.guaranteed for q in below):
                continue
            for each in below:
                freed[each.name] += victim.gpus
            chosen.append(victim)
            got += victim.gpus
        for victim in sorted(chosen, reverse=True):
            if got - victim.gpus >= gpus:
                got -= victim.gpus
                chosen.remove(victim)
        return chosen if got >= gpus else []


def _may_go(study: StudyBook, need: Need) -> bool:
    """Whether the policy of the queue in need lets trials of a study be stopped."""
    lower = study.view is None or study.view.priority < need.priority
    return lower or need.queue.view is None or need.queue.view.reclaim == "Any"


def _below(queue: QueueBook, other: QueueBook) -> list[QueueBook]:
    """A queue and those above it that are not above (nor the same as) another one."""
    above = set(other.path())
    return [each for each in queue.path() if each not in above]
