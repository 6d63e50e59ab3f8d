"""The scheduler's process: events in, cycles, placements out.

It keeps nothing that the API server does not have: after a restart it lists everything before it decides, and what it
had decided is in the trials' records, or was not decided.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.kube import Kube, path
from tuneyard_scheduler.mirror import KINDS, Mirror
from tuneyard_scheduler.reporting import Reporter
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.writer import PlacementWriter

logger = logging.getLogger(__name__)

BOUND_AND_ALIVE: Final = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
"""Pods that take something of a node. One that ends leaves this selection, which a watch tells as DELETED."""
_REST: Final = 0.005
"""Seconds between two cycles: what happens meanwhile is decided on together."""


class Controller:
    """Schedules one cluster."""

    def __init__(self, kube: Kube, clock: Callable[[], float] = time.time) -> None:
        self.state = ClusterState()
        self._kube = kube
        self._clock = clock
        self._mirror = Mirror(self.state)
        self._writer = PlacementWriter(kube, self.state, self._mirror, self._settled, clock=clock)
        self._reporter = Reporter(kube, self.state, clock)
        self._synced = {kind: asyncio.Event() for kind in KINDS}
        self._changed = asyncio.Event()
        self._cut_short = False

    async def run(self) -> None:
        """Schedule for ever."""
        async with asyncio.TaskGroup() as group:
            for kind in KINDS:
                watching = self._kube.reflect(
                    path(kind),
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
            wait = None if wakeup is None else max(0.0, wakeup - self._clock())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait)
            self._changed.clear()
            wakeup = self._cycle()
            await asyncio.sleep(_REST)

    def _cycle(self) -> float | None:
        """Decide, and have it written; the time of the next cycle if nothing happens before."""
        now, room = self._clock(), self._writer.room
        decisions = schedule(self.state, now, limit=room)
        self._cut_short = len(decisions.placements) == room
        self._writer.submit(decisions.placements)
        self._reporter.note(decisions.waiting, now)
        return decisions.next_wakeup

    def _size(self) -> tuple[int, int]:
        return sum(1 for study in self.state.studies() if study.view), sum(1 for _ in self.state.inventory.nodes())


async def serve(kubeconfig: str | None = None) -> None:
    """Schedule until cancelled.

    Args:
        kubeconfig: The file; left out: as kubectl finds it, or the pod's service account.

    Raises:
        KubeError: there are no usable credentials.
    """
    async with await Kube.connect(kubeconfig) as kube:
        await Controller(kube).run()


async def _serve_until_told(kubeconfig: str | None) -> None:
    task = asyncio.ensure_future(serve(kubeconfig))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def run(kubeconfig: str | None = None) -> None:
    """The scheduler as a process: until SIGTERM or Ctrl-C.

    Raises:
        KubeError: there are no usable credentials.
    """
    asyncio.run(_serve_until_told(kubeconfig))
