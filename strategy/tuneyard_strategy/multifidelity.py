"""Strategies that divide a fidelity among trials: their base; and asha, hyperband and bohb (pbt is in `population`).

Their proposals are new configurations, as of any strategy that learns, and promotions: trials that have the
configuration of one on the rung below. Which it is follows from the trials that are known. asha that stops trials
proposes new configurations alone; who is stopped is decided in `stopping`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Final

import numpy as np

from tuneyard_api.fidelity import Rung
from tuneyard_strategy.bayesian import Thrifty
from tuneyard_strategy.comparable import Comparable, Ladder
from tuneyard_strategy.contract import StudyDefinition, Suggestion, TrialRecord
from tuneyard_strategy.gp import WIDE
from tuneyard_strategy.history import Fate, beyond
from tuneyard_strategy.learning import LearningStrategy
from tuneyard_strategy.rng import Stream, uniforms
from tuneyard_strategy.rungs import brackets, rungs
from tuneyard_strategy.space import Configuration, Space
from tuneyard_strategy.stopping import stops_at_rungs
from tuneyard_strategy.tpe import TreeParzen

RANDOM_PART: Final = 1 / 3
"""Part of the configurations that no model has a say in: low rungs may mislead it (Falkner et al. 2018)."""
Key = tuple[int, int]
"""Bracket and level."""


class RungStrategy(LearningStrategy):
    """Base of strategies with rungs: which trials are on which, those that are proposed included."""

    def __init__(self, definition: StudyDefinition, space: Space) -> None:
        assert definition.fidelity is not None, "the schema asks for it"
        self.fidelity = definition.fidelity
        self._slots: dict[int, Rung | None] = {}
        """For the proposals, as `_proposed` has their configurations."""
        self._rungs: dict[Key, dict[int, int | None]] = defaultdict(dict)
        """By rung: its trials, each with the trial that it continues."""
        self._ranked: dict[tuple[Key, ...], list[int]] = {}
        """What `_best` found in the present records."""
        super().__init__(definition, space)

    @abstractmethod
    def place(self, index: int) -> tuple[Rung | None, Configuration] | None:
        """Where the next trial goes, and its configuration: to a rung, or for all of the fidelity unless it is stopped.

        None where there is nothing to run before another trial has ended, or ever.
        """

    @abstractmethod
    def continuable(self) -> list[int]:
        """See Strategy."""

    # What LearningStrategy asks for ----------------------------------------------------------------------------

    def suggest(self, indices: Sequence[int]) -> list[Suggestion]:
        """See Strategy."""
        self.waits = False
        return [replace(each, rung=self._rung_of(each.index)) for each in super().suggest(indices)]

    def update(self, records: Sequence[TrialRecord]) -> None:
        """See Strategy."""
        known = [self._records[record.index] for record in records if record.index in self._records]
        rung_of = {record.index: record.rung for record in records}
        super().update(records)
        if any(before.rung != rung_of[before.index] for before in known):
            self._restart()

    def new(self, index: int) -> Configuration | None:
        """A configuration that no trial has; None where the space has no further one."""
        return super()._propose(index)

    def _restart(self) -> None:
        self._rungs.clear()
        super()._restart()

    def _confirms(self, latest: Mapping[int, TrialRecord]) -> bool:
        """See LearningStrategy. Where proposals are no longer right, their places on the rungs are free again."""
        as_proposed = all(index in self._slots and self._slots[index] == it.rung for index, it in latest.items())
        if as_proposed and super()._confirms(latest):
            for index in latest:
                del self._slots[index]
            return True
        for index, slot in self._slots.items():
            if slot is not None:
                self._rungs[slot.bracket, slot.level].pop(index, None)
        self._slots.clear()
        return False

    def _take_in(self, records: Collection[TrialRecord]) -> None:
        self._ranked.clear()
        super()._take_in(records)
        for record in records:
            if record.rung is not None:
                self._enter(record.index, record.rung)

    def _propose(self, index: int) -> Configuration | None:
        found = self.place(index)
        if found is None:
            self.waits = bool(len(self.history.rows(Fate.PENDING)))
            return None
        self._slots[index], configuration = found
        if found[0] is not None:
            self._enter(index, found[0])
        return configuration

    # Rungs -----------------------------------------------------------------------------------------------------

    def _enter(self, index: int, rung: Rung) -> None:
        """A trial is on a rung, or is proposed to be."""
        self._rungs[rung.bracket, rung.level][index] = rung.continues

    def _rung_of(self, index: int) -> Rung | None:
        record = self._records.get(index)
        return record.rung if record is not None else self._slots.get(index)

    def _ended(self, key: Key) -> list[int]:
        """The trials of a rung that have ended, whatever became of them."""
        fates = self.history.fates
        return [index for index in self._rungs[key] if fates[index] not in {Fate.ABSENT, Fate.PENDING}]

    def _best(self, *keys: Key) -> list[int]:
        """The trials that ran to their rung's end, the best first; those that keep to all bounds before the others."""
        if keys not in self._ranked:
            history, first = self.history, self.history.first
            here = [first + index for key in keys for index in self._rungs[key]]
            measured = np.intersect1d(history.rows(Fate.MEASURED), np.array(here, dtype=np.intp), assume_unique=True)
            rows = np.array([row for row in measured if self._records[row - first].state == "succeeded"], dtype=np.intp)
            order = np.lexsort((rows, history.values(rows), beyond(history, rows)))
            self._ranked[keys] = (rows[order] - first).tolist()
        return self._ranked[keys]


