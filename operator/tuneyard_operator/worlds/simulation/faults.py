"""Which faults a schedule has, and how often."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from typing import Self


@dataclass(slots=True)
class Faults:
    """Probabilities and rates of what goes wrong. All zero is a cluster on its best day."""

    lost_write: float = 0.0
    """Of a call: it is not carried out, and an error is answered."""
    lost_answer: float = 0.0
    """Of a call: it is carried out, and an error is answered."""
    slow_answer: float = 0.0
    """Of a call: its answer comes seconds late, after the news of what happened since."""
    stale_read: float = 0.0
    """Of a read: it shows the object as it was before its last change."""
    crash_at_call: float = 0.0
    """Of a call: the caller crashes before it is carried out, or between that and its answer."""
    crash: float = 0.0
    """Crashes of a process in a second, at any moment."""
    slow_watch: float = 0.0
    """Of a delivery: the events come seconds late."""
    watch_gap: float = 0.0
    """Of a delivery: the watch breaks, events are lost, and everything is listed again."""
    repeated_events: float = 0.0
    """Of a delivery: some events that were told before are told again."""
    node_loss: float = 0.0
    """Nodes lost in a second; some come back."""
    node_join: float = 0.0
    eviction: float = 0.0
    """Pods evicted, preempted or deleted in a second."""
    foreign_pod: float = 0.0
    """Other people's GPU pods in a second."""
    broken_image: float = 0.0
    """Times in a second at which images cannot be pulled for a while."""
    strategy_error: float = 0.0
    """Of a question to the strategy: there is no answer."""
    user_action: float = 0.0
    """Changes in a second that people make to a study."""

    @classmethod
    def draw(cls, rng: random.Random) -> Self:
        """A mixture of faults: each schedule has some kinds and not others, so that none hides another."""
        drawn = cls()
        for each in fields(cls):
            usual = _USUAL[each.name]
            setattr(drawn, each.name, usual * rng.choice((0.0, 0.0, 0.5, 1.0, 3.0)))
        return drawn

    @property
    def over(self) -> bool:
        """Whether nothing goes wrong (any more)."""
        return not any(getattr(self, each.name) for each in fields(self))

    def calm(self) -> None:
        """From now on nothing goes wrong."""
        for each in fields(self):
            setattr(self, each.name, 0.0)


_USUAL = {
    "lost_write": 0.02,
    "lost_answer": 0.02,
    "slow_answer": 0.02,
    "stale_read": 0.2,
    "crash_at_call": 0.003,
    "crash": 0.01,
    "slow_watch": 0.03,
    "watch_gap": 0.01,
    "repeated_events": 0.03,
    "node_loss": 0.01,
    "node_join": 0.005,
    "eviction": 0.03,
    "foreign_pod": 0.01,
    "broken_image": 0.005,
    "strategy_error": 0.1,
    "user_action": 0.02,
}
