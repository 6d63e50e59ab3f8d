"""What queues and nodes will have once everybody has gone who was told to, and those are placed for whom they go."""

from __future__ import annotations

from collections import defaultdict

from tuneyard_scheduler.books import Leaving, StudyBook
from tuneyard_scheduler.devices import amount
from tuneyard_scheduler.queues import QueueBook
from tuneyard_scheduler.state import ClusterState


class Prospect:
    """The state, and what is known to be on its way."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._used: defaultdict[str, float] = defaultdict(float)
        self._units: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._shares: defaultdict[tuple[str, str], defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._helped: set[str] = set()
        self._cpu: defaultdict[str, float] = defaultdict(float)
        self._memory: defaultdict[str, float] = defaultdict(float)
        for (key, index), leaving in state.leaving.items():
            self.expect(leaving, state.study(key), index)

    def expect(self, leaving: Leaving, holder: StudyBook | None, index: int) -> None:
        """A trial, of the study that is its holder, gives its GPUs back."""
        held = leaving.held
        self._charge(self._state.queue_of(holder) if holder is not None else None, -held.gpus)
        self._pod(held.node, holder, index, -1)
        at = held.node, held.resource
        self._units[at] += held.units
        for device in held.devices:
            self._shares[at][device] += held.share
        if leaving.trial not in self._helped:
            self._helped.add(leaving.trial)
            self._charge(self._state.queues.get(leaving.queue), leaving.needs)
            self._pod(held.node, self._state.study(leaving.study), int(leaving.trial.rpartition("-")[2]), 1)
            if leaving.needs < 1 and held.devices:
                self._shares[at][held.devices[0]] -= leaving.needs
            else:
                self._units[at] -= max(1, int(leaving.needs))

    def _charge(self, queue: QueueBook | None, gpus: float) -> None:
        for each in queue.path() if queue is not None else ():
            self._used[each.name] = amount(self._used[each.name] + gpus)

    def _pod(self, node: str, study: StudyBook | None, index: int, sign: int) -> None:
        """The pod of a trial comes to a node (or, sign -1, goes)."""
        view = study.fitted(index) if study is not None else None
        if view is not None:
            self._cpu[node] += sign * view.cpu
            self._memory[node] += sign * view.memory

    def spare(self, node: str) -> tuple[float, float]:
        """CPU (cores) and memory (bytes) of the node that nobody will ask for."""
        cpu, memory = self._state.inventory.spare(node)
        return amount(cpu - self._cpu[node]), memory - self._memory[node]

    def used(self, queue: QueueBook) -> float:
        """GPUs that the queue will use."""
        return amount(queue.used + self._used[queue.name])

    def left(self, node: str, resource: str) -> int:
        """GPUs of the node of which nobody will hold anything."""
        emptied = sum(self.part_left(node, resource, device) >= 1 for device in self._shares[node, resource])
        return self._state.inventory.left(node, resource) + self._units[node, resource] + emptied

    def part_left(self, node: str, resource: str, device: str) -> float:
        """What nobody will hold of one GPU."""
        shares = self._shares[node, resource]
        return amount(self._state.inventory.part_left(node, resource, device) + shares.get(device, 0.0))
