"""What a trial promises where there are several objectives: the logarithm of its expected hypervolume improvement.

| Symbol | Shape | What |
|---|---|---|
| m, q, b, s, k | | candidates, features, baseline configurations, worlds, objectives |
| x | (m, q) | features of the candidates |
| reference | (k,) | what is worse than this in an objective does not matter |

The improvement is the volume that the front of the baseline does not dominate and the candidate does. Cut into boxes
with corners l and u (`pareto.boxes`), it is for independent objectives (Emmerich et al. 2006; Daulton et al. 2020)

    sum over boxes, product over objectives, of psi(u) - psi(l),
    psi(a) = E[max(a - f(x), 0)] = sigma h((a - mu) / sigma)

with h of `acquisition.log_h`. All is done with logarithms, as in Ament et al. (2023), so that it shows the way even
where an improvement is next to impossible.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tuneyard_strategy.acquisition import log_h
from tuneyard_strategy.distributions import Floats
from tuneyard_strategy.gp import Posterior
from tuneyard_strategy.pareto import boxes, nondominated

Rows = NDArray[np.intp]


class HypervolumeImprovement:
    """The logarithm of the expected hypervolume improvement on the baseline, averaged over worlds.

    As in `acquisition.NoisyImprovement`, each world has values of the baseline (best observed and all pending
    configurations) that the observations allow; its front is known exactly (NEHVI: Daulton et al. 2021).

    Args:
        posteriors: one an objective, smaller is better.
        baseline: features, shape (b, q).
        normals: standard normal numbers, shape (k, b, s).
        reference: shape (k,).
    """

    def __init__(self, posteriors: Sequence[Posterior], baseline: Floats, normals: Floats, reference: Floats) -> None:
        worlds = np.stack([p.draw(baseline, z) for p, z in zip(posteriors, normals, strict=True)], axis=2)
        self._posteriors = [
            posterior.given(baseline, worlds[:, :, objective]) for objective, posterior in enumerate(posteriors)
        ]
        self._cells = [_Cells(values[nondominated(values)], reference) for values in worlds.swapaxes(0, 1)]

    def __call__(self, x: Floats) -> Floats:
        """The logarithm for each candidate, shape (m,)."""
        predictions = [posterior.predict(x) for posterior in self._posteriors]
        means = np.stack([mean for mean, _ in predictions])
        deviations = np.sqrt(np.stack([variance for _, variance in predictions]))
        logs = [cells.log_volume(means[:, :, world], deviations) for world, cells in enumerate(self._cells)]
        average: Floats = _log_sum(np.stack(logs, axis=1)) - np.log(len(self._cells))
        return average


class _Cells:
    """The boxes of one world.

    In each objective few different stretches occur, between even fewer different edges: all that is costly is done
    once for each.
    """

    def __init__(self, front: Floats, reference: Floats) -> None:
        lower, upper = boxes(front, reference)
        self._sides: list[tuple[Floats, Rows, Rows]] = []
        """Of each objective: edges, from minus infinity; stretches, pairs of edges' numbers; each box's stretch."""
        for low, high in zip(lower.T, upper.T, strict=True):
            edges, numbers = np.unique(np.append(low, high), return_inverse=True)
            pairs, which = np.unique(numbers.reshape(2, -1), axis=1, return_inverse=True)
            self._sides.append((edges, pairs, which.ravel()))

    def log_volume(self, means: Floats, deviations: Floats) -> Floats:
        """Logarithm of the expected improvement, shape (m,), given means and deviations, shape (k, m)."""
        logs = np.zeros((1, 1))
        for (edges, (low, high), which), mean, deviation in zip(self._sides, means, deviations, strict=True):
            psi = np.full((len(mean), len(edges)), -np.inf)
            psi[:, 1:] = log_h((edges[1:] - mean[:, None]) / deviation[:, None]) + np.log(deviation)[:, None]
            logs = logs + _log_difference(psi[:, high], psi[:, low])[:, which]
        return _log_sum(logs)


def _log_difference(larger: Floats, smaller: Floats) -> Floats:
    """ln(exp(larger) - exp(smaller)), minus infinity where they are as good as equal."""
    with np.errstate(divide="ignore"):
        difference: Floats = larger + np.log(-np.expm1(np.minimum(smaller - larger, 0.0)))
    return difference


def _log_sum(logs: Floats) -> Floats:
    """Ln of the sum over the last axis of exp(logs)."""
    highest = np.maximum(logs.max(axis=-1), -1e300)
    with np.errstate(divide="ignore"):
        total: Floats = highest + np.log(np.exp(logs - highest[..., None]).sum(axis=-1))
    return total
