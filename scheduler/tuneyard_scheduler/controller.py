"""The scheduler's process: events in, cycles, placements out.

It keeps nothing that the API server does not have: after a restart it lists everything before it decides, and what it
had decided is in the trials' records, or was not decided.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from tuneyard_scheduler import claims, process, telemetry
from tuneyard_scheduler.backends import dra, kai, reservation
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.kube import Kube, KubeError, path
from tuneyard_scheduler.mirror import KINDS, Mirror
from tuneyard_scheduler.reporting import Reporter
from tuneyard_scheduler.reserving import Reserving, Where, default_template
from tuneyard_scheduler.serving import serving
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Decisions
from tuneyard_scheduler.writer import DecisionWriter

logger = logging.getLogger(__name__)

BOUND_AND_ALIVE: Final = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
"""Pods that take something of a node. One that ends leaves this selection, which a watch tells as DELETED."""
_REST: Final = 0.005
"""Seconds between two cycles: what happens meanwhile is decided on together."""
_BEAT: Final = 10.0
"""Seconds after which a cycle runs even when nothing happened, as a sign of life."""
_STUCK: Final = 60.0
_LOOK_AGAIN: Final = 600.0
"""Seconds after which to ask again whether the API server has got an API that it did not have."""
_OWN_NAMESPACE: Final = frozenset({"studies", "trials"})
"""What a scheduler of one namespace sees of that namespace only; nodes and their pods are everybody's."""


