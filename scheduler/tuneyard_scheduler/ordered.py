"""A set whose smallest member is found without looking at the others."""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterator
from typing import Generic, TypeVar

T = TypeVar("T", int, str, tuple[float, int], tuple[float, float, int])
_SLACK = 64


class MinSet(Generic[T]):
    """A set with `smallest`: every operation is O(log n) amortised.

    A heap that is cleaned when it is read: what was discarded stays in it until it comes to the top, and what is added
    again meanwhile is not queued twice. One that consists of such for the most part is built anew.
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
            if len(self._heap) > 2 * len(self._members) + _SLACK:
                self._queued = set(self._members)
                self._heap = sorted(self._members)

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

    def ascending(self) -> Iterator[T]:
        """The members from the smallest on; k of them cost O(k log k). The set must not change meanwhile."""
        first, heap = self.smallest(), self._heap  # in this order: it cleans the heap
        ahead = [(first, 0)] if first is not None else []
        while ahead:
            item, at = heapq.heappop(ahead)
            for below in (2 * at + 1, 2 * at + 2):
                if below < len(heap):
                    heapq.heappush(ahead, (heap[below], below))
            if item in self._members:
                yield item
