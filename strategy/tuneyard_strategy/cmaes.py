"""CMA-ES: a normal distribution of the numbers, moved and turned by what ranks first (Hansen 2016).

The distribution is worked out anew from the trials that have ended: in the order of their indices, so many at a time as
make a generation. So a restart loses nothing, trials that run hold nobody up, and those of other origin (the Sobol
start, initial ones, those made by hand) teach as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median_low

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from tuneyard_strategy.cma import Normal
from tuneyard_strategy.contract import StudyDefinition
from tuneyard_strategy.dimensions import SteppedDimension
from tuneyard_strategy.distributions import Floats, cut
from tuneyard_strategy.encoding import Encoding
from tuneyard_strategy.history import Fate, History, beyond
from tuneyard_strategy.learning import LearningStrategy
from tuneyard_strategy.rng import Stream, uniforms
from tuneyard_strategy.space import Configuration, Mask, Space

SIGMA = 12.0**-0.5
"""The first standard deviation: that of points all over the range, so that the Sobol start is a first generation."""
SMALLEST = 1e-4
"""Standard deviation, as a part of the range, at which all that matters is found: the search begins anew elsewhere."""
STAGNANT = 40.0, 60.0
"""It does so too where nothing has got better in a + b n / k generations of k points of n numbers (the tutorial's
Stagnation, there 120 and 30)."""
MOST_STRETCHED = 1e12
"""The covariance's condition at which the search begins anew as well, as where only some of the numbers matter: some
generations later rounding would leave no covariance (the tutorial's ConditionCov, there 1e14)."""
SAMPLES = 4
"""Points drawn at a time, of which the first that is new and feasible is taken."""
ROUNDS = 256
LEARNED = 0.3
"""How far a generation moves the probabilities of categories towards those of its better half."""
LEAST = 0.1
"""What a category's probability is at least, as a part of what it was at first."""
TINY = 2.0**-53

Rows = NDArray[np.intp]
Rank = tuple[float, ...]
"""What a trial is ranked by, the most important first."""


@dataclass(frozen=True, eq=False)
class _State:
    """What the generations so far have come to."""

    encoding: Encoding
    normal: Normal
    chances: Floats
    """The probabilities of each categorical parameter's values, side by side, filled up with zeros: shape (c, v)."""
    size: int
    """Trials of a generation."""
    ranks: tuple[tuple[Rank, Rank], ...] = ()
    """The best and the middle trial of each generation since the beginning; of the last ones where there are many."""
    restarts: int = 0
    end: int = 0
    """How many of the ended trials have been taken in."""

    @cached_property
    def floors(self) -> Floats:
        """Standard deviations at which each stepped number leaves its step in one of (parameters x size) points."""
        width, numbers = len(self.encoding.dimensions), self.encoding.numbers
        point, widths = np.zeros((1, width)), np.zeros(width)
        point[0, numbers] = cut(self.normal.mean, 0.0, 1.0 - TINY)
        for positions, _, dimension in self.encoding.kinds:
            if isinstance(dimension, SteppedDimension):
                widths[positions] = dimension.widths(point[:, positions])[0]
        floors: Floats = widths[numbers] / (-2.0 * ndtri(0.5 / (width * self.size)))
        return floors

    @property
    def patience(self) -> int:
        """In how many generations something has to get better."""
        return int(STAGNANT[0] + STAGNANT[1] * len(self.encoding.numbers) / self.size)

    @property
    def stagnates(self) -> bool:
        """Whether neither the best nor the middle of generations has got better (Hansen 2016, B.3)."""
        if len(self.ranks) < self.patience:
            return False
        part = 3 * self.patience // 10
        return all(median_low(each[-part:]) >= median_low(each[:part]) for each in zip(*self.ranks, strict=True))

    def prepare(self) -> None:
        """Work out ahead what the end of the generation will need, so that no ask waits for all that it takes."""
        if len(self.floors):
            self.normal.prepare()


class Evolution:
    """Proposes configurations drawn from the distribution.

    Numbers lie on the unit interval of their distribution; what is drawn outside is mirrored. Stepped ones keep a
    spread that changes them now and then (see `Normal.after`). Parameters that a configuration lacks get what chance
    would have given them, so that they drift but do not settle. A category has a probability, which moves towards its
    part of the better half (Baluja 1994), and never falls below a tenth of what it was at first. When the
    distribution has shrunk to a point, or in some directions to nothing beside others, or nothing has got better for
    long, it starts anew elsewhere, with generations of twice the size (Auger and Hansen 2005).

    Args:
        space: the search space.
        seed: of the study.
        own: which trials, by their indices, are proposed here. After a new beginning these alone teach, since others,
            sought near the best of before, would draw it back there. None: all.
    """

    def __init__(self, space: Space, seed: int, own: Callable[[Rows], Mask] | None = None) -> None:
        self._space = space
        self._seed = seed
        self._own = own
        self._history: History | None = None
        self._states: list[_State] = []
        """After each generation of this history."""
        self._told = np.empty((2, 0))

    def ranked(self, history: History, index: int) -> Iterator[Configuration]:
        """Feasible configurations for this trial, in the order in which they are drawn."""
        state, encoding, width = self._replayed(history), history.encoding, len(self._space.names)
        numbers, categories = encoding.numbers, encoding.categories
        sums, last = np.cumsum(state.chances, axis=1), encoding.sizes[categories] - 1
        for round_ in range(ROUNDS):
            u = uniforms(self._seed, Stream.MODEL, index=index, start=round_ * SAMPLES, rows=SAMPLES, width=width)
            drawn = u.copy()
            normals = ndtri(np.maximum(u[:, numbers], TINY))
            drawn[:, numbers] = _mirrored(state.normal.sample(normals))
            above = u[:, categories, None] >= sums
            drawn[:, categories] = np.minimum(above.sum(axis=2), last)
            yield from self._space.rounded(encoding.points(drawn))

    def _replayed(self, history: History) -> _State:
        """The distribution after all whole generations; those known already are not worked out again."""
        told = _told(history)
        if history is not self._history:
            self._history, self._states = history, [self._first(history)]
        else:
            same = min(told.shape[1], self._told.shape[1])
            changed = told[:, :same] != self._told[:, :same]
            valid = int(changed.any(axis=0).argmax()) if changed.any() else same
            while self._states[-1].end > valid:
                self._states.pop()
        self._told = told
        while len(taught := self._taught(told, history.first)) == self._states[-1].size:
            generation = told[:, taught]
            generation = generation[:, np.lexsort(generation)]
            self._states.append(replace(self._after(generation, history), end=int(taught[-1]) + 1))
        state = self._states[-1]
        if 2 * len(taught) > state.size:
            state.prepare()
        return state

    def _taught(self, told: Floats, first: int) -> Rows:
        """Which of the ended trials teach next, in order: a generation, or as many of it as there are."""
        state = self._states[-1]
        if self._own is None or not state.restarts:
            return np.arange(state.end, min(state.end + state.size, told.shape[1]))
        since = told[0, state.end :].astype(np.intp) - first
        return state.end + np.flatnonzero(self._own(since))[: state.size]

    def _first(self, history: History) -> _State:
        encoding = history.encoding
        chances = np.zeros((len(encoding.categories), max(encoding.sizes[encoding.categories], default=0)))
        for row, position in enumerate(encoding.categories.tolist()):
            chances[row, : encoding.sizes[position]] = encoding.probabilities(position)
        size = 4 + int(3.0 * np.log(len(self._space.names)))
        normal = Normal.start(np.full(len(encoding.numbers), 0.5), SIGMA)
        return _State(encoding, normal, chances, size)

    def _after(self, best_first: Floats, history: History) -> _State:
        """The state after a generation; a new beginning where all is found, or nothing has got better for long."""
        state, first, numbers = self._states[-1], self._states[0], history.encoding.numbers
        rows = best_first[0].astype(np.intp)
        coordinates = history.coordinates(rows)
        chances = _moved(state.chances, first.chances, coordinates[: state.size // 2, history.encoding.categories])
        best, middle = best_first[:0:-1, [0, state.size // 2]].T.tolist()
        ranks = (*state.ranks[1 - state.patience :], (tuple(best), tuple(middle)))
        following = replace(state, chances=chances, ranks=ranks)
        if not len(numbers):
            return following
        points = self._filled(coordinates[:, numbers], state.normal, rows)
        following = replace(following, normal=state.normal.after(points, state.floors))
        free = following.normal.deviations[state.floors == 0.0]
        is_point = free.size > 0 and free.max() < SMALLEST
        if not is_point and state.normal.condition <= MOST_STRETCHED and not following.stagnates:
            return following
        restarts = state.restarts + 1
        mean = uniforms(self._seed, Stream.RESTARTS, start=restarts, rows=1, width=len(numbers))[0]
        return replace(first, normal=Normal.start(mean, SIGMA), size=2 * state.size, restarts=restarts)

    def _filled(self, points: Floats, normal: Normal, rows: Rows) -> Floats:
        """The points with what chance would have given them for what they lack."""
        missing = np.isnan(points)
        if not missing.any():
            return points
        width = points.shape[1]
        drawn = [uniforms(self._seed, Stream.FILLING, start=int(row), rows=1, width=width) for row in rows]
        chance = normal.mean + normal.deviations * ndtri(np.maximum(np.vstack(drawn), TINY))
        return np.where(missing, chance, points)


class CmaesStrategy(LearningStrategy):
    """CMA-ES for numbers, steps, categories and conditions."""

    def __init__(self, definition: StudyDefinition, space: Space) -> None:
        self._evolution = Evolution(space, definition.strategy.seed)
        super().__init__(definition, space)

    def ranked(self, index: int) -> Iterator[Configuration]:
        """See LearningStrategy."""
        return self._evolution.ranked(self.history, index)


def _told(history: History) -> Floats:
    """What ended trials are ranked by, the last first: row, objective, excess over bounds if there are any.

    Shape (2 or 3, n); the last is infinite where a trial failed.
    """
    measured, failed = history.rows(Fate.MEASURED), history.rows(Fate.FAILED)
    told = np.zeros((3 if history.bounds else 2, len(measured) + len(failed)))
    good, bad = told[:, : len(measured)], told[:, len(measured) :]
    good[0], good[1] = measured, history.values(measured)
    if history.bounds:
        good[2] = beyond(history, measured)
    bad[0], bad[-1] = failed, np.inf
    return told[:, np.argsort(told[0])] if len(failed) else told


def _moved(chances: Floats, start: Floats, best: Floats) -> Floats:
    """Categories' probabilities, moved towards those among the best, shape (b, c); NaN for those without one."""
    counted = (best[:, :, None] == np.arange(chances.shape[1])).sum(axis=0)
    there = counted.sum(axis=1, keepdims=True)
    moved = np.maximum((1.0 - LEARNED) * chances + LEARNED * counted / np.maximum(there, 1), LEAST * start)
    return np.where(there > 0, moved / moved.sum(axis=1, keepdims=True), chances)


def _mirrored(points: Floats) -> Floats:
    """Points on the line as points of the unit interval."""
    folded = np.abs(points) % 2.0
    mirrored: Floats = np.minimum(np.where(folded > 1.0, 2.0 - folded, folded), 1.0 - TINY)
    return mirrored
