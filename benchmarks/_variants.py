"""Variants of `bayesian` that lack a part, or have another in its place: see `ablation`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from _searchers import Ours, Searcher, searcher, sources

from tuneyard_strategy import bayesian, gp
from tuneyard_strategy.acquisition import log_h
from tuneyard_strategy.gp import WIDE, Posterior, Prior, Target
from tuneyard_strategy.space import Mask
from tuneyard_strategy.warp import half_logs, half_ranks, standardised


class FlatPrior(Target):
    """No prior of the length-scales."""

    def prior(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """See Target."""
        return super().prior(np.append(self.mode[:-2], theta[-2:]))  # where its gradient is 0


class FixedPrior(FlatPrior):
    """Gamma(3, 6) of each length-scale, BoTorch's default before Hvarfner et al. (2024)."""

    def prior(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """See Target."""
        value, gradient = super().prior(theta)
        scales = np.exp(theta[:-2])
        gradient[:-2] = 6.0 * scales - 2.0
        return value + float((6.0 * scales - 2.0 * theta[:-2]).sum()), gradient


class WidePrior(Target):
    """The prior of Hvarfner et al. (2024), BoTorch's default."""

    def __init__(self, hamming: Mask, x: np.ndarray, y: np.ndarray, prior: Prior) -> None:
        super().__init__(hamming, x, y, WIDE._replace(noise=prior.noise))


class LittleNoise(Target):
    """Noise LogNormal(-4, 1), which takes trials for rather exact."""

    def prior(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """See Target."""
        value, gradient = super().prior(theta)
        off = theta[-1] + 4.0
        gradient[-1] += 1.0 + off * 0.75
        return value + theta[-1] + off**2 * 0.375, gradient


class BestLiar:
    """Logarithm of the expected improvement on the best mean, pending trials told as lies: see NoisyImprovement."""

    lie = staticmethod(np.min)

    def __init__(self, posterior: Posterior, baseline: np.ndarray, normals: np.ndarray) -> None:
        observed = (baseline[:, None] == posterior.x).all(axis=2).any(axis=1)
        pending = baseline[~observed]
        self._best = posterior.mean(baseline[observed]).min()
        y = np.append(posterior.y, np.full(len(pending), self.lie(posterior.y)))
        noise = np.append(posterior.noise, np.full(len(pending), posterior.noise[0]))
        self._posterior = Posterior(posterior.kernel, np.vstack([posterior.x, pending]), y, noise)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        mean, variance = self._posterior.predict(x)
        deviation = np.sqrt(variance)
        return np.asarray(log_h((self._best - mean) / deviation) + np.log(deviation))


class WorstLiar(BestLiar):
    """The same with the worst value."""

    lie = staticmethod(np.max)


VARIANTS: Mapping[str, tuple[object, str, object]] = {
    "flat-prior": (gp, "Target", FlatPrior),
    "wide-prior": (gp, "Target", WidePrior),
    "fixed-prior": (gp, "Target", FixedPrior),
    "little-noise": (gp, "Target", LittleNoise),
    "one-start": (gp, "NOISES", (-5.0,)),
    "no-output-warp": (bayesian, "WARPS", (standardised,)),
    "log-warp": (bayesian, "WARPS", (half_logs,)),
    "rank-warp": (bayesian, "WARPS", (half_ranks,)),
    "no-tpe": (bayesian, "PARZENS", None),
    "no-box": (bayesian, "BOXED", None),
    "nearest": (
        bayesian.Thrifty,
        "ranked",
        lambda model, history, index, **box: model._local.ranked(history, index, **box),
    ),
    "best-liar": (bayesian, "NoisyImprovement", BestLiar),
    "worst-liar": (bayesian, "NoisyImprovement", WorstLiar),
}


class Variant(Ours):
    """`bayesian`, with something else in place of one of its parts."""

    def __init__(self, name: str, parameters: list[dict[str, Any]], seed: int) -> None:
        super().__init__("bayesian", parameters, seed)
        self._instead = VARIANTS[name]

    def ask(self, index: int) -> dict[str, Any]:
        """See Searcher."""
        with patch.object(*self._instead):
            return super().ask(index)


def begin(name: str, parameters: list[dict[str, Any]], seed: int) -> Searcher:
    return Variant(name, parameters, seed) if name in VARIANTS else searcher(name, parameters, seed)


def files(name: str) -> list[Path]:
    return [*sources("bayesian"), Path(__file__)] if name in VARIANTS else sources(name)
