"""Auto: the strategy for whoever does not want to choose one."""

from __future__ import annotations

from collections.abc import Iterator

from tuneyard_strategy.bayesian import EVERYWHERE, BayesianStrategy
from tuneyard_strategy.history import Fate
from tuneyard_strategy.space import Configuration


class AutoStrategy(BayesianStrategy):
    """Bayesian optimisation while its model holds all there is to know; beyond, every other trial is TPE's.

    That is so after some hundred trials, and where so many trials are pending that the model leaves some out.
    """

    def ranked(self, index: int) -> Iterator[Configuration]:
        """See LearningStrategy."""
        measured, pending = len(self.history.rows(Fate.MEASURED)), len(self.history.rows(Fate.PENDING))
        if pending > EVERYWHERE.pending or (measured > EVERYWHERE.modelled and index % 2):
            return self.model.parzen.ranked(self.history, index)
        return super().ranked(index)
