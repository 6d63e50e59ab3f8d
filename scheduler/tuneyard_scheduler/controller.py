"""The scheduler's process: events in, cycles, placements out.

It keeps nothing that the API server does not have: after a restart it lists everything before it decides, and what it
had decided is in the trials' records, or was not decided.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final

from tuneyard_scheduler import process, telemetry
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.kube import Kube, path
from tuneyard_scheduler.mirror import KINDS, Mirror
from tuneyard_scheduler.process import Options
from tuneyard_scheduler.reporting import Reporter
from tuneyard_scheduler.serving import serving
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.writer import DecisionWriter

logger = logging.getLogger(__name__)

BOUND_AND_ALIVE: Final = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
"""Pods that take something of a node. One that ends leaves this selection, which a watch tells as DELETED."""
_REST: Final = 0.005
"""Seconds between two cycles: what happens meanwhile is decided on together."""
_BEAT: Final = 10.0
"""Seconds after which a cycle runs even when nothing happened, as a sign of life."""
_STUCK: Final = 60.0
_OWN_NAMESPACE: Final = frozenset({"studies", "trials"})
"""What a scheduler of one namespace sees of that namespace only; nodes and their pods are everybody's."""


class Controller:
    """Schedules one cluster."""

    def __init__(self, kube: Kube, clock: Callable[[], float] = time.time, *, namespace: str | None = None) -> None:
        self.state = ClusterState()
        self._kube = kube
        self._clock = clock
        self._namespace = namespace
        self._beat: float | None = None
        self._mirror = Mirror(self.state)
        self._writer = DecisionWriter(kube, self.state, self._mirror, self._settled, clock=clock)
        self._reporter = Reporter(kube, self.state, clock)
        self._synced = {kind: asyncio.Event() for kind in KINDS}
        self._changed = asyncio.Event()
        self._cut_short = False

    async def run(self) -> None:
        """Schedule for ever."""
        with telemetry.showing(telemetry.StateCollector(self.state, self._reporter.waiting)):
            await self._run()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for kind in KINDS:
                watching = self._kube.reflect(
                    path(kind, self._namespace if kind in _OWN_NAMESPACE else None),
                    partial(self._take, kind),
                    field_selector=BOUND_AND_ALIVE if kind == "pods" else None,
                    on_synced=self._synced[kind].set,
                )
                group.create_task(watching)
            await asyncio.gather(*(event.wait() for event in self._synced.values()))
            logger.info("scheduling %d studies on %d nodes", *self._size())
            group.create_task(self._writer.run())
            group.create_task(self._reporter.run())
            group.create_task(self._cycles())

    @property
    def problem(self) -> str | None:
        """Why this process had better be started anew, once it schedules; None while all is well."""
        stuck = self._beat is not None and time.monotonic() - self._beat > _STUCK
        return "no scheduling cycle for a minute" if stuck else None

    def _take(self, kind: str, event: str, item: dict[str, Any]) -> None:
        if self._mirror.take(kind, event, item):
            self._changed.set()

    def _settled(self, holds: bool) -> None:
        if self._cut_short or not holds:
            self._changed.set()

    async def _cycles(self) -> None:
        self._changed.set()
        wakeup: float | None = None
        while True:
            wait = _BEAT if wakeup is None else min(_BEAT, max(0.0, wakeup - self._clock()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):  # wait_for forgets a cancellation that comes with the change
                    await self._changed.wait()
            self._changed.clear()
            wakeup = self._cycle()
            self._beat = time.monotonic()
            await asyncio.sleep(_REST)

    def _cycle(self) -> float | None:
        """Decide, and have it written; the time of the next cycle if nothing happens before."""
        now, room = self._clock(), self._writer.room
        with telemetry.CYCLE_SECONDS.time():
            decisions = schedule(self.state, now, limit=room)
        telemetry.count_placements(self.state, decisions.placements, now)
        telemetry.count_preemptions(decisions.preempt)
        self._cut_short = len(decisions.to_write) == room
        self._writer.submit(decisions.to_write)
        self._reporter.note(decisions.waiting, now)
        return decisions.next_wakeup

    def _size(self) -> tuple[int, int]:
        return sum(1 for study in self.state.studies() if study.view), sum(1 for _ in self.state.inventory.nodes())


async def _serve(options: Options) -> None:
    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(await Kube.connect(options.kubeconfig))
        controller = Controller(kube, namespace=options.namespace)
        lease = await stack.enter_async_context(process.candidate(options, kube))
        probes = serving(
            options.serve, options.kubeconfig, healthy=lambda: controller.problem, ready=lambda: controller.problem
        )
        await stack.enter_async_context(probes)
        await process.lead(lease, controller.run)


def run(options: Options) -> None:
    """The scheduler as a process: until SIGTERM or Ctrl-C.

    Raises:
        KubeError: there are no usable credentials.
        LeadershipLost: another replica may lead by now.
        OSError: the address for probes and metrics cannot be listened on.
    """
    process.run(_serve(options))
