"""The density of TPE: a mixture of kernels, one a configuration, over mixed and conditional spaces.

| Symbol | Shape | What |
|---|---|---|
| n, k, d | | configurations that are judged, kernels, parameters |
| x | (n, d) | coordinates of configurations, see `encoding` |
| centres | (k, d) | coordinates of the kernels |
| width | | standard deviation of the kernels of numbers, as a part of the range |
| spread | (d,) | the part of a categorical kernel that lies on all categories, not on its own |

Densities are relative to the distributions that the user gave: a parameter that is drawn from its distribution has
density 1. A kernel whose configuration lacks a parameter says nothing of it and leaves it to its distribution. So the
mixture is a density over the tree of conditions, and the kernel that lacks all parameters is the prior.

A stepped parameter of many values is taken for a continuous one; of a category's many values only those drawn are
looked at.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from tuneyard_strategy.distributions import Floats, cut
from tuneyard_strategy.encoding import FEW, Encoding, Steps


class Parzen:
    """A mixture of product kernels (Bergstra et al. 2011; multivariate as in Falkner et al. 2018, section 3.2).

    The kernel of a number is a normal distribution cut at the bounds, or restricted to the steps. That of a category is
    Aitchison and Aitken's. The prior is one more kernel, with the mean weight of the others.

    Args:
        encoding: of the space.
        observed: coordinates of the configurations, shape (k - 1, d).
        weights: of the configurations, shape (k - 1,).
    """

    def __init__(self, encoding: Encoding, observed: Floats, weights: Floats) -> None:
        count, width = observed.shape
        self._encoding = encoding
        self._numeric = ~encoding.categorical
        self.centres = np.vstack([observed, np.full((1, width), np.nan)])
        self.weights = np.append(weights, weights.mean() if count else 1.0)
        self.weights /= self.weights.sum()
        self.width = 0.2 * max(count, 1) ** (-1.0 / (width + 4))  # Scott's rule, from a fifth of the range
        self.spread = encoding.sizes / (encoding.sizes + count + 1.0)
        self._active = ~np.isnan(self.centres)
        self._log_norm = self._log_norms()

    def log_density(self, x: Floats) -> Floats:
        """Logarithm of the density at each row of x."""
        left, right = self._number_features(x)
        if not self._numeric.all():
            more = self._category_features(x)
            left, right = [*left, *more[0]], [*right, *more[1]]
        logs = np.hstack(left) @ np.hstack(right).T + np.log(self.weights)
        highest = logs.max(axis=1, keepdims=True)
        density: Floats = highest[:, 0] + np.log(np.exp(logs - highest).sum(axis=1))
        return density

    def sample(self, u: Floats) -> Floats:
        """Points of the unit cube drawn from the mixture; parameters that turn out inactive get some place, too.

        Args:
            u: uniform random numbers, shape (n, 1 + 2 d).
        """
        width = self.centres.shape[1]
        kernels = np.minimum(np.searchsorted(np.cumsum(self.weights), u[:, 0], side="right"), len(self.weights) - 1)
        place, choice = u[:, 1 : 1 + width], u[:, 1 + width :]
        centres, active = self._encoding.points(self.centres[kernels]), self._active[kernels]
        low, high = ndtr(-centres / self.width), ndtr((1.0 - centres) / self.width)
        near = cut(centres + self.width * ndtri(low + place * (high - low)), 0.0, 1.0)
        own = np.where(self._numeric, near, np.where(choice < self.spread, place, centres))
        return np.where(active, own, place)

    # The logarithm of a product of kernels is a sum over parameters, of features of x times features of the kernel: one
    # product of two matrices, (n, features) and (features, k). The methods give both, as lists of their columns.

    def _number_features(self, x: Floats) -> tuple[list[Floats], list[Floats]]:
        """-(x - c)^2 / (2 width^2) - ln norm, multiplied out, for the parameters that both x and kernel have."""
        there = ~np.isnan(x[:, self._numeric])
        place = np.where(there, x[:, self._numeric], 0.0)
        active = self._active[:, self._numeric]
        centre = np.where(active, self.centres[:, self._numeric], 0.0)
        precision = self.width**-2
        constant = -0.5 * precision * centre**2 - self._log_norm
        return [place**2, place, there.astype(np.float64)], [-0.5 * precision * active, precision * centre, constant]

    def _category_features(self, x: Floats) -> tuple[list[Floats], list[Floats]]:
        """Logarithm of spread, and what a kernel adds at its own category, relative to the category's probability.

        There is a feature for each category that any x has, of all parameters side by side.
        """
        positions = self._encoding.categories
        present = [self._present(x[:, position], position) for position in positions.tolist()]
        owners, codes = np.repeat(positions, [len(some) for some in present]), np.concatenate(present)
        chances = [self._encoding.probabilities(p)[c] for p, c in zip(positions.tolist(), present, strict=True)]
        spread = self.spread[owners]
        own = np.log1p((1.0 - spread) / (spread * np.maximum(np.concatenate(chances), 1e-300)))
        hits = (x[:, owners] == codes) * own
        kernels = (self.centres[:, owners] == codes).astype(np.float64)
        there = ~np.isnan(x[:, positions]) * np.log(self.spread[positions])
        return [hits, there], [kernels, self._active[:, positions].astype(np.float64)]

    def _present(self, codes: Floats, position: int) -> NDArray[np.intp]:
        """The categories that any x has, or all of few."""
        size = self._encoding.dimensions[position].size or 0
        return np.arange(size) if size <= FEW else np.unique(codes[~np.isnan(codes)]).astype(np.intp)

    def _log_norms(self) -> Floats:
        """Logarithm of the integral of each number's unnormalised kernel, shape (k, numbers); 0 where inactive."""
        steps = self._encoding.steps
        norms = np.ones(self.centres.shape)
        smooth = self._encoding.smooth
        centres = self.centres[:, smooth] / self.width
        norms[:, smooth] = self.width * math.sqrt(2.0 * math.pi) * (ndtr(1.0 / self.width - centres) - ndtr(-centres))
        if len(steps.positions):
            norms[:, steps.positions] = self._sums(steps)
        return np.log(np.where(self._active, norms, 1.0)[:, self._numeric])

    def _sums(self, steps: Steps) -> Floats:
        """The integrals of stepped parameters' kernels, shape (k, s): sums over their values."""
        apart = (steps.places[:, :, None] - steps.places[:, None, :]) / self.width
        sums = np.exp(-0.5 * apart**2) @ steps.probabilities[:, :, None]
        rows = np.arange(len(steps.positions))
        # One search for all parameters: the places of each are moved beyond those of the one before.
        found = (
            (steps.places + 2.0 * rows[:, None])
            .ravel()
            .searchsorted(self.centres[:, steps.positions] - 1e-9 + 2.0 * rows)
        )
        last = rows * steps.places.shape[1] + steps.sizes - 1
        nearest: Floats = sums.ravel()[np.minimum(found, last)]
        return nearest
