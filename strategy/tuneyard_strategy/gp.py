"""Gaussian process regression, with hyperparameters fitted to their most probable values.

| Symbol | Shape | What |
|---|---|---|
| n, m, q, s | | observations, inputs to predict, features, sets of targets |
| x | (n, q) | features of the observations, see `Embedding` |
| y | (n,) or (n, s) | targets, of about zero mean and unit variance |
| scales | (q,) | length-scales l: how far one goes along a feature until the function is another |
| signal | | variance of the function |
| noise | (n,) | variance of each observation's noise |
| differences | (q, n (n - 1) / 2) | squared differences between all pairs of observations, one row a feature |
| theta | (q + 2,) | ln of scales, signal and noise |
| K | (n, n) | covariance of the observations, signal k(x, x) + noise |
| alpha | (n, s) | K^-1 y |

The kernel is Matern-5/2 with a length-scale a feature: k = (1 + R + R^2 / 3) exp(-R), R^2 = 5 sum_q d_q / l_q^2, where
d_q is the squared difference, or for a category 0 or 1 (Hutter et al. 2014). Rasmussen and Williams (2006) is RW.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs

from tuneyard_strategy.distributions import Floats
from tuneyard_strategy.encoding import Encoding
from tuneyard_strategy.space import Mask, Space

SHORTEST, LONGEST = 0.025, 1e3
"""Bounds of the length-scales."""
NOISE_FLOOR = 1e-5
JITTER = 1e-6
"""Noise of what is taken for exact, as a part of the signal: keeps K positive definite."""
ITERATIONS = 40
NOISES = (-5.0, -1.0)
"""ln of the noise that a search of hyperparameters begins with."""


class Prior(NamedTuple):
    """What hyperparameters are like before any observation; there is also the signal's, Gamma(2, 1).

    Scales are LogNormal, and longer where there are more features (Hvarfner et al. 2024). Noise is LogNormal(noise, 2),
    which leaves it to the data.
    """

    scale: float
    """Where the density of a length-scale is the highest, as a part of sqrt(q)."""
    spread: float
    """Standard deviation of its ln."""
    noise: float
    """Mean of ln of the noise."""

    def mode(self, features: int) -> float:
        """Logarithm of the length-scale where its density is the highest."""
        return math.log(self.scale) + math.log(features) / 2.0

    def kernel(self, hamming: Mask) -> Kernel:
        """The most probable one."""
        return Kernel(hamming, np.full(len(hamming), math.exp(self.mode(len(hamming)))), 1.0)


WIDE = Prior(math.exp(math.sqrt(2.0) - 3.0), math.sqrt(3.0), -4.0)
"""That of Hvarfner et al. (2024), and BoTorch's."""
NARROW = Prior(0.13, 1.0, -4.0)
"""Finds better configurations with few trials (docs/strategies.md has figures). It seems that WIDE lets a fit to so few
take a feature that matters for one that does not, and a search that believes so stays where it is."""


class Embedding:
    """Features of configurations, between which distance means something.

    A number that a configuration lacks lies in the middle, a category that it lacks is one more category; and for each
    condition there is a feature that says whether it holds, which keeps the kernel positive semidefinite.
    """

    def __init__(self, space: Space, encoding: Encoding) -> None:
        conditions = {str(p.when): position for position, p in enumerate(space.parameters) if p.when}
        self._conditional = list(conditions.values())
        self._categorical = encoding.categorical
        self.hamming: Mask = np.append(encoding.categorical, np.zeros(len(conditions), dtype=np.bool_))
        """Which features are categories, shape (q,)."""

    def features(self, coordinates: Floats) -> Floats:
        """Features, shape (n, q), of coordinates, shape (n, d)."""
        missing = np.isnan(coordinates)
        filled = np.where(missing, np.where(self._categorical, -1.0, 0.5), coordinates)
        return np.hstack([filled, 1.0 - missing[:, self._conditional]])


@dataclass(frozen=True)
class Kernel:
    """The covariance of the function at two inputs."""

    hamming: Mask
    scales: Floats
    signal: float

    def between(self, a: Floats, b: Floats) -> Floats:
        """Covariances of the function at a, shape (n, q), and b, shape (m, q): shape (n, m)."""
        from scipy.spatial.distance import cdist  # noqa: PLC0415 # strategies that need none start faster

        numeric = ~self.hamming
        squares: Floats = cdist(
            a[:, numeric] / self.scales[numeric], b[:, numeric] / self.scales[numeric], "sqeuclidean"
        )
        for feature in np.flatnonzero(self.hamming):
            squares += (a[:, feature, None] != b[:, feature]) * self.scales[feature] ** -2
        covariances = _matern(squares)
        covariances *= self.signal
        return covariances