class Controller:
    """Schedules one cluster."""

    def __init__(
        self,
        kube: Kube,
        clock: Callable[[], float] = time.time,
        *,
        namespace: str | None = None,
        device_classes: Iterable[str] = (),
        holding: Where | None = None,
    ) -> None:
        self.state = ClusterState()
        self._kube = kube
        self._clock = clock
        self._namespace = namespace
        self._beat: float | None = None
        self._mirror = Mirror(self.state, device_classes, apart=holding.namespace if holding else None)
        self._reserving = Reserving(kube, self.state, self._mirror, holding) if holding else None
        uuid = self._reserving.planner.uuid if self._reserving else lambda _: None
        self._writer = DecisionWriter(kube, self.state, self._mirror, self._settled, clock=clock, uuid=uuid)
        self._reporter = Reporter(kube, self.state, clock)
        self._synced = {kind: asyncio.Event() for kind in (*KINDS, *claims.KINDS)}
        self._changed = asyncio.Event()
        self._cut_short = False
        self._avoided: frozenset[str] = frozenset()
        self._wanted: set[str] = set()

    async def run(self) -> None:
        """Schedule for ever."""
        with telemetry.showing(telemetry.StateCollector(self.state, self._reporter.waiting)):
            await self._run()

    async def _run(self) -> None:
        divider = await self._divider()
        self._mirror.parts = lambda _: divider
        async with asyncio.TaskGroup() as group:
            for kind in KINDS:
                group.create_task(self._watch(kind))
            group.create_task(self._watch_claims(group))
            if self._reserving is not None:
                self._synced["reservations"] = asyncio.Event()
                group.create_task(self._reserving.watch(self._changed.set, self._synced["reservations"].set))
                group.create_task(self._reserving.run())
            await asyncio.gather(*(event.wait() for event in self._synced.values()))
            logger.info("scheduling %d studies on %d nodes", *self._size())
            group.create_task(self._writer.run())
            group.create_task(self._reporter.run())
            group.create_task(self._cycles())

    async def _watch(self, kind: str) -> None:
        await self._kube.reflect(
            path(kind, self._namespace if kind in _OWN_NAMESPACE else None),
            partial(self._take, kind),
            field_selector=BOUND_AND_ALIVE if kind == "pods" else None,
            on_synced=self._synced[kind].set,
        )

    async def _divider(self) -> str | None:
        """The backend that divides whole GPUs on this cluster: KAI goes before pods of our own that hold GPUs."""
        ours = reservation.NAME if self._reserving is not None else None
        while True:
            try:
                return kai.NAME if kai.shares(await self._kube.request("GET", kai.CONFIG)) else ours
            except KubeError as error:
                if not error.temporary:  # there is no KAI, or it is not for us to know
                    return ours
                logger.warning("not known yet whether the cluster has KAI: %s", error)
                await asyncio.sleep(1.0)

    async def _watch_claims(self, group: asyncio.TaskGroup) -> None:
        """Follow what DRA says, once the cluster has it (from Kubernetes 1.34 on)."""
        while True:
            try:
                if await self._kube.serves(dra.API):
                    break
                wait = _LOOK_AGAIN
                for kind in claims.KINDS:
                    self._synced[kind].set()
            except KubeError as error:
                logger.warning("not known yet whether the cluster has %s: %s", dra.API, error)
                wait = 1.0
            await asyncio.sleep(wait)
        for kind in claims.KINDS:
            group.create_task(self._watch(kind))

    @property
    def problem(self) -> str | None:
        """Why this process had better be started anew, once it schedules; None while all is well."""
        stuck = self._beat is not None and time.monotonic() - self._beat > _STUCK
        return "no scheduling cycle for a minute" if stuck else None

    def _take(self, kind: str, event: str, item: dict[str, Any]) -> None:
        if self._mirror.take(kind, event, item):
            self._changed.set()

    def _settled(self, holds: bool) -> None:
        if self._cut_short or not holds or (self._reserving is not None and self.state.inventory.touched):
            self._changed.set()

    async def _cycles(self) -> None:
        self._changed.set()
        wakeup: float | None = None
        while True:
            wait = _BEAT if wakeup is None else min(_BEAT, max(0.0, wakeup - self._clock()))
            with contextlib.suppress(TimeoutError):
                # Not wait_for: until Python 3.12 it swallows a cancellation that comes with what it waits for.
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            self._changed.clear()
            wakeup = self._cycle()
            self._beat = time.monotonic()
            await asyncio.sleep(_REST)

    def _cycle(self) -> float | None:
        """Decide, and have it written; the time of the next cycle if nothing happens before."""
        now, room = self._clock(), self._writer.room
        # Before, too: a GPU that somebody waits for as a whole must not be divided again before it is given back.
        self._hold(now)
        with telemetry.CYCLE_SECONDS.time():
            decisions = schedule(self.state, now, limit=room)
        self._tell_avoided()
        telemetry.count_placements(self.state, decisions.placements, now)
        telemetry.count_preemptions(decisions.preempt)
        self._cut_short = len(decisions.to_write) == room
        self._writer.submit(decisions.to_write)
        self._reporter.note(decisions.waiting, now)
        self._wanted = self._whole_gpus_wanted(decisions)
        return min(_times(decisions.next_wakeup, self._hold(now)), default=None)

    def _whole_gpus_wanted(self, decisions: Decisions) -> set[str]:
        """The resources of which somebody waits for whole GPUs."""
        studies = (self.state.study(each.study) for each in decisions.waiting)
        gpus = (study.view.gpu for study in studies if study is not None and study.view is not None)
        return {gpu.resource for gpu in gpus if gpu is not None and gpu.count}

    def _hold(self, now: float) -> float | None:
        """See to the pods that hold shared GPUs; when to do so again if nothing happens before."""
        if self._reserving is None:
            return None
        self._reserving.step(now, self._wanted)
        if self._reserving.planner.reopened:
            self._reserving.planner.reopened = False
            self._changed.set()
        return self._reserving.planner.next_due()

    def _tell_avoided(self) -> None:
        """Say which nodes are avoided from now on, and which no longer."""
        before, self._avoided = self._avoided, self.state.health.avoided
        for node in sorted(self._avoided - before):
            logger.warning("node %s is avoided for a while: attempts of several trials were lost there", node)
        for node in sorted(before - self._avoided):
            logger.info("node %s is not avoided any more", node)

    def _size(self) -> tuple[int, int]:
        return sum(1 for study in self.state.studies() if study.view), sum(1 for _ in self.state.inventory.nodes())


def _times(*times: float | None) -> list[float]:
    return [time for time in times if time is not None]


@dataclass(frozen=True, slots=True)
class Options(process.Options):
    """How `tuneyard scheduler` was called."""

    device_classes: tuple[str, ...] = ()
    """The DeviceClasses to use, where several select a driver's GPUs."""
    gpu_sharing: str | None = None
    """The backend that divides whole NVIDIA GPUs: reservation; None: nothing does."""
    reservation_namespace: str | None = None
    """Where the pods are that hold shared GPUs; None: in this pod's own."""
    reservation_pod: dict[str, Any] | None = None
    """What they are made from; None: `reserving.default_template`."""


def _holding(options: Options, kube: Kube) -> Where | None:
    if options.gpu_sharing is None:
        return None
    namespace = options.reservation_namespace or os.environ.get("POD_NAMESPACE") or kube.namespace
    return Where(namespace, options.reservation_pod or default_template())


async def _serve(options: Options) -> None:
    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(await Kube.connect(options.kubeconfig))
        controller = Controller(
            kube,
            namespace=options.namespace,
            device_classes=options.device_classes,
            holding=_holding(options, kube),
        )
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
