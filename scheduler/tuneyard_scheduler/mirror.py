"""Keeps a ClusterState in step with the API server's events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from tuneyard_scheduler import claims, translate
from tuneyard_scheduler.backends.reservation import SLOT_LABEL
from tuneyard_scheduler.claims import Claims
from tuneyard_scheduler.state import ClusterState

logger = logging.getLogger(__name__)

Object = dict[str, Any]

_REMEMBERED: Final = 10_000
KINDS: Final = ("nodes", "pods", "gpuqueues", "studies", "trials")


class Mirror:
    """Takes events of these kinds into the state, and of those of DRA.

    Args:
        state: What is kept in step.
        device_classes: The DeviceClasses to use, where several select a driver's GPUs.
        apart: The namespace of the pods that hold shared GPUs, which are taken in by `Reservations`.

    Attributes:
        parts: The backend that divides the whole NVIDIA GPUs of a Node, if one does; set before nodes are taken.
    """

    def __init__(self, state: ClusterState, device_classes: Iterable[str] = (), *, apart: str | None = None) -> None:
        self.parts: Callable[[Object], str | None] = lambda _: None
        self._state = state
        self._claims = Claims(state, device_classes)
        self._apart = apart
        self._uids: dict[tuple[str, str | None, str], str] = {}
        self._gone: dict[str, None] = {}

    def take(self, kind: str, event: str, item: Object) -> bool:
        """Take one event: ADDED, MODIFIED or DELETED, and the object. Whether the cycle could now decide differently.

        An object that can't be understood is told in the log and left out: it must not stop all the others.
        """
        try:
            if kind == "pods":
                return self._take_pod(event, item)
            if kind in claims.KINDS:
                return self._claims.take(kind, event, item)
            return self._remove(kind, item) if event == "DELETED" else self._set(kind, item)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            where = "/".join(part for part in _name(kind, item) if part)
            logger.error("%s is left out: it can't be read (%s: %s)", where, type(error).__name__, error)  # noqa: TRY400
            return False

    def node_uid(self, name: str) -> str | None:
        """The uid of a node that is there."""
        return self._uids.get(("nodes", None, name))

    def _take_pod(self, event: str, item: Object) -> bool:
        if event == "DELETED":
            return self._claims.remove_pod(item["metadata"]["uid"])
        meta = item["metadata"]
        if meta.get("namespace") == self._apart and SLOT_LABEL in (meta.get("labels") or {}):
            return False
        pod = translate.pod(item)
        if pod is None:
            return False
        claims_its_gpus = pod.attempt is not None and item["spec"].get("resourceClaims")
        return self._claims.set_pod(pod) if claims_its_gpus else self._state.set_pod(pod)

    def _set(self, kind: str, item: Object) -> bool:
        if item["metadata"]["uid"] in self._gone:
            return False
        self._uids[_name(kind, item)] = item["metadata"]["uid"]
        match kind:
            case "nodes":
                return self._claims.set_node(translate.node(item, self.parts(item)))
            case "gpuqueues":
                return self._state.set_queue(translate.queue(item))
            case "studies":
                return self._state.set_study(translate.study(item))
            case _:
                return self._state.set_trial(translate.trial(item))

    def _remove(self, kind: str, item: Object) -> bool:
        """Forget the object, unless another one has come under its name (its end may be told late, after a gap)."""
        name, uid = _name(kind, item), item["metadata"]["uid"]
        self._remember_gone(uid)
        if self._uids.get(name) != uid:
            return False
        del self._uids[name]
        match kind:
            case "nodes":
                return self._claims.remove_node(item["metadata"]["name"])
            case "gpuqueues":
                return self._state.remove_queue(item["metadata"]["name"])
            case "studies":
                return self._state.remove_study(translate.study_key(item["metadata"]["namespace"], name[2]))
            case _:
                return self._state.remove_trial(*translate.trial_key(item))

    def _remember_gone(self, uid: str) -> None:
        """The answer to a write may come after the news that its object is gone; it must not bring it back."""
        self._gone[uid] = None
        if len(self._gone) > _REMEMBERED:
            del self._gone[next(iter(self._gone))]


def _name(kind: str, item: Object) -> tuple[str, str | None, str]:
    meta = item.get("metadata", {})
    return kind, meta.get("namespace"), meta.get("name", "")
