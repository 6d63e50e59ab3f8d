"""The nodes of one kind of GPUs by what they have free: which is the fullest that still fits?"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

from tuneyard_scheduler.devices import amount
from tuneyard_scheduler.ordered import MinSet

Fits = Callable[[str], bool]
"""Whether a node that has the GPUs will do in all else."""


class FreeIndex:
    """Nodes by how many whole GPUs they have free, and the GPUs of which a part is taken, by what is left of them.

    The fullest node that fits is found by looking at as many buckets as a node has GPUs, whatever the number of nodes,
    as long as the first that is looked at will do in all else. Equally full nodes are taken by name, so that the same
    state gives the same answer.
    """

    __slots__ = ("_at", "_buckets", "_open", "_parts", "undivided")

    def __init__(self) -> None:
        self._buckets: list[MinSet[str]] = []
        self._at: dict[str, int] = {}
        self._open: dict[str, dict[str, float]] = {}
        self._parts: list[tuple[float, str, str]] = []
        self.undivided: set[str] = set()
        """Nodes of which no further GPU is divided now."""

    def __len__(self) -> int:
        return len(self._at)

    def __iter__(self) -> Iterator[str]:
        return iter(self._at)

    def __contains__(self, name: object) -> bool:
        return name in self._at

    def set(self, name: str, free: int, parts: Mapping[str, float] | None = None, *, divides: bool = True) -> None:
        """File the node under this many free GPUs (below zero, when more is taken than it has, counts as zero).

        `parts` says what is left of each GPU of it of which a part is taken, `divides` whether others may be divided.
        """
        (self.undivided.discard if divides else self.undivided.add)(name)
        free = max(free, 0)
        before = self._at.get(name)
        if before != free:
            if before is not None:
                self._buckets[before].discard(name)
            while len(self._buckets) <= free:
                self._buckets.append(MinSet())
            self._buckets[free].add(name)
            self._at[name] = free
        self._set_parts(name, parts or {})

    def _set_parts(self, name: str, parts: Mapping[str, float]) -> None:
        before = self._open.get(name)
        if not before and not parts:
            return
        for device, left in (before or {}).items():
            if parts.get(device) != left:
                del self._parts[bisect_left(self._parts, (left, name, device))]
        for device, left in parts.items():
            if before is None or before.get(device) != left:
                insort(self._parts, (left, name, device))
        if parts:
            self._open[name] = dict(parts)
        else:
            del self._open[name]

    def remove(self, name: str) -> None:
        """Forget the node."""
        self.undivided.discard(name)
        before = self._at.pop(name, None)
        if before is not None:
            self._buckets[before].discard(name)
            self._set_parts(name, {})

    def fullest(self, count: int, fits: Fits | None = None) -> str | None:
        """The node with the fewest free GPUs that are still `count`; None when no node has as many."""
        return _first(self._buckets[count:], fits)

    def emptiest(self, count: int, fits: Fits | None = None) -> str | None:
        """The node with the most free GPUs, if these are `count`."""
        return _first(reversed(self._buckets[count:]), fits)

    def roomiest(self, most: int) -> list[str]:
        """So many nodes at most, those with the most free GPUs first; equally free ones by name."""
        return list(islice((name for bucket in reversed(self._buckets) for name in bucket.ascending()), most))

    def tightest(self, share: float, fits: Fits | None = None) -> tuple[str, str] | None:
        """Node and name of the GPU of which a part is taken and the least is left that is enough."""
        start = bisect_left(self._parts, (share,))
        return next(((n, d) for _, n, d in self._parts[start:] if fits is None or fits(n)), None)

    def loosest(self, share: float, fits: Fits | None = None) -> tuple[str, str] | None:
        """Node and name of the GPU of which a part is taken and the most is left, if that is enough."""
        start = bisect_left(self._parts, (share,))
        return next(((n, d) for _, n, d in reversed(self._parts[start:]) if fits is None or fits(n)), None)

    def units(self, name: str) -> int:
        """How many GPUs a node has free."""
        return self._at[name]

    def most_free(self) -> int:
        """How many GPUs the emptiest node has free."""
        return next((free for free in range(len(self._buckets) - 1, 0, -1) if self._buckets[free]), 0)

    def most_left(self) -> float:
        """How much is free of the GPU that is used least."""
        return 1.0 if self.most_free() else self.most_left_of_divided()

    def most_left_of_divided(self) -> float:
        """How much is free of the GPU that is used least, of those of which a part is taken."""
        return amount(self._parts[-1][0]) if self._parts else 0.0


def _first(buckets: Iterable[MinSet[str]], fits: Fits | None) -> str | None:
    if fits is None:
        return next((name for bucket in buckets if (name := bucket.smallest()) is not None), None)
    return next((name for bucket in buckets for name in bucket.ascending() if fits(name)), None)
