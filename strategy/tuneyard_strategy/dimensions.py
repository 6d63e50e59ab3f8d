"""The dimensions of a search space, one class a type of parameter.

A column is an array of shape (n,), one element a configuration. Dimensions of finitely many values hold *codes* in it:
the number of the value in grid order, from 0 (int64). A double without a step holds its values themselves (float64).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneyard_api.space import CategoricalParameter, DoubleParameter, IntParameter
from tuneyard_strategy.distributions import Floats, Law, cut, law

Column = NDArray[Any]
Value = int | float | str

DIGITS = 10
"""Digits that a double keeps of its range (of itself, with scale log): enough for any search, and few enough for the
last bits of exp and log, which differ from machine to machine, to be rounded away."""
MAX_KEPT = 4096
"""Of how many values at most their places are kept."""
NEARBY = 0.2
"""By what part of itself a number is moved to another one nearby (Jaderberg et al. 2017: times 1.2 or 0.8)."""


class Dimension(ABC):
    """One parameter's values, and how they are drawn."""

    size: int | None
    """How many values it has; None for infinitely many."""

    @abstractmethod
    def draw(self, u: Floats) -> Column:
        """The column that belongs to places u in [0, 1) of the distribution."""

    def sketch(self, u: Floats) -> Column:
        """As `draw`, but doubles are not rounded: for the many points of which few become configurations."""
        return self.draw(u)

    def rounded(self, column: Column) -> Column:
        """What `draw` would have given where `sketch` gave this column."""
        return column

    @abstractmethod
    def places(self, column: Column) -> Floats:
        """The places in the distribution that `draw` turns into this column."""

    def place(self, value: Value) -> float:
        """The place in the distribution that `draw` turns into this value."""
        return float(self.places(self.column([value]))[0])

    @abstractmethod
    def values(self, column: Column) -> Column:
        """The values of a column: float64, int64 or object; `tolist()` gives them as Python's own types."""

    @abstractmethod
    def column(self, values: Sequence[Any]) -> Column:
        """The inverse of `values`, for values that `tuneyard_api.domain.admits`; others are undefined or a KeyError."""

    @abstractmethod
    def log_weights(self) -> Floats:
        """Logarithm of each value's probability, up to a constant, shape (size,); -inf for never."""

    @abstractmethod
    def moved(self, value: Any, *, up: bool) -> Value:
        """Another value nearby, on one side or the other; the same one where there is none on that side."""


class ContinuousDimension(Dimension):
    """A double without a step."""

    size = None

    def __init__(self, spec: DoubleParameter) -> None:
        self._min, self._max = spec.min, spec.max
        self._log = spec.scale == "log"
        self._law = _law_of(spec, spec.min, spec.max)
        spread = min(spec.max - spec.min, 1e300) or 1.0
        self._decimals = DIGITS - math.floor(math.log10(spread))
        narrow = int(-math.log10(spread / spec.max)) if self._log else 0
        self._significant = min(DIGITS + narrow, 17)

    def draw(self, u: Floats) -> Column:
        """See Dimension; rounded to 10 digits."""
        return self.rounded(self._law.quantile(u))

    def sketch(self, u: Floats) -> Column:
        """See Dimension."""
        return cut(self._law.quantile(u), self._min, self._max)

    def places(self, column: Column) -> Floats:
        """See Dimension."""
        return self._law.cdf(column)

    def values(self, column: Column) -> Column:
        """See Dimension."""
        return column

    def column(self, values: Sequence[Any]) -> Column:
        """See Dimension."""
        return np.array(values, dtype=np.float64)

    def log_weights(self) -> Floats:
        """Not defined: there are infinitely many values."""
        raise TypeError("a double without a step has no weights")

    def moved(self, value: Any, *, up: bool) -> Value:
        """See Dimension."""
        return float(self.rounded(np.array([_nearby(value, self._min, self._max, up=up)]))[0])

    def rounded(self, column: Column) -> Column:
        """See Dimension."""
        if self._log:
            rounded = [float(f"{each:.{self._significant}g}") for each in column.tolist()]
        else:
            rounded = [round(each, self._decimals) for each in column.tolist()]
        return cut(np.array(rounded, dtype=np.float64), self._min, self._max) + 0.0  # + 0.0: no negative zero


