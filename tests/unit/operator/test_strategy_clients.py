"""Asking the strategy: what goes over, in this process and over HTTP."""

import copy
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from operator_objects import Object, Yard

from tuneyard_operator.strategy_client import InProcess, Ledger, StrategyError, learns
from tuneyard_operator.strategy_http import HttpStrategies
from tuneyard_strategy.advisor import Advisor, AskRequest
from tuneyard_strategy.contract import StudyDefinition
from tuneyard_strategy.errors import DefinitionError, NeedHistory


class Service:
    """A strategy service that notes what it is asked; `answer` may put another answer in the way."""

    def __init__(self) -> None:
        self.advisor = Advisor()
        self.asked: list[Object] = []
        self.tokens: list[str | None] = []
        self.answer: Callable[[], web.Response | None] = lambda: None
        self.app = web.Application()
        self.app.router.add_post("/v1/{what}", self.handle)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body)
        self.tokens.append(request.headers.get("Authorization"))
        given = self.answer()
        if given is not None:
            return given
        try:
            if request.match_info["what"] == "check":
                return web.json_response({"problems": self.advisor.check(StudyDefinition.model_validate(body))})
            return web.json_response(self.advisor.ask(AskRequest.model_validate(body)).to_json())
        except NeedHistory as error:
            return web.json_response({"need": "history", "have": error.have}, status=409)
        except DefinitionError as error:
            return web.json_response({"error": str(error)}, status=422)


class Line:
    """A service, and a client of it."""

    def __init__(self, folder: Path) -> None:
        self.service = Service()
        self.server = TestServer(self.service.app)
        self.token = folder / "token"
        self.token.write_text("secret\n")
        self.client: HttpStrategies

    def told(self) -> list[tuple[bool, int, int, list[int]]]:
        """Of each question: whether the definition went with it, since, how many records, and the indices."""
        found = [(("definition" in asked), asked["since"], len(asked["records"]), asked["indices"])
                 for asked in self.service.asked]  # fmt: skip
        self.service.asked.clear()
        return found


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    found = Line(tmp_path)
    async with found.server:
        found.client = HttpStrategies(str(found.server.make_url("/")), found.token)
        yield found
        await found.client.close()


async def test_only_what_is_new_goes_over(line: Line) -> None:
    yard = Yard()
    first = await line.client.ask(yard.state, [0, 1])
    assert sorted(first.configurations) == [0, 1]
    assert first.exhausted is False
    yard.pending(0, 1).ended(0)
    assert sorted((await line.client.ask(yard.state, [2])).configurations) == [2]
    yard.pending(2)
    assert (await line.client.ask(yard.state, [2])).configurations == {2: {"lr": 0.1}}, "the one on record"
    await line.client.ask(yard.state, [3])
    assert line.told() == [(True, 0, 0, [0, 1]), (True, 0, 3, [2]), (False, 3, 1, [2]), (False, 4, 0, [3])]


async def test_a_service_that_forgot_is_told_everything(line: Line) -> None:
    yard = Yard().pending(0, 1)
    await line.client.ask(yard.state, [2])
    line.told()
    yard.ended(0)
    line.service.advisor = Advisor()
    assert sorted((await line.client.ask(yard.state, [2])).configurations) == [2]
    assert line.told() == [(False, 2, 1, [2]), (True, 0, 3, [2])]
    await line.client.ask(yard.state, [3])
    assert line.told() == [(False, 3, 0, [3])]


async def test_a_definition_that_changed_goes_over_with_everything(line: Line) -> None:
    yard = Yard().pending(0, 1)
    await line.client.ask(yard.state, [2])
    yard.edit(trials={"parallel": 3})
    await line.client.ask(yard.state, [2])
    yard.edit(trials={"max": 20})
    await line.client.ask(yard.state, [2])
    assert [told[:3] for told in line.told()] == [(True, 0, 2), (False, 2, 0), (True, 0, 2)]


async def test_a_question_without_an_answer_is_asked_as_if_for_the_first_time(line: Line) -> None:
    yard = Yard().pending(0, 1)
    line.service.answer = lambda: web.json_response({"error": "busy"}, status=503)
    with pytest.raises(StrategyError, match=r"^the strategy service answered 503: busy$"):
        await line.client.ask(yard.state, [2])
    line.service.answer = lambda: None
    await line.client.ask(yard.state, [2])
    assert [told[:3] for told in line.told()] == [(True, 0, 2)] * 2


