"""The thin edge of the pods that hold shared GPUs: watches them, and carries out what `Reservations` plans."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from tuneyard_scheduler import logs, translate
from tuneyard_scheduler.backends import reservation
from tuneyard_scheduler.kube import MERGE_PATCH, Kube, KubeError, path
from tuneyard_scheduler.mirror import Mirror
from tuneyard_scheduler.reservations import Action, Create, Delete, Lose, Reservations, Tell
from tuneyard_scheduler.state import ClusterState

logger = logging.getLogger(__name__)

Object = dict[str, Any]

_WORKERS: Final = 8
_TRIES: Final = 5
"""How often a trial that others change at the same time is written to, before it is planned anew."""


@dataclass(frozen=True, slots=True)
class Where:
    """How GPUs are held on this cluster."""

    namespace: str
    """Of the pods that hold them."""
    template: Object
    """A pod with one container: the image, and all that depends on the installation."""


def default_template() -> Object:
    """What holds a GPU where the installation does not say otherwise."""
    context = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    resources = {"requests": {"cpu": "1m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}}
    image = f"tuneyard/tuneyard:{version('tuneyard')}"
    return {"spec": {"containers": [{"image": image, "resources": resources, "securityContext": context}]}}


class Reserving:
    """Holds shared GPUs for as long as trials share them."""

    def __init__(self, kube: Kube, state: ClusterState, mirror: Mirror, where: Where) -> None:
        self.planner = Reservations(state)
        self._kube = kube
        self._state = state
        self._mirror = mirror
        self._where = where
        self._queue: asyncio.Queue[Action] = asyncio.Queue()

    async def watch(self, changed: Callable[[], None], on_synced: Callable[[], None]) -> None:
        """Take in which pods there are, for ever."""

        def take(event: str, item: Object) -> None:
            if self.take(event, item):
                changed()

        await self._kube.reflect(
            path("pods", self._where.namespace), take, label_selector=reservation.SLOT_LABEL, on_synced=on_synced
        )

    def take(self, event: str, item: Object) -> bool:
        """Take in one event. Whether anything has to be decided anew."""
        if event == "DELETED":
            self.planner.remove(item["metadata"]["uid"])
            return True
        try:
            self.planner.take(reservation.read(item))
        except (KeyError, TypeError, ValueError) as error:
            name = f"{self._where.namespace}/{item['metadata'].get('name')}"
            logger.error("pod %s holds no GPU that is known: %s", name, error)  # noqa: TRY400
            return False
        return True

    def step(self, now: float, hurry: Collection[str]) -> None:
        """Plan, and have it done."""
        for action in self.planner.plan(now, hurry):
            self._queue.put_nowait(action)

    async def run(self) -> None:
        """Do what was planned, for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_WORKERS):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            action = await self._queue.get()
            try:
                await self.perform(action)
            except KubeError as error:
                # What is still wanted is planned again in a while.
                what = type(action).__name__.lower()
                logger.warning("GPU %s of node %s: %s: %s", action.slot.device, action.slot.node, what, error)

    async def perform(self, action: Action) -> None:
        """Do one action.

        Raises:
            KubeError: it may or may not have been done.
        """
        match action:
            case Create():
                await self._create(action)
            case Delete():
                await self._delete(action)
            case Tell():
                await self._write(action, lambda at: translate.shown(action.uuid, at))
            case Lose():
                await self._write(action, lambda at: translate.lost(action.message, at))

    async def _create(self, action: Create) -> None:
        pod = reservation.pod(action.slot, self._where.template, self._mirror.node_uid(action.slot.node))
        try:
            await self._kube.request("POST", path("pods", self._where.namespace), body=pod)
        except KubeError as error:
            if error.status == 409 and error.reason == "AlreadyExists":
                return
            if not error.temporary:
                self.planner.refused(action.slot, str(error))
            raise
        logger.info("GPU %s of node %s is held for sharing", action.slot.device, action.slot.node)

    async def _delete(self, action: Delete) -> None:
        try:
            body = {"preconditions": {"uid": action.uid}}
            await self._kube.request("DELETE", path("pods", self._where.namespace, action.name), body=body)
        except KubeError as error:
            if error.status not in {404, 409}:  # gone, or another one has come by its name
                raise
        logger.info("GPU %s of node %s is given back", action.slot.device, action.slot.node)

    async def _write(self, action: Tell | Lose, patch: Callable[[str | None], Object]) -> None:
        """Write into a trial's placement, if that is still what the action is about."""
        namespace, name = translate.trial_name(action.study, action.index)
        with logs.about(namespace=namespace, study=name.rpartition("-")[0], trial=name):
            for _ in range(_TRIES):
                version = self._version(action)
                if version is None:
                    return
                try:
                    url = path("trials", namespace, name, "status")
                    written = await self._kube.request("PATCH", url, body=patch(version), content_type=MERGE_PATCH)
                except KubeError as error:
                    if error.status == 404:
                        return
                    if error.status != 409:
                        raise
                    written = await self._kube.request("GET", path("trials", namespace, name))
                    self._mirror.take("trials", "MODIFIED", written)
                else:
                    self._mirror.take("trials", "MODIFIED", written)
                    if isinstance(action, Lose):
                        logger.warning("trial %s/%s lost its place: %s", namespace, name, action.message)
                    return

    def _version(self, action: Tell | Lose) -> str | None:
        """The version of the trial's object that is to be changed; None where it need not be any more."""
        trial = self._state.trial(action.study, action.index)
        view = trial.view if trial is not None else None
        place = view.placement if view is not None else None
        if view is None or place is None or not view.phase.has_place:
            return None
        done = place.uuid if isinstance(action, Tell) else place.lost
        return view.version if view.attempt == action.attempt and done is None and not place.reclaim else None
