"""How long the attempts of a study run, learnt from those that have ended.

A study's trials are alike, so the last few tell how long the next one takes: predictions from a user's own last jobs
are better than the limits that users give. Source: D. Tsafrir, Y. Etsion, D. Feitelson, "Backfilling Using
System-Generated Predictions Rather than User Runtime Estimates", IEEE TPDS 18(6), 2007.
"""

from __future__ import annotations

import bisect
import heapq
import math
from typing import Final, NamedTuple

WINDOW: Final = 64
"""So many attempts are remembered, those that ended last: a search that comes to like larger models is followed."""
TYPICAL: Final = 0.5
LIKELY: Final = 0.75
"""The quantile for when a node has room: that is when the last of several has ended, and one of them takes long."""
CAUTIOUS: Final = 0.9
"""The quantile for promises to others: nine of ten attempts end before."""
_OVERDUE: Final = 1.5
"""An attempt that has run longer than all before it is supposed to take this many times as long as it has run."""


class Run(NamedTuple):
    """An attempt that ran to its own end."""

    finished: float
    """Epoch seconds."""
    seconds: float
    """How long it ran."""


class Durations:
    """The last runs of a study, as a sorted list of their lengths.

    They are a function of the set of runs, whatever the order in which these are told and however often: a restart,
    which lists all trials anew, comes to the same. Adding costs at most WINDOW steps, asking log WINDOW.
    """

    __slots__ = ("_last", "_lengths")

    def __init__(self) -> None:
        self._last: list[tuple[Run, int]] = []
        """A heap: the one that ended first goes first."""
        self._lengths: list[float] = []

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self, run: Run, index: int) -> None:
        """Take the run of the trial with this number; nothing happens where it is known, or older than all known."""
        entry = (run, index)
        full = len(self._last) >= WINDOW
        if not math.isfinite(run.seconds) or run.seconds < 0 or (full and entry <= self._last[0]):
            return
        if entry in self._last:
            return
        if full:
            (old, _) = heapq.heapreplace(self._last, entry)
            del self._lengths[bisect.bisect_left(self._lengths, old.seconds)]
        else:
            heapq.heappush(self._last, entry)
        bisect.insort(self._lengths, run.seconds)

    def total(self, share: float, ran: float = 0.0) -> float | None:
        """How long an attempt runs in all that has run so long: this quantile of those known that ran longer.

        Args:
            share: the quantile, above 0 and at most 1.
            ran: seconds for which it has run.

        Returns:
            Seconds, above `ran`; None where nothing is known.
        """
        if not self._lengths:
            return None
        begin = bisect.bisect_right(self._lengths, ran)
        longer = len(self._lengths) - begin
        if not longer:
            return _OVERDUE * ran
        return self._lengths[begin + math.ceil(share * longer) - 1]
