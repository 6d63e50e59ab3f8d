"""Bayesian optimisation: Gaussian processes of the objectives, and the trial that promises the largest improvement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from tuneyard_strategy import pareto
from tuneyard_strategy.acquisition import Feasibility, NoisyImprovement
from tuneyard_strategy.contract import StudyDefinition
from tuneyard_strategy.distributions import Floats
from tuneyard_strategy.effort import LIMIT, Effort
from tuneyard_strategy.ehvi import HypervolumeImprovement
from tuneyard_strategy.gp import NARROW, WIDE, Embedding, Fit, Posterior, Prior, fits
from tuneyard_strategy.history import Fate, Known, Part, Rows, beyond
from tuneyard_strategy.learning import LearningStrategy
from tuneyard_strategy.maximiser import Box, Maximiser
from tuneyard_strategy.region import Region
from tuneyard_strategy.rng import Stream, uniforms
from tuneyard_strategy.space import Configuration, Mask, Space
from tuneyard_strategy.tpe import TreeParzen
from tuneyard_strategy.warp import WARPS, half_ranks, log_slope, signed_logs, tail_logs

FITTED_ANEW = 48
"""Up to so many observations, each one has hyperparameters fitted anew; beyond, so does each twelfth more of them."""
PARENTS = 5
"""Of the best configurations, how many the search for the next one starts from."""
LABEL_NOISE = 0.1
"""Variance of the noise of failed (1) or not (-1): a step is no smooth function, and should not be taken for one."""
WORLDS = 32
"""Drawn possibilities of what the function is at the baseline; of several functions, half as many for each more."""
TURNS, PARZENS, BOXED = 4, 3, 1
"""Of so many trials in turn one is TPE's, where there is one objective: it looks where a process that is sure of itself
and wrong does not; and many trials near the good ones are worth something under noise. For the same reason another one
is sought in a box around the best."""
SHARP = WIDE._replace(noise=-6.0)
"""The prior of bounds and of several objectives: noise blurs a bound, and a front."""
TINY = 2.0**-53

Score = Callable[[Floats], Floats]
Warp = Callable[[Floats], Floats]


class Reach(NamedTuple):
    """How much a process takes into account, at most."""

    modelled: int = 300
    """Observations in a model: of more, the better half of it are the best ones, the others spread over the rest."""
    fitted: int = 128
    """Observations that hyperparameters are fitted to."""
    baseline: int = 24
    """Observed configurations that may be the best one."""
    front: int = 48
    """Observed configurations that may be on the front of several objectives."""
    pending: int = 64
    """Pending trials that are modelled: the latest."""
    is_local: bool = False
    """Whether it is the observations nearest to the best ones that are modelled, and the search stays among these."""


EVERYWHERE = Reach()
NEARBY = Reach(modelled=100, fitted=64, baseline=12, front=16, pending=16, is_local=True)


class _Metric(NamedTuple):
    """What is modelled of trials."""

    name: str
    values: Floats
    warps: Sequence[Warp]
    prior: Prior


class GaussianProcess:
    """Ranks configurations by how much they are expected to improve on the best, noise and pending trials allowed for.

    Bounds on metrics have models of their own, and so has failure, as a metric that is 1 where a trial failed, -1 where
    it did not, and is bounded by 0.
    """

    def __init__(self, space: Space, seed: int, prior: Prior, reach: Reach = EVERYWHERE) -> None:
        self._space = space
        self._seed = seed
        self._prior = prior
        """Of the objective, where there is one."""
        self._reach = reach
        self._fits: dict[str, tuple[bytes, Warp, Fit]] = {}

    def ranked(self, history: Known, index: int, *, near_best: bool = False) -> Iterator[Configuration]:
        """Feasible configurations for this trial, the best first; all of them in a box around the best, where asked."""
        embedding = Embedding(self._space, history.encoding)
        region = self._region(history, embedding) if self._reach.is_local else None
        if region is not None:
            rows = history.rows(Fate.MEASURED, Fate.FAILED, Fate.PENDING)
            history = Part(history, rows[region.covers(embedding.features(history.coordinates(rows)))])
        promise, parents = self._score(history, embedding, index)

        def score(coordinates: Floats) -> Floats:
            x = embedding.features(coordinates)
            return promise(x) if region is None else np.where(region.covers(x), promise(x), -np.inf)

        box = Box.around(parents[0], history.encoding.categorical) if near_best else None
        maximiser = Maximiser(self._space, history.encoding, self._seed, index, box)
        points = maximiser.best(score, history.encoding.points(parents))
        yield from self._space.rounded(points)

    def effort(self, history: Known) -> Effort:
        """What a proposal costs with as many pending trials as are modelled: it only grows as a study goes on."""
        measured = len(history.rows(Fate.MEASURED))
        several, k = history.objectives > 1, history.objectives
        reach = self._reach
        baseline = min(measured, reach.front if several else reach.baseline) + reach.pending
        return Effort(
            fitted=min(_milestone(measured), reach.fitted),
            modelled=min(measured, reach.modelled) + baseline,
            features=len(Embedding(self._space, history.encoding).hamming),
            models=k + history.bounds,
            boxes=(WORLDS >> (k - 2)) * baseline * 5 ** (k - 2) if several else 0,
        )

    def _region(self, history: Known, embedding: Embedding) -> Region:
        """Around the best trials of those that keep to the bounds, or are the nearest to it."""
        measured = history.rows(Fate.MEASURED)
        broken = beyond(history, measured)
        able = measured[broken == broken.min()]
        best = able[pareto.best(history.losses(able), self._reach.front if history.objectives > 1 else PARENTS)]
        x = embedding.features(history.coordinates(np.append(best, measured)))
        return Region(WIDE.kernel(embedding.hamming), x[: len(best)], x[len(best) :], self._reach.modelled)

    def _score(self, history: Known, embedding: Embedding, index: int) -> tuple[Score, Floats]:
        """What to maximise over features, and the coordinates of the configurations to start from."""
        measured = history.rows(Fate.MEASURED)
        feasibility = Feasibility(self._excesses(history, embedding, measured))
        kept = (history.excesses(measured) <= 0.0).all(axis=1)
        if history.objectives > 1:
            return self._score_of_several(history, embedding, index, feasibility, measured)
        objective = self._model(
            _Metric("objective", history.values(measured), WARPS, self._prior), embedding, history, measured
        )
        rows = measured[kept] if kept.any() else measured
        rows = rows[_chosen(history.values(rows), self._reach.modelled)]
        x = embedding.features(history.coordinates(rows))
        best = rows[np.argsort(objective.mean(x), kind="stable")[: self._reach.baseline]]
        parents = history.coordinates(best[:PARENTS])
        if not kept.any():
            return feasibility, parents
        baseline = np.append(best, history.rows(Fate.PENDING)[-self._reach.pending :])
        u = uniforms(self._seed, Stream.WORLDS, index=index, start=0, rows=len(baseline), width=WORLDS)
        improvement = NoisyImprovement(
            objective, embedding.features(history.coordinates(baseline)), ndtri(np.maximum(u, TINY))
        )
        return lambda features: improvement(features) + feasibility(features), parents

    def _score_of_several(
        self, history: Known, embedding: Embedding, index: int, feasibility: Feasibility, measured: Rows
    ) -> tuple[Score, Floats]:
        """The same where several objectives have a front, not a best one.

        Of two objectives only the order of bad values is modelled. Of more, a good trial is often bad in one, and there
        a model needs the shape of what is bad as well.
        """
        losses = history.losses(measured)
        kept: Mask = np.logical_and.reduce(history.excesses(measured) <= 0.0, axis=1)
        able = np.flatnonzero(kept) if kept.any() else np.arange(len(measured))
        parents = history.coordinates(measured[able[pareto.best(losses[able], self._reach.baseline)]])
        if not kept.any():
            return feasibility, parents
        modelled = _front_and_others(losses, able, self._reach.modelled)
        x = embedding.features(history.coordinates(measured[modelled]))
        warp = half_ranks if history.objectives == 2 else tail_logs
        y = np.stack([warp(column) for column in losses[modelled].T], axis=1)
        posteriors = []
        for number, column in enumerate(losses.T):
            metric = _Metric(f"objective {number}", column, (warp,), SHARP)
            _, found = self._fit(metric, embedding, history, measured)
            posteriors.append(Posterior(found.kernel, x, y[:, number], np.full(len(x), found.noise)))
        able = np.flatnonzero(kept[modelled])
        means = np.stack([posterior.mean(x[able]) for posterior in posteriors], axis=1)
        front = measured[modelled[able[pareto.best(means, self._reach.front)]]]
        baseline = np.append(front, history.rows(Fate.PENDING)[-self._reach.pending :])
        k, worlds = history.objectives, WORLDS >> (history.objectives - 2)
        u = uniforms(self._seed, Stream.WORLDS, index=index, start=0, rows=len(baseline), width=k * worlds)
        normals = ndtri(np.maximum(u, TINY)).reshape(len(baseline), k, worlds).swapaxes(0, 1)
        features = embedding.features(history.coordinates(baseline))
        improvement = HypervolumeImprovement(posteriors, features, normals, pareto.reference_point(y[able]))
        return lambda features: improvement(features) + feasibility(features), parents

    def _excesses(self, history: Known, embedding: Embedding, measured: Rows) -> list[Posterior]:
        """Models of how far each bounded metric is beyond its bound, and of failure if a trial has failed."""
        excesses = history.excesses(measured)
        models = [
            self._model(_Metric(f"bound {number}", column, (signed_logs,), SHARP), embedding, history, measured)
            for number, column in enumerate(excesses.T)
        ]
        failed = history.rows(Fate.FAILED)
        if len(failed):
            ended = np.sort(np.append(measured, failed))
            labels = np.where(np.isin(ended, failed), 1.0, -1.0)
            chosen = _chosen(labels, self._reach.modelled)
            x = embedding.features(history.coordinates(ended[chosen]))
            models.append(
                Posterior(WIDE.kernel(embedding.hamming), x, labels[chosen], np.full(len(chosen), LABEL_NOISE))
            )
        return models

    def _model(self, metric: _Metric, embedding: Embedding, history: Known, rows: Rows) -> Posterior:
        """The posterior of a metric that these trials have."""
        warp, found = self._fit(metric, embedding, history, rows)
        modelled = _chosen(metric.values, self._reach.modelled)
        x, y = embedding.features(history.coordinates(rows[modelled])), warp(metric.values[modelled])
        return Posterior(found.kernel, x, y, np.full(len(modelled), found.noise))

    def _fit(self, metric: _Metric, embedding: Embedding, history: Known, rows: Rows) -> tuple[Warp, Fit]:
        """Kernel and noise of a metric, fitted to its first observations (see `_milestone`), and how to warp it.

        Of several warps it is the one that makes the observations most probable.
        """
        early = _chosen(metric.values[: _milestone(len(rows))], self._reach.fitted)
        x, y = embedding.features(history.coordinates(rows[early])), metric.values[early]
        known, data = self._fits.get(metric.name), x.tobytes() + y.tobytes()
        if known is None or known[0] != data:
            ways = [warp(y) for warp in metric.warps]
            found = fits(embedding.hamming, x, ways, metric.prior)
            chances = [fit.evidence + log_slope(y, way) for fit, way in zip(found, ways, strict=True)]
            best = max(zip(chances, metric.warps, found, strict=True), key=lambda one: one[0])[1:]
            known = self._fits[metric.name] = (data, *best)
        return known[1:]


class Thrifty:
    """A Gaussian process; one of the neighbourhood of the best trials where that is too costly; then TPE."""

    def __init__(self, space: Space, seed: int, prior: Prior) -> None:
        self.parzen = TreeParzen(space, seed)
        self._whole = GaussianProcess(space, seed, prior)
        self._local = GaussianProcess(space, seed, prior, NEARBY)

    def ranked(self, history: Known, index: int, *, near_best: bool = False) -> Iterator[Configuration]:
        """Feasible configurations for this trial, the best first; TPE does not know of the box: see GaussianProcess."""
        for process in (self._whole, self._local):
            if process.effort(history).seconds <= LIMIT:
                return process.ranked(history, index, near_best=near_best)
        return self.parzen.ranked(history, index)

    def degraded(self, history: Known) -> str | None:
        """Why it is not the whole process that proposes, if it is not."""
        effort = self._whole.effort(history)
        if effort.seconds <= LIMIT:
            return None
        is_local = self._local.effort(history).seconds <= LIMIT
        instead = "the model is one of the neighbourhood of the best trials" if is_local else "tpe proposes instead"
        return (
            f"a proposal of bayesian would take about {effort.seconds:.0f} s, with {effort.models} metrics and "
            f"{effort.features} features; {instead}"
        )


class BayesianStrategy(LearningStrategy):
    """A Gaussian process as far as it is not too costly; of four trials one is TPE's, one in a box around the best."""

    def __init__(self, definition: StudyDefinition, space: Space) -> None:
        self.model = Thrifty(space, definition.strategy.seed, NARROW)
        super().__init__(definition, space)

    def ranked(self, index: int) -> Iterator[Configuration]:
        """See LearningStrategy."""
        turn = index % TURNS if self.history.objectives == 1 else 0
        if turn == PARZENS:
            yield from self.model.parzen.ranked(self.history, index)
        if turn == BOXED:
            yield from self.model.ranked(self.history, index, near_best=True)
        yield from self.model.ranked(self.history, index)

    @property
    def degraded(self) -> str | None:
        """See Strategy."""
        return self.model.degraded(self.history)


def _milestone(count: int) -> int:
    """How many of so many observations hyperparameters are fitted to: all, and beyond a few by steps of a twelfth.

    It is the first ones by index, whatever came in when, so that a restart makes no difference.
    """
    milestone = FITTED_ANEW
    while milestone + milestone // 12 <= count:
        milestone += milestone // 12
    return min(milestone, count)


def _front_and_others(losses: Floats, able: Rows, most: int) -> Rows:
    """As `_chosen` for several objectives: the best are those of `able` on the front and next to it."""
    if len(losses) <= most:
        return np.arange(len(losses))
    first = np.ones(len(losses))
    first[able[pareto.best(losses[able], most // 2)]] = 0.0
    return _chosen(first, most)


def _chosen(values: Floats, most: int) -> Rows:
    """Which observations to model where there are too many: the best, as many spread over the others; in order."""
    if len(values) <= most:
        return np.arange(len(values))
    order = np.argsort(values, kind="stable")
    best, rest = order[: most // 2], order[most // 2 :]
    spread = np.linspace(0, len(rest) - 1, most - most // 2).astype(np.intp)
    return np.sort(np.append(best, rest[spread]))
