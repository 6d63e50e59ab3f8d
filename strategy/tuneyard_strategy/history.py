"""What is known of a study's trials, as arrays that models read.

| Symbol | Shape | What |
|---|---|---|
| d, m | | parameters, bounds on metrics |
| coordinates | (n, d) | see `encoding` |
| values | (n,) | the objective; smaller is better |
| excesses | (n, m) | how far a metric is on the wrong side of a bound; at most 0 where it keeps to it |

The row of a trial is its index, so that nothing depends on the order in which trials were heard of.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from tuneyard_api.study import Objective
from tuneyard_strategy.contract import TrialRecord
from tuneyard_strategy.distributions import Floats
from tuneyard_strategy.encoding import Encoding
from tuneyard_strategy.space import Space, Table

LARGEST = 1e150
"""Metrics are cut here: a square of them is still a number."""


class Fate(IntEnum):
    """What a trial teaches."""

    ABSENT = 0
    """There is no such trial."""
    PENDING = 1
    """Nothing yet, but there will be something."""
    MEASURED = 2
    """The value of the objective, and of all bounded metrics."""
    FAILED = 3
    """That its configuration does not work."""
    UNKNOWN = 4
    """Nothing, ever: it was stopped, or lost by no fault of its own."""


_FATES = {
    "pending": Fate.PENDING,
    "running": Fate.PENDING,
    "succeeded": Fate.MEASURED,
    "failed": Fate.FAILED,
    "infeasible": Fate.FAILED,
    "stopped": Fate.MEASURED,
    "unknown": Fate.UNKNOWN,
}


@dataclass(frozen=True)
class _Bound:
    metric: str
    sign: float
    limit: float

    def excess(self, metrics: Mapping[str, float]) -> float:
        return _cut(self.sign * (_cut(metrics.get(self.metric)) - self.limit))


class History:
    """The trials of one study."""

    def __init__(self, space: Space, objectives: Sequence[Objective]) -> None:
        self.encoding = Encoding(space)
        self._goal = next((o for o in objectives if o.goal is not None), None)
        self._sign = -1.0 if self._goal is not None and self._goal.goal == "maximize" else 1.0
        self._bounds = list(_bounds(objectives))
        self._fates = np.zeros(0, dtype=np.int8)
        self._placed = np.zeros(0, dtype=np.bool_)
        self._coordinates = np.empty((0, len(space.names)))
        self._values = np.empty(0)
        self._excesses = np.empty((0, len(self._bounds)))

    def tell(self, records: Collection[TrialRecord]) -> None:
        """Take in what became of trials."""
        self._reserve(1 + max((record.index for record in records), default=-1))
        for record in records:
            self._fates[record.index] = self._judge(record)
            self._placed[record.index] = False

    @property
    def fates(self) -> NDArray[np.int8]:
        """The fate of each trial, by index."""
        return self._fates

    @property
    def bounded(self) -> bool:
        """Whether metrics have bounds."""
        return bool(self._bounds)

    def signed(self, value: float | None) -> float:
        """A value of the objective as `values` has it: smaller is better; nan for none."""
        return self._sign * _cut(value)

    def is_placed(self, index: int) -> bool:
        """Whether the trial's configuration is known to lie in the space."""
        return index < len(self._placed) and bool(self._placed[index])

    def place(self, indices: Sequence[int], table: Table) -> None:
        """Take in the configurations of trials; those that have none, being outside the space, teach nothing."""
        self._coordinates[indices] = self.encoding.coordinates(table)
        self._placed[indices] = True

    def forget(self, index: int) -> None:
        """There is no such trial."""
        self._fates[index] = Fate.ABSENT
        self._placed[index] = False

    def missing(self, end: int) -> list[int]:
        """The indices below `end` without a trial."""
        self._reserve(end)
        return np.flatnonzero(self._fates[:end] == Fate.ABSENT).tolist()

    def rows(self, *fates: Fate) -> NDArray[np.intp]:
        """The trials of these fates, in order."""
        wanted = np.logical_or.reduce([self._fates == fate for fate in fates])
        return np.flatnonzero(self._placed & wanted)

    def coordinates(self, rows: NDArray[np.intp]) -> Floats:
        """Coordinates of trials."""
        return self._coordinates[rows]

    def values(self, rows: NDArray[np.intp]) -> Floats:
        """The objective of measured trials; smaller is better."""
        return self._values[rows]

    def excesses(self, rows: NDArray[np.intp]) -> Floats:
        """How far measured trials are beyond each bound."""
        return self._excesses[rows]

    def _judge(self, record: TrialRecord) -> Fate:
        fate = _FATES[record.state]
        if fate is not Fate.MEASURED:
            return fate
        if self._goal is None:
            return Fate.UNKNOWN
        metrics = record.metrics or {}
        value = self._sign * _cut(metrics.get(self._goal.metric))
        excesses = [bound.excess(metrics) for bound in self._bounds]
        if np.isnan([value, *excesses]).any():
            # One that was stopped early has what it had come to by then; else it was stopped with the study.
            return Fate.UNKNOWN if record.state == "stopped" else Fate.FAILED
        self._values[record.index] = value
        self._excesses[record.index] = excesses
        return fate

    def _reserve(self, rows: int) -> None:
        more = max(rows, 2 * len(self._fates)) - len(self._fates)
        if rows > len(self._fates):
            self._fates = np.pad(self._fates, (0, more))
            self._placed = np.pad(self._placed, (0, more))
            self._coordinates = np.pad(self._coordinates, ((0, more), (0, 0)))
            self._values = np.pad(self._values, (0, more))
            self._excesses = np.pad(self._excesses, ((0, more), (0, 0)))


def _bounds(objectives: Sequence[Objective]) -> list[_Bound]:
    upper = [_Bound(o.metric, 1.0, o.at_most) for o in objectives if o.at_most is not None]
    lower = [_Bound(o.metric, -1.0, o.at_least) for o in objectives if o.at_least is not None]
    return upper + lower


def _cut(number: float | None) -> float:
    return math.nan if number is None else min(max(number, -LARGEST), LARGEST)
