"""What a study's trials say of its parameters: which of them matter, and what is to be expected of each trial.

| Symbol | Shape | What |
|---|---|---|
| d, n | | parameters, points |
| u | (n, d) | points of the unit cube, one independent coordinate a parameter |
| f | | the metric as a model has it, a function of u |

The importance of a parameter is its Sobol index (Sobol 1993; for hyperparameters Hutter et al. 2014, "functional
ANOVA"): the part of f's variance that it explains alone (main), or alone and together with others (total), over the
whole space as its distributions weigh it. f is the mean of a Gaussian process. A coordinate of the cube whose parameter
a configuration lacks changes nothing, so that conditions need no special case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tuneyard_api.study import Objective
from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.distributions import Floats
from tuneyard_strategy.errors import StrategyError
from tuneyard_strategy.gp import Embedding, Posterior, fit
from tuneyard_strategy.history import Fate, History
from tuneyard_strategy.rng import Stream, generator
from tuneyard_strategy.space import Space

POINTS = 2**11
"""Points at which indices are estimated, for each parameter and twice more."""
MOST = 400
"""Trials in the model: of more, every so-and-so-many-th."""
MOST_FITTED = 150
FEWEST = 10
"""Trials that are needed at least; and two for each parameter."""
FENCE = 3.0
"""Values farther than this many interquartile ranges beyond the quartiles are drawn to there: one trial that diverged
would be all that matters."""
BLOCK = 4096

Rows = NDArray[np.intp]


class TooFewTrials(StrategyError):
    """There is too little to build a model on."""


@dataclass(frozen=True)
class Importance:
    """How much a parameter matters."""

    name: str
    main: float
    total: float


@dataclass(frozen=True)
class Prediction:
    """What the model makes of a trial: the metric without its noise, and how sure that is (a standard deviation)."""

    index: int
    mean: float
    deviation: float


def sobol_indices(f: Callable[[Floats], Floats], d: int, seed: int = 0, points: int = POINTS) -> tuple[Floats, Floats]:
    """The main and total Sobol indices of a function on the unit cube, shape (d,) each, 0 where f is constant.

    Estimated from two sets of quasi-random points A and B and, for each coordinate i, A with that coordinate of B (AB):
    main mean(f(B) (f(AB) - f(A))) / var, total mean((f(A) - f(AB))^2) / 2 var (Saltelli et al. 2010, table 2, b and f).

    Args:
        f: takes points, shape (n, d); gives values, shape (n,).
        d: coordinates.
        seed: of the points' scrambling.
        points: how many in A and B each, a power of two.
    """
    from scipy.stats.qmc import Sobol  # noqa: PLC0415 # half a second

    both = Sobol(2 * d, rng=generator(seed, Stream.SCRAMBLING)).random(points)
    a, b = both[:, :d], both[:, d:]
    at_a, at_b = f(a), f(b)
    centre, variance = float(np.append(at_a, at_b).mean()), float(np.append(at_a, at_b).var())
    main, total = np.zeros(d), np.zeros(d)
    if variance <= 1e-24 * centre**2:
        return main, total
    for i in range(d):
        mixed = a.copy()
        mixed[:, i] = b[:, i]
        at_mixed = f(mixed)
        main[i] = np.mean((at_b - centre) * (at_mixed - at_a)) / variance
        total[i] = np.mean((at_a - at_mixed) ** 2) / (2.0 * variance)
    main = np.clip(main, 0.0, 1.0)
    return main, np.clip(total, main, 1.0)


class Surrogate:
    """A Gaussian process of one metric of a study.

    Args:
        definition: the study.
        records: its trials; where one is there several times, the last one counts.
        metric: the metric; left out, the one to optimise.
        best_first: which trials to model where there are too many: half of them the best ones; left out, whichever.

    Raises:
        TooFewTrials: with how many are needed.
        StrategyError: there is no such metric.
    """

    def __init__(
        self,
        definition: StudyDefinition,
        records: Sequence[TrialRecord],
        metric: str | None = None,
        best_first: Literal["minimize", "maximize"] | None = None,
    ) -> None:
        self.metric = _metric(definition, metric)
        self._seed = definition.strategy.seed
        self.space = Space.from_spec(definition.parameters, definition.constraints)
        self._history, self._indices = self._told(records)
        self._embedding = Embedding(self.space, self._history.encoding)
        rows = self._history.rows(Fate.MEASURED)
        fewest = max(FEWEST, 2 * len(self.space.names))
        if len(rows) < fewest:
            said = f"{fewest} trials with a result are needed for a model of {len(self.space.names)} parameters"
            raise TooFewTrials(f"{said}; there are {len(rows)} so far")
        rows = _modelled(rows, self._history.values(rows), best_first)
        self.observations = len(rows)
        values = _fenced(self._history.values(rows))
        self._centre, self._unit = float(values.mean()), float(values.std())
        if self._unit <= 1e-12 * abs(self._centre):
            raise TooFewTrials(f"all trials gave the same {self.metric}: nothing can be told apart")
        x, y = self._features(rows), (values - self._centre) / self._unit
        some = slice(None, None, -(-len(rows) // MOST_FITTED))
        kernel, noise, _ = fit(self._embedding.hamming, x[some], y[some])
        self._posterior = Posterior(kernel, x, y, np.full(len(y), noise))
        self.explained = 1.0 - float(np.mean(self._posterior.left_out() ** 2)) / float(np.var(y))
        """The part of the metric's variance that the model foresees, each trial by the others; at most 1."""

    def importances(self) -> list[Importance]:
        """How much each parameter matters, the most important first."""
        encoding = self._history.encoding

        def f(u: Floats) -> Floats:
            found = np.empty(len(u))
            for start in range(0, len(u), BLOCK):
                block = u[start : start + BLOCK]
                coordinates = encoding.coordinates(self.space.table(block, sketch=True), block)
                found[start : start + BLOCK] = self._posterior.mean(self._embedding.features(coordinates))
            return found

        main, total = sobol_indices(f, len(self.space.names), self._seed)
        found = [Importance(*row) for row in zip(self.space.names, main.tolist(), total.tolist(), strict=True)]
        return sorted(found, key=lambda importance: -importance.total)

    def predictions(self) -> list[Prediction]:
        """What is to be expected of each trial that lies in the space, in the order of their indices."""
        rows = np.flatnonzero([index in self._indices for index in range(max(self._indices, default=-1) + 1)])
        mean, variance = self._posterior.predict(self._features(rows))
        means = (self._centre + self._unit * mean).tolist()
        deviations = (self._unit * np.sqrt(variance)).tolist()
        return [Prediction(*row) for row in zip(rows.tolist(), means, deviations, strict=True)]

    def _told(self, records: Sequence[TrialRecord]) -> tuple[History, set[int]]:
        latest = {record.index: record for record in records}.values()
        typed = {record.index: self.space.typed(record.parameters) for record in latest}
        inside = [index for index, parameters in typed.items() if not self.space.problems(parameters)]
        history = History(self.space, [Objective(metric=self.metric, goal="minimize")])
        history.tell(latest)
        history.place(inside, self.space.table_of([typed[index] for index in inside]))
        return history, set(inside)

    def _features(self, rows: Rows) -> Floats:
        return self._embedding.features(self._history.coordinates(rows))


def _metric(definition: StudyDefinition, metric: str | None) -> str:
    known = [objective.metric for objective in definition.objectives]
    if metric is None:
        return next(objective.metric for objective in definition.objectives if objective.goal is not None)
    if metric not in known:
        raise StrategyError(f"the study has no metric {metric}: choose one of {', '.join(known)}")
    return metric


def _modelled(rows: Rows, values: Floats, best_first: Literal["minimize", "maximize"] | None) -> Rows:
    """Which trials to model, in order: all; of too many the best half and some of all others, or some of all."""
    best = np.zeros(0, dtype=np.intp)
    if len(rows) > MOST and best_first is not None:
        order = np.argsort(values if best_first == "minimize" else -values, kind="stable")
        best, rows = rows[order[: MOST // 2]], np.sort(rows[order[MOST // 2 :]])
    room = MOST - len(best)
    return np.sort(np.append(best, rows[:: -(-len(rows) // room)]))


def _fenced(values: Floats) -> Floats:
    low, high = np.quantile(values, [0.25, 0.75])
    reach = FENCE * (high - low)
    fenced: Floats = np.clip(values, low - reach, high + reach) if reach > 0 else values
    return fenced
