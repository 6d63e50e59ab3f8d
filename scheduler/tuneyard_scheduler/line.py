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
        # From the leaves up: where a queue stands depends on what its next trial needs.
        for queue in sorted(self._join(), key=lambda each: -len(each.path)):
            heapq.heapify(self._heaps[queue.name])
            self._above(queue).append(self._place(queue))
        heapq.heapify(self._heaps[_TOP])

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
        for each in queue.path:
            self._move(self._above(each), self._place(each) if self._heaps[each.name] else None)

    def _join(self) -> list[QueueBook]:
        """Studies that wait stand in line; the queues that they are in, and those above these."""
        found: dict[str, QueueBook] = {}
        for study in self._state.waiting_studies():
            queue = self._state.queue_of(study)
            if study.view is None or queue is None:
                continue
            if queue.name not in found:
                found |= {each.name: each for each in queue.path}
            self._heaps.setdefault(queue.name, []).append(self._place(study))
        return list(found.values())

    def _above(self, queue: QueueBook) -> list[_Entry]:
        return self._heaps.setdefault(queue.parent.name if queue.parent is not None else _TOP, [])

    def _needs(self, queue: QueueBook) -> float:
        """GPUs that the next trial of a queue needs; 0 where that depends on the GPU."""
        item: QueueBook | StudyBook = queue
        while isinstance(item, QueueBook):
            item = self._heaps[item.name][0].item
        return item.view.gpu.gpus if item.view is not None and item.view.gpu is not None else 0.0

    def _place(self, item: QueueBook | StudyBook) -> _Entry:
        if isinstance(item, QueueBook):
            return _Entry(self._policies.share(item, self._needs(item)), item.name, item)
        assert item.view is not None, "only known studies stand in line"
        return _Entry(self._policies.order(item, item.view, self._now), item.key, item)

    def _move(self, heap: list[_Entry], again: _Entry | None) -> None:
        if again is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, again)
