"""Strategies that learn: a Sobol start, and then what a model makes of the trials that have ended.

The configuration of trial i is a function of the definition, i, and the set of trials that are known. Trials below i
that do not exist yet are proposed first and count as pending, so that whoever asks for several at a time, in any order,
or again after a crash, gets the same answers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from itertools import chain
from typing import ClassVar

from tuneyard_api.space import Configuration as Given
from tuneyard_strategy.contract import MAX_INDEX, Strategy, StudyDefinition, Suggestion, TrialRecord
from tuneyard_strategy.earlier import fitted
from tuneyard_strategy.errors import NoFeasiblePoint
from tuneyard_strategy.history import Fate, History
from tuneyard_strategy.scan import why_infeasible
from tuneyard_strategy.sobol import SobolStrategy
from tuneyard_strategy.space import Configuration, Space

FEWEST, MOST = 5, 10
"""Ended trials and earlier observations before which no model is asked: one more than parameters, within these."""


class LearningStrategy(Strategy):
    """Base of strategies whose proposals depend on results.

    First come the initial configurations, then points of the Sobol sequence until enough trials have ended, then the
    model's. Where the model has no new configuration, the Sobol sequence goes on, to the end of a finite space.
    """

    learns: ClassVar[bool] = True

    def __init__(self, definition: StudyDefinition, space: Space) -> None:
        self.space = space
        self.seed = definition.strategy.seed
        self._objectives = definition.objectives
        self._start = SobolStrategy(definition, space)
        self._enough = min(max(len(space.names) + 1, FEWEST), MOST)
        self._earlier = fitted(space, definition.objectives, definition.earlier).trials
        self._records: dict[int, TrialRecord] = {}
        self._restart()

    @abstractmethod
    def ranked(self, index: int) -> Iterator[Configuration]:
        """What the model proposes for a trial: feasible configurations, the best first, with or without those in use.

        Called when `history` has a measured trial at least.
        """

    def update(self, records: Sequence[TrialRecord]) -> None:
        """See Strategy."""
        latest = {record.index: record for record in records}
        if self._confirms(latest):
            return
        for index in self._proposed.keys() - latest.keys():
            self.history.forget(index)
        known = {index: self._records[index] for index in latest.keys() & self._records.keys()}
        self._records |= latest
        if any(latest[index].parameters != record.parameters for index, record in known.items()):
            self._restart()
        else:
            self._take_in(latest.values())
        self._proposed.clear()
        self._queue.release()

    def _confirms(self, latest: Mapping[int, TrialRecord]) -> bool:
        """Take in records that say no more than was supposed when trials were proposed; False where they say more.

        So proposals for later trials, for which earlier ones were supposed to be pending, are still right.
        """
        later = min(self._proposed.keys() - latest.keys(), default=MAX_INDEX + 1)
        for index, record in latest.items():
            is_pending = record.state in {"pending", "running"}
            if index > later or not is_pending or self._proposed.get(index) != record.parameters:
                return False
        for index, record in latest.items():
            self._records[index] = record
            self._existing[index] = self._proposed.pop(index)
            self._queue.occupy(record.parameters)
        return True

    def suggest(self, indices: Sequence[int]) -> list[Suggestion]:
        """See Strategy."""
        for index in self.history.missing(1 + max(indices, default=-1)):
            configuration = self._propose(index)
            if configuration is None:
                break
            self._proposed[index] = configuration
            self._queue.reserve(configuration)
            self.history.expect(index, self.space.table_of([configuration]))
        if indices and not (self._existing or self._proposed):
            raise NoFeasiblePoint(why_infeasible(self.space, self.seed))
        found = ((index, self._proposed.get(index) or self._existing.get(index)) for index in indices)
        return [Suggestion(index, configuration) for index, configuration in found if configuration is not None]

    @property
    def exhausted(self) -> str:
        """See Strategy."""
        return self._start.exhausted_after(len(self._existing) + len(self._proposed))

    def _restart(self) -> None:
        self.history = History(self.space, self._objectives, self._earlier)
        self._existing: dict[int, Configuration] = {}
        self._proposed: dict[int, Configuration] = {}
        self._queue = _Queue(self._start)
        self._take_in(self._records.values())

    def _take_in(self, records: Collection[TrialRecord]) -> None:
        known = {record.index: found for record in records if (found := self._known(record)) is not None}
        typed = {r.index: self.space.typed(r.parameters) for r in records if r.index not in known}
        inside = [index for index, parameters in typed.items() if not self.space.problems(parameters)]
        self.history.tell(records)
        self.history.stay(known)
        self._existing |= {record.index: dict(record.parameters) for record in records}
        self._existing |= known
        if inside:
            table = self.space.table_of([typed[index] for index in inside])
            self.history.place(inside, table)
            self._existing |= dict(zip(inside, self.space.configurations(table), strict=True))
        for record in records:
            self._queue.occupy(record.parameters)

    def _known(self, record: TrialRecord) -> Configuration | None:
        """Its configuration, if that was taken in already or proposed here, and lies in the space."""
        if not self.history.is_placed(record.index):
            return None
        candidates = (self._existing.get(record.index), self._proposed.get(record.index))
        return next((each for each in candidates if each == record.parameters), None)

    def _propose(self, index: int) -> Configuration | None:
        following = self._queue.first()
        if following is None or self._queue.is_initial(following) or not self._is_ready():
            return following
        return next((c for c in self.ranked(index) if self._queue.is_free(c)), following)

    def _is_ready(self) -> bool:
        measured, failed = len(self.history.rows(Fate.MEASURED)), len(self.history.rows(Fate.FAILED))
        return measured > 0 and measured + failed >= self._enough


class _Queue:
    """The configurations of a sequence in order. One in use is passed over, and only for good when its trial exists."""

    def __init__(self, sequence: SobolStrategy) -> None:
        self._key = sequence.space.key
        self._initial = {self._key(configuration) for configuration in sequence.initial}
        self._existing: set[Hashable] = set()
        self._proposed: set[Hashable] = set()
        self._drawn: deque[Configuration] = deque()
        self._seen: set[Hashable] = set()
        """Those that need not be drawn (again)."""
        self._upcoming = chain(sequence.initial, sequence.candidates(self._seen))

    def first(self) -> Configuration | None:
        """The first one that is not in use; None at the end."""
        while self._drawn and self._key(self._drawn[0]) in self._existing:
            self._drawn.popleft()
        for configuration in self._drawn:
            if self.is_free(configuration):
                return configuration
        for configuration in self._upcoming:
            self._drawn.append(configuration)
            self._seen.add(self._key(configuration))
            if self.is_free(configuration):
                return configuration
        return None

    def is_initial(self, configuration: Configuration) -> bool:
        """Whether the user asked for it."""
        return self._key(configuration) in self._initial

    def is_free(self, configuration: Configuration) -> bool:
        """Whether no trial has it."""
        key = self._key(configuration)
        return key not in self._existing and key not in self._proposed

    def occupy(self, parameters: Given) -> None:
        """There is a trial with it."""
        key = self._key(parameters)
        self._existing.add(key)
        self._seen.add(key)

    def reserve(self, configuration: Configuration) -> None:
        """There may soon be a trial with it."""
        self._proposed.add(self._key(configuration))

    def release(self) -> None:
        """Forget what was reserved."""
        self._proposed.clear()
