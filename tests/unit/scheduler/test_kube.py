"""The reflector and the requests, against a small HTTP server that plays an API server's collection."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client

from tuneyard_scheduler.kube import Kube, KubeError, path


class Collection:
    """A collection of objects: lists in pages of two, and a watch whose lines the test pushes."""

    def __init__(self) -> None:
        self.items: dict[str, int] = {}
        self.version = 10
        self.lists = 0
        self.watched_from: list[str] = []
        self.lines: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def object(self, name: str) -> dict[str, Any]:
        return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(self.items[name])}}

    def set(self, name: str) -> dict[str, Any]:
        self.version += 1
        self.items[name] = self.version
        return self.object(name)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            return await self.watch(request)
        names, start = sorted(self.items), int(request.query.get("continue", "0"))
        self.lists += start == 0
        meta = {"resourceVersion": str(self.version)}
        if start + 2 < len(names):
            meta["continue"] = str(start + 2)
        return web.json_response({"metadata": meta, "items": [self.object(name) for name in names[start : start + 2]]})

    async def watch(self, request: web.Request) -> web.StreamResponse:
        self.watched_from.append(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        while (line := await self.lines.get()) is not None:
            await response.write(json.dumps(line).encode() + b"\n")
        return response


@pytest.fixture
async def served() -> AsyncIterator[tuple[Collection, Kube]]:
    collection = Collection()

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"reason": "Forbidden", "message": "you may not", "code": 403}, status=403)

    app = web.Application()
    app.router.add_get(path("trials"), collection.handle)
    app.router.add_get(path("pods"), refuse)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()

    configuration = client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
    async with Kube(configuration, "default") as kube:
        yield collection, kube
    collection.lines.put_nowait(None)
    await runner.cleanup()


class Heard:
    """What a reflector has told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.synced = asyncio.Event()

    def on_event(self, kind: str, item: dict[str, Any]) -> None:
        self.events.append((kind, item["metadata"]["name"]))
        if item["metadata"]["name"] == "poison":
            raise ValueError("cannot be understood")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def heard(served: tuple[Collection, Kube]) -> AsyncIterator[Heard]:
    collection, kube = served
    for name in ("a", "b", "c"):
        collection.set(name)
    heard = Heard()
    task = asyncio.create_task(kube.reflect(path("trials"), heard.on_event, on_synced=heard.synced.set))
    async with asyncio.timeout(30):
        await heard.synced.wait()
    yield heard
    task.cancel()


async def test_all_pages_are_told_before_synced_then_each_change(served: tuple[Collection, Kube], heard: Heard) -> None:
    collection, _ = served
    assert heard.events == [("ADDED", "a"), ("ADDED", "b"), ("ADDED", "c")]
    collection.lines.put_nowait({"type": "MODIFIED", "object": collection.set("a")})
    collection.lines.put_nowait({"type": "DELETED", "object": collection.object("b")})
    await until(lambda: heard.events[3:] == [("MODIFIED", "a"), ("DELETED", "b")])


async def test_a_closed_watch_goes_on_where_it_was(served: tuple[Collection, Kube], heard: Heard) -> None:
    collection, _ = served
    collection.lines.put_nowait({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "99"}}})
    collection.lines.put_nowait(None)
    await until(lambda: len(collection.watched_from) == 2)
    assert collection.watched_from == ["13", "99"]
    assert collection.lists == 1


async def test_what_vanished_during_a_gap_is_told_as_deleted(served: tuple[Collection, Kube], heard: Heard) -> None:
    collection, _ = served
    await until(lambda: len(collection.watched_from) == 1)
    del collection.items["b"]
    collection.set("d")
    gone = {"code": 410, "reason": "Expired", "message": "too old resource version"}
    collection.lines.put_nowait({"type": "ERROR", "object": gone})
    await until(lambda: len(collection.watched_from) == 2)
    assert collection.lists == 2
    assert heard.events[3:] == [("ADDED", "a"), ("ADDED", "c"), ("ADDED", "d"), ("DELETED", "b")]


async def test_an_object_that_is_not_understood_does_not_end_the_watch(
    served: tuple[Collection, Kube], heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    collection, _ = served
    collection.lines.put_nowait({"type": "ADDED", "object": collection.set("poison")})
    collection.lines.put_nowait({"type": "ADDED", "object": collection.set("e")})
    await until(lambda: heard.events[-1] == ("ADDED", "e"))
    assert "poison was not understood" in caplog.text


async def test_a_refusal_has_status_reason_and_message(served: tuple[Collection, Kube]) -> None:
    _, kube = served
    with pytest.raises(KubeError, match="you may not") as caught:
        await kube.request("GET", path("pods"))
    assert (caught.value.status, caught.value.reason, caught.value.temporary) == (403, "Forbidden", False)


async def test_nobody_there_is_temporary() -> None:

    async with Kube(client.Configuration(host="http://127.0.0.1:9"), "default") as kube:
        with pytest.raises(KubeError) as caught:
            await kube.request("GET", path("pods"))
    assert caught.value.temporary


async def test_a_kubeconfig_that_is_not_there_is_named() -> None:
    with pytest.raises(KubeError, match="no file /nowhere/config"):
        await Kube.connect("/nowhere/config")
