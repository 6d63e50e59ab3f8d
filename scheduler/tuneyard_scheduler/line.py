"""The line of a cycle: which study is served next, by queues from the top down and by turns within a queue."""

from __future__ import annotations

import heapq
from typing import Final, NamedTuple

from tuneyard_scheduler.books import StudyBook
from tuneyard_scheduler.policies import Policies
from tuneyard_scheduler.queues import QueueBook
from tuneyard_scheduler.state import ClusterState

_TOP: Final = ""


class _Entry(NamedTuple):
    key: tuple[float, ...]
    name: str
    """Of a queue or a study, which settles equal keys; no two within a queue are alike."""
    item: QueueBook | StudyBook


class Line:
    """Studies with waiting trials, in a heap a queue; and the queues in one of their parent.

    A place given changes the keys of its study and of the queues above it, and these stand first in their heaps: so it
    costs O(depth x log n).
    """

    def __init__(self, state: ClusterState, policies: Policies, now: float) -> None:
        self._state = state
        self._policies = policies
        self._now = now
        self._heaps: dict[str, list[_Entry]] = {_TOP: []}
        for study in state.waiting_studies():
            self._join(study)
        for heap in self._heaps.values():
            heapq.heapify(heap)

    def first(self) -> StudyBook | None:
        """Whose turn it is; None when nobody is left in line."""
        heap = self._heaps[_TOP]
        while heap:
            item = heap[0].item
            if isinstance(item, StudyBook):
                return item
            heap = self._heaps[item.name]
        return None

    def settle(self, study: StudyBook, *, stays: bool) -> None:
        """The study that was first has been served: it stands in line again, or leaves."""
        queue = self._state.queue_of(study)
        assert queue is not None, "a study in line has a queue"
        self._move(self._heaps[queue.name], self._place(study) if stays else None)
        for each in queue.path():
            above = self._heaps[each.parent.name if each.parent is not None else _TOP]
            self._move(above, self._place(each) if self._heaps[each.name] else None)

    def _join(self, study: StudyBook) -> None:
        queue = self._state.queue_of(study)
        if study.view is None or queue is None:
            return
        entry = self._place(study)
        for each in queue.path():
            heap = self._heaps.setdefault(each.name, [])
            heap.append(entry)
            if len(heap) > 1:
                return  # the queue stands in its parent's line already
            entry = self._place(each)
        self._heaps[_TOP].append(entry)

    def _place(self, item: QueueBook | StudyBook) -> _Entry:
        if isinstance(item, QueueBook):
            return _Entry(self._policies.share(item), item.name, item)
        assert item.view is not None, "only known studies stand in line"
        return _Entry(self._policies.order(item, item.view, self._now), item.key, item)

    def _move(self, heap: list[_Entry], again: _Entry | None) -> None:
        if again is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, again)
