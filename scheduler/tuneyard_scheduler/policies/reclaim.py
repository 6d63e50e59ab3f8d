"""Who gives way: a queue gets back what it is guaranteed from those that borrow it.

A trial that gets no place, of a queue below its guarantee, has others stopped for it: the least advanced of the queue
that borrows most, and on one node. None is stopped that is not needed, none of a queue that borrows nothing, and none
again and again. One that its queue borrows in part is stopped only where nothing else helps. It has then no right to
others' places: with it the queue would be above its guarantee again.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Final

from tuneyard_scheduler.books import StudyBook
from tuneyard_scheduler.devices import amount
from tuneyard_scheduler.inventory import Offer
from tuneyard_scheduler.policies import nodes
from tuneyard_scheduler.policies.victims import Amounts, Choice, Group, Need, Site, Victim
from tuneyard_scheduler.prospect import Prospect
from tuneyard_scheduler.queues import QueueBook
from tuneyard_scheduler.reasons import Reason
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Preempt, StudyView, Waiting

OFTEN: Final = 8
"""A trial that was stopped so often for others is not stopped again."""
_COMPARED: Final = 8
"""Where several have to go for one, so many nodes are compared."""
_ROUNDING: Final = 1e-6
_HELPED: Final = frozenset({Reason.NO_NODE_FITS, Reason.HELD, Reason.QUEUE_LIMIT})


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
        if queue is None or queue.view is None or queue.view.reclaim == "Never":
            continue
        if all(each.used >= each.guaranteed for each in queue.path):
            continue
        held = state.reservation if each.reason == Reason.HELD else None
        state.inventory.aside = held.node if held is not None else None
        for index in _unhelped(state, study, study.view):
            plan = plan or _Plan(state)
            view = study.fitted(index)
            need, victims = plan.find(queue, view) if view is not None else (None, [])
            if need is None or (most is not None and len(told) + len(victims) > most):
                break
            told += plan.tell(victims, need, f"{study.key}-{index}")
    state.inventory.aside = None
    return told


def _unhelped(state: ClusterState, study: StudyBook, view: StudyView) -> Iterator[int]:
    """The trials of a study that could run, if only they had a place, and for whom nobody gives way yet."""
    helped = {leaving.trial for leaving in state.giving.leaving.values() if leaving.study == study.key}
    more = max(0, min(len(study.ready), view.parallel - study.attempts) - len(helped))
    return islice((index for index in study.turns() if f"{study.key}-{index}" not in helped), more)


class _Plan:
    """Finds victims, and reckons with those that are found."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._prospect = Prospect(state)
        self._studies: defaultdict[str, list[StudyBook]] | None = None
        self._hopeless: set[Hashable] = set()
        """Requests for which nobody can be stopped, as long as nobody else is."""

    def find(self, queue: QueueBook, view: StudyView) -> tuple[Need | None, list[Victim]]:
        """Whom to stop for a further trial of this study, where it takes the least; None where nobody can, or need be.

        What it takes of a GPU may depend on the kind, as with memory; so does what its queue has a right to.
        """
        aside = self._state.inventory.aside
        request = queue.name, view.gpu, view.needs, view.cpu, view.memory, view.priority, aside
        if request in self._hopeless:
            return None, []
        offers = self._state.inventory.offers(view.gpu, view.needs) if view.gpu is not None else []
        by_charge: defaultdict[float, list[Offer]] = defaultdict(list)
        for offer in offers:
            if any(self._could_hold(node, offer, view) for node in offer.free):
                by_charge[offer.portion.gpus].append(offer)
        for gpus, alike in sorted(by_charge.items()):
            for need in self._needs(queue, view, gpus, alike):
                victims = self._victims(need, view)
                if victims is None:
                    return None, []
                if victims:
                    return need, victims
        self._hopeless.add(request)
        return None, []

    def _could_hold(self, node: str, offer: Offer, view: StudyView) -> bool:
        """Whether a trial of the study would fit the node if no other one were there."""
        known, portion = self._state.inventory.node(node), offer.portion
        if known is None or self._state.ours(node, offer.resource) < max(portion.units, portion.share):
            return False
        return view.cpu <= (known.cpu or math.inf) and view.memory <= (known.memory or math.inf)

    def _victims(self, need: Need, view: StudyView) -> list[Victim] | None:
        """Whom to stop: empty where nobody can be, None where nobody need be."""
        borrowers = self._borrowers(need)
        latest = (victim for name in borrowers for victim in self._latest(name, need))
        if nodes.has_room(self._state.inventory, need.offers, view):
            return self._enough((Group((victim,), 0.0) for victim in latest), (0.0, need.excess, 0.0, 0.0), need)
        offers = {offer.resource: offer for offer in need.offers}
        tried: set[str] = set()
        best: list[Victim] = []
        for first in latest:
            if _will_do(best, need) or (best and len(tried) >= _COMPARED):
                break
            node, offer = first.held.node, offers.get(first.held.resource)
            if node in tried or offer is None or node not in offer.free or node == self._state.inventory.aside:
                continue
            tried.add(node)
            there = Site(node, offer.resource, self._on(node, offer.resource, need, borrowers))
            found = self._fewest(there, offer, need, view)
            if found is None:
                return None
            best = _fewer(best, found)
        return best

    def _fewest(self, site: Site, offer: Offer, need: Need, view: StudyView) -> list[Victim] | None:
        """Whom to stop on one node; None where it fits as soon as those have gone who were told to."""
        if offer.portion.share:
            missing, choices = self._for_share(site, offer.portion.share)
        else:
            missing, choices = self._for_units(site, offer.portion.units)
        cpu, memory = self._prospect.spare(site.node)
        lacking = max(0.0, view.cpu and view.cpu - cpu), max(0.0, view.memory and view.memory - memory)
        narrow = any(lacking)
        if missing <= 0 and not narrow:
            return None
        others = [Group((victim,), 0.0) for victim in site.victims] if narrow else []
        best: list[Victim] = []
        for groups, lack in choices if missing > 0 else [([], 0.0)]:
            if sum(group.gives for group in groups) < lack - _ROUNDING:
                continue
            best = _fewer(best, self._enough([*groups, *others], (lack, need.excess, *lacking), need))
            if _will_do(best, need):
                break
        return best

    def _for_units(self, site: Site, units: int) -> tuple[float, list[Choice]]:
        """How many whole GPUs are missing on a node, and who could give them."""
        missing = units - self._prospect.on(site.node, site.resource).units
        groups = [Group((victim,), victim.held.units) for victim in site.victims if not victim.held.devices]
        for device, sharers in site.by_device().items():
            freed = sum(sharer.held.share for sharer in sharers)
            if self._prospect.on(site.node, site.resource).left(device) + freed >= 1 - _ROUNDING:
                groups.append(Group(tuple(sharers), 1))
        order = site.order()
        groups.sort(key=lambda group: max(order[v] for v in group.victims))
        return missing, [(groups, missing), (sorted(groups, key=lambda group: group.gpus / group.gives), missing)]

    def _for_share(self, site: Site, share: float) -> tuple[float, list[Choice]]:
        """What is missing of the best GPU on a node, and who could give it: of one GPU all that is needed."""
        lacks = [(Group((victim,), 1), share) for victim in site.victims if not victim.held.devices]
        found: list[Choice] = [([group], lack) for group, lack in lacks]
        missing = share if self._prospect.on(site.node, site.resource).units <= 0 else 0.0
        for device, sharers in site.by_device().items():
            lack = share - self._prospect.on(site.node, site.resource).left(device)
            missing = min(missing, lack)
            found.append(([Group((sharer,), sharer.held.share) for sharer in sharers], lack))
        order = site.order()
        return missing, sorted(found, key=lambda choice: order[choice[0][0].victims[0]])

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
        for *_, negative in study.holding.ascending():
            victim = self._victim(study, -negative)
            if victim is not None:
                yield victim

    def _on(self, node: str, resource: str, need: Need, borrowers: list[str]) -> list[Victim]:
        """The trials on a node that may be stopped: of the queue that borrows most first, the least advanced first."""
        found: list[Victim] = []
        for key, index in self._state.giving.holders(node, resource):
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
        fitted = study.fitted(index)
        cpu, memory = (fitted.cpu, fitted.memory) if fitted is not None else (0.0, 0.0)
        return Victim(holding.order, study.key, index, view.attempt, study.queue, holding.held, cpu, memory)

    def tell(self, victims: list[Victim], need: Need, trial: str) -> list[Preempt]:
        """Decide it, and reckon with it from now on."""
        self._hopeless.clear()
        told = [Preempt(v.study, v.trial, v.attempt, need.queue.name, trial, need.gpus) for v in victims]
        for each, victim in zip(told, victims, strict=True):
            self._state.preempt(each)
            self._prospect.expect(
                self._state.giving.leaving[each.study, each.index], self._state.study(victim.study), each.index
            )
        return told

    def _needs(self, queue: QueueBook, view: StudyView, gpus: float, offers: list[Offer]) -> Iterator[Need]:
        """What a further trial needs that takes so many GPUs, in the ways to be tried; none where there is no right."""
        path = queue.path
        excess = {
            each.name: amount(self._prospect.used(each) + gpus - each.limit) for each in path if each.limit is not None
        }
        if any(above > gpus for above in excess.values()):
            return  # a limit was lowered: first those end that run
        due = [self._is_due(each, gpus) for each in path]
        if any(due):
            within = next((each for each in path if excess.get(each.name, 0) > 0), None)
            need = Need(queue, offers, gpus, view.priority, within, max(0, *excess.values(), 0))
            ways = (False,) if all(due[due.index(True) :]) else (False, True)
            yield from (replace(need, beyond=beyond, partly=partly) for partly in (False, True) for beyond in ways)

    def _is_due(self, queue: QueueBook, gpus: float, freed: float = 0.0) -> bool:
        """Whether the queue is guaranteed so many GPUs more, once so many of its own are given back."""
        return amount(self._prospect.used(queue) + gpus - freed) <= queue.guaranteed

    def _borrowers(self, need: Need) -> list[str]:
        """The queues of which trials may be stopped, the one that borrows most first: compared from the top down.

        Two queues compare where they meet: the one that waits, or the part of the common parent that it is in, is to be
        below its guarantee there, and the other one above.
        """
        found: list[tuple[int, list[float], str]] = []
        for name in self._by_queue():
            queue = self._state.queues.get(name)
            assert queue is not None, "a queue that is charged is known"
            path = need.queue.path_beside(queue)
            if not path or (need.within is not None and need.within not in queue.path):
                continue
            excess = [(self._prospect.used(q) - q.guaranteed) / q.weight for q in queue.path_beside(need.queue)]
            if all(above > 0 for above in excess) and (need.beyond or self._is_due(path[-1], need.gpus)):
                found.append((-len(path) if need.beyond else 0, excess[::-1], name))
        return [name for *_, name in sorted(found, reverse=True)]

    def _enough(self, groups: Iterable[Group], lacks: Amounts, need: Need) -> list[Victim]:
        """The first of these that together give what lacks.

        None of them is one that is not needed; none at all where all together do not give enough.
        """
        chosen: list[Group] = []
        freed: defaultdict[str, float] = defaultdict(float)
        left = lacks
        for group in groups:
            if not _any(left):
                break
            if self._can_spare(group, need, freed):
                chosen.append(group)
                left = _less(left, group.all)
        for group in sorted(chosen, reverse=True):
            without, others = _less(left, tuple(-each for each in group.all)), [g for g in chosen if g is not group]
            if not _any(without) and self._can_all_spare(others, need):
                left, chosen = without, others
        # A trial may be in several groups: with each of its GPUs, or for its CPU as well.
        return list(dict.fromkeys(v for group in chosen for v in group.victims)) if not _any(left) else []

    def _can_all_spare(self, groups: list[Group], need: Need) -> bool:
        freed: defaultdict[str, float] = defaultdict(float)
        return all(self._can_spare(group, need, freed) for group in groups)

    def _can_spare(self, group: Group, need: Need, freed: defaultdict[str, float]) -> bool:
        """Whether their queues borrow them, the last one maybe in part; if so it is noted as freed.

        And whether the one in need has a right to it, which it may have only because of what is freed near to it.
        """
        freed_now = freed.copy()
        for victim in group.victims:
            holder = self._state.queues.get(victim.queue)
            assert holder is not None, "a queue that is charged is known"
            mine = need.queue.path_beside(holder)[-1]
            if not self._is_due(mine, need.gpus, freed_now[mine.name]):
                return False
            for each in holder.path_beside(need.queue):
                excess = amount(self._prospect.used(each) - freed_now[each.name] - each.guaranteed)
                if excess <= 0 or (excess < victim.gpus and not need.partly):
                    return False
            for each in holder.path:
                freed_now[each.name] += victim.gpus
        freed.update(freed_now)
        return True