class PromotingStrategy(RungStrategy):
    """Base of strategies that continue the best trials of a rung with their configuration, each once.

    Attributes:
        model: what proposes new configurations after the first ones; None for points of the Sobol sequence alone.
    """

    def __init__(self, definition: StudyDefinition, space: Space, model: TreeParzen | Thrifty | None) -> None:
        self.model = model
        self._ladder: Ladder | None = None
        super().__init__(definition, space)

    @abstractmethod
    def next_rung(self) -> Rung | None:
        """Where the next trial goes: to a rung, or (None) to run for all of the fidelity unless it is stopped."""

    def promotion_at_the_end(self) -> Rung | None:
        """The rung of a trial that may be continued now that the space has no further configuration."""
        return None

    def continuable(self) -> list[int]:
        """See Strategy: those that were not continued, by how near they are to the top of their rung."""
        found: list[tuple[float, int]] = []
        for key in [key for key in self._rungs if self._is_open(key)]:
            best, promoted = self._best(key), self._promoted(key)
            found += ((place / len(best), index) for place, index in enumerate(best) if index not in promoted)
        return [index for _, index in sorted(found)]

    def place(self, index: int) -> tuple[Rung | None, Configuration] | None:
        """See RungStrategy."""
        slot = self.next_rung()
        configuration = self._continued(slot) or self.new(index)
        if configuration is None:
            slot = self.promotion_at_the_end()
            configuration = self._continued(slot)
        return None if configuration is None else (slot, configuration)

    def ranked(self, index: int) -> Iterator[Configuration]:
        """See LearningStrategy."""
        (chance,) = uniforms(self.seed, Stream.UNMODELLED, index=index, start=0, rows=1, width=1)[0]
        if self.model is None or chance < RANDOM_PART:
            return iter(())
        comparable = self.comparable()
        if len(comparable.rows(Fate.MEASURED)) < self._enough:
            return iter(())
        return self.model.ranked(comparable, index)

    @property
    def degraded(self) -> str | None:
        """See Strategy."""
        return self.model.degraded(self.comparable()) if isinstance(self.model, Thrifty) else None

    def comparable(self) -> Comparable:
        """What is known, as values that can be compared with each other."""
        return Comparable.extrapolated(self.ladder)

    def _take_in(self, records: Collection[TrialRecord]) -> None:
        super()._take_in(records)
        if self._ladder is None or self._ladder.history is not self.history:
            self._ladder = Ladder(self.history, self._points())
        self._ladder.take(records)

    def _confirms(self, latest: Mapping[int, TrialRecord]) -> bool:
        """See LearningStrategy."""
        confirmed = super()._confirms(latest)
        if confirmed:
            self.ladder.take(latest.values())
        return confirmed

    @property
    def ladder(self) -> Ladder:
        """The values that are known, by rung."""
        assert self._ladder is not None, "trials are taken in from the beginning, none at least"
        return self._ladder

    def _points(self) -> tuple[int, ...]:
        """All fidelities at which trials are compared, max the last."""
        return rungs(self.fidelity)

    def _continued(self, slot: Rung | None) -> Configuration | None:
        """The configuration of a promotion."""
        if slot is None or slot.continues is None:
            return None
        return self._existing[slot.continues]

    def _is_open(self, key: Key) -> bool:
        """Whether further trials of a rung may be continued."""
        _, level = key
        return level < len(self._points()) - 1

    def _promoted(self, key: Key) -> set[int | None]:
        """The trials of a rung that go on above it."""
        bracket, level = key
        return set(self._rungs[bracket, level + 1].values())


