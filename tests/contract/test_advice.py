"""The advisor answers alike whatever it remembers, and alike in process and over HTTP."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from _spaces import CASES, define

from tuneyard_strategy.advisor import Advisor, AskRequest, AskResponse
from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.errors import NeedHistory
from tuneyard_strategy.service import create_app

TRIALS = 24
Ask = Callable[[AskRequest], AskResponse]

every_case = pytest.mark.parametrize(("strategy", "space"), CASES)


class Caller:
    """What an operator does: keeps the log, sends what is new, and everything when asked for."""

    def __init__(self, definition: StudyDefinition) -> None:
        self.definition = definition
        self.log: list[TrialRecord] = []
        self.told: int | None = None

    def request(self, indices: list[int], *, everything: bool = False) -> AskRequest:
        first = everything or self.told is None
        since = 0 if first else self.told or 0
        return AskRequest(
            study="study",
            definition=self.definition if first else None,
            revision=len(self.log),
            since=since,
            records=self.log[since:],
            indices=indices,
        )

    def ask(self, ask: Ask, indices: list[int]) -> AskResponse:
        try:
            response = ask(self.request(indices))
        except NeedHistory:
            response = ask(self.request(indices, everything=True))
        self.told = len(self.log)
        return response

    def live(self, response: AskResponse) -> None:
        """The trials run and end."""
        running = [
            TrialRecord(index=each.index, parameters=each.parameters, state="running")
            for each in response.configurations
        ]
        ended = [r.model_copy(update={"state": "succeeded", "metrics": {"loss": 1 / (1 + r.index)}}) for r in running]
        self.log += [*running, *ended[::-1]]


def study_with(ask: Callable[[Caller, list[int]], AskResponse], definition: StudyDefinition) -> list[AskResponse]:
    caller = Caller(definition)
    responses = []
    for first in range(0, TRIALS, 4):
        responses.append(ask(caller, [first, first + 2, first + 1]))
        caller.live(responses[-1])
        responses.append(ask(caller, [first + 3, first]))
        caller.live(responses[-1])
    return responses


def with_deltas(definition: StudyDefinition) -> list[AskResponse]:
    advisor = Advisor()
    return study_with(lambda caller, indices: caller.ask(advisor.ask, indices), definition)


@every_case
def test_an_advisor_that_forgets_everything_answers_the_same(strategy: str, space: str) -> None:
    definition = define(strategy, space)
    anew = study_with(lambda caller, i: Advisor().ask(caller.request(i, everything=True)), definition)
    assert anew == with_deltas(definition)


def test_an_advisor_with_room_for_one_study_asks_again_and_answers_the_same() -> None:
    cases = [define(strategy, space) for strategy, space in CASES[-6:]]
    expected = [with_deltas(definition) for definition in cases]
    advisor, needed = Advisor(capacity=1), 0

    def ask(request: AskRequest) -> AskResponse:
        nonlocal needed
        try:
            return advisor.ask(request)
        except NeedHistory:
            needed += 1
            raise

    callers = [Caller(definition) for definition in cases]
    got: list[list[AskResponse]] = [[] for _ in cases]
    for first in range(0, TRIALS, 4):
        for indices in ([first, first + 2, first + 1], [first + 3, first]):
            for number, caller in enumerate(callers):
                response = caller.ask(
                    lambda request, number=number: ask(request.model_copy(update={"study": f"study-{number}"})), indices
                )
                caller.live(response)
                got[number].append(response)
    assert got == expected
    assert needed == len(cases) * (TRIALS // 2 - 1)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A strategy service on a free port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(Advisor(), lambda: "secret"), log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listener.close()


def post(url: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": "Bearer secret", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@every_case
def test_over_http_as_in_process(url: str, strategy: str, space: str) -> None:
    definition = define(strategy, space)

    def ask(request: AskRequest) -> AskResponse:
        named = request.model_copy(update={"study": f"{strategy}-{space}"})
        status, body = post(f"{url}/v1/ask", named.to_json())
        if status == 409:
            assert body["need"] == "history"
            raise NeedHistory(body["have"])
        assert status == 200, body
        return AskResponse.model_validate(body)

    assert study_with(lambda caller, indices: caller.ask(ask, indices), definition) == with_deltas(definition)


def test_a_service_that_lost_its_memory_says_what_it_has(url: str) -> None:
    caller = Caller(define("sobol", "svm"))
    caller.live(caller.ask(Advisor().ask, [0, 1]))
    question = caller.request([2]).model_copy(update={"study": "lost", "since": 2, "records": caller.log[2:]})
    assert post(f"{url}/v1/ask", question.to_json()) == (409, {"need": "history", "have": 0})
