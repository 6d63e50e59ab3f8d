"""One generation of CMA-ES after another: a normal distribution that learns from ranks (Hansen 2016, arXiv:1604.00772).

| Symbol | Shape | What |
|---|---|---|
| n, k | | numbers, points of a generation |
| mean, sigma, covariance | (n,), (), (n, n) | the distribution N(mean, sigma^2 covariance) |
| path_sigma, path_c | (n,) | evolution paths: where the mean went lately, weighed |
| points | (k, n) | the generation, the best first |
| y | (k, n) | (points - mean) / sigma |

The numbers of equations are the tutorial's. What differs: points need not come from the distribution, and steps of
whole numbers have a size below which a spread makes no sense.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from tuneyard_strategy.distributions import Floats

LARGEST = 1.0
"""Standard deviations, in units of the range, that make no more sense."""


@dataclass(frozen=True, eq=False)
class Rates:
    """How quickly to learn: table 1 of the tutorial, for n numbers and generations of a size."""

    weights: Floats
    parents: int
    mu_eff: float
    c_sigma: float
    d_sigma: float
    c_c: float
    c_1: float
    c_mu: float


@lru_cache(maxsize=64)
def rates(n: int, size: int) -> Rates:
    """The tutorial's defaults, with negative weights for the worse half (active CMA-ES)."""
    raw = math.log((size + 1) / 2) - np.log(np.arange(1, size + 1))  # eq. 49
    parents = size // 2
    mu_eff = float(raw[:parents].sum() ** 2 / (raw[:parents] ** 2).sum())
    mu_eff_minus = float(raw[parents:].sum() ** 2 / (raw[parents:] ** 2).sum())
    c_1 = 2.0 / ((n + 1.3) ** 2 + mu_eff)  # eq. 57
    c_mu = min(1.0 - c_1 - 1e-8, 2.0 * (mu_eff - 2.0 + 1.0 / mu_eff) / ((n + 2.0) ** 2 + mu_eff))  # eq. 58
    negative = min(
        1.0 + c_1 / c_mu, 1.0 + 2.0 * mu_eff_minus / (mu_eff + 2.0), (1.0 - c_1 - c_mu) / (n * c_mu)
    )  # eq. 50 to 52
    weights = np.where(raw >= 0.0, raw / raw[raw > 0].sum(), negative * raw / -raw[raw < 0].sum())  # eq. 53
    c_sigma = (mu_eff + 2.0) / (n + mu_eff + 5.0)  # eq. 55
    d_sigma = 1.0 + 2.0 * max(0.0, math.sqrt((mu_eff - 1.0) / (n + 1.0)) - 1.0) + c_sigma
    c_c = (4.0 + mu_eff / n) / (n + 4.0 + 2.0 * mu_eff / n)  # eq. 56
    return Rates(weights, parents, mu_eff, c_sigma, d_sigma, c_c, c_1, c_mu)


def expected_length(n: int) -> float:
    """The length of a standard normal vector of n numbers, as expected (to the tutorial's approximation)."""
    return math.sqrt(n) * (1.0 - 1.0 / (4.0 * n) + 1.0 / (21.0 * n**2))


