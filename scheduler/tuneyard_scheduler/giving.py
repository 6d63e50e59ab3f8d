"""Who holds GPUs that could be given back, and who was told to give them back, for whom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from tuneyard_api.trial import Reclaim
from tuneyard_scheduler.books import Leaving, StudyBook, TrialBook
from tuneyard_scheduler.devices import Slot, amount
from tuneyard_scheduler.inventory import Inventory
from tuneyard_scheduler.views import Preempt

Key = tuple[str, int]
"""A trial: its study's key, and its index."""


class Giving:
    """The holders of GPUs by node. Each change costs O(trials that leave the node)."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self.leaving: dict[Key, Leaving] = {}
        """GPUs that are on their way to the queues that are guaranteed them, by the trial that holds them still."""
        self._leaving_on: defaultdict[tuple[str, str], dict[Key, Leaving]] = defaultdict(dict)
        self._holders: defaultdict[tuple[str, str], set[Key]] = defaultdict(set)

    def holders(self, node: str, resource: str) -> Iterable[Key]:
        """The trials that could give GPUs of a node back."""
        return self._holders.get((node, resource), set())

    def leaving_from(self, node: str, resource: str) -> dict[Key, Leaving]:
        """What trials on a node were told to give back."""
        return self._leaving_on.get((node, resource), {})

    def tell(self, study: StudyBook, index: int, trial: TrialBook, told: Preempt | Reclaim) -> None:
        """A trial that has a place with GPUs is to give them back."""
        held = trial.held()
        assert held is not None, "only GPUs of a node are given back"
        self.leave(study, index, trial, Leaving(held, told.queue, told.trial, told.gpus))

    def hear(self, study: StudyBook, index: int, trial: TrialBook) -> bool:
        """The record may say that the trial is to give its GPUs back, told by this process or an earlier one."""
        placement = trial.view.placement if trial.view is not None else None
        if placement is None or placement.reclaim is None or trial.leaving is not None or not trial.share.gpus:
            return False
        if not placement.reclaim.trial or trial.held() is None:
            return False  # it waits for a node that does not come, and nobody gets anything of it
        self.tell(study, index, trial, placement.reclaim)
        return True

    def leave(self, study: StudyBook, index: int, trial: TrialBook, leaving: Leaving | None) -> None:
        """Note what a trial gives back; None: it has, or need not."""
        before, trial.leaving = trial.leaving, leaving
        self.note(study, index, trial)
        key = study.key, index
        if before is not None:
            del self.leaving[key]
            at = before.held.node, before.held.resource
            del self._leaving_on[at][key]
            self._keep_for_those_helped(*at)
        if leaving is not None:
            at = leaving.held.node, leaving.held.resource
            self.leaving[key] = self._leaving_on[at][key] = leaving
            self._keep_for_those_helped(*at)

    def note(self, study: StudyBook, index: int, trial: TrialBook) -> None:
        """Keep those in order who could give GPUs back."""
        old, new = trial.holding, trial.could_give(study.view)
        if new == old:
            return
        trial.holding = new
        if old is not None:
            study.holding.discard(old.order)
            self._holders[old.held.node, old.held.resource].discard((study.key, index))
        if new is not None:
            self._inventory.touched.update(Slot(new.held.node, new.held.resource, each) for each in new.held.devices)
            study.holding.add(new.order)
            self._holders[new.held.node, new.held.resource].add((study.key, index))

    def _keep_for_those_helped(self, node: str, resource: str) -> None:
        """What is free on a node beside GPUs that are given back is kept, as far as those need it who get them."""
        whole, parts, closed = 0.0, dict[str, float](), set[str]()
        for leaving in _by_trial(self._leaving_on[node, resource].values()):
            needs, first = leaving[0].needs, leaving[0].held
            if needs < 1 and first.devices:
                device = first.devices[0]
                given = sum(each.held.share for each in leaving if device in each.held.devices)
                parts[device] = amount(parts.get(device, 0.0) + max(0.0, needs - given))
            else:
                whole += max(0.0, needs - sum(each.held.gpus for each in leaving))
                closed |= {device for each in leaving for device in each.held.devices if needs >= 1}
        self._inventory.keep(node, resource, whole, closed, parts)


def _by_trial(leaving: Iterable[Leaving]) -> Iterable[list[Leaving]]:
    """Those who give way for the same trial, together."""
    found: defaultdict[str, list[Leaving]] = defaultdict(list)
    for each in leaving:
        found[each.trial].append(each)
    return found.values()
