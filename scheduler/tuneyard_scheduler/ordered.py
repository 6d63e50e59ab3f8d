"""A set whose smallest member is found without looking at the others."""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterator
from typing import Generic, TypeVar

T = TypeVar("T", int, str)


class MinSet(Generic[T]):
    """A set with `smallest`: every operation is O(log n) amortised.

    A heap that is cleaned when it is read: what was discarded stays in it until it comes to the top, and what is added
    again meanwhile is not queued twice, so that the heap never outgrows the names that were ever in the set.
    """

    __slots__ = ("_heap", "_members", "_queued")

    def __init__(self) -> None:
        self._members: set[T] = set()
        self._queued: set[T] = set()
        self._heap: list[T] = []

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, item: object) -> bool:
        return item in self._members

    def __iter__(self) -> Iterator[T]:
        return iter(self._members)

    def add(self, item: T) -> None:
        """Put it in; nothing happens when it is there."""
        self._members.add(item)
        if item not in self._queued:
            self._queued.add(item)
            heapq.heappush(self._heap, item)

    def discard(self, item: T) -> None:
        """Take it out; nothing happens when it is not there."""
        self._members.discard(item)

    def smallest(self, skip: Container[T] = ()) -> T | None:
        """The smallest member that is not in `skip`; None when there is none."""
        skipped: list[T] = []
        found: T | None = None
        while self._heap:
            item = self._heap[0]
            if item not in self._members:
                self._queued.discard(heapq.heappop(self._heap))
            elif item in skip:
                skipped.append(heapq.heappop(self._heap))
            else:
                found = item
                break
        for item in skipped:
            heapq.heappush(self._heap, item)
        return found
