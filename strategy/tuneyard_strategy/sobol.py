"""Sobol: points that cover the space more evenly than chance does."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import numpy as np
from numpy.typing import NDArray

from tuneyard_strategy.random_search import RandomStrategy
from tuneyard_strategy.rng import Stream, generator
from tuneyard_strategy.scan import MAX_REFUSED, scan, shuffled
from tuneyard_strategy.space import Configuration


class SobolStrategy(RandomStrategy):
    """Follows a scrambled Sobol sequence (Owen 1998; Joe and Kuo's directions, as in scipy) through the unit cube.

    Each parameter has a coordinate of its own, conditional ones too, so that the points of each branch are spread
    evenly. Points that break a constraint, or that give a configuration again, are skipped. Where the space is finite,
    the few configurations that the sequence does not reach in reasonable time come last, at random.
    """

    def candidates(self, taken: set[Hashable]) -> Iterator[Configuration]:
        """See SequenceStrategy."""
        from scipy.stats.qmc import Sobol  # noqa: PLC0415 # half a second, which other strategies need not wait for

        points = Sobol(len(self.space.names), rng=generator(self.seed, Stream.SCRAMBLING))

        def draw(_: int, rows: int) -> NDArray[np.float64]:
            drawn: NDArray[np.float64] = points.random(rows)
            return drawn

        if self.listed is None:
            yield from scan(self.space, draw, taken)
        else:
            patience = min(4 * self.listed.rows + 256, MAX_REFUSED)
            yield from scan(self.space, draw, taken, patience)
            yield from shuffled(self.space, self.listed, self.seed)
