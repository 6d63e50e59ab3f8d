"""The dimensions of a search space, one class a type of parameter.

| Symbol | Shape | What |
|---|---|---|
| n, k | | configurations; parameters of one kind |
| u | (n, k) | places in the parameters' distributions, in [0, 1) |
| cells | (n, k) | a double without a step itself; of finitely many values the *code*: its number in grid order |

An object stands for one parameter, or for k of a kind side by side: where there are few configurations, the time goes
to the calls of numpy, and parameters that share them are several times as fast.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import cached_property, partial
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuneyard_api.space import CategoricalParameter, DoubleParameter, IntParameter, Parameter
from tuneyard_strategy.distributions import Floats, Law, cut, law

Value = int | float | str

DIGITS = 10
"""Digits that a double keeps of its range (of itself, with scale log): enough for any search, and few enough for the
last bits of exp and log, which differ from machine to machine, to be rounded away."""
MAX_KEPT = 4096
"""Of how many values at most their stretches are kept, not worked out again and again."""
NEARBY = 0.2
"""By what part of itself a number is moved to another one nearby (Jaderberg et al. 2017: times 1.2 or 0.8)."""


class Dimension(ABC):
    """The values of parameters of one kind, and how they are drawn. `size` and below are of a single parameter."""

    @abstractmethod
    def draw(self, u: Floats) -> Floats:
        """The cells that belong to places u."""

    def sketch(self, u: Floats) -> Floats:
        """As `draw`, but doubles are not rounded: for the many points of which few become configurations."""
        return self.draw(u)

    @abstractmethod
    def places(self, cells: Floats) -> Floats:
        """The places in the distributions that `draw` turns into these cells."""

    @abstractmethod
    def values(self, cells: Floats) -> NDArray[Any]:
        """The values in cells: float64, int64 or object; `tolist()` gives them as Python's own types."""

    @abstractmethod
    def cells(self, values: Sequence[Sequence[Any]]) -> Floats:
        """The inverse of `values`, of rows that `tuneyard_api.domain.admits`; others are undefined or a KeyError."""

    @property
    @abstractmethod
    def size(self) -> int | None:
        """How many values it has; None for infinitely many."""

    @abstractmethod
    def log_weights(self) -> Floats:
        """Logarithm of each value's probability, up to a constant, shape (size,); -inf for never."""

    @abstractmethod
    def moved(self, value: Any, *, up: bool) -> Value:
        """Another value nearby, on one side or the other; the same one where there is none on that side."""


class ContinuousDimension(Dimension):
    """Doubles without a step."""

    size = None

    def __init__(self, specs: Sequence[DoubleParameter]) -> None:
        self._min, self._max = np.array([(spec.min, spec.max) for spec in specs]).T
        self._law = _law_of(specs, self._min, self._max)
        self._rounders = [_rounder(spec) for spec in specs]

    def draw(self, u: Floats) -> Floats:
        """See Dimension; rounded to 10 digits."""
        return self.rounded(self._law.quantile(u))

    def sketch(self, u: Floats) -> Floats:
        """See Dimension."""
        return cut(self._law.quantile(u), self._min, self._max)

    def rounded(self, cells: Floats) -> Floats:
        """What `draw` gives where `sketch` gives these cells; no zero is negative."""
        return cut(_each(self._rounders, cells), self._min, self._max) + 0.0

    def places(self, cells: Floats) -> Floats:
        """See Dimension."""
        return self._law.cdf(cells)

    def values(self, cells: Floats) -> NDArray[Any]:
        """See Dimension."""
        return cells

    def cells(self, values: Sequence[Sequence[Any]]) -> Floats:
        """See Dimension."""
        return np.array(values, dtype=np.float64).reshape(-1, len(self._min))

    def log_weights(self) -> Floats:
        """Not defined: there are infinitely many values."""
        raise TypeError("a double without a step has no weights")

    def moved(self, value: Any, *, up: bool) -> Value:
        """See Dimension."""
        near = _nearby(value, float(self._min[0]), float(self._max[0]), up=up)
        return float(self.rounded(np.array([[near]]))[0, 0])


