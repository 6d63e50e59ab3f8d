"""An API server in memory: as much of one as the scheduler needs, with a switch for each way to fail."""

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tuneyard_scheduler.controller import Controller
from tuneyard_scheduler.kube import Kube, KubeError, path

Object = dict[str, Any]


def merge(into: Object, patch: Object) -> None:
    """A JSON merge patch (RFC 7386)."""
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict):
            if not isinstance(into.get(key), dict):
                into[key] = {}
            merge(into[key], value)
        else:
            into[key] = copy.deepcopy(value)


class FakeKube(Kube):
    """Objects by URL path; `fail` may raise for a request before (or after) it takes effect."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.watchers: dict[str, Callable[[str, Object], None]] = {}
        self.writes: list[tuple[str, Object]] = []
        self.before: Callable[[str, str], None] = lambda method, url: None
        self.after: Callable[[str, str], None] = lambda method, url: None
        self.selectors: dict[str, str | None] = {}
        self.running = 0
        self.most_running = 0
        self._version = 0
        self._created = 0

    async def close(self) -> None:
        return

    def put(self, kind: str, namespace: str | None, name: str, **fields: Any) -> Object:
        """Create or change an object, and tell the watcher."""
        url = path(kind, namespace, name)
        known = url in self.objects
        item = self.objects.setdefault(
            url, {"metadata": {"name": name, "namespace": namespace, "uid": f"{kind}-{name}"}, "spec": {}, "status": {}}
        )
        merge(item, fields)
        self._changed(kind, item, "MODIFIED" if known else "ADDED")
        return item

    def delete(self, kind: str, namespace: str | None, name: str) -> None:
        """Delete an object, and tell the watcher."""
        item = self.objects.pop(path(kind, namespace, name))
        self._changed(kind, item, "DELETED")

    def _changed(self, kind: str, item: Object, event: str) -> None:
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        for url in {path(kind), path(kind, item["metadata"].get("namespace"))} & self.watchers.keys():
            self.watchers[url](event, copy.deepcopy(item))

    async def request(self, method: str, url_path: str, *, body: Any = None, **_: Any) -> Object:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(0)
            return self._answer(method, url_path, body)
        finally:
            self.running -= 1

    def _answer(self, method: str, url_path: str, body: Any) -> Object:
        self.before(method, url_path)
        url = url_path.removesuffix("/status")
        if method == "POST":
            return self._create(url, body)
        item = self.objects.get(url)
        if item is None:
            raise KubeError(404, "NotFound", f"{url} is not there")
        if method == "PATCH":
            wanted = body.get("metadata", {}).get("resourceVersion")
            if wanted is not None and wanted != item["metadata"]["resourceVersion"]:
                raise KubeError(409, "Conflict", f"{url} has been changed")
            merge(item["status"], body["status"])
            self.writes.append((url.rsplit("/", 1)[1], body["status"]))
            self._changed(url.rsplit("/", 2)[1], item, "MODIFIED")
        if method == "DELETE":
            if item["metadata"]["uid"] != body["preconditions"]["uid"]:
                raise KubeError(409, "Conflict", f"{url} is another one")
            meta = item["metadata"]
            self.delete(url.rsplit("/", 2)[1], meta["namespace"], meta["name"])
        self.after(method, url_path)
        return copy.deepcopy(item)

    def _create(self, collection: str, body: Object) -> Object:
        """Create an object of a namespace."""
        _, namespace, kind = collection.rsplit("/", 2)
        name = body["metadata"]["name"]
        if path(kind, namespace, name) in self.objects:
            raise KubeError(409, "AlreadyExists", f"{name} already exists")
        self._created += 1
        meta = {"namespace": namespace, "uid": f"{name}/{self._created}"}
        item = self.put(kind, namespace, name, metadata=body["metadata"] | meta, spec=body["spec"])
        self.after("POST", collection)
        return copy.deepcopy(item)

    async def reflect(
        self,
        url_path: str,
        on_event: Callable[[str, Object], None],
        *,
        field_selector: str | None = None,
        on_synced: Callable[[], None] | None = None,
        **_: Any,
    ) -> None:
        self.selectors[url_path] = field_selector
        kind = url_path.rsplit("/", 1)[1]
        for url, item in list(self.objects.items()):
            if url.rsplit("/", 2)[1] == kind and (url_path == path(kind) or url.startswith(f"{url_path}/")):
                on_event("ADDED", copy.deepcopy(item))
                await asyncio.sleep(0)
        self.watchers[url_path] = on_event
        if on_synced is not None:
            on_synced()
        await asyncio.Event().wait()


async def until(true: Callable[[], Any], seconds: float = 30) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.002)


@asynccontextmanager
async def running(kube: FakeKube, **options: Any) -> AsyncIterator[Controller]:
    """A scheduler that runs on the API server for the time of the block."""
    controller = Controller(kube, **options)
    task = asyncio.create_task(controller.run())
    try:
        yield controller
    finally:
        task.cancel()
        await asyncio.wait([task])
        kube.watchers.clear()


# What is in it

READY = [{"type": "Ready", "status": "True"}]


def add_node(kube: FakeKube, name: str = "n1", gpus: int = 4) -> None:
    kube.put("nodes", None, name, status={"allocatable": {"nvidia.com/gpu": str(gpus)}, "conditions": READY})


def add_study(
    kube: FakeKube, name: str = "a", *, trials: int = 0, parallel: int = 100, gpus: int = 1, **spec: Any
) -> None:
    more = {"creationTimestamp": "2026-01-01T00:00:00Z"}
    gpu = {"gpu": {"count": gpus}} if gpus else {}
    kube.put("studies", "ns", name, metadata=more, spec={"trials": {"parallel": parallel}, **gpu, **spec})
    for index in range(trials):
        add_trial(kube, index, name)


def add_trial(kube: FakeKube, index: int, study: str = "a", **status: Any) -> None:
    owners = [{"kind": "Study", "name": study, "uid": f"studies-{study}"}]
    kube.put("trials", "ns", f"{study}-{index}", metadata={"ownerReferences": owners}, status=status)


def add_pod(
    kube: FakeKube, name: str, gpus: int = 1, *, node: str = "n1", of: tuple[str, int, int] | None = None
) -> None:
    containers = [{"resources": {"requests": {"nvidia.com/gpu": str(gpus)}}}] if gpus else [{}]
    labels = {}
    if of is not None:
        study, index, attempt = of
        labels = {"study": study, "study-uid": f"studies-{study}", "index": str(index), "attempt": str(attempt)}
    meta = {"labels": {f"tuneyard.dev/{key}": value for key, value in labels.items()}}
    kube.put("pods", "ns", name, metadata=meta, spec={"nodeName": node, "containers": containers})


def placed(kube: FakeKube, study: str = "a") -> dict[int, str | None]:
    """Node by index of the trials that have a place."""
    return {
        int(url.rsplit("-", 1)[1]): item["status"]["placement"].get("node")
        for url, item in kube.objects.items()
        if url.startswith(f"{path('trials', 'ns')}/{study}-") and item["status"].get("phase") == "Placed"
    }


async def settle() -> None:
    """Long enough for several cycles."""
    await asyncio.sleep(0.06)
