"""Values of trials that had more and less of the fidelity, made comparable for a model.

Two ways. `largest`: only the values at the largest fidelity of which enough is known (BOHB). `extrapolated`: the last
value of each configuration, plus what those that went on from there have gained, in the median, on the way to the top.
Among trials of one rung that changes nothing; between rungs it takes away that the longer one had more time, which a
model would otherwise take for the merit of its configuration.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from tuneyard_strategy.contract import TrialRecord
from tuneyard_strategy.distributions import Floats
from tuneyard_strategy.encoding import Encoding
from tuneyard_strategy.history import Fate, History, Rows
from tuneyard_strategy.stopping import value_at

FEWEST_GAINS = 3
"""Trials that went on from a rung, below which their gain is not taken for that of others."""


class Ladder:
    """Values by configuration and rung, nan where one did not come so far: of the trials that it has been told of.

    A configuration goes by the row of its first trial. Earlier observations are of all of the fidelity.

    Args:
        history: that knows these trials.
        points: the fidelities of the rungs, rising.
    """

    def __init__(self, history: History, points: Sequence[int]) -> None:
        self.history, self._points = history, points
        self._roots: list[int] = []
        """By index: the first trial with its configuration; -1 for trials that it was not told of."""
        self._found: dict[int, dict[int, list[float] | None]] = {}
        """By first trial: all trials with its configuration, and the values of those that have any."""
        self._values = np.full((history.first, len(points)), np.nan)
        earlier = history.rows(Fate.MEASURED)
        earlier = earlier[earlier < history.first]
        self._values[earlier, -1] = history.values(earlier)

    def take(self, records: Collection[TrialRecord]) -> None:
        """Take in what became of trials."""
        for record in sorted(records, key=lambda record: record.index):
            above = record.rung.continues if record.rung is not None else None
            root = record.index if above is None else self._root(above)
            self._reserve(1 + max(record.index, root))
            if root != record.index:
                self._join(record.index, root)
            row = _row(self.history, record, self._points) if self.history.is_placed(record.index) else None
            self._roots[record.index] = root
            self._found.setdefault(root, {})[record.index] = row
            self._values[self.history.first + root] = self._merged(root)

    def table(self) -> tuple[Rows, Floats]:
        """The rows of configurations that have a value, in order, and these, shape (configurations, rungs)."""
        rows = np.flatnonzero(~np.isnan(self._values).all(axis=1))
        return rows, self._values[rows]

    def hidden(self, rows: Rows) -> Rows:
        """The rows of all trials with the configurations of these rows."""
        first, roots = self.history.first, np.array(self._roots, dtype=np.intp)
        known = np.zeros(len(self._values), dtype=np.bool_)
        known[rows] = True
        return first + np.flatnonzero((roots >= 0) & known[first + roots])

    def _root(self, index: int) -> int:
        known = self._roots[index] if index < len(self._roots) else -1
        return index if known < 0 else known

    def _join(self, index: int, root: int) -> None:
        """Trials that go on from one that was not heard of, and so was taken for the first, have this first one."""
        for later, row in self._found.pop(index, {}).items():
            self._roots[later] = root
            self._found.setdefault(root, {})[later] = row
        self._values[self.history.first + index] = np.nan

    def _merged(self, root: int) -> Floats:
        """At each rung the value of the last trial that has one."""
        merged = np.full(len(self._points), np.nan)
        if self.history.is_placed(root):
            for _, row in sorted(self._found[root].items()):
                merged = merged if row is None else np.where(np.isnan(row), merged, row)
        return merged

    def _reserve(self, end: int) -> None:
        self._roots.extend([-1] * (end - len(self._roots)))
        if self.history.first + end > len(self._values):
            more = max(end, len(self._values))
            self._values = np.vstack([self._values, np.full((more, len(self._points)), np.nan)])


class Comparable:
    """A study's history with one comparable value a configuration: see `Known`.

    Args:
        history: of the study.
        rows: the first trials of configurations that have a value.
        values: these, shape (rows,).
        hidden: the rows of all trials with a configuration that has values on the ladder.
    """

    def __init__(self, history: History, rows: Rows, values: Floats, hidden: Rows) -> None:
        self._history = history
        self._measured = rows
        self._values = np.full(1 + max(rows, default=-1), np.nan)
        self._values[rows] = values
        self._hidden = hidden

    @classmethod
    def extrapolated(cls, ladder: Ladder) -> Comparable:
        """The last value of each configuration, as if it had gone on to the end. See above."""
        rows, table = ladder.table()
        rungs = table.shape[1]
        last = rungs - 1 - (~np.isnan(table[:, ::-1])).argmax(axis=1)
        gains = np.zeros(rungs)
        for level in range(rungs - 2, -1, -1):
            went_on = table[:, level + 1] - table[:, level]
            went_on = went_on[~np.isnan(went_on)]
            gain = float(np.median(went_on)) if len(went_on) >= FEWEST_GAINS else 0.0
            gains[level] = gains[level + 1] + gain
        return cls(ladder.history, rows, table[np.arange(len(last)), last] + gains[last], ladder.hidden(rows))

    @classmethod
    def largest(cls, ladder: Ladder, enough: int) -> Comparable:
        """The values at the largest fidelity of which there are enough; of none, where there is no such fidelity."""
        rows, table = ladder.table()
        hidden = ladder.hidden(rows)
        rich = np.flatnonzero((~np.isnan(table)).sum(axis=0) >= enough)
        if not len(rich):
            return cls(ladder.history, rows[:0], np.empty(0), hidden)
        column = table[:, rich[-1]]
        known = ~np.isnan(column)
        return cls(ladder.history, rows[known], column[known], hidden)

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
            found.append(self._measured)
        others = [fate for fate in fates if fate is not Fate.MEASURED]
        if others:
            found.append(np.setdiff1d(self._history.rows(*others), self._hidden))
        return np.sort(np.concatenate(found))

    def coordinates(self, rows: Rows) -> Floats:
        """See Known."""
        return self._history.coordinates(rows)

    def values(self, rows: Rows) -> Floats:
        """See Known."""
        values: Floats = self._values[rows]
        return values

    def losses(self, rows: Rows) -> Floats:
        """See Known: there is one objective."""
        return self.values(rows)[:, None]

    def excesses(self, rows: Rows) -> Floats:
        """See Known."""
        return self._history.excesses(rows)


def _row(history: History, record: TrialRecord, points: Sequence[int]) -> list[float] | None:
    """The values of a trial at the rungs, the smaller the better; None where there is none.

    While a trial runs it is not known whether it keeps to the bounds on metrics: where there are any it has to wait.
    """
    fate = history.fates[record.index]
    if not history.objectives or fate == Fate.FAILED or (fate != Fate.MEASURED and history.bounds):
        return None
    row = [history.signed(value_at(record.curve, point)) for point in points]
    if fate == Fate.MEASURED and record.state == "succeeded":
        had = record.rung.fidelity if record.rung is not None else points[-1]
        reached = [at for at, point in enumerate(points) if point <= had]
        if reached:
            row[reached[-1]] = float(history.values(np.array([history.first + record.index]))[0])
    return None if np.isnan(row).all() else row
