"""What queues and nodes will have once everybody has gone who was told to, and those are placed for whom they go."""

from __future__ import annotations

from collections import defaultdict

from tuneyard_scheduler.books import Leaving
from tuneyard_scheduler.queues import QueueBook
from tuneyard_scheduler.state import ClusterState


class Prospect:
    """The state, and what is known to be on its way."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._used: defaultdict[str, float] = defaultdict(float)
        self._left: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._helped: set[str] = set()
        for (key, _), leaving in state.leaving.items():
            study = state.study(key)
            self.expect(leaving, state.queue_of(study) if study is not None else None)

    def expect(self, leaving: Leaving, holder: QueueBook | None) -> None:
        """A trial, of the queue that is its holder, gives its GPUs back."""
        self._charge(holder, -leaving.gpus)
        self._left[leaving.node, leaving.resource] += leaving.gpus
        if leaving.trial not in self._helped:
            self._helped.add(leaving.trial)
            self._charge(self._state.queues.get(leaving.queue), leaving.needs)
            self._left[leaving.node, leaving.resource] -= leaving.needs

    def _charge(self, queue: QueueBook | None, gpus: float) -> None:
        for each in queue.path() if queue is not None else ():
            self._used[each.name] += gpus

    def used(self, queue: QueueBook) -> float:
        """GPUs that the queue will use."""
        return queue.used + self._used[queue.name]

    def left(self, node: str, resource: str) -> float:
        """GPUs of the node that nobody will hold."""
        return self._state.inventory.left(node, resource) + self._left[node, resource]