class SteppedDimension(Dimension):
    """Numbers at equal steps: ints, or doubles with a step.

    Each value stands for the stretch of half a step to both sides, so that `draw` is the continuous law cut half a step
    outside the bounds and rounded to the nearest step. With scale log this gives n a probability close to 1/n.
    """

    def __init__(self, specs: Sequence[IntParameter | DoubleParameter]) -> None:
        self._int = isinstance(specs[0], IntParameter)
        steps = [spec.step or 1 for spec in specs]
        self._last = np.array([_steps(spec.min, spec.max, step) for spec, step in zip(specs, steps, strict=True)])
        self._rounders = [
            partial(round, ndigits=max(_decimals(spec.min), _decimals(step)))
            for spec, step in zip(specs, steps, strict=True)
        ]
        self._min, self._step = np.array([spec.min for spec in specs]), np.array(steps)
        half = self._step / 2
        self._law = _law_of(specs, self._min - half, self._min + self._last * self._step + half)

    def draw(self, u: Floats) -> Floats:
        """See Dimension."""
        steps = (self._law.quantile(u) - self._min) / self._step
        return cut(np.floor(steps + 0.5), 0, self._last)

    def places(self, cells: Floats) -> Floats:
        """See Dimension: the middle of each value's stretch."""
        low, high = self._stretches(cells)
        return (low + high) / 2

    def values(self, cells: Floats) -> NDArray[Any]:
        """See Dimension; a double is the decimal number min + k step, without the dust of binary sums."""
        if self._int:
            values: NDArray[np.int64] = cells.astype(np.int64) * self._step + self._min
            return values
        return _each(self._rounders, self._min + cells * self._step) + 0.0

    def cells(self, values: Sequence[Sequence[Any]]) -> Floats:
        """See Dimension."""
        given = np.array(values, dtype=np.int64 if self._int else np.float64).reshape(-1, len(self._min))
        above = given - self._min
        found: Floats = (above // self._step).astype(np.float64) if self._int else np.rint(above / self._step)
        return found

    def widths(self, u: Floats) -> Floats:
        """How long the stretches of the values are that `draw` gives at places u; shape kept."""
        low, high = self._stretches(self.draw(u))
        return high - low

    @property
    def size(self) -> int:
        """See Dimension."""
        return int(self._last[0]) + 1

    def log_weights(self) -> Floats:
        """See Dimension."""
        return self._law.log_mass(*self._edges(np.arange(self.size)[:, None]))[:, 0]

    def moved(self, value: Any, *, up: bool) -> Value:
        """See Dimension: by a step at least."""
        low, step, last = self._min.tolist()[0], self._step.tolist()[0], self.size - 1
        code = int(self.cells([[value]])[0, 0])
        near = round((_nearby(value, low, low + last * step, up=up) - low) / step)
        near = max(near, code + 1) if up else min(near, code - 1)
        found: Value = self.values(np.array([[float(min(max(near, 0), last))]])).tolist()[0][0]
        return found

    def _stretches(self, cells: Floats) -> tuple[Floats, Floats]:
        """Where the stretches of these values begin and end, as places."""
        if self._last.max() >= MAX_KEPT:
            return self._worked_out(cells)
        at = cells.astype(np.intp), np.arange(len(self._last))
        low, high = self._kept
        return low[at], high[at]

    @cached_property
    def _kept(self) -> tuple[Floats, Floats]:
        return self._worked_out(np.arange(self._last.max() + 1)[:, None])

    def _worked_out(self, cells: NDArray[Any]) -> tuple[Floats, Floats]:
        low, high = self._edges(cells)
        return self._law.cdf(low), self._law.cdf(high)

    def _edges(self, cells: NDArray[Any]) -> tuple[Floats, Floats]:
        centre = self._min + cells * self._step
        return centre - self._step / 2, centre + self._step / 2


class CategoricalDimension(Dimension):
    """Lists of values without an order."""

    def __init__(self, specs: Sequence[CategoricalParameter]) -> None:
        self._categories = [tuple(spec.values) for spec in specs]
        self._codes = [{value: float(code) for code, value in enumerate(values)} for values in self._categories]
        self._probabilities = [_probabilities(spec) for spec in specs]
        sums = [np.cumsum(p) for p in self._probabilities]
        self._edges = [each / each[-1] for each in sums]
        self._last = [int(np.flatnonzero(p)[-1]) for p in self._probabilities]
        self._lookup = _side_by_side(self._categories, None)
        self._middles = _side_by_side([edges - np.diff(edges, prepend=0.0) / 2 for edges in self._edges], np.nan)

    def draw(self, u: Floats) -> Floats:
        """See Dimension: the first value whose cumulative probability is above u."""
        drawn = [edges.searchsorted(each, "right") for edges, each in zip(self._edges, u.T, strict=True)]
        return np.minimum(np.array(drawn, dtype=np.float64).T, self._last)

    def places(self, cells: Floats) -> Floats:
        """See Dimension: the middle of each value's stretch."""
        places: Floats = self._middles[cells.astype(np.intp), np.arange(len(self._last))]
        return places

    def values(self, cells: Floats) -> NDArray[Any]:
        """See Dimension."""
        found: NDArray[Any] = self._lookup[cells.astype(np.intp), np.arange(len(self._last))]
        return found

    def cells(self, values: Sequence[Sequence[Any]]) -> Floats:
        """See Dimension."""
        codes = [[codes[value] for codes, value in zip(self._codes, row, strict=True)] for row in values]
        return np.array(codes, dtype=np.float64).reshape(-1, len(self._codes))

    @property
    def size(self) -> int:
        """See Dimension."""
        return len(self._categories[0])

    def log_weights(self) -> Floats:
        """See Dimension."""
        with np.errstate(divide="ignore"):
            return np.log(self._probabilities[0])

    def moved(self, value: Any, *, up: bool) -> Value:
        """See Dimension: of numbers the next one that is ever drawn; texts have no order, and none is nearby."""
        drawn = [each for each, p in zip(self._categories[0], self._probabilities[0], strict=True) if p > 0]
        ordered = not any(isinstance(each, str) for each in (*drawn, value))
        beyond = [each for each in drawn if (each > value if up else each < value)] if ordered else []
        found: Value = (min(beyond) if up else max(beyond)) if beyond else value
        return found


class Kind(NamedTuple):
    """Parameters of a space that share an object.

    Attributes:
        positions: which ones, rising, shape (k,).
        names: theirs.
        dimension: all of them side by side.
    """

    positions: NDArray[np.intp]
    names: tuple[str, ...]
    dimension: Dimension


def dimension_of(parameter: Parameter) -> Dimension:
    """A parameter alone."""
    return kinds_of([parameter], [0])[0].dimension


def kinds_of(parameters: Sequence[Parameter], positions: Iterable[int]) -> tuple[Kind, ...]:
    """The parameters at these positions, those of a kind together."""
    members: dict[Hashable, list[int]] = {}
    for position in sorted(positions):
        members.setdefault(_likeness(parameters[position]), []).append(position)
    found = [(some, [parameters[position] for position in some]) for some in members.values()]
    return tuple(Kind(np.array(some), tuple(p.name for p in alike), _joined(alike)) for some, alike in found)


def _likeness(parameter: Parameter) -> Hashable:
    """What parameters have in common if arrays of numbers are all that tells them apart."""
    spec = parameter.double or parameter.int_
    if spec is None:
        return CategoricalParameter
    is_long = spec.step is not None and _steps(spec.min, spec.max, spec.step) >= MAX_KEPT
    return type(spec), spec.distribution, spec.step is None, is_long


def _joined(parameters: Sequence[Parameter]) -> Dimension:
    doubles = [parameter.double for parameter in parameters if parameter.double is not None]
    ints = [parameter.int_ for parameter in parameters if parameter.int_ is not None]
    if ints:
        return SteppedDimension(ints)
    if not doubles:
        return CategoricalDimension([p.categorical for p in parameters if p.categorical is not None])
    return ContinuousDimension(doubles) if doubles[0].step is None else SteppedDimension(doubles)


def _law_of(specs: Sequence[IntParameter | DoubleParameter], low: Floats, high: Floats) -> Law:
    normal = specs[0].distribution == "normal"
    return law(
        low,
        high,
        log=np.array([spec.scale == "log" for spec in specs]),
        mean=np.array([spec.mean for spec in specs], dtype=np.float64) if normal else None,
        stddev=np.array([spec.stddev for spec in specs], dtype=np.float64) if normal else None,
    )


def _rounder(spec: DoubleParameter) -> Callable[[float], float]:
    """Keeps so many digits after the decimal point, or with scale log so many digits."""
    spread = min(spec.max - spec.min, 1e300) or 1.0
    if spec.scale == "log":
        return partial(_significant, digits=min(DIGITS + int(-math.log10(spread / spec.max)), 17))
    return partial(round, ndigits=DIGITS - math.floor(math.log10(spread)))


def _significant(number: float, digits: int) -> float:
    return float(f"{number:.{digits}g}")


def _each(functions: Sequence[Callable[[float], float]], cells: Floats) -> Floats:
    """Numbers rounded one by one, each column by its function: numpy rounds by a product, which has dust of its own."""
    found = [function(number) for function, number in zip(cycle(functions), cells.ravel().tolist(), strict=False)]
    return np.array(found, dtype=np.float64).reshape(cells.shape)


def _probabilities(spec: CategoricalParameter) -> Floats:
    size = len(spec.values)
    return np.array(spec.probabilities or [1.0 / size] * size, dtype=np.float64)


def _side_by_side(columns: Sequence[Sequence[Any] | Floats], filler: object) -> NDArray[Any]:
    """Columns of several lengths as one array, shape (longest, columns)."""
    array = np.full((max(map(len, columns)), len(columns)), filler, dtype=object if filler is None else np.float64)
    for number, column in enumerate(columns):
        array[: len(column), number] = column
    return array


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
