"""The scheduler as a simulated process: the very state, mirror, cycle and writers; watches and timers are simulated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from tuneyard_operator.worlds.simulation.apiserver import ApiServer, NotFound, Object, VersionConflict
from tuneyard_operator.worlds.simulation.faults import Faults
from tuneyard_operator.worlds.simulation.kernel import Kernel
from tuneyard_operator.worlds.simulation.process import Process, Unanswered, Watch
from tuneyard_operator.worlds.simulation.shares import parts_of
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.kube import Kube, KubeError
from tuneyard_scheduler.mirror import KINDS, Mirror
from tuneyard_scheduler.reporting import PERIOD, Reporter
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Decision, Decisions
from tuneyard_scheduler.writer import DecisionWriter

SCHEDULER: Final = "scheduler"
_ROOM: Final = 64


class _Connection:
    """The part of a connection to the API server that the scheduler writes through."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def request(self, method: str, url_path: str, *, body: Any = None, content_type: str = "") -> Object:
        """Read an object, or merge into its status.

        Raises:
            KubeError: refused, or there was no answer.
        """
        del content_type
        api = self._process.api
        kind, name = url_path.removesuffix("/status").split("/")[-2:]

        def effect() -> Object:
            if method == "GET":
                return api.get(kind, name)
            return api.patch_status(
                kind, name, body["status"], body.get("metadata", {}).get("resourceVersion"), SCHEDULER
            )

        try:
            answer: Object = await self._process.call(f"{method} {name}", effect)
        except NotFound as error:
            raise KubeError(404, "NotFound", str(error)) from error
        except VersionConflict as error:
            raise KubeError(409, "Conflict", str(error)) from error
        except Unanswered as error:
            raise KubeError(0, "Unreachable", str(error)) from error
        return answer


class SchedulerProcess(Process):
    """What the controller of the scheduler does, in virtual time."""

    def __init__(
        self, kernel: Kernel, api: ApiServer, faults: Faults, decided: Callable[[SchedulerProcess, Decisions], None]
    ) -> None:
        super().__init__(SCHEDULER, kernel, api, faults)
        self._decided = decided
        self.unsettled: dict[Decision, str | None] = {}
        """Decisions that may yet be written, with the uid of their trial."""

    def begin(self) -> None:
        """List all kinds, then decide."""
        self.state = ClusterState()
        self.mirror = Mirror(self.state)
        self.mirror.parts = parts_of
        kube = cast("Kube", _Connection(self))
        self._writer = DecisionWriter(kube, self.state, self.mirror, lambda _: None, clock=self._now)
        self._reporter = Reporter(kube, self.state, self._now)
        self._changed = False
        self._cut_short = False
        self._synced = False
        self._wakeup = 0
        unsynced = set(KINDS)

        def synced(kind: str) -> None:
            unsynced.discard(kind)
            if not unsynced:
                self._synced = True
                self._change()
                self.later(PERIOD, self._report)

        self.by_kind: dict[str, Watch] = {}
        for kind in KINDS:
            watch = self.by_kind[kind] = self._watch(kind)
            watch.open(partial(synced, kind))

    def ended(self) -> None:
        """See Process."""
        self.unsettled = {}

    def _now(self) -> float:
        return self.kernel.now

    def _watch(self, kind: str) -> Watch:
        def deliver(event: str, item: Object) -> None:
            if self.mirror.take(kind, event, item):
                self._change()

        return self.watch(kind, deliver, _bound_and_alive if kind == "pods" else lambda _: True)

    def _change(self) -> None:
        """Something may be decided differently now: run a cycle in a moment."""
        if self._synced and not self._changed:
            self._changed = True
            self.later(self.kernel.jitter(0.0, 0.02), self._cycle)

    def _cycle(self) -> None:
        self._changed = False
        room = max(0, _ROOM - len(self.unsettled))
        decisions = schedule(self.state, self.kernel.now, limit=room)
        self._cut_short = len(decisions.to_write) == room
        self._decided(self, decisions)
        for decision in decisions.to_write:
            trial = self.state.trial(decision.study, decision.index)
            self.unsettled[decision] = trial.view.uid if trial is not None and trial.view is not None else None
            self.spawn(self._settle(decision), delay=self.kernel.jitter(0.0, 0.01))
        self._reporter.note(decisions.waiting, self.kernel.now)
        self._wakeup += 1
        if decisions.next_wakeup is not None:
            self.later(max(0.0, decisions.next_wakeup - self.kernel.now), self._timer, self._wakeup)

    def _timer(self, wakeup: int) -> None:
        if wakeup == self._wakeup:
            self._change()

    async def _settle(self, decision: Decision) -> None:
        """Write a decision until it is known whether it holds."""
        failures = 0
        while True:
            try:
                holds = await self._writer.write(decision)
            except KubeError:
                await self.sleep(min(10.0, 0.1 * 2**failures))
                failures += 1
                continue
            self.unsettled.pop(decision, None)
            if self._cut_short or not holds:
                self._change()
            return

    def _report(self) -> None:
        self.spawn(self._reporter.report(), lambda: self.later(PERIOD, self._report))


def _bound_and_alive(pod: Object) -> bool:
    """The field selector of the scheduler's watch of pods."""
    return bool(pod["spec"].get("nodeName")) and pod["status"].get("phase") not in {"Succeeded", "Failed"}
