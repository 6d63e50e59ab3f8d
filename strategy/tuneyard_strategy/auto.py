"""Auto: the strategy for whoever does not want to choose one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tuneyard_strategy.bayesian import BOXED, EVERYWHERE, TURNS, BayesianStrategy
from tuneyard_strategy.cmaes import Evolution
from tuneyard_strategy.contract import StudyDefinition
from tuneyard_strategy.history import Fate, Rows
from tuneyard_strategy.space import Configuration, Mask, Space


class AutoStrategy(BayesianStrategy):
    """Bayesian optimisation while its model holds all there is to know; beyond, three of four trials are CMA-ES's.

    CMA-ES learns from all trials, those of before and the fourth ones, which are sought in a box around the best; once
    it has begun anew, from its own. It knows one objective only: of several, every other trial is TPE's. Where so many
    trials are pending that the model leaves some out, all that would be its are TPE's.
    """

    def __init__(self, definition: StudyDefinition, space: Space) -> None:
        self._evolution = Evolution(space, definition.strategy.seed, _evolves)
        super().__init__(definition, space)

    def ranked(self, index: int) -> Iterator[Configuration]:
        """See LearningStrategy."""
        measured, pending = len(self.history.rows(Fate.MEASURED)), len(self.history.rows(Fate.PENDING))
        many, several = measured > EVERYWHERE.modelled, self.history.objectives > 1
        if many and not several and _evolves(np.array(index)):
            yield from self._evolution.ranked(self.history, index)
        if pending > EVERYWHERE.pending or (many and several and index % 2):
            yield from self.model.parzen.ranked(self.history, index)
        yield from super().ranked(index)


def _evolves(indices: Rows) -> Mask:
    """Which trials are CMA-ES's, where it proposes at all."""
    chosen: Mask = indices % TURNS != BOXED
    return chosen
