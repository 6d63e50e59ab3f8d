"""Tells people why trials wait and what queues use: seldom, and only what is news."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from tuneyard_scheduler import queue_status, translate
from tuneyard_scheduler.kube import MERGE_PATCH, Kube, KubeError, path
from tuneyard_scheduler.queues import IMPLIED
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Waiting

logger = logging.getLogger(__name__)

WAITED: Final = 2.0
"""Seconds for which a trial waits for one reason before the reason is written."""
PERIOD: Final = 2.0
"""Seconds between writes of a queue's status."""


@dataclass(slots=True)
class _Note:
    waiting: Waiting
    since: float
    written: bool = False


class Reporter:
    """Keeps the reason why a study's next trial waits in the trial's status, and a queue's figures in the queue's."""

    def __init__(self, kube: Kube, state: ClusterState, clock: Callable[[], float]) -> None:
        self._kube = kube
        self._state = state
        self._clock = clock
        self._notes: dict[str, _Note] = {}
        self._queues: dict[str, translate.Object] = {}
        """What was last written of each."""

    def note(self, waiting: Iterable[Waiting], now: float) -> None:
        """Take the reasons of a cycle. One that a trial has already is not written again, even in other words."""
        for new in waiting:
            note = self._notes.get(new.study)
            if note is None or (note.waiting.index, note.waiting.reason) != (new.index, new.reason):
                self._notes[new.study] = _Note(new, now)
            else:
                note.waiting = new

    def waiting(self) -> Iterable[Waiting]:
        """Who waits and why, as far as is known."""
        return [note.waiting for note in self._notes.values()]

    async def run(self) -> None:
        """Report for ever."""
        while True:
            await asyncio.sleep(PERIOD)
            await self.report()

    async def report(self) -> None:
        """Write what is due."""
        try:
            await self._report_trials(self._clock())
            await self._report_queues(self._clock())
        except KubeError as error:
            logger.warning("reasons and figures are written later: %s", error)

    async def _report_trials(self, now: float) -> None:
        for key, note in list(self._notes.items()):
            trial = self._state.trial(key, note.waiting.index)
            if trial is None or trial.view is None or trial.share.pending is None:
                del self._notes[key]
            elif not note.written and now >= note.since + WAITED:
                namespace, name = translate.trial_name(key, note.waiting.index)
                patch = translate.waits(note.waiting.reason, note.waiting.message, trial.view.version)
                note.written = await self._write(path("trials", namespace, name, "status"), patch)

    async def _report_queues(self, now: float) -> None:
        for queue in list(self._state.queues):
            if queue.view is None or queue.view is IMPLIED:
                self._queues.pop(queue.name, None)
                continue
            before = self._queues.get(queue.name, {})
            conditions = before.get("conditions", queue.view.conditions)
            capacity = self._state.inventory.capacity
            status = queue_status.status(self._state.queues, queue, capacity, conditions, now)
            if before == status:
                continue
            if await self._write(path("gpuqueues", name=queue.name, sub="status"), {"status": status}):
                self._queues[queue.name] = status

    async def _write(self, url: str, patch: translate.Object) -> bool:
        """Whether it was written; False when the object is gone or has changed: then there is other news soon.

        Raises:
            KubeError: the API server does not take writes now.
        """
        try:
            await self._kube.request("PATCH", url, body=patch, content_type=MERGE_PATCH)
        except KubeError as error:
            if error.status not in {404, 409}:
                raise
            return False
        return True
