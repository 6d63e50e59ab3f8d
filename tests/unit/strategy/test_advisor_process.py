"""Asks that take long: they are answered in parts, and by a process of its own that may end at any time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tuneyard_strategy.advisor import Advisor, AskRequest
from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.errors import DefinitionError, NeedHistory, StrategyError
from tuneyard_strategy.process import AdvisorProcess
from tuneyard_strategy.registry import create

CUBE = [{"name": name, "double": {"min": 0, "max": 1}} for name in ("x", "y")]


def define(**more: Any) -> StudyDefinition:
    document = {"parameters": CUBE, "objectives": [{"metric": "loss", "goal": "minimize"}]}
    return StudyDefinition.model_validate({**document, "strategy": {"name": "tpe"}, **more})


def ended(count: int, definition: StudyDefinition) -> list[TrialRecord]:
    strategy = create(definition)
    return [
        TrialRecord(index=s.index, parameters=s.parameters, state="succeeded", metrics={"loss": s.parameters["x"]})  # type: ignore[dict-item]
        for s in strategy.suggest(range(count))
    ]


def question(indices: list[int], records: list[TrialRecord], since: int = 0, **more: Any) -> AskRequest:
    return AskRequest(study="s", revision=since + len(records), since=since, records=records, indices=indices, **more)


def ticking(seconds: float) -> Any:
    """A clock that goes on by so much with each look."""
    times = iter(range(10_000))
    return lambda: seconds * next(times)


def test_an_answer_has_what_was_found_in_time_and_the_rest_is_as_if_asked_at_once() -> None:
    definition = define()
    records, asked = ended(12, definition), list(range(12, 18))
    whole = Advisor().ask(question(asked, records, definition=definition)).configurations
    hurried = Advisor(patience=1, clock=ticking(0.4))
    first = hurried.ask(question(asked, records, definition=definition))
    assert [each.index for each in first.configurations] == [12, 13, 14]
    assert not first.exhausted
    known = [TrialRecord(index=each.index, parameters=each.parameters) for each in first.configurations]
    second = hurried.ask(question([15, 16, 17], known, since=12))
    assert [*first.configurations, *second.configurations] == whole


def test_however_late_it_is_one_is_answered() -> None:
    definition = define()
    answer = Advisor(patience=1, clock=ticking(100)).ask(
        question([13, 12], ended(12, definition), definition=definition)
    )
    assert [each.index for each in answer.configurations] == [12]


def test_what_was_asked_for_is_prepared_and_kept_as_long_as_nothing_else_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    definition = define()
    records, proposals = ended(12, definition), []
    advisor = Advisor(patience=1, clock=ticking(100))
    propose = create(definition).__class__._propose  # type: ignore[attr-defined]

    def counted(strategy: Any, index: int) -> Any:
        proposals.append(index)
        return propose(strategy, index)

    monkeypatch.setattr("tuneyard_strategy.learning.LearningStrategy._propose", counted)
    (first,) = advisor.ask(question([12, 13, 14], records, definition=definition)).configurations
    assert [advisor.prepare(), advisor.prepare(), advisor.prepare()] == [True, True, False]
    assert proposals == [12, 13, 14]
    pending = TrialRecord(index=12, parameters=first.parameters, state="pending")
    (second,) = advisor.ask(question([13], [pending], since=12)).configurations
    assert proposals == [12, 13, 14], "a look-up"
    news = [TrialRecord(index=13, parameters=second.parameters), pending.model_copy(update={"state": "failed"})]
    (third,) = advisor.ask(question([14], news, since=13)).configurations
    assert proposals == [12, 13, 14, 14], "what was kept is out of date"
    afresh = Advisor().ask(question([14], [*records, pending, *news], definition=definition))
    assert afresh.configurations == [third]


def test_a_trial_that_is_not_what_was_proposed_puts_an_end_to_what_is_kept() -> None:
    definition = define()
    records = ended(12, definition)
    for pending in (
        [TrialRecord(index=12, parameters={"x": 0.5, "y": 0.5})],
        [TrialRecord(index=13, parameters=create(definition).suggest([13])[0].parameters)],
    ):
        advisor = Advisor()
        advisor.ask(question([12, 13, 14], records, definition=definition))
        got = advisor.ask(question([12, 14], pending, since=12)).configurations
        assert got == Advisor().ask(question([12, 14], [*records, *pending], definition=definition)).configurations


def test_a_model_that_is_too_costly_is_told_and_tpe_proposes(monkeypatch: pytest.MonkeyPatch) -> None:
    definition = define(strategy={"name": "bayesian"})
    records = ended(12, definition)
    monkeypatch.setattr("tuneyard_strategy.bayesian.LIMIT", 1e-9)
    answer = Advisor().ask(question([12], records, definition=definition))
    assert answer.degraded is not None
    assert "tpe proposes instead" in answer.degraded
    assert answer.configurations == Advisor().ask(question([12], records, definition=define())).configurations
    monkeypatch.undo()
    own = Advisor().ask(question([12], records, definition=definition))
    assert own.degraded is None
    assert own.configurations != answer.configurations


@pytest.fixture
def news() -> list[str]:
    return []


@pytest.fixture
def process(news: list[str]) -> Iterator[AdvisorProcess]:
    made = AdvisorProcess(ended=lambda: news.append("ended"))
    yield made
    made.close()


def test_a_process_answers_as_an_advisor_does(process: AdvisorProcess) -> None:
    definition = define(strategy={"name": "sobol"})
    asked = question([0, 1, 2], [], definition=definition)
    assert process.ask(asked) == Advisor().ask(asked)
    bad = define(constraints=["x +"])
    assert process.check(bad) == Advisor().check(bad)
    with pytest.raises(DefinitionError, match="constraints"):
        process.ask(question([0], [], definition=bad))
    with pytest.raises(NeedHistory) as needed:
        process.ask(question([5], [], since=4))
    assert needed.value.have == 0


def test_the_end_of_a_process_is_noticed_and_told(process: AdvisorProcess, news: list[str]) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(StrategyError, match="its advisor ended with status -9"):
        process.check(define())
    assert news == ["ended"]


def test_a_process_ends_with_its_owner() -> None:
    script = (
        "import os; from tuneyard_strategy.process import AdvisorProcess; "
        "advisor = AdvisorProcess(ended=print); os.kill(os.getpid(), 9)"
    )
    owner = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=100)
    assert owner.returncode == -signal.SIGKILL, "and nobody has its output open any more, or it would be too late"


def test_a_mistake_within_is_raised_here(process: AdvisorProcess) -> None:
    with pytest.raises(AttributeError) as raised:
        process._call("no_such_method", None)
    assert "no_such_method" in "".join(raised.value.__notes__)
