"""Manual: the list that the user wrote, in its order."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import ClassVar

from tuneyard_strategy.contract import StudyDefinition
from tuneyard_strategy.errors import DefinitionError
from tuneyard_strategy.sequence import SequenceStrategy
from tuneyard_strategy.space import Configuration, Space


class ManualStrategy(SequenceStrategy):
    """Runs `initial`, and nothing else."""

    complete_initial: ClassVar[bool] = True

    def __init__(self, definition: StudyDefinition, space: Space) -> None:
        if not definition.initial:
            raise DefinitionError(["strategy manual runs the list in initial: write at least one configuration there"])
        super().__init__(definition, space)

    def candidates(self, taken: set[Hashable]) -> Iterator[Configuration]:
        """See SequenceStrategy: none beside the initial ones."""
        return iter(())

    @property
    def exhausted(self) -> str:
        """See Strategy."""
        return f"all {len(self._sequence)} configurations in initial are in use"