class SteppedDimension(Dimension):
    """Numbers at equal steps: an int, or a double with a step.

    Each value stands for the stretch of half a step to both sides, so that `draw` is the continuous law cut half a step
    outside the bounds and rounded to the nearest step. With scale log this gives n a probability close to 1/n.
    """

    size: int

    def __init__(self, spec: IntParameter | DoubleParameter) -> None:
        self._int = isinstance(spec, IntParameter)
        self._min = spec.min
        self._step = spec.step or 1
        self.size = _steps(spec.min, spec.max, self._step) + 1
        self._decimals = max(_decimals(spec.min), _decimals(self._step))
        half = self._step / 2
        self._law = _law_of(spec, spec.min - half, self._min + (self.size - 1) * self._step + half)

    def draw(self, u: Floats) -> Column:
        """See Dimension."""
        steps = (self._law.quantile(u) - self._min) / self._step
        return cut(np.floor(steps + 0.5), 0, self.size - 1).astype(np.int64)

    def places(self, column: Column) -> Floats:
        """See Dimension: the middle of each value's stretch."""
        if self.size <= MAX_KEPT:
            kept: Floats = self._middles[column]
            return kept
        return self._middle(column)

    def values(self, column: Column) -> Column:
        """See Dimension; a double is the decimal number min + k step, without the dust of binary sums."""
        if self._int:
            return column * self._step + self._min
        raw = (self._min + column * self._step).tolist()
        return np.array([round(x, self._decimals) for x in raw], dtype=np.float64) + 0.0

    def column(self, values: Sequence[Any]) -> Column:
        """See Dimension."""
        if self._int:
            return (np.array(values, dtype=np.int64) - int(self._min)) // int(self._step)
        return np.rint((np.array(values, dtype=np.float64) - self._min) / self._step).astype(np.int64)

    def log_weights(self) -> Floats:
        """See Dimension."""
        return self._law.log_mass(*self._edges(np.arange(self.size)))

    def moved(self, value: Any, *, up: bool) -> Value:
        """See Dimension: by a step at least."""
        highest = self._min + (self.size - 1) * self._step
        code = int(self.column([value])[0])
        near = round((_nearby(value, self._min, highest, up=up) - self._min) / self._step)
        near = max(near, code + 1) if up else min(near, code - 1)
        found: Value = self.values(np.array([min(max(near, 0), self.size - 1)])).tolist()[0]
        return found

    @cached_property
    def _middles(self) -> Floats:
        return self._middle(np.arange(self.size))

    def widths(self, u: Floats) -> Floats:
        """How long the stretch of the value is that `draw` gives at places u; shape kept."""
        low, high = self._edges(self.draw(u))
        return self._law.cdf(high) - self._law.cdf(low)

    def _middle(self, column: Column) -> Floats:
        low, high = self._edges(column)
        return (self._law.cdf(low) + self._law.cdf(high)) / 2

    def _edges(self, column: Column) -> tuple[Floats, Floats]:
        centre = self._min + column * float(self._step)
        return centre - self._step / 2, centre + self._step / 2


class CategoricalDimension(Dimension):
    """A list of values without an order."""

    size: int

    def __init__(self, spec: CategoricalParameter) -> None:
        self.categories = tuple(spec.values)
        self.size = len(self.categories)
        self._codes = {value: code for code, value in enumerate(self.categories)}
        self._lookup = np.array(self.categories, dtype=object)
        probabilities = spec.probabilities or [1.0 / self.size] * self.size
        self._probabilities = np.array(probabilities, dtype=np.float64)
        edges = np.cumsum(self._probabilities)
        self._edges = edges / edges[-1]
        self._middles: Floats = self._edges - np.diff(self._edges, prepend=0.0) / 2
        self._last = int(np.flatnonzero(self._probabilities)[-1])

    def draw(self, u: Floats) -> Column:
        """See Dimension: the first value whose cumulative probability is above u."""
        return np.minimum(np.searchsorted(self._edges, u, side="right"), self._last)

    def places(self, column: Column) -> Floats:
        """See Dimension: the middle of each value's stretch."""
        places: Floats = self._middles[column]
        return places

    def values(self, column: Column) -> Column:
        """See Dimension."""
        return self._lookup[column]

    def column(self, values: Sequence[Any]) -> Column:
        """See Dimension."""
        return np.array([self._codes[value] for value in values], dtype=np.int64)

    def log_weights(self) -> Floats:
        """See Dimension."""
        with np.errstate(divide="ignore"):
            return np.log(self._probabilities)

    def moved(self, value: Any, *, up: bool) -> Value:
        """See Dimension: of numbers the next one that is ever drawn; texts have no order, and none is nearby."""
        drawn = [each for each, p in zip(self.categories, self._probabilities, strict=True) if p > 0]
        ordered = not any(isinstance(each, str) for each in (*drawn, value))
        beyond = [each for each in drawn if (each > value if up else each < value)] if ordered else []
        found: Value = (min(beyond) if up else max(beyond)) if beyond else value
        return found


def _law_of(spec: IntParameter | DoubleParameter, low: float, high: float) -> Law:
    normal = spec.distribution == "normal"
    return law(
        low,
        high,
        log=spec.scale == "log",
        mean=spec.mean if normal else None,
        stddev=spec.stddev if normal else None,
    )


def _nearby(value: float, low: float, high: float, *, up: bool) -> float:
    """A number a fifth larger or smaller; where a range has both signs, by a tenth of it, so that 0 is nothing special.

    Up is towards the upper bound, whatever the sign.
    """
    size = abs(value) if low >= 0 or high <= 0 else (high - low) / 2
    return value + NEARBY * (size if up else -size)


def _steps(low: float, high: float, step: float) -> int:
    """How often the step fits, in decimal numbers: 0.1 fits three times between 0 and 0.3."""
    start, end, width = (Fraction(Decimal(repr(number))) for number in (low, high, step))
    return int((end - start) / width)


def _decimals(number: float) -> int:
    """Digits after the decimal point."""
    return max(0, -int(Decimal(repr(number)).as_tuple().exponent))
