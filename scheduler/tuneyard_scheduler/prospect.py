"""What queues and nodes will have once everybody has gone who was told to, and those are placed for whom they go."""

from __future__ import annotations

from collections import defaultdict

from tuneyard_scheduler.books import Leaving, StudyBook
from tuneyard_scheduler.devices import amount
from tuneyard_scheduler.expected import Emptying
from tuneyard_scheduler.queues import QueueBook
from tuneyard_scheduler.state import ClusterState


class Prospect:
    """The state, and what is known to be on its way."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._used: defaultdict[str, float] = defaultdict(float)
        self._nodes: dict[tuple[str, str], Emptying] = {}
        self._helped: set[str] = set()
        self._cpu: defaultdict[str, float] = defaultdict(float)
        self._memory: defaultdict[str, float] = defaultdict(float)
        for (key, index), leaving in state.giving.leaving.items():
            self.expect(leaving, state.study(key), index)

    def expect(self, leaving: Leaving, holder: StudyBook | None, index: int) -> None:
        """A trial, of the study that is its holder, gives its GPUs back."""
        held, needs = leaving.held, leaving.needs
        self._charge(self._state.queue_of(holder) if holder is not None else None, -held.gpus)
        self._pod(held.node, holder, index, -1)
        node = self.on(held.node, held.resource)
        node.give(held)
        if leaving.trial not in self._helped:
            self._helped.add(leaving.trial)
            study = self._state.study(leaving.study)
            trial = study.trials.get(leaving.number) if study is not None else None
            if trial is None or trial.share.pending is None:
                return  # it has a place by now, and counts there
            self._charge(self._state.queues.get(leaving.queue), needs)
            self._pod(held.node, study, leaving.number, 1)
            if needs < 1 and held.devices:
                node.take(0, needs, held.devices[:1])
            else:
                node.take(max(1, int(needs)))

    def _charge(self, queue: QueueBook | None, gpus: float) -> None:
        for each in queue.path if queue is not None else ():
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

    def on(self, node: str, resource: str) -> Emptying:
        """The GPUs of a node as they will be."""
        if (node, resource) not in self._nodes:
            self._nodes[node, resource] = Emptying(self._state, node, resource)
        return self._nodes[node, resource]
