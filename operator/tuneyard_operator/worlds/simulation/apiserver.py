"""The truth: a small API server with versions, merge patches and watches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Protocol

from tuneyard_api.common import timestamp
from tuneyard_operator.worlds.simulation.kernel import Kernel

Object = dict[str, Any]
KINDS = ("studies", "trials", "jobs", "pods", "nodes", "gpuqueues")
_DEFAULTS: dict[str, Object] = {"trials": {"status": {"phase": "Pending", "attempt": 0}}}
"""What the schema fills in."""


class NotFound(Exception):
    """There is no such object."""


class AlreadyExists(Exception):
    """There is one of this name."""


class VersionConflict(Exception):
    """The object is not the one that the write was meant for."""


class Witness(Protocol):
    """Sees every change as it happens: the invariants, and the controllers of the cluster itself."""

    def changed(self, kind: str, before: Object | None, after: Object | None, by: str) -> None:
        """An object came to be (no before), changed, or is gone (no after)."""


class Listener(Protocol):
    """A watch: is told that there is something new to be read from the log."""

    def poke(self) -> None:
        """There is news."""


class ApiServer:
    """Objects by kind and name, all in one namespace. What is stored is never changed in place."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.objects: dict[str, dict[str, Object]] = {kind: {} for kind in KINDS}
        self.logs: dict[str, list[tuple[str, Object | None, Object]]] = {kind: [] for kind in KINDS}
        """All that ever happened, as watches tell it: (ADDED | MODIFIED | DELETED, before, object)."""
        self.listeners: dict[str, list[Listener]] = {kind: [] for kind in KINDS}
        self.witnesses: list[Witness] = []
        self.check_versions = True
        self._before: dict[tuple[str, str], Object] = {}
        self._uids: set[str] = set()
        self._dependents: defaultdict[str, dict[tuple[str, str], str]] = defaultdict(dict)
        self.version = 0
        self._made = 0

    def get(self, kind: str, name: str) -> Object:
        """An object as it is now.

        Raises:
            NotFound: there is none.
        """
        try:
            return self.objects[kind][name]
        except KeyError:
            raise NotFound(f"{kind}/{name}") from None

    def stale(self, kind: str, name: str) -> Object:
        """An object as it was before its last change."""
        now = self.get(kind, name)
        before = self._before.get((kind, name), now)
        return before if before["metadata"]["uid"] == now["metadata"]["uid"] else now

    def exists(self, uid: str) -> bool:
        """Whether an object of this uid exists."""
        return uid in self._uids

    def dependents(self, uid: str) -> list[tuple[str, str]]:
        """Kind and name of the objects that this one owns."""
        return [key for key, own in self._dependents[uid].items() if own in self._uids]

    def create(self, kind: str, item: Object, by: str) -> Object:
        """Store a new object.

        Raises:
            AlreadyExists: there is one of this name.
        """
        name = item["metadata"]["name"]
        if name in self.objects[kind]:
            raise AlreadyExists(f"{kind}/{name}")
        self._made += 1
        meta = {
            **item["metadata"],
            "namespace": "default",
            "uid": f"{kind[:3]}{self._made}",
            "creationTimestamp": timestamp(self._kernel.now),
            "generation": 1,
        }
        self._uids.add(meta["uid"])
        for owner in meta.get("ownerReferences") or ():
            self._dependents[owner["uid"]][kind, name] = meta["uid"]
        return self._store(kind, None, {**_DEFAULTS.get(kind, {}), **item, "metadata": meta}, by)

    def update(self, kind: str, name: str, changes: Mapping[str, Any], by: str) -> Object:
        """Merge changes into an object; a change of a Study's spec is a new generation.

        Raises:
            NotFound: there is none.
        """
        before = self.get(kind, name)
        after = _merge(before, changes)
        if after == before:
            return before
        if kind == "studies" and after["spec"] != before["spec"]:
            after["metadata"] = {**after["metadata"], "generation": before["metadata"]["generation"] + 1}
        return self._store(kind, before, after, by)

    def patch_status(self, kind: str, name: str, status: Mapping[str, Any], version: object, by: str) -> Object:
        """Merge into the status, if the object's version is this one (None: whatever it is).

        Raises:
            NotFound: there is none.
            VersionConflict: it has changed since.
        """
        current = self.get(kind, name)["metadata"]["resourceVersion"]
        if version is not None and str(version) != current and self.check_versions:
            raise VersionConflict(f"{kind}/{name} is at version {current}, not {version}")
        return self.update(kind, name, {"status": dict(status)}, by)

    def replace_status(self, kind: str, name: str, status: Object, by: str) -> Object:
        """Put another status in the place of the old one.

        Raises:
            NotFound: there is none.
        """
        before = self.get(kind, name)
        return before if before.get("status") == status else self._store(kind, before, {**before, "status": status}, by)

    def delete(self, kind: str, name: str, by: str) -> Object:
        """Remove an object.

        Raises:
            NotFound: there is none.
        """
        before = self.get(kind, name)
        del self.objects[kind][name]
        self._uids.discard(before["metadata"]["uid"])
        self.version += 1
        gone = {**before, "metadata": {**before["metadata"], "resourceVersion": str(self.version)}}
        self._tell(kind, "DELETED", before, None, gone, by)
        return gone

    def _store(self, kind: str, before: Object | None, after: Object, by: str) -> Object:
        self.version += 1
        meta = {**after["metadata"], "resourceVersion": str(self.version)}
        after = {**after, "metadata": meta}
        self.objects[kind][meta["name"]] = after
        if before is not None:
            self._before[kind, meta["name"]] = before
        self._tell(kind, "MODIFIED" if before else "ADDED", before, after, after, by)
        return after

    def _tell(self, kind: str, event: str, before: Object | None, after: Object | None, item: Object, by: str) -> None:
        meta = item["metadata"]
        self._kernel.note(f"{by}: {event} {kind}/{meta['name']} v{meta['resourceVersion']} {_gist(kind, item)}")
        self.logs[kind].append((event, before, item))
        for witness in self.witnesses:
            witness.changed(kind, before, after, by)
        for listener in self.listeners[kind]:
            listener.poke()


def _merge(target: Any, patch: Mapping[str, Any]) -> Any:
    """A JSON merge patch (RFC 7386)."""
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            merged[key] = _merge(merged.get(key), value)
        else:
            merged[key] = value
    return merged


def _gist(kind: str, item: Object) -> str:
    """What matters of an object, for the trace."""
    status = item.get("status") or {}
    if kind == "trials":
        placement = status.get("placement") or {}
        return f"{status.get('phase', 'Pending')} attempt {status.get('attempt', 0)} on {placement.get('node')}"
    if kind == "studies":
        spec = item["spec"]
        trials = spec["trials"]
        said = f"{status.get('phase')} {status.get('progress')} {status.get('reason') or ''}"
        return f"{said} (max {trials.get('max')}, parallel {trials['parallel']}, suspend {spec.get('suspend', False)})"
    if kind == "pods":
        ending = " terminating" if "deletionTimestamp" in item["metadata"] else ""
        return f"{status.get('phase')} on {item['spec'].get('nodeName')}{ending}"
    return ""