def _will_do(victims: list[Victim], need: Need) -> bool:
    """Whether there is no need to look for others: one is enough, or nowhere could fewer GPUs be enough."""
    if len(victims) <= 1:
        return bool(victims)
    return amount(_gpus(victims)) <= min(_least(offer) for offer in need.offers)


def _least(offer: Offer) -> float:
    """What lacks where the most is free: no less can be held by those who go."""
    free, portion = offer.free, offer.portion
    if portion.share:
        return portion.share - free.most_left()
    return (portion.units - free.most_free()) * (1 - free.most_left_of_divided())


def _fewer(some: list[Victim], others: list[Victim]) -> list[Victim]:
    """Those who hold fewer GPUs together; the first ones where that is equal, or the others are none."""
    if not some or not others:
        return some or others
    return others if amount(_gpus(others)) < amount(_gpus(some)) else some


def _gpus(victims: list[Victim]) -> float:
    return sum(victim.gpus for victim in victims)


def _less(amounts: Amounts, others: tuple[float, ...]) -> Amounts:
    gpus, charge, cpu, memory = (mine - theirs for mine, theirs in zip(amounts, others, strict=True))
    return gpus, charge, cpu, memory


def _any(lacks: Amounts) -> bool:
    return any(lack > _ROUNDING for lack in lacks)


def _may_go(study: StudyBook, need: Need) -> bool:
    """Whether the policy of the queue in need lets trials of a study be stopped."""
    lower = study.view is None or study.view.priority < need.priority
    return lower or need.queue.view is None or need.queue.view.reclaim == "Any"
