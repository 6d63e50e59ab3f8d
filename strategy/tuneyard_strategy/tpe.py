"""TPE: where good trials are dense and bad ones are not (Bergstra et al. 2011; settings after Watanabe 2023)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tuneyard_strategy import pareto
from tuneyard_strategy.distributions import Floats
from tuneyard_strategy.history import Fate, Known, beyond
from tuneyard_strategy.learning import LearningStrategy
from tuneyard_strategy.parzen import Parzen
from tuneyard_strategy.rng import Stream, uniforms
from tuneyard_strategy.space import Configuration, Space

GOOD = 0.15
"""Part of the trials that counts as good."""
SAMPLES = 64
"""Configurations that are drawn from the good ones' density, to take the best of."""
ROUNDS = 16
"""How often they are drawn anew while none meets the constraints."""
MOST_GOOD = 256
"""Trials that count as good, at most."""
MOST_BAD = 256
"""Kernels of the bad ones' density; of more trials, every so-and-so-many-th in the order of their values."""


class TreeParzen:
    """Ranks configurations by the ratio of two densities: that of the good trials over that of all others.

    Trials that failed are bad ones, and so are pending ones, which keeps parallel trials apart. Those that break a
    bound come after all that keep to it, the nearer to the bound the better.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._seed = seed

    def ranked(self, history: Known, index: int) -> Iterator[Configuration]:
        """Feasible configurations for this trial, the best first."""
        good, bad = self._densities(history)
        for round_ in range(ROUNDS):
            u = uniforms(
                self._seed,
                Stream.MODEL,
                index=index,
                start=round_ * SAMPLES,
                rows=SAMPLES,
                width=1 + 2 * len(self._space.names),
            )
            points = good.sample(u)
            table = self._space.table(points, sketch=True)
            feasible = np.flatnonzero(self._space.meets(table))
            x = history.encoding.coordinates(table, points)[feasible]
            order = np.argsort(bad.log_density(x) - good.log_density(x), kind="stable")
            yield from self._space.finished(table, feasible[order])

    def _densities(self, history: Known) -> tuple[Parzen, Parzen]:
        measured = history.rows(Fate.MEASURED)
        broken = beyond(history, measured)
        count = min(math.ceil(GOOD * len(measured)), MOST_GOOD)
        if history.objectives > 1:
            order, weights = _several(history.losses(measured), broken, count)
        else:
            values = history.values(measured)
            order = np.lexsort((values, broken))
            weights = _weights(values[order[:count]])
        best, rest = order[:count], _thinned(measured[order[count:]])
        others = np.concatenate([rest, history.rows(Fate.FAILED, Fate.PENDING)[-MOST_BAD:]])
        good = Parzen(history.encoding, history.coordinates(measured[best]), weights)
        return good, Parzen(history.encoding, history.coordinates(others), np.ones(len(others)))


class TpeStrategy(LearningStrategy):
    """The tree-structured Parzen estimator, multivariate."""

    def ranked(self, index: int) -> Iterator[Configuration]:
        """See LearningStrategy."""
        return TreeParzen(self.space, self.seed).ranked(self.history, index)


def _several(losses: Floats, broken: Floats, count: int) -> tuple[NDArray[np.intp], Floats]:
    """Trials with several objectives, the good ones first, and the weights of these (Ozaki et al. 2022).

    The front of those that keep to the bounds is good, and the front of the others, and so on; of the last one, those
    that dominate the most. Only then come those that break a bound.
    """
    kept = np.flatnonzero(broken <= 0.0)
    good = kept[pareto.best(losses[kept], count)]
    nearest = np.lexsort((losses[:, 0], broken))
    return np.append(good, nearest[~np.isin(nearest, good)]), np.ones(count)


def _thinned(rows: NDArray[np.intp]) -> NDArray[np.intp]:
    return rows[:: -(-len(rows) // MOST_BAD)] if len(rows) else rows


def _weights(values: Floats) -> Floats:
    """Weights of good trials by how much better they are than the worst of them: the expected improvement of each."""
    gains = (values.max() - values) / max(float(np.abs(values).max()), 1e-300)
    most = gains.max()
    return np.maximum(gains / most, 1e-3) if most > 0 else np.ones(len(values))
