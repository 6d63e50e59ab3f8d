"""Nodes on demand: one is added where a pod waits for GPUs that no node has, and goes when it is empty for long."""

from __future__ import annotations

from typing import Final

from tuneyard_operator.worlds.simulation.kernel import Kernel
from tuneyard_operator.worlds.simulation.machines import Machine, Machines, Pod
from tuneyard_operator.worlds.simulation.shares import Build

_TICK: Final = 2.0
_WAITS: Final = 3.0
_EMPTY: Final = 15.0
_MOST: Final = 3


class Autoscaler:
    """Looks at nothing but pods that wait, and nodes that are empty."""

    def __init__(self, kernel: Kernel, machines: Machines) -> None:
        self._kernel = kernel
        self._machines = machines
        self._coming = 0
        self._added: list[Machine] = []
        kernel.after(_TICK, self._look)

    def _look(self) -> None:
        self._kernel.after(_TICK, self._look)
        now = self._kernel.now
        self._added = [machine for machine in self._added if not machine.gone]
        for pod in self._machines.waiting():
            free = any(machine.room().takes(pod.taken) for machine in self._added if machine.ready)
            if _asks_for_a_node(pod) and now - pod.born > _WAITS and not free and not self._coming:
                self._add(sum(pod.taken.units.values()))
        for machine in self._added:
            if machine.ready and not machine.pods and now - machine.changed > _EMPTY:
                self._machines.remove(machine)

    def _add(self, gpus: int) -> None:
        if len(self._added) < _MOST:
            self._coming += 1
            self._kernel.after(self._kernel.jitter(2.0, 20.0), self._join, gpus)

    def _join(self, gpus: int) -> None:
        self._coming -= 1
        self._kernel.counts["node_added"] += 1
        self._added.append(self._machines.join(Build(gpus, selected=True)))


def _asks_for_a_node(pod: Pod) -> bool:
    return pod.job is not None and pod.wants is None and bool(pod.taken.units)
