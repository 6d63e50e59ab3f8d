"""Writes placements: several at a time, each until it is settled whether it holds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

from tuneyard_scheduler import logs, translate
from tuneyard_scheduler.kube import MERGE_PATCH, Kube, KubeError, path
from tuneyard_scheduler.mirror import Mirror
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Place

logger = logging.getLogger(__name__)

_MAX_DELAY: Final = 10.0


class PlacementWriter:
    """Writes each place into its trial's status, on condition that the trial is still the one that was decided on.

    A place stays booked until it is known not to hold. A write that was refused for another cause, or whose answer was
    lost, is tried again after a wait that doubles: whether a lost one took effect shows when the second one conflicts,
    and until then the GPUs are given to nobody else.
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
    ) -> None:
        self._kube = kube
        self._state = state
        self._mirror = mirror
        self._settled = settled
        self._clock = clock
        self._workers = workers
        self._queue: asyncio.Queue[tuple[Place, int]] = asyncio.Queue()
        self._open = 0

    @property
    def room(self) -> int:
        """How many more places to decide on now: not so many that they are out of date when their turn comes."""
        return max(0, 4 * self._workers - self._open)

    def submit(self, placements: Iterable[Place]) -> None:
        """Write these."""
        for place in placements:
            self._open += 1
            self._queue.put_nowait((place, 0))

    async def run(self) -> None:
        """Write for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            place, failures = await self._queue.get()
            namespace, name = translate.trial_name(place.study, place.index)
            with logs.about(namespace=namespace, study=name.rpartition("-")[0], trial=name):
                await self._try(place, failures)

    async def _try(self, place: Place, failures: int) -> None:
        """Write, and see to it that it is written again where that settled nothing."""
        try:
            holds = await self.write(place)
        except KubeError as error:
            delay = min(_MAX_DELAY, 0.1 * 2**failures)
            namespace, name = translate.trial_name(place.study, place.index)
            logger.error(  # noqa: TRY400
                "placement of trial %s/%s is tried again in %.1f s: %s", namespace, name, delay, error
            )
            retry = (place, min(failures + 1, 16))
            asyncio.get_running_loop().call_later(delay, self._queue.put_nowait, retry)
        else:
            self._open -= 1
            self._settled(holds)

    async def write(self, place: Place) -> bool:
        """Write once; whether the place holds.

        Raises:
            KubeError: it is not settled whether the place holds.
        """
        trial = self._state.trial(place.study, place.index)
        if trial is None or trial.view is None or trial.assumed != place:
            return False
        view = trial.view
        namespace, name = translate.trial_name(place.study, place.index)
        patch = translate.placed(place, view.version, self._clock())
        try:
            url = path("trials", namespace, name, "status")
            written = await self._kube.request("PATCH", url, body=patch, content_type=MERGE_PATCH)
            self._mirror.take("trials", "MODIFIED", written)
        except KubeError as error:
            if error.status not in {404, 409}:
                raise
            await self._read(namespace, name, view.uid)
            self._state.forget(place)
            logger.debug("dropped the placement of trial %s/%s: %s", namespace, name, error)
            return False
        logger.info("trial %s/%s: attempt %d placed on %s", namespace, name, place.attempt, place.node or "any node")
        return True

    async def _read(self, namespace: str, name: str, uid: str | None) -> None:
        """See what the trial is now, so that it isn't decided on again as it was."""
        try:
            self._mirror.take("trials", "MODIFIED", await self._kube.request("GET", path("trials", namespace, name)))
        except KubeError as error:
            if error.status != 404:
                raise
            gone = {"metadata": {"namespace": namespace, "name": name, "uid": uid}}
            self._mirror.take("trials", "DELETED", gone)
