"""The neighbourhood of the best trials, to model that alone where a model of everything is too costly.

After the trust regions of Eriksson et al. (2019, TuRBO). Theirs grow with success and shrink with failure; this one is
as wide as the trials that are modelled: where many are near the best, it is narrow.
"""

from __future__ import annotations

import numpy as np

from tuneyard_strategy.distributions import Floats
from tuneyard_strategy.gp import Kernel
from tuneyard_strategy.space import Mask


class Region:
    """All that is no farther from one of the centres than the nearest trials are.

    Args:
        kernel: what is far, given by the covariance with the nearest centre.
        centres: features of the best trials, shape (c, q).
        trials: features of all trials that have been measured, shape (n, q).
        count: how many of them are to lie within; more do if some are equally far.
    """

    def __init__(self, kernel: Kernel, centres: Floats, trials: Floats, count: int) -> None:
        self._kernel, self._centres = kernel, centres
        self._edge = np.sort(self._nearness(trials))[-min(count, len(trials))]

    def covers(self, x: Floats) -> Mask:
        """Which of these features, shape (m, q), lie within, shape (m,)."""
        within: Mask = self._nearness(x) >= self._edge
        return within

    def _nearness(self, x: Floats) -> Floats:
        nearness: Floats = self._kernel.between(self._centres, x).max(axis=0)
        return nearness
