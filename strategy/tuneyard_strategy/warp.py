"""Metrics as a Gaussian process likes them, whatever came out of the trials."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from tuneyard_strategy.distributions import Floats
from tuneyard_strategy.space import Mask


def standardised(values: Floats) -> Floats:
    """Values with zero mean and unit variance, shape (n,)."""
    scaled = _scaled(values)
    deviation = float(scaled.std())
    return (scaled - scaled.mean()) / deviation if deviation > 0 else np.zeros(len(values))


def half_logs(values: Floats) -> Floats:
    """The same, after what is worse than the median (smaller is better) was drawn near by its logarithm.

    The unit is how far the better half is spread.
    """
    scaled, worse, median, spread = _halves(values)
    scaled[worse] = median + spread * np.log1p((scaled[worse] - median) / spread)
    return standardised(scaled)


def half_ranks(values: Floats) -> Floats:
    """Values (smaller is better) with zero mean and unit variance, shape (n,).

    Of those worse than the median only the order counts: they become quantiles of the normal distribution that the
    better half suggests, so that a diverged trial does not flatten all that matters (Song et al. 2024).
    """
    scaled, worse, median, spread = _halves(values)
    ordered = np.sort(scaled[worse])
    ranks = (np.searchsorted(ordered, scaled[worse], "left") + np.searchsorted(ordered, scaled[worse], "right")) / 2
    scaled[worse] = median + spread * ndtri(0.5 + 0.5 * ranks / max(len(ordered), 1))
    return standardised(scaled)


def tail_logs(values: Floats) -> Floats:
    """The same, with only what is far out drawn near: further from the median than three times that spread.

    Where nothing is, the values keep their shape.
    """
    scaled, _, median, spread = _halves(values)
    fence = median + 3.0 * spread
    far = scaled > fence
    scaled[far] = fence + spread * np.log1p((scaled[far] - fence) / spread)
    return standardised(scaled)


def _scaled(values: Floats) -> Floats:
    """Values within -1 and 1, whose squares are finite."""
    return values / max(float(np.abs(values).max()), 1e-300)


def _halves(values: Floats) -> tuple[Floats, Mask, float, float]:
    """Scaled values, which are worse than the median, that median, and how far the better half is spread from it."""
    scaled = _scaled(values)
    median = float(np.median(scaled))
    worse = scaled > median
    spread = float(np.sqrt(np.mean((scaled[~worse] - median) ** 2))) or float(scaled.std()) or 1.0
    return scaled, worse, median, spread


WARPS = (half_ranks, half_logs, standardised)
"""In the order of how much they change."""


def log_slope(values: Floats, warped: Floats) -> float:
    """Sum of the logarithms of a warp's slope at all values: what the logarithm of a density grows by.

    The slope at a value is that between its neighbours on both sides, a few away: order alone has none at a point.
    Values of which so many are the same count nothing. (Vasicek 1976 has entropies so; few neighbours favour ranks a
    little.)
    """
    order = np.argsort(values, kind="stable")
    y, w = _scaled(values)[order], warped[order]
    reach, n = max(1, round(math.sqrt(len(y)) / 2)), len(y)
    low, high = np.maximum(np.arange(n) - reach, 0), np.minimum(np.arange(n) + reach, n - 1)
    apart, moved = y[high] - y[low], w[high] - w[low]
    some = (apart > 0) & (moved > 0)
    return float(np.log(moved[some] / apart[some]).sum())


def signed_logs(excesses: Floats) -> Floats:
    """How far metrics are beyond a bound, far ones drawn near, shape (n,); the bound stays at 0.

    The bilog of Eriksson and Poloczek (2021), of excesses in units of their median size.
    """
    sizes = np.abs(excesses)
    unit = float(np.median(sizes[sizes > 0])) if sizes.any() else 1.0
    return np.sign(excesses) * np.log1p(sizes / unit)
