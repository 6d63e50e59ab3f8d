"""What is known of a study's trials, as arrays that models read.

| Symbol | Shape | What |
|---|---|---|
| d, k, m | | parameters, objectives, bounds on metrics |
| coordinates | (n, d) | see `encoding` |
| losses | (n, k) | the objectives; smaller is better |
| values | (n,) | the only objective |
| excesses | (n, m) | how far a metric is on the wrong side of a bound; at most 0 where it keeps to it |

Earlier observations have the first rows; a trial's is its index after these, so that nothing depends on the order in
which trials were heard of.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tuneyard_api.study import Objective
from tuneyard_strategy.contract import EarlierTrial, TrialRecord
from tuneyard_strategy.distributions import Floats
from tuneyard_strategy.encoding import Encoding
from tuneyard_strategy.space import Space, Table

Rows = NDArray[np.intp]

LARGEST = 1e150
"""Metrics are cut here: a square of them is still a number."""


class Fate(IntEnum):
    """What a trial teaches."""

    ABSENT = 0
    """There is no such trial."""
    PENDING = 1
    """Nothing yet, but there will be something."""
    MEASURED = 2
    """The values of the objectives, and of all bounded metrics."""
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


class Known(Protocol):
    """What a model reads of a history."""

    @property
    def encoding(self) -> Encoding:
        """The coordinates of the space."""

    @property
    def objectives(self) -> int:
        """How many there are."""

    @property
    def bounds(self) -> int:
        """How many metrics' bounds there are."""

    def rows(self, *fates: Fate) -> Rows:
        """The earlier observations and the trials of these fates, in order."""

    def coordinates(self, rows: Rows) -> Floats:
        """Coordinates of trials."""

    def values(self, rows: Rows) -> Floats:
        """The objective of measured trials, which are none where there is no objective; smaller is better."""

    def losses(self, rows: Rows) -> Floats:
        """All objectives of measured trials, shape (n, k); smaller is better."""

    def excesses(self, rows: Rows) -> Floats:
        """How far measured trials are beyond each bound."""


def beyond(known: Known, rows: Rows) -> Floats:
    """How far measured trials are beyond all bounds together, shape (n,): 0 where they keep to them."""
    total: Floats = np.maximum(known.excesses(rows), 0.0).sum(axis=1)
    return total


class Part:
    """What is known of some trials, as if there were no others."""

    def __init__(self, whole: Known, rows: Rows) -> None:
        self._rows = rows
        self.encoding, self.objectives, self.bounds = whole.encoding, whole.objectives, whole.bounds
        self.coordinates, self.values = whole.coordinates, whole.values
        self.losses, self.excesses = whole.losses, whole.excesses
        self._all = whole.rows

    def rows(self, *fates: Fate) -> Rows:
        """See Known."""
        return np.intersect1d(self._all(*fates), self._rows, assume_unique=True)


