"""Writes decisions on trials: several at a time, each until it is settled whether it holds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

from tuneyard_scheduler import logs, translate
from tuneyard_scheduler.books import TrialBook
from tuneyard_scheduler.kube import MERGE_PATCH, Kube, KubeError, path
from tuneyard_scheduler.mirror import Mirror
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Decision, Place, Preempt, TakeBack

logger = logging.getLogger(__name__)

_MAX_DELAY: Final = 10.0


class DecisionWriter:
    """Writes each decision into its trial's status, on condition that the trial is still the one that it is about.

    A decision stays booked until it is known not to hold. A write that was refused for another cause, or whose answer
    was lost, is tried again after a wait that doubles: whether a lost one took effect shows when the second one
    conflicts, and until then the GPUs are given to nobody else.
    """

    def __init__(
        self,
        kube: Kube,
        state: ClusterState,
        mirror: Mirror,
        settled: Callable[[bool], None],
        *,
        clock: Callable[[], float] = time.time,
        workers: int = 16,
        uuid: Callable[[Place], str | None] = lambda _: None,
    ) -> None:
        self._kube = kube
        self._state = state
        self._mirror = mirror
        self._settled = settled
        self._clock = clock
        self._workers = workers
        self._uuid = uuid
        self._queue: asyncio.Queue[tuple[Decision, int]] = asyncio.Queue()
        self._open = 0

    @property
    def room(self) -> int:
        """How many more decisions to take now: not so many that they are out of date when their turn comes."""
        return max(0, 4 * self._workers - self._open)

    def submit(self, decisions: Iterable[Decision]) -> None:
        """Write these."""
        for decision in decisions:
            self._open += 1
            self._queue.put_nowait((decision, 0))

    async def run(self) -> None:
        """Write for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            decision, failures = await self._queue.get()
            namespace, name = translate.trial_name(decision.study, decision.index)
            with logs.about(namespace=namespace, study=name.rpartition("-")[0], trial=name):
                await self._try(decision, failures)

    async def _try(self, decision: Decision, failures: int) -> None:
        """Write, and see to it that it is written again where that settled nothing."""
        try:
            holds = await self.write(decision)
        except KubeError as error:
            delay = min(_MAX_DELAY, 0.1 * 2**failures)
            namespace, name = translate.trial_name(decision.study, decision.index)
            logger.error(  # noqa: TRY400
                "%s of trial %s/%s is tried again in %.1f s: %s", _what(decision), namespace, name, delay, error
            )
            retry = (decision, min(failures + 1, 16))
            asyncio.get_running_loop().call_later(delay, self._queue.put_nowait, retry)
        else:
            self._open -= 1
            self._settled(holds)

    async def write(self, decision: Decision) -> bool:
        """Write once; whether the decision holds.

        Raises:
            KubeError: it is not settled whether it holds.
        """
        trial = self._state.trial(decision.study, decision.index)
        if trial is None or trial.view is None or not _stands(decision, trial):
            return False
        view = trial.view
        namespace, name = translate.trial_name(decision.study, decision.index)
        patch = self._patch(decision, view.version)
        try:
            url = path("trials", namespace, name, "status")
            written = await self._kube.request("PATCH", url, body=patch, content_type=MERGE_PATCH)
            self._mirror.take("trials", "MODIFIED", written)
        except KubeError as error:
            if error.status not in {404, 409}:
                raise
            await self._read(namespace, name, view.uid)
            self._drop(decision)
            logger.debug("dropped the %s of trial %s/%s: %s", _what(decision), namespace, name, error)
            return False
        logger.info("trial %s/%s: attempt %d %s", namespace, name, decision.attempt, _said(decision))
        return True

    def _patch(self, decision: Decision, version: str | None) -> translate.Object:
        if isinstance(decision, Place):
            return translate.placed(decision, version, self._clock(), self._uuid(decision))
        return translate.told_to_leave(decision, version, self._clock())

    def _drop(self, decision: Decision) -> None:
        if isinstance(decision, Place):
            self._state.forget(decision)
        elif isinstance(decision, Preempt):
            self._state.spare(decision)
        else:
            self._state.leave_out(decision)

    async def _read(self, namespace: str, name: str, uid: str | None) -> None:
        """See what the trial is now, so that it isn't decided on again as it was."""
        try:
            self._mirror.take("trials", "MODIFIED", await self._kube.request("GET", path("trials", namespace, name)))
        except KubeError as error:
            if error.status != 404:
                raise
            gone = {"metadata": {"namespace": namespace, "name": name, "uid": uid}}
            self._mirror.take("trials", "DELETED", gone)


def _stands(decision: Decision, trial: TrialBook) -> bool:
    """Whether the trial is still what the decision is about."""
    if isinstance(decision, Place):
        return trial.assumed == decision
    if isinstance(decision, TakeBack):
        view = trial.view
        still = view is not None and view.attempt == decision.attempt and trial.share.unplaced
        return still and view is not None and view.placement is not None and view.placement.reclaim is None
    leaving, place = trial.leaving, trial.view.placement if trial.view is not None else None
    told = leaving is not None and leaving.trial == decision.trial
    return told and place is not None and place.attempt == decision.attempt and place.reclaim is None


def _what(decision: Decision) -> str:
    return "placement" if isinstance(decision, Place) else "stopping"


def _said(decision: Decision) -> str:
    if isinstance(decision, Place):
        return f"placed on {decision.node or 'any node'}"
    if isinstance(decision, TakeBack):
        return "is taken back: no node has come for it"
    return f"is to be stopped for {decision.trial} of GpuQueue {decision.queue}"