class AshaStrategy(PromotingStrategy):
    """Asynchronous successive halving (Li et al. 2020, https://arxiv.org/abs/1810.05934), with a model or without.

    Where the program cannot resume, trials start for all of the fidelity, and `stopping` stops them. Where it can, a
    trial runs to its rung and ends; the best one in `factor` of a rung are continued as soon as there are so many.
    """

    def __init__(self, definition: StudyDefinition, space: Space) -> None:
        self._stops = stops_at_rungs(definition)
        super().__init__(definition, space, _sampler(definition, space))

    def next_rung(self) -> Rung | None:
        """See PromotingStrategy."""
        if self._stops:
            return None
        levels = self._points()
        for level in range(len(levels) - 2, -1, -1):
            best, promoted = self._best((0, level)), self._promoted((0, level))
            ready = best[: len(best) // self.fidelity.factor]
            chosen = next((index for index in ready if index not in promoted), None)
            if chosen is not None:
                return Rung(fidelity=levels[level + 1], level=level + 1, continues=chosen)
        return Rung(fidelity=levels[0])


class HyperbandStrategy(PromotingStrategy):
    """Hyperband (Li et al. 2018, JMLR 18-185): its brackets one after the other, and then again.

    A rung is complete when all its trials have ended; its best ones go on to the next. While some of them still run,
    the next bracket begins, so that no GPU waits.
    """

    def __init__(self, definition: StudyDefinition, space: Space, model: TreeParzen | Thrifty | None = None) -> None:
        assert definition.fidelity is not None, "the schema asks for it"
        self._brackets = brackets(definition.fidelity)
        self._full = 0
        """All brackets below this number are complete."""
        super().__init__(definition, space, model)

    def next_rung(self) -> Rung | None:
        """See PromotingStrategy."""
        opened = (self._open(bracket) for bracket in count(self._full))
        return next(slot for slot in opened if slot is not None)

    def promotion_at_the_end(self) -> Rung | None:
        """See PromotingStrategy: rungs are complete with the trials that they have."""
        begun = [bracket for (bracket, level), trials in list(self._rungs.items()) if level == 0 and trials]
        opened = (self._open(bracket, filled=True) for bracket in sorted(begun))
        return next((slot for slot in opened if slot is not None), None)

    def _open(self, bracket: int, *, filled: bool = False) -> Rung | None:
        """The first place of a bracket that a trial may take now.

        Args:
            bracket: its number.
            filled: whether no further configuration comes to its first rung.
        """
        levels = self._brackets[bracket % len(self._brackets)]
        due = len(self._rungs[bracket, 0]) if filled else levels[0].trials
        for level, (_, fidelity) in enumerate(levels):
            here = self._rungs[bracket, level]
            if len(here) < due:
                chosen: int | None = None
                if level > 0:
                    below = (bracket, level - 1)
                    promoted = self._promoted(below)
                    chosen = next(index for index in self._best(below)[:due] if index not in promoted)
                return Rung(fidelity=fidelity, level=level, bracket=bracket, continues=chosen)
            if len(self._ended((bracket, level))) < len(here):
                return None
            if level + 1 < len(levels):
                due = min(levels[level + 1].trials, len(self._best((bracket, level))))
        if bracket == self._full and not filled:
            self._full += 1
        return None

    def _is_open(self, key: Key) -> bool:
        bracket, level = key
        above = self._brackets[bracket % len(self._brackets)][level + 1 :]
        return (
            bracket >= self._full and bool(above) and len(self._rungs.get((bracket, level + 1), ())) < above[0].trials
        )

    def _restart(self) -> None:
        self._full = 0
        super()._restart()

    def _points(self) -> tuple[int, ...]:
        return tuple(level.fidelity for level in self._brackets[0])


class BohbStrategy(HyperbandStrategy):
    """BOHB (Falkner et al. 2018, https://arxiv.org/abs/1807.01774): Hyperband's brackets, and a model in them.

    It is a model of the largest fidelity of which enough is known; a third of the configurations is drawn without it.
    The paper's is TPE, which is there as `sampler: tpe`; a Gaussian process needs fewer trials (`make bench-fidelity`).
    """

    def __init__(self, definition: StudyDefinition, space: Space) -> None:
        super().__init__(definition, space, _sampler(definition, space))

    def comparable(self) -> Comparable:
        """See PromotingStrategy."""
        return Comparable.largest(self.ladder, self._enough)


def _sampler(definition: StudyDefinition, space: Space) -> TreeParzen | Thrifty | None:
    """The model that the study asks for: a Gaussian process unless it says otherwise."""
    match definition.strategy.sampler:
        case "tpe":
            return TreeParzen(space, definition.strategy.seed)
        case "sobol":
            return None
        case _:
            return Thrifty(space, definition.strategy.seed, WIDE)  # NARROW was no better here
