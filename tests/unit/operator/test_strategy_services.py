"""Services of users' own that are slow, down, or answer nonsense: never an invalid trial, and people are told."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from _services import RandomService, serving
from operator_objects import SPEC, Object, Yard, study, trial
from operator_stage import World

from tuneyard_operator import status
from tuneyard_operator.engine import Engine
from tuneyard_operator.state import StudyState
from tuneyard_operator.strategy_client import InProcess, StrategyError, learns
from tuneyard_operator.strategy_services import AGAIN_SECONDS, MAX_ANSWER, WithServices, allows
from tuneyard_operator.world import WorldError
from tuneyard_strategy.contract import TrialRecord
from tuneyard_strategy.space import Space


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(clock: Clock) -> AsyncIterator[WithServices]:
    found = WithServices(InProcess(), ["*"], clock)
    yield found
    await found.close()


def asking(url: str, **more: Any) -> Yard:
    """A study whose service is there."""
    service, spec = {"url": url, "timeout": "5s", **more.pop("service", {})}, more
    return Yard(strategy={"name": None, "seed": 5, "service": service}, **spec)


def config(lr: Any = 0.1, **more: Any) -> Object:
    return {"lr": lr, **more}


def proposals(*pairs: tuple[Any, Any], **more: Any) -> Object:
    return {"configurations": [{"index": i, "parameters": p} for i, p in pairs], "exhausted": False, **more}


NONSENSE: list[tuple[str, int, Any, str]] = [
    ("no JSON", 200, "<html>", "no JSON object"),
    ("a list", 200, [1, 2], "no JSON object"),
    ("nested", 200, "[" * 100_000, "no JSON object"),
    ("nothing", 200, "", "no JSON object"),
    ("another object", 200, {"hello": 1}, "configurations: Field required"),
    ("another type", 200, {"configurations": "many", "exhausted": False}, "configurations: Input should be"),
    ("no flag", 200, {"configurations": []}, "exhausted: Field required"),
    ("text for a number", 200, proposals((0, config("0.1"))), "'0.1' is not a value"),
    ("true for a number", 200, proposals((0, config(True))), "True is not a value"),
    ("null", 200, proposals((0, config(None))), "parameters"),
    ("a list for a number", 200, proposals((0, config([0.1]))), "parameters"),
    ("no parameters", 200, proposals((0, {})), "lr is missing"),
    ("unknown parameter", 200, proposals((0, config(0.1, depth=3))), "no such parameter"),
    ("below the range", 200, proposals((0, config(1e-9))), "is not a value"),
    ("not a number", 200, '{"configurations": [{"index": 0, "parameters": {"lr": NaN}}], "exhausted": false}', ""),
    ("infinite", 200, '{"configurations": [{"index": 0, "parameters": {"lr": 1e999}}], "exhausted": false}', ""),
    ("another trial's", 200, proposals((7, config())), "trial 7 was not asked for"),
    ("negative", 200, proposals((-1, config())), "trial -1 was not asked for"),
    ("one twice", 200, proposals((0, config()), (0, config(0.2))), "trial 0 twice"),
    ("the same for two", 200, proposals((0, config()), (1, config())), "trial 1 has the configuration of another"),
    ("too many", 200, proposals(*((i, config(0.1 + i / 1000)) for i in range(500))), "was not asked for"),
    ("none, without end", 200, proposals(), "none at all"),
    ("huge", 200, "x" * (MAX_ANSWER + 1), f"more than {MAX_ANSWER} bytes"),
    ("elsewhere", 302, ("", {"Location": "http://127.0.0.1:1/secret"}), "points elsewhere (302)"),
    ("elsewhere for good", 308, ("", {"Location": "/v1/ask2"}), "points elsewhere (308)"),
    ("its own failure", 500, {"error": "out of\nmemory"}, "answered 500: out of memory"),
    ("refused", 403, "<html>", "answered 403"),
    ("always in need", 409, {"need": "history"}, "answered 409"),
    ("packed", 200, ("\x1f", {"Content-Encoding": "gzip"}), "no JSON object"),
]


@pytest.mark.parametrize(
    ("code", "answer", "said"), [pytest.param(*row[1:], id=row[0].replace(" ", "-")) for row in NONSENSE]
)
async def test_nonsense_is_no_answer(client: WithServices, code: int, answer: Any, said: str) -> None:
    with serving(lambda path, body: (code, answer)) as url:
        with pytest.raises(StrategyError) as refused:
            await client.ask(asking(url).state, [0, 1])
        assert said in str(refused.value)
        assert len(str(refused.value)) < 600
        assert url in str(refused.value)
        found = await client.ask(asking(url, service={"onFailure": "Sobol"}).state, [0, 1])
    assert sorted(found.configurations) == [0, 1]
    assert found.note is not None
    assert found.note.startswith("Sobol proposes meanwhile: the strategy service")


async def test_a_configuration_of_another_trial_or_against_a_constraint_is_no_answer(client: WithServices) -> None:
    with serving(lambda path, body: (200, proposals((1, config(0.1))))) as url:
        yard = asking(url).pending(0)
        with pytest.raises(StrategyError, match="trial 1 has the configuration of another one"):
            await client.ask(yard.state, [1])
        with pytest.raises(StrategyError, match=r"constraint 'lr > 0\.5' does not hold"):
            await client.ask(asking(url, constraints=["lr > 0.5"]).state, [1])


async def test_one_that_answers_well(client: WithServices) -> None:
    service = RandomService()
    with serving(service) as url:
        yard = asking(url)
        assert learns(yard.state)
        assert await client.check(yard.state) == []
        first = await client.ask(yard.state, [0, 1])
        assert sorted(first.configurations) == [0, 1]
        assert (first.note, first.continuable) == (None, [])
        yard.pending(0)
        await client.ask(yard.state, [1])
        service.studies.clear()
        yard.ended(0)
        assert (await client.ask(yard.state, [1])).configurations
    told = [(path, body.get("since"), len(body.get("records", ()))) for path, body in service.heard]
    assert told == [("/v1/check", None, 0), ("/v1/ask", 0, 0), ("/v1/ask", 0, 1), ("/v1/ask", 1, 1), ("/v1/ask", 0, 2)]
    assert service.heard[1][1]["definition"]["strategy"]["service"]["settings"] == {}


async def test_a_path_in_the_url_and_an_opinion_on_settings(client: WithServices) -> None:
    service = RandomService()
    with serving(service) as url:
        yard = asking(f"{url}/tpe/", service={"settings": {"a": 1}})
        assert await client.check(yard.state) == ["strategy.service: settings: this is wrong"]
    assert [path for path, _ in service.heard] == ["/tpe/v1/check"]


async def test_who_has_no_opinion_need_not_have_one(client: WithServices) -> None:
    for status_, body in ((404, "not found"), (405, {}), (200, {"problems": "none"})):
        with serving(lambda path, _, answer=(status_, body): answer) as url:
            assert await client.check(asking(url).state) == []


async def test_too_slow_is_not_waited_for(client: WithServices) -> None:
    release = threading.Event()

    def sleep(path: str, body: Object) -> tuple[int, Any]:
        release.wait(30)
        return 200, {}

    with serving(sleep) as url:
        try:
            with pytest.raises(StrategyError, match="did not answer within 1s"):
                await client.ask(asking(url, service={"timeout": "1s"}).state, [0])
        finally:
            release.set()


async def test_down_and_back_again(client: WithServices, clock: Clock) -> None:
    service = RandomService()
    with serving(service) as url:
        pass
    waits, falls_back = asking(url), asking(url, service={"onFailure": "Sobol"})
    with pytest.raises(StrategyError, match="does not answer"):
        await client.ask(waits.state, [0])
    meanwhile = await client.ask(falls_back.state, [0])
    assert meanwhile.note is not None
    heard: list[str] = []

    def answer(path: str, body: Object) -> tuple[int, Any]:
        heard.append(path)
        return service(path, body)

    with serving(answer) as other:
        for yard in (waits, falls_back):
            assert yard.state.spec.strategy.service is not None
            yard.state.spec.strategy.service.url = other
        assert (await client.ask(falls_back.state, [0])).note == meanwhile.note
        assert heard == []  # not before its time
        clock.now += AGAIN_SECONDS
        assert (await client.ask(falls_back.state, [0])).note is None
        assert (await client.ask(waits.state, [0])).configurations


async def test_initial_configurations_are_the_studys_own(client: WithServices) -> None:
    service = RandomService()
    with serving(service) as url:
        yard = asking(url, initial=[{"lr": 0.5}, {}])
        found = await client.ask(yard.state, [0, 1, 2])
        assert found.configurations[0] == {"lr": 0.5}
        assert sorted(found.configurations) == [0, 1]
        assert service.heard == []
        assert sorted((await client.ask(yard.pending(0, 1).state, [2])).configurations) == [2]


async def test_sobol_that_falls_back_does_not_repeat_what_the_service_proposed(client: WithServices) -> None:
    with serving(RandomService()) as url:
        yard = asking(url, service={"onFailure": "Sobol"})
        found = await client.ask(yard.state, [0, 1])
    for index, parameters in found.configurations.items():
        item = trial(index, 10 + index, {"phase": "Pending"})
        item["spec"]["parameters"] = parameters
        yard.state.set_trial(item, yard.now)
    after = await client.ask(yard.state, [2, 3])
    space = Space.from_spec(yard.state.spec.parameters)
    keys = [space.key(p) for p in (*found.configurations.values(), *after.configurations.values())]
    assert len(set(keys)) == 4


@pytest.mark.parametrize(
    ("allowed", "url", "may"),
    [
        ([], "http://a:80", False),
        (["*"], "http://169.254.169.254/latest", True),
        (["http://a.b.svc:8080"], "http://a.b.svc:8080/path", True),
        (["http://a.b.svc:8080"], "http://a.b.svc", False),
        (["http://a.b.svc:8080"], "https://a.b.svc:8080", False),
        (["http://a.b.svc"], "http://a.b.svc:80", True),
        (["https://a.b"], "https://a.b:443", True),
        (["http://a.b.svc:8080"], "http://xa.b.svc:8080", False),
        (["http://a.b.svc:8080"], "http://a.b.svc.evil:8080", False),
        (["http://*.team.svc:80"], "http://x.team.svc", True),
        (["http://*.team.svc:80"], "http://team.svc", False),
        (["http://*.team.svc:80"], "http://xteam.svc", False),
        (["http://A.b"], "http://a.B", True),
        (["http://a"], "http://a:65536", False),
        (["http://[::1]:80"], "http://[::1]", True),
        (["http://a"], "http://[::::]", False),
        (["a"], "http://a", False),
    ],
)
def test_which_services_may_be_asked(allowed: list[str], url: str, may: bool) -> None:
    assert allows(allowed, url) is may


async def test_one_that_may_not_be_asked_is_not(clock: Clock) -> None:
    service = RandomService()
    with serving(service) as url:
        client = WithServices(InProcess(), ["http://optimizer.svc"], clock)
        (problem,) = await client.check(asking(url).state)
        with pytest.raises(StrategyError, match="may be asked"):
            await client.ask(asking(url).state, [0])
    assert f"no strategy service at {url} may be asked" in problem
    assert service.heard == []


def conditions(state: StudyState) -> dict[str, Object]:
    found = status.study_status(state, {}, None, None, 0.0)
    return {entry["type"]: entry for entry in found["conditions"]}


async def test_a_study_waits_says_so_and_goes_on(client: WithServices) -> None:
    answer: list[Callable[[str, Object], tuple[int, Any]]] = [lambda path, body: (503, {"error": "busy"})]

    def service(path: str, body: Object) -> tuple[int, Any]:
        return answer[0](path, body)

    with serving(service) as url:
        engine = Engine(World(), client)
        spec = {**SPEC, "strategy": {"service": {"url": url}}}
        state = engine.set_study({**study(), "spec": spec})
        with pytest.raises(WorldError):
            await engine.supply(state)
        told = status.study_status(state, {}, None, None, 0.0)
        assert (told["phase"], told["reason"]) == ("Pending", "StrategyUnavailable")
        assert "busy" in told["message"]
        available = conditions(state)["StrategyAvailable"]
        assert (available["status"], available["reason"]) == ("False", "NoAnswer")
        assert state.trials == {}
        answer[0] = RandomService()
        assert await engine.supply(state)
        assert state.trials
        assert conditions(state)["StrategyAvailable"]["status"] == "True"


async def test_a_study_that_falls_back_says_so(client: WithServices) -> None:
    with serving(lambda path, body: (404, {}) if path == "/v1/check" else (200, "what?")) as url:
        engine = Engine(World(), client)
        spec = {**SPEC, "strategy": {"service": {"url": url, "onFailure": "Sobol"}}}
        state = engine.set_study({**study(), "spec": spec})
        assert await engine.supply(state)
        assert state.trials
        available = conditions(state)["StrategyAvailable"]
        assert (available["status"], available["reason"]) == ("False", "FellBack")
        assert "no JSON object" in available["message"]
    assert "StrategyAvailable" not in conditions(Yard().state)


async def test_whoever_proposes_the_rules_that_stop_trials_are_ours(client: WithServices) -> None:
    """The service is not there, and need not be."""
    rule = {"rule": "median", "warmup": 2, "minTrials": 3}
    study = asking("http://127.0.0.1:1", earlyStopping=rule)
    for index in range(3):
        curve = [{"step": step, "metrics": {"accuracy": 0.9}} for step in range(4)]
        observed = {"value": 0.9, "observation": {"metrics": {"accuracy": 0.9}}, "curve": curve}
        study.set(index, {"phase": "Succeeded", **observed})
    good, bad = (
        TrialRecord(index=index, parameters={"lr": 0.01}, state="running", curve=[(1, value), (2, value), (3, value)])
        for index, value in ((3, 0.95), (4, 0.2))
    )
    found = await client.judge(study.state, [good, bad])
    assert [(verdict.index, verdict.stop) for verdict in found] == [(4, True)]
