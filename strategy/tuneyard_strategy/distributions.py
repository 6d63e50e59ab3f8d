"""How a number is spread between its bounds: uniform or normal, on a linear or a logarithmic scale.

| Symbol | What |
|---|---|
| x | a value in the parameter's own unit |
| t | its place on the scale: x, or ln x with scale log |
| u | its place in the distribution, in [0, 1]: the probability of values below x |

A law holds the bounds of k parameters, shape (k,), and takes arrays of shape (n, k); or numbers, and takes any shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr, ndtri

Floats = NDArray[np.float64]
Number = float | Floats
"""One for all, or one for each parameter."""


def cut(x: Floats, low: Any, high: Any) -> Floats:
    """Numbers outside the bounds moved to them: np.clip, which takes five times as long on short arrays."""
    within: Floats = np.minimum(np.maximum(x, low), high)
    return within


class Spread(Protocol):
    """A distribution on the scale t, cut at its bounds."""

    def quantile(self, u: Floats) -> Floats:
        """The t below which a part u of all values lies; shape kept."""

    def cdf(self, t: Floats) -> Floats:
        """The part of all values that lies below t; shape kept."""

    def log_mass(self, low: Floats, high: Floats) -> Floats:
        """Logarithm of the probability between two arrays of places, up to a constant; shape kept."""


@dataclass(frozen=True)
class Uniform:
    """All places between low and high alike."""

    low: Number
    high: Number

    def quantile(self, u: Floats) -> Floats:
        """See Spread; written so that high - low cannot overflow."""
        return (1.0 - u) * self.low + u * self.high

    def cdf(self, t: Floats) -> Floats:
        """See Spread."""
        half = self.high / 2 - self.low / 2
        return cut((t / 2 - self.low / 2) / half, 0.0, 1.0)

    def log_mass(self, low: Floats, high: Floats) -> Floats:
        """See Spread."""
        return np.log(high - low)


@dataclass(frozen=True)
class TruncatedNormal:
    """A normal distribution of which only the part between low and high is kept, scaled up to 1."""

    low: Number
    high: Number
    mean: Number
    stddev: Number

    def quantile(self, u: Floats) -> Floats:
        """See Spread: Phi^-1(Phi(a) + u (Phi(b) - Phi(a))), with a and b the standardised bounds."""
        below, inside = self._below_and_inside()
        return cut(self.mean + self.stddev * ndtri(below + u * inside), self.low, self.high)

    def cdf(self, t: Floats) -> Floats:
        """See Spread: (Phi(z) - Phi(a)) / (Phi(b) - Phi(a))."""
        below, inside = self._below_and_inside()
        return cut((ndtr(self._standard(t)) - below) / inside, 0.0, 1.0)

    def log_mass(self, low: Floats, high: Floats) -> Floats:
        """See Spread; exact in the far tails too, where the mass itself would be 0."""
        a, b = self._standard(low), self._standard(high)
        mirrored = a > 0  # Phi is exact near 0 only: look at the upper tail in the mirror
        a, b = np.where(mirrored, -b, a), np.where(mirrored, -a, b)
        upper = log_ndtr(b)
        mass: Floats = np.maximum(upper + np.log1p(-np.exp(log_ndtr(a) - upper)), -1e300)
        return mass

    def _standard(self, t: Any) -> Any:
        return (t - self.mean) / self.stddev

    def _below_and_inside(self) -> tuple[Any, Any]:
        below, up_to = ndtr(self._standard(self.low)), ndtr(self._standard(self.high))
        return below, up_to - below


@dataclass(frozen=True)
class Law:
    """A distribution in the parameter's own unit: a spread on the scale t.

    Args:
        spread: the distribution of t.
        log: whether t is ln x, for all parameters or for each.
    """

    spread: Spread
    log: bool | NDArray[np.bool_]

    def quantile(self, u: Floats) -> Floats:
        """The x below which a part u of all values lies; shape kept."""
        t = self.spread.quantile(u)
        return np.exp(t, out=t, where=self.log)

    def cdf(self, x: Floats) -> Floats:
        """The part of all values that lies below x; shape kept."""
        return self.spread.cdf(on_scale(x, self.log))

    def log_mass(self, low: Floats, high: Floats) -> Floats:
        """Logarithm of the probability between two arrays of values, up to a constant; shape kept."""
        return self.spread.log_mass(on_scale(low, self.log), on_scale(high, self.log))


def on_scale(x: Number, log: bool | NDArray[np.bool_]) -> Floats:
    """The places t of values x: ln x where log."""
    return np.log(x, out=np.array(x, dtype=np.float64), where=log)


def law(low: Number, high: Number, *, log: bool | NDArray[np.bool_], mean: Number | None, stddev: Number | None) -> Law:
    """The distribution of a numeric parameter, or of several of a kind, cut at low and high.

    Args:
        low: the lower bound, in the parameter's own unit; above 0 where log.
        high: the upper bound.
        log: scale log.
        mean: centre of the normal distribution in the parameter's own unit, or None for uniform.
        stddev: its standard deviation, in the parameter's unit or, where log, in natural logarithms.
    """
    a, b = on_scale(low, log), on_scale(high, log)
    if mean is None or stddev is None:
        return Law(Uniform(a, b), log)
    return Law(TruncatedNormal(a, b, on_scale(mean, log), stddev), log)
