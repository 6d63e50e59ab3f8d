"""Configurations as numbers that models compare: one coordinate a parameter, whatever its type.

| Parameter | Coordinate |
|---|---|
| number | its place u in [0, 1] of its distribution; a stepped one the middle of its stretch |
| categorical | the code of its value, in which only equal and different mean something |
| any, in a configuration that does not have it | NaN |
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuneyard_strategy.dimensions import CategoricalDimension, ContinuousDimension
from tuneyard_strategy.distributions import Floats
from tuneyard_strategy.space import Space, Table

FEW = 32
"""Values of a parameter that are looked at one by one."""
BEYOND = 1.5
"""A place that no value has."""


class Steps(NamedTuple):
    """The values of s stepped parameters, of which the one with the most has v.

    Attributes:
        positions: the parameters, shape (s,).
        sizes: how many values each has, shape (s,).
        places: their coordinates, shape (s, v), rising; where there are fewer, BEYOND.
        probabilities: shape (s, v); where there are fewer, 0.
    """

    positions: NDArray[np.intp]
    sizes: NDArray[np.intp]
    places: Floats
    probabilities: Floats


class Encoding:
    """The way between tables of configurations and coordinates, shape (n, d)."""

    def __init__(self, space: Space) -> None:
        self.dimensions = space.dimensions
        self.kinds = space.kinds
        self.categorical = np.array([isinstance(d, CategoricalDimension) for d in space.dimensions], dtype=np.bool_)
        """Which coordinates are codes, shape (d,)."""
        self.categories, self.numbers = np.flatnonzero(self.categorical), np.flatnonzero(~self.categorical)
        """The positions of either."""
        self.sizes = np.array([dimension.size or 0 for dimension in space.dimensions])
        """How many values each parameter has, shape (d,); 0 for infinitely many."""
        self._probabilities: dict[int, Floats] = {}

    def probabilities(self, position: int) -> Floats:
        """How probable each value of a parameter with finitely many is, in the order of their codes."""
        if position not in self._probabilities:
            logs = self.dimensions[position].log_weights()
            weights = np.exp(logs - logs.max())
            self._probabilities[position] = weights / weights.sum()
        return self._probabilities[position]

    @cached_property
    def steps(self) -> Steps:
        """The stepped parameters of few values."""
        positions = np.flatnonzero(~self.categorical & (self.sizes > 0) & (self.sizes <= FEW))
        sizes = self.sizes[positions]
        places = np.full((len(positions), max(sizes, default=0)), BEYOND)
        chances = np.zeros_like(places)
        for row, (position, size) in enumerate(zip(positions.tolist(), sizes.tolist(), strict=True)):
            places[row, :size] = self.dimensions[position].places(np.arange(size)[:, None])[:, 0]
            chances[row, :size] = self.probabilities(position)
        return Steps(positions, sizes, places, chances)

    @cached_property
    def smooth(self) -> NDArray[np.intp]:
        """The other numbers: those without steps, or of so many values that they may be taken for such."""
        return np.setdiff1d(self.numbers, self.steps.positions)

    def coordinates(self, table: Table, points: Floats | None = None) -> Floats:
        """The coordinates of each row of a table.

        Args:
            table: the configurations.
            points: of the unit cube, where the table is a sketch of them; spares going back from values to places.
        """
        coordinates = table.cells.copy()  # the coordinates of categories are their codes
        for positions, _, dimension in self.kinds:
            if isinstance(dimension, ContinuousDimension) and points is not None:
                coordinates[:, positions] = points[:, positions]
            elif not isinstance(dimension, CategoricalDimension):
                coordinates[:, positions] = dimension.places(table.cells[:, positions])
        if not table.active.all():
            coordinates[~table.active] = np.nan
        return coordinates

    def points(self, coordinates: Floats) -> Floats:
        """Points of the unit cube with these coordinates; parameters that a configuration lacks lie at 0.5."""
        lacking = np.isnan(coordinates)
        points = np.where(lacking, 0.5, coordinates)
        for positions, _, dimension in self.kinds:
            if isinstance(dimension, CategoricalDimension):
                points[:, positions] = dimension.places(np.where(lacking, 0.0, coordinates)[:, positions])
        return points
