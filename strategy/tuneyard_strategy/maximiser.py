"""The best points of a function over a search space: draw widely, then climb from the best by ever smaller steps.

It needs no gradients, so that numbers, categories, conditions and constraints are all alike to it; and the points that
it looks at come from random numbers alone, so that the last bits of a score, which differ from machine to machine,
hardly ever change what it finds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
from scipy.special import ndtri

from tuneyard_strategy.distributions import Floats, cut
from tuneyard_strategy.encoding import Encoding
from tuneyard_strategy.rng import Stream, uniforms
from tuneyard_strategy.space import Mask, Space

WIDE = 256
"""Points drawn at first from the parameters' distributions, and as many near the parents."""
TRIES = 8
"""How often, at most, points are drawn where hardly any meets the constraints."""
NARROW = 128
"""Points drawn near the best ones in each later round."""
CLIMBERS = 8
"""How many of the best."""
STEPS = (0.3, 0.1, 0.03, 0.01, 0.003)
"""Standard deviation of the longest steps in each round, as a part of the range: near the parents, and later."""

REACH = 0.2
"""Half the side of a box around a point, as a part of the range."""
END = 1.0 - 2.0**-53

Score = Callable[[Floats], Floats]
"""The function, larger is better: coordinates, shape (n, d), to values, shape (n,)."""


class Box(NamedTuple):
    """Where numbers are looked for: bounds of the unit cube's points, shape (d,)."""

    low: Floats
    high: Floats

    @classmethod
    def around(cls, centre: Floats, categorical: Mask) -> Self:
        """The box around coordinates, shape (d,), in which categories and what the centre lacks are free."""
        free = categorical | np.isnan(centre)
        return cls(
            np.where(free, 0.0, np.maximum(centre - REACH, 0.0)), np.where(free, END, np.minimum(centre + REACH, END))
        )


class Maximiser:
    """Looks for the best feasible points for one trial.

    Args:
        space: the search space.
        encoding: its coordinates.
        seed: of the study.
        index: of the trial, whose random numbers are its own.
        box: where to look; everywhere if there is none.
    """

    def __init__(self, space: Space, encoding: Encoding, seed: int, index: int, box: Box | None = None) -> None:
        self._space, self._encoding = space, encoding
        d = len(space.names)
        self._box = box or Box(np.zeros(d), np.full(d, END))
        self._seed, self._index, self._drawn = seed, index, 0
        sizes = np.array([dimension.size or np.inf for dimension in space.dimensions])
        self._shortest = 0.5 / sizes
        """Steps below which a stepped parameter would hardly ever move, shape (d,)."""

    def best(self, score: Score, parents: Floats) -> Floats:
        """Feasible points of the unit cube, the best first, shape (n, d); none where none was found.

        Args:
            score: the function.
            parents: points near which good ones may lie, shape (p, d).
        """
        points, coordinates = self._feasible(self._wide(parents))
        for _ in range(TRIES):
            if len(points) >= CLIMBERS:
                break
            more = self._feasible(self._anywhere())
            points, coordinates = np.vstack([points, more[0]]), np.vstack([coordinates, more[1]])
        scores = score(coordinates)
        for step in STEPS[1:]:
            top = np.argsort(-scores, kind="stable")[:CLIMBERS]
            if len(top) == 0:
                break
            nearby, coordinates = self._feasible(self._near(points[top], NARROW, step))
            points, scores = np.vstack([points, nearby]), np.append(scores, score(coordinates))
        return points[np.argsort(-scores, kind="stable")]

    def _wide(self, parents: Floats) -> Floats:
        anywhere = self._anywhere()
        return np.vstack([anywhere, self._near(parents, WIDE, STEPS[0])]) if len(parents) else anywhere

    def _anywhere(self) -> Floats:
        low, high = self._box
        return low + self._uniforms(WIDE, len(low)) * (high - low)

    def _near(self, parents: Floats, count: int, step: float) -> Floats:
        """Points that differ from a parent in some coordinates, by normal steps of all lengths up to this one."""
        d = len(self._space.names)
        u = self._uniforms(count, 3 * d + 2)
        changes, moves, places = u[:, :d], u[:, d : 2 * d], u[:, 2 * d : 3 * d]
        some = changes < np.maximum(u[:, 3 * d, None] ** 2, 1.5 / d)
        some[np.arange(count), changes.argmin(axis=1)] = True  # one at least
        origin = parents[np.arange(count) % len(parents)]
        length = np.maximum(step * 10.0 ** -u[:, 3 * d + 1, None], self._shortest)
        moved = origin + length * ndtri(np.maximum(moves, 1e-12))
        moved = np.where(self._encoding.categorical, places, np.abs(moved))
        moved = np.where(moved > 1.0, 2.0 - moved, moved)
        return cut(np.where(some, moved, origin), *self._box)

    def _feasible(self, points: Floats) -> tuple[Floats, Floats]:
        """Those that meet the constraints, and their coordinates."""
        table = self._space.table(points, sketch=True)
        met = self._space.meets(table)
        return points[met], self._encoding.coordinates(table, points)[met]

    def _uniforms(self, rows: int, width: int) -> Floats:
        """Random numbers that no other call gets."""
        table = uniforms(
            self._seed,
            Stream.MODEL,
            index=self._index,
            start=self._drawn,
            rows=rows,
            width=3 * len(self._space.names) + 2,
        )
        self._drawn += rows
        return table[:, :width]
