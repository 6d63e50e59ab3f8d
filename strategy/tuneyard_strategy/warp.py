"""Metrics as a Gaussian process likes them, whatever came out of the trials."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from tuneyard_strategy.distributions import Floats


def warped(values: Floats) -> Floats:
    """Values (smaller is better) with zero mean and unit variance, shape (n,).

    Of those worse than the median only the order counts: they become quantiles of the normal distribution that the
    better half suggests, so that a diverged trial does not flatten all that matters (Song et al. 2024).
    """
    scaled = values / max(float(np.abs(values).max()), 1e-300)
    median = float(np.median(scaled))
    better, worse = scaled <= median, scaled > median
    spread = float(np.sqrt(np.mean((scaled[better] - median) ** 2))) or float(scaled.std())
    ordered = np.sort(scaled[worse])
    ranks = (np.searchsorted(ordered, scaled[worse], "left") + np.searchsorted(ordered, scaled[worse], "right")) / 2
    scaled[worse] = median + spread * ndtri(0.5 + 0.5 * ranks / max(len(ordered), 1))
    deviation = float(scaled.std())
    return (scaled - scaled.mean()) / deviation if deviation > 0 else np.zeros(len(values))


def signed_logs(excesses: Floats) -> Floats:
    """How far metrics are beyond a bound, far ones drawn near, shape (n,); the bound stays at 0.

    The bilog of Eriksson and Poloczek (2021), of excesses in units of their median size.
    """
    sizes = np.abs(excesses)
    unit = float(np.median(sizes[sizes > 0])) if sizes.any() else 1.0
    return np.sign(excesses) * np.log1p(sizes / unit)