async def test_a_study_that_was_forgotten_is_told_anew(line: Line) -> None:
    yard = Yard().pending(0)
    await line.client.ask(yard.state, [1])
    line.client.forget("u-s")
    await line.client.ask(yard.state, [1])
    assert [told[:3] for told in line.told()] == [(True, 0, 1)] * 2


async def test_the_token_is_read_anew_each_time(line: Line) -> None:
    yard = Yard()
    await line.client.check(yard.state)
    line.token.write_text("rotated")
    await line.client.check(yard.state)
    assert line.service.tokens == ["Bearer secret", "Bearer rotated"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda: web.json_response({"error": "no"}, status=422), "answered 422: no"),
        (lambda: web.json_response({"detail": 1}, status=500), "answered 500: {'detail': 1}"),
        (lambda: web.Response(text="<html>bad gateway", status=502), "does not answer: "),
        (lambda: web.Response(status=502), "answered 502 without an object"),
        (lambda: web.json_response([1]), "answered 200 without an object"),
        (lambda: web.json_response({"configurations": 3}), "answer is not understood"),
    ],
)
async def test_answers_that_are_none(line: Line, answer: Callable[[], web.Response], said: str) -> None:
    line.service.answer = answer
    with pytest.raises(StrategyError, match=r"^the strategy service") as error:
        await line.client.ask(Yard().state, [0])
    assert said in str(error.value)


async def test_a_service_that_is_down_is_one_sentence(line: Line) -> None:
    await line.server.close()
    for question in (line.client.ask(Yard().state, [0]), line.client.check(Yard().state)):
        with pytest.raises(StrategyError, match=r"^the strategy service at http://.* does not answer: .+$") as error:
            await question
        assert "\n" not in str(error.value)


async def test_a_token_that_cannot_be_read_is_one_sentence(line: Line) -> None:
    line.token.unlink()
    with pytest.raises(StrategyError, match="No such file"):
        await line.client.ask(Yard().state, [0])
    assert line.service.asked == []


IMPOSSIBLE: Any = {"constraints": ["lr > 2"]}


async def test_what_is_wrong_with_a_space_is_told_alike_everywhere(line: Line) -> None:
    for client in (line.client, InProcess()):
        (problem,) = await client.check(Yard(**IMPOSSIBLE).state)
        assert "constraints" in problem
        assert await client.check(Yard().state) == []


# In this process ---------------------------------------------------------------------------------------------------


async def test_both_ways_give_the_same_configurations(line: Line) -> None:
    assert await InProcess().ask(Yard().state, [3, 1]) == await line.client.ask(Yard().state, [3, 1])


async def test_an_advisor_that_forgot_is_told_everything() -> None:
    advisor, yard = Advisor(), Yard().pending(0)
    client = InProcess(advisor)
    before = copy.deepcopy(await client.ask(yard.state, [1]))
    advisor.forget("u-s")
    assert await client.ask(yard.state, [1]) == before
    client.forget("u-s")
    assert await client.ask(yard.state, [1]) == before


async def test_an_exhausted_space() -> None:
    parameters = [{"name": "lr", "int": {"min": 1, "max": 3}}]
    yard = Yard(parameters=parameters, strategy={"name": "grid"}, trials={"max": None})
    answer = await InProcess().ask(yard.state, [1, 2, 3, 4])
    assert (sorted(answer.configurations), answer.exhausted) == ([1, 2], True)


async def test_a_space_without_a_point_is_a_sentence() -> None:
    with pytest.raises(StrategyError, match="lr > 2"):
        await InProcess().ask(Yard(**IMPOSSIBLE).state, [0])


def test_an_answer_that_comes_after_the_study_was_forgotten() -> None:
    ledger, yard = Ledger(), Yard().pending(0)
    ledger.answered(yard.state, ledger.request(yard.state, [1]))
    late = ledger.request(yard.state, [1])
    ledger.forget("u-s")
    ledger.answered(yard.state, late)
    assert ledger.request(yard.state, [1]).definition is not None


def test_none_of_the_present_strategies_learns() -> None:
    assert not learns(Yard().state)
