"""Probes for all, metrics for those whom the API server lets get them."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer, unused_port

from tuneyard_scheduler import serving
from tuneyard_scheduler.kube import Kube, KubeError
from tuneyard_scheduler.serving import Gate, create_app


class Reviewer:
    """An API server that knows two people."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.down = False

    async def request(self, method: str, url_path: str, *, body: Any, **_: Any) -> Any:
        assert method == "POST"
        if self.down:
            raise KubeError(0, "Unreachable", "no route")
        self.asked.append(body["kind"])
        if body["kind"] == "TokenReview":
            assert url_path == "/apis/authentication.k8s.io/v1/tokenreviews"
            name = {"good": "prometheus", "other": "somebody"}.get(body["spec"]["token"])
            user = {"user": {"username": name, "groups": ["system:serviceaccounts"]}} if name else {}
            return {"status": {"authenticated": name is not None, **user}}
        assert url_path == "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        assert body["spec"]["nonResourceAttributes"] == {"path": "/metrics", "verb": "get"}
        assert body["spec"]["groups"] == ["system:serviceaccounts"]
        return {"status": {"allowed": body["spec"]["user"] == "prometheus"}}


@pytest.fixture
def reviewer() -> Reviewer:
    return Reviewer()


@pytest.fixture
def clock() -> SimpleNamespace:
    return SimpleNamespace(now=1000.0)


@pytest.fixture
def state() -> SimpleNamespace:
    return SimpleNamespace(problem=None)


@pytest.fixture
async def client(
    reviewer: Reviewer, clock: SimpleNamespace, state: SimpleNamespace
) -> AsyncIterator[TestClient[Any, Any]]:
    gate = Gate(reviewer, lambda: clock.now)  # type: ignore[arg-type]
    app = create_app(gate, healthy=lambda: state.problem, ready=lambda: None)
    async with TestClient(TestServer(app)) as found:
        yield found


async def metrics(client: TestClient[Any, Any], token: str | None = "good") -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with client.get("/metrics", headers=headers) as answer:
        return answer.status, await answer.text()


async def test_who_may_gets_the_metrics(client: TestClient[Any, Any]) -> None:
    status, text = await metrics(client)
    assert status == 200
    assert "# TYPE python_info gauge" in text


@pytest.mark.parametrize(
    ("token", "status", "said"),
    [
        (None, 401, "send a token that may get /metrics as Authorization: Bearer"),
        ("forged", 401, "the token is not valid"),
        ("x" * 20_000, 400, ""),
        ("other", 403, "somebody may not get /metrics; bind it to a ClusterRole with that nonResourceURL"),
    ],
)
async def test_nobody_else_does(client: TestClient[Any, Any], token: str | None, status: int, said: str) -> None:
    got, text = await metrics(client, token)
    assert got == status
    assert said in text
    assert "python_info" not in text


async def test_the_api_server_is_asked_once_a_minute(
    client: TestClient[Any, Any], reviewer: Reviewer, clock: SimpleNamespace
) -> None:
    for token in ("good", "good", "forged", "forged"):
        await metrics(client, token)
    assert reviewer.asked == ["TokenReview", "SubjectAccessReview", "TokenReview"]
    clock.now += 61
    assert (await metrics(client))[0] == 200
    assert len(reviewer.asked) == 5


async def test_when_nobody_can_be_asked_nothing_is_told(client: TestClient[Any, Any], reviewer: Reviewer) -> None:
    reviewer.down = True
    assert await metrics(client) == (503, "tokens cannot be checked now: Unreachable: no route\n")
    reviewer.down = False
    assert (await metrics(client))[0] == 200


async def test_made_up_tokens_do_not_fill_the_memory(
    client: TestClient[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_MOST_REMEMBERED", 5)
    gate = Gate(Reviewer())  # type: ignore[arg-type]
    for number in range(50):
        assert await gate.refusal(f"made up {number}") == (401, "the token is not valid")
    assert len(gate._known) <= 5


async def test_probes_tell_what_is_wrong(client: TestClient[Any, Any], state: SimpleNamespace) -> None:
    async with client.get("/healthz") as answer:
        assert (answer.status, await answer.text()) == (200, "ok\n")
    state.problem = "planning is stuck"
    async with client.get("/healthz") as answer:
        assert (answer.status, await answer.text()) == (503, "planning is stuck\n")
    async with client.get("/readyz") as answer:
        assert answer.status == 200


async def test_it_answers_over_tls_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Connection:
        async def __aenter__(self) -> Reviewer:
            return Reviewer()

        async def __aexit__(self, *_: object) -> None:
            return

    async def connected(_: str | None) -> Connection:
        return Connection()

    monkeypatch.setattr(Kube, "connect", connected)
    port = unused_port()
    unverified = ssl._create_unverified_context()
    async with serving.serving(("127.0.0.1", port), None, healthy=lambda: None, ready=lambda: None):
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"https://127.0.0.1:{port}/healthz", ssl=unverified) as answer,
        ):
            assert answer.status == 200
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" not in await reader.read()
        writer.close()