class History:
    """The trials of one study, and what was observed before it.

    Args:
        space: the search space.
        objectives: the metric to optimise, and those with bounds.
        earlier: observations from before the study, complete configurations of its space.
    """

    def __init__(self, space: Space, objectives: Sequence[Objective], earlier: Sequence[EarlierTrial] = ()) -> None:
        self.encoding = Encoding(space)
        self._goals = [(o.metric, o.sign) for o in objectives if o.goal is not None]
        self._bounds = list(_bounds(objectives))
        self._fates = np.zeros(0, dtype=np.int8)
        self._placed = np.zeros(0, dtype=np.bool_)
        self._coordinates = np.empty((0, len(space.names)))
        self._losses = np.empty((0, len(self._goals)))
        self._excesses = np.empty((0, len(self._bounds)))
        self._found: dict[tuple[Fate, ...], Rows] = {}
        """What `rows` gave, until something changes."""
        self._first = 0
        """The row of trial 0."""
        self.tell([_observed(number, trial) for number, trial in enumerate(earlier)])
        self.place(range(len(earlier)), space.table_of([trial.parameters for trial in earlier]))
        self._first = len(earlier)

    @property
    def objectives(self) -> int:
        """See Known."""
        return len(self._goals)

    @property
    def bounds(self) -> int:
        """See Known."""
        return len(self._bounds)

    def tell(self, records: Collection[TrialRecord]) -> None:
        """Take in what became of trials."""
        self._found.clear()
        self._reserve(1 + max((record.index for record in records), default=-1))
        for record in records:
            row = self._first + record.index
            self._fates[row] = self._judge(record, row)
            self._placed[row] = False

    @property
    def fates(self) -> NDArray[np.int8]:
        """The fate of each trial, by index."""
        return self._fates[self._first :]

    @property
    def first(self) -> int:
        """The row of trial 0: how many earlier observations there are."""
        return self._first

    def signed(self, value: float | None) -> float:
        """A value of the objective as `values` has it: smaller is better; nan for none."""
        return self._goals[0][1] * _cut(value)

    def is_placed(self, index: int) -> bool:
        """Whether the trial's configuration is known to lie in the space."""
        row = self._first + index
        return row < len(self._placed) and bool(self._placed[row])

    def place(self, indices: Sequence[int], table: Table) -> None:
        """Take in the configurations of trials; those that have none, being outside the space, teach nothing."""
        self._found.clear()
        rows = [self._first + index for index in indices]
        self._coordinates[rows] = self.encoding.coordinates(table)
        self._placed[rows] = True

    def stay(self, indices: Collection[int]) -> None:
        """The configurations of trials that were told of are still those that were taken in before."""
        self._found.clear()
        self._placed[[self._first + index for index in indices]] = True

    def expect(self, index: int, table: Table) -> None:
        """There is to be a trial with this configuration."""
        self._reserve(1 + index)
        self._fates[self._first + index] = Fate.PENDING
        self.place([index], table)

    def forget(self, index: int) -> None:
        """There is no such trial."""
        self._found.clear()
        self._fates[self._first + index] = Fate.ABSENT
        self._placed[self._first + index] = False

    def missing(self, end: int) -> list[int]:
        """The indices below `end` without a trial."""
        self._reserve(end)
        absent = self._fates[self._first : self._first + end] == Fate.ABSENT
        found: list[int] = absent.nonzero()[0].tolist()
        return found

    def rows(self, *fates: Fate) -> Rows:
        """See Known."""
        if fates not in self._found:
            wanted = self._placed & (self._fates == fates[0])
            for fate in fates[1:]:
                wanted |= self._placed & (self._fates == fate)
            self._found[fates] = wanted.nonzero()[0]
        return self._found[fates]

    def coordinates(self, rows: Rows) -> Floats:
        """See Known."""
        return self._coordinates[rows]

    def values(self, rows: Rows) -> Floats:
        """See Known."""
        only: Floats = self._losses[rows, 0] if self._goals else np.empty(len(rows))
        return only

    def losses(self, rows: Rows) -> Floats:
        """See Known."""
        return self._losses[rows]

    def excesses(self, rows: Rows) -> Floats:
        """See Known."""
        return self._excesses[rows]

    def _judge(self, record: TrialRecord, row: int) -> Fate:
        fate = _FATES[record.state]
        if fate is not Fate.MEASURED:
            return fate
        if not self._goals:
            return Fate.UNKNOWN
        metrics = record.metrics or {}
        losses = [sign * _cut(metrics.get(metric)) for metric, sign in self._goals]
        excesses = [bound.excess(metrics) for bound in self._bounds]
        if np.isnan([*losses, *excesses]).any():
            # One that was stopped early has what it had come to by then; else it was stopped with the study.
            return Fate.UNKNOWN if record.state == "stopped" else Fate.FAILED
        self._losses[row] = losses
        self._excesses[row] = excesses
        return fate

    def _reserve(self, end: int) -> None:
        rows = self._first + end
        more = max(rows, 2 * len(self._fates)) - len(self._fates)
        if rows > len(self._fates):
            self._fates = np.pad(self._fates, (0, more))
            self._placed = np.pad(self._placed, (0, more))
            self._coordinates = np.pad(self._coordinates, ((0, more), (0, 0)))
            self._losses = np.pad(self._losses, ((0, more), (0, 0)))
            self._excesses = np.pad(self._excesses, ((0, more), (0, 0)))


def _observed(number: int, trial: EarlierTrial) -> TrialRecord:
    return TrialRecord(
        index=number,
        parameters=trial.parameters,
        state="failed" if trial.metrics is None else "succeeded",
        metrics=trial.metrics,
    )


def _bounds(objectives: Sequence[Objective]) -> list[_Bound]:
    upper = [_Bound(o.metric, 1.0, o.at_most) for o in objectives if o.at_most is not None]
    lower = [_Bound(o.metric, -1.0, o.at_least) for o in objectives if o.at_least is not None]
    return upper + lower


def _cut(number: float | None) -> float:
    return math.nan if number is None else min(max(number, -LARGEST), LARGEST)
