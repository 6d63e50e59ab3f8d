"""What the SDK in the pods does: it posts each report until the operator takes it, for as long as its program runs."""

from __future__ import annotations

from typing import Final

from tuneyard_operator.worlds.simulation.kernel import Kernel
from tuneyard_operator.worlds.simulation.machines import Machines, Pod
from tuneyard_operator.worlds.simulation.operators import OperatorProcess

_WAY: Final = (0.001, 0.2)
_AGAIN: Final = (0.5, 2.0)


class Reporting:
    """Sends the reports of programs that have a curve."""

    def __init__(self, kernel: Kernel, machines: Machines, operator: OperatorProcess) -> None:
        self._kernel = kernel
        self._operator = operator
        machines.on_start = self._began

    def _began(self, pod: Pod) -> None:
        if pod.program.epochs:
            self._kernel.after(pod.program.seconds_to(0), self._post, pod, 0)

    def _post(self, pod: Pod, step: int) -> None:
        """All up to this step; then the next in its time."""
        if not pod.alive or pod.started is None:
            return
        done = pod.program.epochs_after(self._kernel.now - pod.started)
        reachable = pod.machine is not None and pod.machine.ready
        points = [(k, {"loss": pod.program.value_after(k + 1)}) for k in range(step, done)]
        if not (reachable and self._operator.report(pod, points)):
            self._kernel.after(self._kernel.jitter(*_AGAIN), self._post, pod, step)
        elif done < pod.program.epochs:
            due = pod.started + pod.program.seconds_to(done) - self._kernel.now
            self._kernel.after(due + self._kernel.jitter(*_WAY), self._post, pod, done)
