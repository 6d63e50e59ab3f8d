"""Virtual time: a heap of events, coroutines that wait for calls, one source of chance, and a trace of all of it."""

from __future__ import annotations

import hashlib
import heapq
import random
import types
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, Final

START: Final = 1_700_000_000.0
"""The virtual time at which every schedule begins, in epoch seconds."""
TAIL: Final = 30
"""Lines of the trace that a report shows."""


class Violation(Exception):
    """An invariant does not hold; the message says which, and how."""


def must(holds: bool, broken: str) -> None:
    """See that something holds.

    Raises:
        Violation: it does not.
    """
    if not holds:
        raise Violation(broken)


@dataclass(frozen=True, slots=True)
class Call:
    """What a coroutine waits for: something that is done to the API server at a later moment, and then its answer."""

    name: str
    effect: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Sleep:
    """A coroutine waits for time to pass."""

    seconds: float


Wish = Call | Sleep
Work = Coroutine[Any, Any, Any]


@types.coroutine
def wait_for(wish: Wish) -> Generator[Wish, Any, Any]:
    """Suspend the coroutine; whoever drives it sends the answer in or throws the error."""
    return (yield wish)


class Kernel:
    """Runs events in the order of their time; what happens at one time happens in the order in which it was planned."""

    def __init__(self, seed: int, *, keep_trace: bool = False) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - the same seed has to give the same schedule
        self.now = START
        self.steps = 0
        self.counts: Counter[str] = Counter()
        """Faults injected, by kind."""
        self.trace: deque[str] = deque(maxlen=None if keep_trace else TAIL)
        self._digest = hashlib.blake2b(digest_size=8)
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._planned = 0

    @property
    def digest(self) -> str:
        """A hash of the whole trace: alike for schedules that are the same, step by step."""
        return self._digest.hexdigest()

    def after(self, delay: float, run: Callable[..., None], *args: Any) -> None:
        """Plan an event."""
        self._planned += 1
        heapq.heappush(self._heap, (self.now + delay, self._planned, run, args))

    def jitter(self, least: float, most: float) -> float:
        """A length of time by chance."""
        return least + (most - least) * self.rng.random()

    def chance(self, rate: float) -> bool:
        """True with this probability."""
        return rate > 0.0 and self.rng.random() < rate

    def note(self, line: str) -> None:
        """Write a line into the trace."""
        line = f"{self.now - START:10.4f} {line}"
        self.trace.append(line)
        self._digest.update(line.encode())

    def step(self) -> bool:
        """Run the next event; False when there is none."""
        if not self._heap:
            return False
        self.now, _, run, args = heapq.heappop(self._heap)
        self.steps += 1
        run(*args)
        return True