class Posterior:
    """The function given observations: RW, algorithm 2.1.

    Args:
        kernel: of the function before any observation.
        x: where it was observed.
        y: what was observed; several columns are several functions observed at the same places.
        noise: variance of each observation.
    """

    def __init__(self, kernel: Kernel, x: Floats, y: Floats, noise: Floats) -> None:
        self.kernel, self.x, self.y, self.noise = kernel, x, y, noise
        covariance = kernel.between(x, x)
        covariance[np.diag_indices(len(x))] += noise
        self._factor = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
        self._alpha = cho_solve((self._factor, True), y, check_finite=False)

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Mean, shape (m,) or (m, s), and variance, shape (m,), of the function at x, shape (m, q)."""
        across = self.kernel.between(self.x, x)
        half = solve_triangular(self._factor, across, lower=True, check_finite=False)
        variance = self.kernel.signal - np.einsum("nm,nm->m", half, half)
        return across.T @ self._alpha, np.maximum(variance, JITTER * self.kernel.signal)

    def mean(self, x: Floats) -> Floats:
        """Mean of the function at x."""
        mean: Floats = self.kernel.between(self.x, x).T @ self._alpha
        return mean

    def left_out(self) -> Floats:
        """How far each observation is from what the others foretell, shape (n,): RW, equation 5.12."""
        inverse = cho_solve((self._factor, True), np.eye(len(self.x)), check_finite=False)
        missed: Floats = self._alpha / np.diagonal(inverse)
        return missed

    def draw(self, x: Floats, normals: Floats) -> Floats:
        """The function at x, shape (m, s), in s worlds that the observations allow.

        Args:
            x: shape (m, q).
            normals: standard normal numbers, shape (m, s).
        """
        across = self.kernel.between(self.x, x)
        half = solve_triangular(self._factor, across, lower=True, check_finite=False)
        covariance = self.kernel.between(x, x) - half.T @ half
        covariance[np.diag_indices(len(x))] += JITTER * self.kernel.signal
        factor = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
        worlds: Floats = (across.T @ self._alpha)[:, None] + factor @ normals
        return worlds

    def given(self, x: Floats, worlds: Floats) -> Posterior:
        """The same function, in each world known to have these values, shape (m, s), at x."""
        repeated = np.repeat(self.y[:, None], worlds.shape[1], axis=1)
        exact = np.full(len(x), JITTER * self.kernel.signal)
        return Posterior(
            self.kernel, np.vstack([self.x, x]), np.vstack([repeated, worlds]), np.append(self.noise, exact)
        )


class Fit(NamedTuple):
    """The most probable hyperparameters."""

    kernel: Kernel
    noise: float
    """Variance of the noise."""
    evidence: float
    """Logarithm of the density of observations and hyperparameters, up to a constant that is the same for all y."""


def fit(hamming: Mask, x: Floats, y: Floats) -> Fit:
    """The most probable kernel and noise variance: a function of x and y alone.

    Args:
        hamming: which features are categories, shape (q,).
        x: features, shape (n, q).
        y: targets, shape (n,).
    """
    return fits(hamming, x, [y])[0]


def fits(hamming: Mask, x: Floats, ways: Sequence[Floats], prior: Prior = WIDE) -> list[Fit]:
    """The same for several ways to see the targets, each of shape (n,).

    The first search begins at the mode of the prior, with little noise and with much: much noise and a short
    length-scale explain the same, and a search from one of them does not find the other. The other ways are not that
    different: their search goes on where the one before has ended.
    """
    target = Target(hamming, x, ways[0], prior)
    begun = [_climb(target, np.append(target.mode[:-1], start)) for start in NOISES]
    ends = [min(begun, key=lambda end: end[1])]
    for y in ways[1:]:
        ends.append(_climb(target.of(y), ends[-1][0]))
    return [
        Fit(Kernel(hamming, np.exp(theta[:-2]), math.exp(theta[-2])), math.exp(theta[-1]), -value)
        for theta, value in ends
    ]


def _climb(target: Target, start: Floats) -> tuple[Floats, float]:
    """The theta of a least value near a start, and the value."""
    from scipy.optimize import minimize  # noqa: PLC0415 # a third of a second, which other strategies need not wait for

    q = len(start) - 2
    bounds = [(math.log(SHORTEST), math.log(LONGEST))] * q + [(-3.0, 3.0), (math.log(NOISE_FLOOR), 0.0)]
    options = {"maxiter": ITERATIONS, "gtol": 1e-2, "ftol": 3e-4}
    end = minimize(target, start, jac=True, bounds=bounds, method="L-BFGS-B", options=options)
    return end.x, float(end.fun)


class Target:
    """The negative log posterior density of theta and its gradient, up to a constant: RW, equations 5.8 and 5.9."""

    def __init__(self, hamming: Mask, x: Floats, y: Floats, prior: Prior = WIDE) -> None:
        self._y, self._prior = y, prior
        row, column = self._rows, self._columns = np.tril_indices(len(x), -1)
        self._pairs = column * len(x) + row
        """Where K has the pairs of observations, as LAPACK reads it: column by column."""
        self._differences = np.stack(
            [
                (values[row] != values[column]).astype(np.float64) if h else (values[row] - values[column]) ** 2
                for values, h in zip(x.T, hamming, strict=True)
            ]
        )
        self.mode = np.append(np.full(len(hamming), prior.mode(len(hamming))), [0.0, prior.noise])
        """Where the prior is densest."""

    def of(self, y: Floats) -> Target:
        """The same of other targets at the same places."""
        other = copy(self)
        other._y = y
        return other

    def __call__(self, theta: Floats) -> tuple[float, Floats]:
        """Value and gradient at theta."""
        n = len(self._y)
        precisions, signal, noise = np.exp(-2.0 * theta[:-2]), math.exp(theta[-2]), math.exp(theta[-1])
        kernel, slope = _matern_and_slope(np.sqrt((5.0 * precisions) @ self._differences))
        covariance = np.zeros(n * n)
        covariance[self._pairs] = signal * kernel
        covariance[:: n + 1] = signal + noise
        factor, _ = dpotrf(covariance.reshape(n, n).T, lower=True, overwrite_a=True)
        alpha, _ = dpotrs(factor, self._y, lower=True)
        inverse, _ = dpotri(factor, lower=True)
        weights = alpha[self._rows] * alpha[self._columns] - inverse.T.ravel()[self._pairs]
        own = float(alpha @ alpha - inverse.trace())
        value = 0.5 * self._y @ alpha + np.log(factor.diagonal()).sum()
        prior, gradient = self.prior(theta)
        # -tr((alpha alpha^T - K^-1) dK) / 2, where each pair is there twice
        gradient[:-2] -= signal * precisions * (self._differences @ (weights * slope))
        gradient[-2] -= signal * (weights @ kernel + 0.5 * own)
        gradient[-1] -= 0.5 * noise * own
        return float(value + prior), gradient

    def prior(self, theta: Floats) -> tuple[float, Floats]:
        """The part of value and gradient that no observation changes."""
        off, variance = theta - self.mode, self._prior.spread**2
        scales, signal, noise = off[:-2], off[-2], off[-1]
        gradient = np.empty(len(theta))
        gradient[:-2] = scales / variance
        gradient[-2:] = math.exp(signal) - 1.0, noise / 4.0
        value = float(scales @ scales) / (2.0 * variance)
        return value - signal + math.exp(signal) + noise**2 / 8.0, gradient


def _matern(squares: Floats) -> Floats:
    """The kernel at R^2 / 5, which is overwritten: with many inputs, it is memory that costs the time."""
    distance = np.sqrt(np.multiply(squares, 5.0, out=squares), out=squares)
    kernel = distance / 3.0
    kernel += 1.0
    kernel *= distance
    kernel += 1.0
    kernel *= np.exp(np.negative(distance, out=distance), out=distance)
    return kernel


def _matern_and_slope(distance: Floats) -> tuple[Floats, Floats]:
    """The kernel at R, and its derivative by ln l_q divided by d_q / l_q^2; shapes kept."""
    decay = np.exp(-distance)
    linear = (1.0 + distance) * decay
    return linear + distance**2 * decay / 3.0, linear * (5.0 / 3.0)
