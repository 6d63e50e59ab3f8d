"""What a proposal of the Gaussian process costs, told from counts alone, so that it is the same on any machine.

A proposal whose model is too costly is TPE's instead. A clock would be simpler, but then a busy machine would give
other answers than an idle one.
"""

from __future__ import annotations

from dataclasses import dataclass

LIMIT = 2.0
"""Seconds of a proposal, on one core of 2023 and hyperparameters fitted anew, from which on TPE proposes instead."""
_EVALUATIONS = 40.0
_CANDIDATES = 1024.0


@dataclass(frozen=True)
class Effort:
    """What decides how long a proposal takes.

    Attributes:
        fitted: observations that hyperparameters are fitted to.
        modelled: observations in a model, with those of the baseline.
        features: numbers that a configuration is for the model.
        models: objectives and bounds.
        boxes: of the space beyond the front, where there are several objectives, in all worlds.
    """

    fitted: int
    modelled: int
    features: int
    models: int
    boxes: int = 0

    @property
    def seconds(self) -> float:
        """About how long it takes, within a factor of two."""
        fit = _EVALUATIONS * self.fitted**2 * (2e-9 * self.features + 6e-10 * self.fitted + 4e-8)
        search = _CANDIDATES * self.modelled * (2e-9 * self.features + 3e-10 * self.modelled + 3e-8)
        return self.models * (fit + search) + _CANDIDATES * self.boxes * 3e-8
