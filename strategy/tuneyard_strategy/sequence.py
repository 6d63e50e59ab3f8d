"""Strategies that do not learn: a fixed sequence of configurations, from which each trial takes the next."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from itertools import chain
from typing import ClassVar

from tuneyard_api.space import Configuration as Given
from tuneyard_strategy.contract import Strategy, StudyDefinition, Suggestion, TrialRecord
from tuneyard_strategy.errors import DefinitionError, NoFeasiblePoint
from tuneyard_strategy.initial import completed, initial_problems
from tuneyard_strategy.scan import why_infeasible
from tuneyard_strategy.space import Configuration, Space


class SequenceStrategy(Strategy):
    """Base of strategies whose proposals do not depend on results.

    Trial i gets the i-th configuration of the sequence: first the initial ones, then the strategy's candidates, each
    once. The sequence is drawn as far as it is asked for and kept, so that an ask is a look-up.

    Where a trial exists with another configuration than the sequence has for it (someone created it by hand), the trial
    counts as it is, and the configuration goes to the next one. The sequence remains a function of definition and
    history, whatever the order in which the strategy heard of it.
    """

    learns: ClassVar[bool] = False
    complete_initial: ClassVar[bool] = False
    """Whether initial configurations must be complete."""

    def __init__(self, definition: StudyDefinition, space: Space) -> None:
        problems = initial_problems(space, definition.initial, complete=self.complete_initial)
        if problems:
            raise DefinitionError(problems)
        self.space = space
        self.seed = definition.strategy.seed
        self.initial, problems = completed(space, definition.initial, self.seed)
        if problems:
            raise DefinitionError(problems)
        self._recorded: dict[int, Given] = {}
        self._restart()

    @abstractmethod
    def candidates(self, taken: set[Hashable]) -> Iterator[Configuration]:
        """All configurations to try after the initial ones, in order.

        Args:
            taken: keys of the configurations that are in use; it grows while the iterator is read, and candidates in it
                are skipped.
        """

    def update(self, records: Sequence[TrialRecord]) -> None:
        """See Strategy."""
        for record in records:
            self._recorded[record.index] = record.parameters
            if record.index < len(self._sequence) and self._sequence[record.index] != record.parameters:
                self._restart()

    def suggest(self, indices: Sequence[int]) -> list[Suggestion]:
        """See Strategy."""
        self._extend(1 + max(indices, default=-1))
        if indices and not self._sequence:
            raise NoFeasiblePoint(why_infeasible(self.space, self.seed))
        return [Suggestion(i, self._sequence[i]) for i in indices if i < len(self._sequence)]

    @property
    def exhausted(self) -> str:
        """See Strategy."""
        return self.exhausted_after(len(self._sequence))

    def exhausted_after(self, count: int) -> str:
        """Why there are no more than this many configurations: one sentence."""
        return f"all {count} configurations that the space and its constraints allow are in use"

    def _restart(self) -> None:
        self._sequence: list[Configuration] = []
        self._taken: set[Hashable] = set()
        self._upcoming = chain(self.initial, self.candidates(self._taken))
        self._next: Configuration | None = None

    def _extend(self, length: int) -> None:
        """Draw the sequence up to this length, or to its end."""
        while len(self._sequence) < length:
            candidate = self._peek()
            recorded = self._recorded.get(len(self._sequence))
            if recorded is None or recorded == candidate:
                configuration, self._next = candidate, None
            else:
                configuration = dict(recorded)
            if configuration is None:
                return
            self._sequence.append(configuration)
            self._taken.add(self.space.key(configuration))

    def _peek(self) -> Configuration | None:
        """The next configuration that no trial has yet; None at the end."""
        while self._next is None or self.space.key(self._next) in self._taken:
            self._next = next(self._upcoming, None)
            if self._next is None:
                return None
        return self._next