@dataclass(frozen=True, eq=False)
class Normal:
    """The distribution after some generations. Immutable: `after` gives the next one."""

    mean: Floats
    sigma: float
    covariance: Floats
    path_sigma: Floats
    path_c: Floats
    generation: int = 0

    @classmethod
    def start(cls, mean: Floats, sigma: float, covariance: Floats | None = None) -> Normal:
        """Before the first generation; round unless a covariance is given."""
        n = len(mean)
        return cls(mean, sigma, np.eye(n) if covariance is None else covariance, np.zeros(n), np.zeros(n))

    @cached_property
    def deviations(self) -> Floats:
        """Standard deviation of each coordinate, shape (n,)."""
        spread: Floats = self.sigma * np.sqrt(np.diagonal(self.covariance))
        return spread

    @property
    def condition(self) -> float:
        """The covariance's largest eigenvalue as a multiple of the smallest."""
        return self._inverse_root[1]

    def sample(self, normals: Floats) -> Floats:
        """Points, shape (m, n), from standard normal numbers of the same shape."""
        return self.mean + self.sigma * normals @ self._factor.T

    def after(self, points: Floats, floors: Floats | None = None) -> Normal:
        """The distribution after a generation.

        Points of whatever origin are welcome: those farther out than the distribution would ever have put them are
        drawn near (Hansen 2011, arXiv:1110.4181), so that none of them makes the step-size explode.

        Args:
            points: shape (k, n), the best first.
            floors: standard deviations to keep at least, shape (n,), as in CMA-ES with margin (Hamano et al. 2022):
                a whole number goes on changing now and then. Coordinates on the floor have no say in the step-size.
        """
        n, rate = len(self.mean), rates(len(self.mean), len(points))
        inverse_root, _ = self._inverse_root
        y = (points - self.mean) / self.sigma
        lengths = np.sqrt(((y @ inverse_root) ** 2).sum(axis=1))
        far = math.sqrt(n) + 2.0 * n / (n + 2.0)
        y *= np.minimum(1.0, far / np.maximum(lengths, 1e-300))[:, None]
        lengths = np.minimum(lengths, far)
        step = rate.weights[: rate.parents] @ y[: rate.parents]  # eq. 41
        c_sigma, c_c = rate.c_sigma, rate.c_c
        path_sigma = (1.0 - c_sigma) * self.path_sigma + math.sqrt(
            c_sigma * (2.0 - c_sigma) * rate.mu_eff
        ) * inverse_root @ step  # eq. 43
        stretched, scale = self._lengths(path_sigma, floors)
        fade = 1.0 - (1.0 - c_sigma) ** (2 * (self.generation + 1))
        moving = stretched / math.sqrt(fade) < (1.4 + 2.0 / (n + 1)) * scale  # the tutorial's h_sigma
        path_c = (1.0 - c_c) * self.path_c + moving * math.sqrt(c_c * (2.0 - c_c) * rate.mu_eff) * step  # eq. 45
        weights = np.where(rate.weights >= 0.0, rate.weights, rate.weights * n / np.maximum(lengths**2, 1e-8))  # eq. 46
        lost = (1.0 - moving) * c_c * (2.0 - c_c)
        covariance = (
            (1.0 + rate.c_1 * lost - rate.c_1 - rate.c_mu * rate.weights.sum()) * self.covariance
            + rate.c_1 * (path_c[:, None] * path_c)
            + rate.c_mu * (weights * y.T) @ y
        )  # eq. 47
        growth = math.exp(min(1.0, c_sigma / rate.d_sigma * (stretched / scale - 1.0))) if scale else 1.0  # eq. 44
        covariance = (covariance + covariance.T) / 2.0
        widest = LARGEST / math.sqrt(max(float(np.diagonal(covariance).max()), 1e-300))
        following = Normal(
            self.mean + self.sigma * step,
            min(self.sigma * growth, widest),
            covariance,
            path_sigma,
            path_c,
            self.generation + 1,
        )
        return following if floors is None else following.spread(floors)

    def prepare(self) -> None:
        """Work out ahead of `after` what takes it longest."""
        self._inverse_root  # noqa: B018

    def spread(self, floors: Floats) -> Normal:
        """The same with each coordinate's standard deviation at least at its floor; correlations stay."""
        if (self.deviations >= floors).all():
            return self
        factors = np.maximum(1.0, floors / np.maximum(self.deviations, 1e-300))
        return replace(self, covariance=self.covariance * (factors[:, None] * factors), path_c=self.path_c * factors)

    @cached_property
    def _factor(self) -> Floats:
        """The Cholesky factor of the covariance: unique, where signs of eigenvectors differ between machines."""
        factor: Floats = np.linalg.cholesky(self.covariance).astype(np.float64, copy=False)
        return factor

    @cached_property
    def _inverse_root(self) -> tuple[Floats, float]:
        """covariance^-1/2, symmetric, so that the signs of eigenvectors do not matter; and the covariance's condition.

        Both are kept, and no eigenvectors: a study has hundreds of generations.
        """
        values, vectors = np.linalg.eigh(self.covariance)
        root: Floats = vectors / np.sqrt(np.maximum(values, 1e-14 * values[-1])) @ vectors.T
        return root, float(values[-1] / max(values[0], 1e-300))

    def _lengths(self, path: Floats, floors: Floats | None) -> tuple[float, float]:
        """How long the path is in the coordinates above their floors, and how long it would be by chance."""
        free = np.ones(len(path), dtype=np.bool_) if floors is None else self.deviations > 1.01 * floors
        count = int(np.count_nonzero(free))
        return math.sqrt(path[free] @ path[free]), expected_length(count) if count else 0.0
