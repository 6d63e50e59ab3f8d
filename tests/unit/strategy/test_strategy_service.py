"""The service as an ASGI application, called without a network."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tuneyard_strategy import service
from tuneyard_strategy.advisor import Advisor, AskRequest, AskResponse
from tuneyard_strategy.service import create_app

SPACE = [{"name": "a", "int": {"min": 1, "max": 3}}]
DEFINITION = {"parameters": SPACE, "strategy": {"name": "grid"}}
QUESTION = {"study": "s", "definition": DEFINITION, "indices": [0, 1]}
GOOD = {"authorization": "Bearer secret"}
Answer = tuple[int, Any]


class Client:
    """Sends one request at a time to an ASGI application."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.read = 0
        self.sent: list[dict[str, Any]] = []

    async def __call__(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, chunk: int = 2**16
    ) -> Answer:
        payload = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        chunks = self.chunks(payload, chunk)
        sent = self.sent = []

        async def receive() -> dict[str, Any]:
            return await anext(chunks)

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        given = {"content-type": "application/json", **(GOOD if headers is None else headers)}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        await self.app(scope, receive, send)
        answer = b"".join(message.get("body", b"") for message in sent)
        return sent[0]["status"], json.loads(answer)

    async def chunks(self, payload: bytes, size: int) -> AsyncIterator[dict[str, Any]]:
        pieces = [payload[start : start + size] for start in range(0, len(payload), size)] or [b""]
        for number, piece in enumerate(pieces, start=1):
            self.read += len(piece)
            yield {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
        yield {"type": "http.disconnect"}


@pytest.fixture
def client() -> Client:
    return Client(create_app(Advisor(), lambda: "secret"))


async def test_a_question_is_answered(client: Client) -> None:
    status, body = await client("POST", "/v1/ask", QUESTION)
    assert status == 200
    assert body["configurations"] == [{"index": 0, "parameters": {"a": 1}}, {"index": 1, "parameters": {"a": 2}}]
    assert body["exhausted"] is False


async def test_the_end_of_the_space_is_said(client: Client) -> None:
    status, body = await client("POST", "/v1/ask", {**QUESTION, "indices": [2, 3]})
    assert status == 200
    assert body["exhausted"] is True
    assert body["message"].startswith("all 3 configurations")


async def test_missing_history_is_asked_for(client: Client) -> None:
    assert await client("POST", "/v1/ask", {"study": "s", "indices": [0]}) == (409, {"need": "history", "have": 0})


async def test_a_study_without_configurations_is_a_sentence(client: Client) -> None:
    question = {**QUESTION, "definition": {**DEFINITION, "constraints": ["a > 3"]}}
    status, body = await client("POST", "/v1/ask", question)
    assert (status, list(body)) == (422, ["error"])
    assert body["error"].startswith("no configuration was found that meets constraints[0] 'a > 3'")


async def test_check_lists_problems(client: Client) -> None:
    assert await client("POST", "/v1/check", DEFINITION) == (200, {"problems": []})
    status, body = await client("POST", "/v1/check", {**DEFINITION, "constraints": ["a >"]})
    assert status == 200
    assert body["problems"][0].startswith("constraints[0]: 'a >' ends too early")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer secret2"},
        {"authorization": "Basic secret"},
        {"authorization": "secret"},
        {"authorization": "Bearer sécret"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/ask", "/v1/check", "/anything"])
async def test_nobody_enters_without_the_token(client: Client, path: str, headers: dict[str, str]) -> None:
    status, body = await client("POST", path, QUESTION, headers)
    assert status == 401
    assert body == {"error": "the token is missing or wrong: send the header Authorization: Bearer TOKEN"}
    assert client.read == 0


async def test_an_empty_token_lets_nobody_in() -> None:
    status, _ = await Client(create_app(Advisor(), str))("POST", "/v1/ask", QUESTION, {"authorization": "Bearer "})
    assert status == 401


async def test_a_new_token_counts_at_once() -> None:
    token = ["old"]
    client = Client(create_app(Advisor(), lambda: token[0]))
    assert (await client("POST", "/v1/ask", QUESTION, {"authorization": "bearer old"}))[0] == 200
    token[0] = "new"
    assert (await client("POST", "/v1/ask", QUESTION, {"authorization": "Bearer old"}))[0] == 401
    assert (await client("POST", "/v1/ask", QUESTION, {"authorization": "Bearer new"}))[0] == 200


async def test_health_and_description_are_open(client: Client) -> None:
    assert await client("GET", "/healthz", headers={}) == (200, {"status": "ok"})
    status, body = await client("GET", "/openapi.json", headers={})
    assert status == 200
    paths = {"/v1/ask", "/v1/judge", "/v1/check", "/v1/explain", "/v1/recommend", "/healthz"}
    assert set(body["paths"]) == paths


async def test_a_body_that_is_too_large_is_refused_before_it_is_read_whole(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = json.dumps(QUESTION).encode()
    monkeypatch.setattr(service, "MAX_BODY", len(payload))
    assert (await client("POST", "/v1/ask", payload))[0] == 200
    client.read = 0
    status, body = await client("POST", "/v1/ask", payload + b" " * 1000, chunk=10)
    assert (status, body) == (413, {"error": f"the body is larger than {len(payload)} bytes"})
    assert client.read <= len(payload) + 10


async def test_a_long_history_may_come_in_parts(client: Client) -> None:
    log = [{"index": index, "parameters": {"a": 3 - index}} for index in range(3)]
    part = {"study": "s", "definition": DEFINITION, "revision": 2, "records": log[:2], "indices": []}
    assert (await client("POST", "/v1/ask", part))[0] == 200
    rest = {"study": "s", "since": 2, "revision": 3, "records": log[2:], "indices": [0, 3]}
    status, body = await client("POST", "/v1/ask", rest)
    assert (status, body["configurations"], body["exhausted"]) == (200, [{"index": 0, "parameters": {"a": 3}}], True)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"study": ', "the body is no JSON: Expecting value at position 10"),
        (None, "the body: Field required"),
        ([], "the body: Input should be"),
        ({**QUESTION, "indices": list(range(1001))}, "indices: List should have at most 1000 items"),
        ({**QUESTION, "indices": [-1]}, "indices.0: Input should be greater than or equal to 0"),
        ({**QUESTION, "indices": [100_000]}, "indices.0: Input should be less than or equal to 99999"),
        ({**QUESTION, "indexes": [1]}, "indexes: Extra inputs are not permitted"),
        ({**QUESTION, "revision": 2}, "the body: records has 0 entries; send exactly those from since (0) to"),
        (
            {**QUESTION, "definition": {**DEFINITION, "strategy": {"name": "magic"}}},
            "definition.strategy.name: Input should be",
        ),
        (
            {**QUESTION, "definition": {**DEFINITION, "parameters": [{"name": "a"}]}},
            "parameters[0]: a parameter is exactly one of double, int and categorical",
        ),
    ],
)
async def test_a_malformed_question_is_answered_with_a_sentence(client: Client, body: Any, error: str) -> None:
    status, answer = await client("POST", "/v1/ask", body)
    assert (status, list(answer)) == (422, ["error"])
    assert answer["error"].startswith(error)


async def test_unknown_paths_and_methods_are_refused_in_the_same_form(client: Client) -> None:
    assert await client("POST", "/v2/ask", QUESTION) == (404, {"error": "Not Found"})
    assert await client("GET", "/v1/ask") == (405, {"error": "Method Not Allowed"})


class SlowAdvisor(Advisor):
    """Takes until it is told, and notes who calls."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.callers: set[int] = set()
        self.inside = 0

    def ask(self, request: AskRequest) -> AskResponse:
        self.inside += 1
        assert self.inside == 1
        self.callers.add(threading.get_ident())
        assert self.go_on.wait(10)
        self.inside -= 1
        return super().ask(request)


async def test_work_is_done_in_one_thread_while_the_service_stays_responsive() -> None:
    advisor = SlowAdvisor()
    client = Client(create_app(advisor, lambda: "secret"))
    asked = [asyncio.create_task(client("POST", "/v1/ask", QUESTION)) for _ in range(3)]
    await asyncio.sleep(0.05)
    assert await client("GET", "/healthz") == (200, {"status": "ok"})
    assert not any(task.done() for task in asked)
    advisor.go_on.set()
    assert [status for status, _ in await asyncio.gather(*asked)] == [200, 200, 200]
    assert len(advisor.callers) == 1
    assert threading.get_ident() not in advisor.callers


async def test_a_fault_in_the_service_shows_no_traceback() -> None:
    class Broken(Advisor):
        def ask(self, request: AskRequest) -> AskResponse:
            raise RuntimeError("private details")

    client = Client(create_app(Broken(), lambda: "secret"))
    with pytest.raises(RuntimeError):  # which the server logs
        await client("POST", "/v1/ask", QUESTION)
    assert client.sent[0]["status"] == 500
    assert json.loads(client.sent[1]["body"]) == {"error": "the strategy service failed (RuntimeError): see its log"}


async def test_what_the_trials_say_is_explained(client: Client) -> None:
    parameters = [{"name": "x", "double": {"min": 0, "max": 1}}, {"name": "y", "double": {"min": 0, "max": 1}}]
    definition = {"parameters": parameters, "objectives": [{"metric": "loss", "goal": "minimize"}]}
    records = [
        {"index": i, "parameters": {"x": i / 19, "y": i * 7 % 20 / 19}, "state": "succeeded", "metrics": {"loss": i**2}}
        for i in range(20)
    ]
    status, body = await client("POST", "/v1/explain", {"definition": definition, "records": records})
    assert status == 200
    assert [each["name"] for each in body["importances"]] == ["x", "y"]
    assert body["importances"][0]["main"] > 0.9
    assert len(body["predictions"]) == 20
    few = await client("POST", "/v1/explain", {"definition": definition, "records": records[:3]})
    assert few == (422, {"error": "10 trials with a result are needed for a model of 2 parameters; there are 3 so far"})
    assert (await client("POST", "/v1/explain", {"definition": definition}, headers={}))[0] == 401


async def test_a_trial_is_recommended(client: Client) -> None:
    objectives = [{"metric": "loss", "goal": "minimize"}]
    definition = {"parameters": [{"name": "x", "double": {"min": 0, "max": 1}}], "objectives": objectives}
    records = [
        {"index": i, "parameters": {"x": i / 19}, "state": "succeeded", "metrics": {"loss": (i - 7) ** 2}}
        for i in range(20)
    ]
    status, body = await client("POST", "/v1/recommend", {"definition": definition, "records": records})
    assert (status, body["index"]) == (200, 7)
    few = await client("POST", "/v1/recommend", {"definition": definition, "records": records[:3]})
    assert few == (200, {"index": None, "mean": None, "deviation": None})
