"""Grid: every combination of a finite space, the last parameter changing fastest."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from tuneyard_strategy.contract import StudyDefinition
from tuneyard_strategy.errors import DefinitionError, StrategyError
from tuneyard_strategy.sequence import SequenceStrategy
from tuneyard_strategy.space import Configuration, Space


class GridStrategy(SequenceStrategy):
    """Enumerates the space. Parameters that a configuration does not have are not varied."""

    def __init__(self, definition: StudyDefinition, space: Space) -> None:
        endless = [
            f"parameters[{number}].double.step: strategy grid needs a step here; write one, or choose another strategy"
            for number, dimension in enumerate(space.dimensions)
            if dimension.size is None
        ]
        if endless:
            raise DefinitionError(endless)
        self._gave_up: str | None = None
        super().__init__(definition, space)

    def candidates(self, taken: set[Hashable]) -> Iterator[Configuration]:
        """See SequenceStrategy."""
        try:
            yield from self.space.enumerate()
        except StrategyError as error:
            self._gave_up = str(error)

    @property
    def exhausted(self) -> str:
        """See Strategy."""
        return self._gave_up or super().exhausted
