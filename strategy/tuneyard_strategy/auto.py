"""Auto: the strategy for whoever does not want to choose one."""

from __future__ import annotations

from collections.abc import Iterator

from tuneyard_strategy.bayesian import MOST_MODELLED, MOST_PENDING, GaussianProcess
from tuneyard_strategy.contract import StudyDefinition
from tuneyard_strategy.history import Fate
from tuneyard_strategy.learning import LearningStrategy
from tuneyard_strategy.space import Configuration, Space
from tuneyard_strategy.tpe import TreeParzen


class AutoStrategy(LearningStrategy):
    """Bayesian optimisation while its model holds all there is to know; beyond, every other trial is TPE's.

    That is so after some hundred trials, and where so many trials are pending that the model leaves some out.
    """

    def __init__(self, definition: StudyDefinition, space: Space) -> None:
        self._process = GaussianProcess(space, definition.strategy.seed)
        self._parzen = TreeParzen(space, definition.strategy.seed)
        super().__init__(definition, space)

    def ranked(self, index: int) -> Iterator[Configuration]:
        """See LearningStrategy."""
        measured, pending = len(self.history.rows(Fate.MEASURED)), len(self.history.rows(Fate.PENDING))
        if pending > MOST_PENDING or (measured > MOST_MODELLED and index % 2):
            return self._parzen.ranked(self.history, index)
        return self._process.ranked(self.history, index)
