"""Which nodes to leave alone for a while, because trials were lost there: judged by the records of their ends.

A circuit breaker (Nygard, Release It!, 2007) a node: trouble of several trials within a short time closes it for a
while, which doubles each time; then one attempt tries it out, and only if that lasts do others follow.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

LOSSES: Final = 3
"""A node is in trouble when attempts of so many trials were lost there ..."""
WINDOW: Final = 600.0
"""... within so many seconds. While it is on parole, one is enough."""
FIRST: Final = 120.0
LONGEST: Final = 3600.0
"""Seconds for which it is avoided, where other nodes fit: the first time, and at most."""
PATIENCE: Final = 60.0
"""Seconds for which nobody at all gets a place there. What is lost meanwhile is lost by the same trouble."""
TRIAL_SECONDS: Final = 60.0
"""An attempt that is there for so long without being lost shows that the node is well again."""
MEMORY: Final = 6 * 3600.0
"""Seconds without trouble after which earlier ones are forgotten."""
_KEPT: Final = 32
"""Losses that are remembered of a node."""


@dataclass(slots=True)
class _Record:
    """What is known of a node on which something was lost."""

    losses: list[tuple[float, str]] = field(default_factory=list)
    """When, and the trial; in order of time."""
    proven: float = 0.0
    """When it was last known to be well."""
    probe: tuple[float, str] | None = None
    """The attempt that tries it out: since when, and of which trial."""
    strikes: int = 0
    struck: float = 0.0
    """When the last trouble began."""
    until: float = 0.0

    def lose(self, at: float, trial: str) -> bool:
        """One more loss; False when it is known."""
        if (at, trial) in self.losses:
            return False
        self.settle(at)
        insort(self.losses, (at, trial))
        del self.losses[:-_KEPT]
        if self.probe is not None and at >= self.probe[0]:
            self.probe = None
        self._reckon()
        return True

    def settle(self, now: float) -> None:
        """Take notice of an attempt that has lasted."""
        if self.probe is not None and now >= self.probe[0] + TRIAL_SECONDS:
            self.proven, self.probe = max(self.proven, self.probe[0] + TRIAL_SECONDS), None

    def _reckon(self) -> None:
        """From the losses, in whatever order they came to be known, to the trouble that they make."""
        strikes, struck, until = 0, 0.0, 0.0
        window: list[tuple[float, str]] = []
        for at, trial in self.losses:
            if strikes and at < struck + PATIENCE:
                continue
            if strikes and at >= until + MEMORY:
                strikes = 0
            if not strikes or struck < self.proven <= at:
                window = [loss for loss in window if loss[0] > at - WINDOW] + [(at, trial)]
                if len({of for _, of in window}) < LOSSES:
                    continue
            strikes, struck, window = strikes + 1, at, []
            until = at + min(LONGEST, FIRST * 2.0 ** (strikes - 1))
        self.strikes, self.struck, self.until = strikes, struck, until

    @property
    def suspect(self) -> bool:
        """Whether it has to show yet that it is well again."""
        return self.strikes > 0 and self.proven <= self.struck

    @property
    def closed_until(self) -> float:
        """Until when nobody gets a place on a suspect node."""
        tried_out = self.probe[0] + TRIAL_SECONDS if self.probe is not None else 0.0
        return max(self.struck + PATIENCE, tried_out)


class NodeHealth:
    """The nodes of a cluster. All that is asked is as of the time of the last `advance`.

    A loss costs O(1), and so does every other event; a cycle walks over the suspect nodes alone.
    """

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}
        self._suspects: set[str] = set()
        self._now = 0.0
        self.avoided: frozenset[str] = frozenset()
        """Nodes to take only where no other fits."""
        self.closed: frozenset[str] = frozenset()
        """Nodes to take in no case; never for longer than PATIENCE or TRIAL_SECONDS at a time."""

    # Events

    def lost(self, node: str, trial: str, at: float) -> None:
        """An attempt of this trial was lost on the node, at a time in epoch seconds; told twice it counts once."""
        record = self._records.setdefault(node, _Record())
        if record.lose(at, trial):
            self._judge(node, record)

    def survived(self, node: str, started: float, finished: float) -> None:
        """An attempt ran on the node and came to an end of its own."""
        record = self._records.get(node)
        if record is not None and record.suspect and started > record.struck:
            record.proven, record.probe = max(record.proven, finished), None
            self._judge(node, record)

    def placed(self, node: str, trial: str, at: float) -> None:
        """An attempt gets a place on the node. If it is a suspect one, others wait for what becomes of it."""
        record = self._records.get(node)
        if record is not None and record.suspect and record.probe is None:
            record.probe = at, trial
            self._judge(node, record)

    def withdrawn(self, node: str, trial: str) -> None:
        """The place could not be given after all."""
        record = self._records.get(node)
        if record is not None and record.probe is not None and record.probe[1] == trial:
            record.probe = None
            self._judge(node, record)

    def advance(self, now: float) -> None:
        """It is now this time, in epoch seconds."""
        self._now = now
        if self._suspects:
            for name in self._suspects:
                self._records[name].settle(now)
            self._suspects = {name for name in self._suspects if self._records[name].suspect}
            self._look()

    # Questions

    def next_change(self) -> float | None:
        """When a node will be judged differently if nothing happens; None when none will."""
        return min((at for at in self._changes() if at > self._now), default=None)

    def reopens(self, node: str) -> float:
        """When somebody may get a place on a closed node."""
        return self._records[node].closed_until

    def strikes(self, node: str) -> int:
        """How often it was in trouble lately."""
        record = self._records.get(node)
        return record.strikes if record is not None else 0

    def _changes(self) -> Iterator[float]:
        for name in self._suspects:
            yield self._records[name].until
            yield self._records[name].closed_until

    def _judge(self, node: str, record: _Record) -> None:
        if record.suspect:
            self._suspects.add(node)
        else:
            self._suspects.discard(node)
        self._look()

    def _look(self) -> None:
        suspects = [(name, self._records[name]) for name in self._suspects]
        self.closed = frozenset(name for name, record in suspects if self._now < record.closed_until)
        self.avoided = self.closed | {name for name, record in suspects if self._now < record.until}
