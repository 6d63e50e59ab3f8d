"""Values of trials that had more and less of the fidelity, made comparable for a model.

Two ways. `largest`: only the values at the largest fidelity of which enough is known (BOHB). `extrapolated`: the last
value of each configuration, plus what those that went on from there have gained, in the median, on the way to the top.
Among trials of one rung that changes nothing; between rungs it takes away that the longer one had more time, which a
model would otherwise take for the merit of its configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tuneyard_strategy.contract import TrialRecord
from tuneyard_strategy.distributions import Floats
from tuneyard_strategy.encoding import Encoding
from tuneyard_strategy.history import Fate, History, Rows
from tuneyard_strategy.stopping import value_at

FEWEST_GAINS = 3
"""Trials that went on from a rung, below which their gain is not taken for that of others."""


class Comparable:
    """A study's history with one comparable value a configuration: see `Known`."""

    def __init__(self, history: History, values: Mapping[int, float], hidden: Rows) -> None:
        self._history = history
        self._hidden = hidden
        self._values = values

    @classmethod
    def extrapolated(cls, history: History, records: Mapping[int, TrialRecord], points: Sequence[int]) -> Comparable:
        """The last value of each configuration, as if it had gone on to the end. See above."""
        table = _Table(history, records, points)
        last = np.array([np.flatnonzero(~np.isnan(row))[-1] if row.size else 0 for row in table.values], dtype=np.intp)
        gains = np.zeros(len(points))
        for level in range(len(points) - 2, -1, -1):
            went_on = table.values[:, level + 1] - table.values[:, level]
            went_on = went_on[~np.isnan(went_on)]
            gain = float(np.median(went_on)) if len(went_on) >= FEWEST_GAINS else 0.0
            gains[level] = gains[level + 1] + gain
        values = table.values[np.arange(len(last)), last] + gains[last]
        return cls(history, dict(zip(table.rows, values.tolist(), strict=True)), table.hidden)

    @classmethod
    def largest(
        cls, history: History, records: Mapping[int, TrialRecord], points: Sequence[int], enough: int
    ) -> Comparable:
        """The values at the largest fidelity of which there are enough; of none, where there is no such fidelity."""
        table = _Table(history, records, points)
        counts = (~np.isnan(table.values)).sum(axis=0)
        rich = np.flatnonzero(counts >= enough)
        values: dict[int, float] = {}
        if len(rich):
            column = table.values[:, rich[-1]]
            values = {row: v for row, v in zip(table.rows, column.tolist(), strict=True) if not np.isnan(v)}
        return cls(history, values, table.hidden)

    @property
    def objectives(self) -> int:
        """See Known."""
        return self._history.objectives

    @property
    def bounds(self) -> int:
        """See Known."""
        return self._history.bounds

    @property
    def encoding(self) -> Encoding:
        """See Known."""
        return self._history.encoding

    def rows(self, *fates: Fate) -> Rows:
        """See Known. Measured is a configuration that has a comparable value; its other trials are not there."""
        found: list[Rows] = []
        if Fate.MEASURED in fates:
            found.append(np.array(sorted(self._values), dtype=np.intp))
        others = [fate for fate in fates if fate is not Fate.MEASURED]
        if others:
            found.append(np.setdiff1d(self._history.rows(*others), self._hidden))
        return np.sort(np.concatenate(found))

    def coordinates(self, rows: Rows) -> Floats:
        """See Known."""
        return self._history.coordinates(rows)

    def values(self, rows: Rows) -> Floats:
        """See Known."""
        return np.array([self._values[row] for row in rows.tolist()], dtype=np.float64)

    def losses(self, rows: Rows) -> Floats:
        """See Known: there is one objective."""
        return self.values(rows)[:, None]

    def excesses(self, rows: Rows) -> Floats:
        """See Known."""
        return self._history.excesses(rows)


class _Table:
    """Values by configuration and rung: shape (configurations, rungs), nan where it did not come so far.

    Earlier observations are of all of the fidelity.
    """

    def __init__(self, history: History, records: Mapping[int, TrialRecord], points: Sequence[int]) -> None:
        by_root: dict[int, list[float]] = {}
        lineage: dict[int, int] = {}
        first = history.first
        placed = set((history.rows(*Fate) - first).tolist())
        for index in sorted(records):
            record = records[index]
            above = record.rung.continues if record.rung is not None else None
            root = lineage[index] = index if above is None else lineage.get(above, above)
            row = _row(history, record, points) if index in placed else None
            if row is not None:
                known = by_root.setdefault(root, [np.nan] * len(points))
                by_root[root] = [old if np.isnan(new) else new for old, new in zip(known, row, strict=True)]
        measured = {root: row for root, row in by_root.items() if root in placed}
        earlier = history.rows(Fate.MEASURED)
        earlier = earlier[earlier < first]
        known_before = [[np.nan] * (len(points) - 1) + [value] for value in history.values(earlier).tolist()]
        self.rows = [*earlier.tolist(), *(first + root for root in sorted(measured))]
        table = [*known_before, *(measured[root] for root in sorted(measured))]
        self.values = np.array(table).reshape(len(table), len(points))
        self.hidden = np.array([first + i for i, root in lineage.items() if root in measured], dtype=np.intp)


def _row(history: History, record: TrialRecord, points: Sequence[int]) -> list[float] | None:
    """The values of a trial at the rungs, the smaller the better; None where there is none.

    While a trial runs it is not known whether it keeps to the bounds on metrics: where there are any it has to wait.
    """
    fate = history.fates[record.index]
    if fate == Fate.FAILED or (fate != Fate.MEASURED and history.bounds):
        return None
    row = [history.signed(value_at(record.curve, point)) for point in points]
    if fate == Fate.MEASURED and record.state == "succeeded":
        had = record.rung.fidelity if record.rung is not None else points[-1]
        reached = [at for at, point in enumerate(points) if point <= had]
        if reached:
            row[reached[-1]] = float(history.values(np.array([history.first + record.index]))[0])
    return None if np.isnan(row).all() else row
