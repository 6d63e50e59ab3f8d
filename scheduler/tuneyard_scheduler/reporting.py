"""Tells people why trials wait and what queues use: seldom, and only what is news."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from tuneyard_scheduler import queue_status, translate
from tuneyard_scheduler.kube import MERGE_PATCH, Kube, KubeError, path
from tuneyard_scheduler.outlook import IN_LINE, noticeably, outlook
from tuneyard_scheduler.queues import IMPLIED
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Outlook, Waiting

logger = logging.getLogger(__name__)

WAITED: Final = 2.0
"""Seconds for which a trial waits for one reason before the reason is written."""
PERIOD: Final = 2.0
"""Seconds between writes of a queue's status."""
RENEWED: Final = 30.0
"""Seconds after which a trial that stands in line is told anew, if there is news for it."""
MOST: Final = 20
"""Trials that are told at a time, which bounds the writes whatever the number of those who wait."""
_LOOK: Final = 10.0
"""Seconds between two looks at what everybody who waits may expect."""


@dataclass(slots=True)
class _Note:
    waiting: Waiting
    since: float
    told: Waiting | None = None
    outlook: Outlook = field(default_factory=Outlook)
    at: float = 0.0
    """When it was told."""


class Reporter:
    """Keeps the reason why a study's next trial waits in the trial's status, and a queue's figures in the queue's."""

    def __init__(self, kube: Kube, state: ClusterState, clock: Callable[[], float]) -> None:
        self._kube = kube
        self._state = state
        self._clock = clock
        self._notes: dict[str, _Note] = {}
        self._queues: dict[str, translate.Object] = {}
        """What was last written of each."""
        self._outlook: dict[str, Outlook] = {}
        self._looked = -_LOOK

    def note(self, waiting: Iterable[Waiting], now: float) -> None:
        """Take the reasons of a cycle, in the order of the line."""
        for new in waiting:
            note = self._notes.pop(new.study, None)  # so that the notes are in that order as well
            if note is None or (note.waiting.index, note.waiting.reason) != (new.index, new.reason):
                note = _Note(new, now)
            note.waiting = new
            self._notes[new.study] = note

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
        """Tell those first who were told nothing, or nothing for longest."""
        for key in [key for key, note in self._notes.items() if not self._waits(note)]:
            del self._notes[key]
        due = [note for note in self._notes.values() if now >= (note.since + WAITED if note.told is None else
                                                              note.at + RENEWED)]  # fmt: skip
        if not due:
            return
        if now >= self._looked + _LOOK:
            self._looked, self._outlook = now, outlook(self._state, self.waiting(), now)
        news = [note for note in due if self._is_news(note, now)]
        for note in sorted(news, key=lambda note: note.at)[:MOST]:
            await self._tell(note, now)

    def _waits(self, note: _Note) -> bool:
        trial = self._state.trial(note.waiting.study, note.waiting.index)
        return trial is not None and trial.view is not None and trial.share.pending is not None

    def _is_news(self, note: _Note, now: float) -> bool:
        """Whether there is something to tell: a reason is told once, what may be expected in line when it changes."""
        if note.told is None:
            return True
        changed = noticeably(note.outlook, self._outlook.get(note.waiting.study, Outlook()), now)
        return note.waiting.reason in IN_LINE and (changed or note.told.message != note.waiting.message)

    async def _tell(self, note: _Note, now: float) -> None:
        waiting, trial = note.waiting, self._state.trial(note.waiting.study, note.waiting.index)
        if trial is None or trial.view is None or trial.share.pending is None:
            return  # it has got its place while another one was told
        expected = self._outlook.get(waiting.study, Outlook())
        namespace, name = translate.trial_name(waiting.study, waiting.index)
        patch = translate.waits(waiting, expected, trial.view.version)
        if await self._write(path("trials", namespace, name, "status"), patch):
            note.told, note.outlook, note.at = waiting, expected, now

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
