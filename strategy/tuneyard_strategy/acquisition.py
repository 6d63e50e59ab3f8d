"""What a trial promises: the logarithm of its expected improvement, over all that noise and pending trials leave open.

| Symbol | Shape | What |
|---|---|---|
| m, q, b, s | | candidates, features, baseline configurations, worlds |
| x | (m, q) | features of the candidates |
| worlds | (b, s) | values of the objective at the baseline, each column as the model thinks they might be |
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import erfcx, log_ndtr, ndtr

from tuneyard_strategy.distributions import Floats
from tuneyard_strategy.gp import Posterior

_HALF_LOG_TAU = 0.5 * math.log(2.0 * math.pi)
_ROOT_HALF_PI = math.sqrt(math.pi / 2.0)
FAR = -1e5
"""Below this z the asymptote of ln h(z) is exact."""


def log_h(z: Floats) -> Floats:
    """Logarithm of phi(z) + z Phi(z), shape kept; exact where the value itself is 0 (Ament et al. 2023, equation 9)."""
    result = -0.5 * z**2 - _HALF_LOG_TAU
    low, near = z < FAR, z > -1.0
    middle = ~(low | near)
    result[low] -= 2.0 * np.log(-z[low])
    result[middle] += np.log1p(z[middle] * _ROOT_HALF_PI * erfcx(-z[middle] / math.sqrt(2.0)))
    result[near] = np.log(np.exp(result[near]) + z[near] * ndtr(z[near]))
    return result


class NoisyImprovement:
    """Logarithm of the expected improvement on the best of the baseline, averaged over worlds.

    The baseline holds the best observed and all pending configurations. In each world they have values that the
    observations allow, noise taken off; the improvement on the best of these values is then exact (Letham et al. 2019
    for noise; Wilson et al. 2018 for pending trials). So a pending trial counts for what it may turn out to be.

    Args:
        posterior: of the objective, smaller is better.
        baseline: features, shape (b, q).
        normals: standard normal numbers, shape (b, s).
    """

    def __init__(self, posterior: Posterior, baseline: Floats, normals: Floats) -> None:
        worlds = posterior.draw(baseline, normals)
        self._best = worlds.min(axis=0)
        self._posterior = posterior.given(baseline, worlds)

    def __call__(self, x: Floats) -> Floats:
        """The logarithm for each candidate, shape (m,)."""
        mean, variance = self._posterior.predict(x)
        deviation = np.sqrt(variance)[:, None]
        logs = log_h((self._best - mean) / deviation) + np.log(deviation)
        highest = logs.max(axis=1)
        average: Floats = highest + np.log(np.exp(logs - highest[:, None]).mean(axis=1))
        return average


class Feasibility:
    """Logarithm of the probability that all bounds are kept (Gardner et al. 2014).

    Args:
        excesses: a model of how far each bounded metric is beyond its bound.
    """

    def __init__(self, excesses: Sequence[Posterior]) -> None:
        self._excesses = excesses

    def __call__(self, x: Floats) -> Floats:
        """The logarithm for each candidate, shape (m,)."""
        total = np.zeros(len(x))
        for posterior in self._excesses:
            mean, variance = posterior.predict(x)
            total += log_ndtr(-mean / np.sqrt(variance))
        return total
