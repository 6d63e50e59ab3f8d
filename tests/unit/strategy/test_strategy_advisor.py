from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from tuneyard_strategy import registry
from tuneyard_strategy.advisor import Advisor, AskRequest
from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.errors import DefinitionError, NeedHistory, NoFeasiblePoint
from tuneyard_strategy.manual import ManualStrategy

SPACE: list[dict[str, Any]] = [{"name": "a", "int": {"min": 1, "max": 3}}, {"name": "b", "int": {"min": 1, "max": 2}}]


def define(**more: Any) -> StudyDefinition:
    return StudyDefinition.model_validate({"parameters": SPACE, "strategy": {"name": "grid"}, **more})


def record(index: int, a: int, b: int) -> TrialRecord:
    return TrialRecord(index=index, parameters={"a": a, "b": b}, state="succeeded")


def question(indices: list[int], records: list[TrialRecord], since: int = 0, **more: Any) -> AskRequest:
    return AskRequest(study="s", revision=since + len(records), since=since, records=records, indices=indices, **more)


def answers(advisor: Advisor, asked: AskRequest) -> list[dict[str, Any]]:
    return [each.parameters for each in advisor.ask(asked).configurations]


def test_the_end_of_a_space_is_said() -> None:
    answer = Advisor().ask(question([4, 5, 6, 7], [], definition=define()))
    assert [each.index for each in answer.configurations] == [4, 5]
    assert answer.exhausted
    assert answer.message == "all 6 configurations that the space and its constraints allow are in use"


def test_there_is_no_message_where_there_is_no_end() -> None:
    answer = Advisor().ask(question([5], [], definition=define()))
    assert (answer.exhausted, answer.message) == (False, None)


@pytest.mark.parametrize("since", [0, 3])
def test_an_unknown_study_needs_its_history(since: int) -> None:
    with pytest.raises(NeedHistory) as needed:
        Advisor().ask(question([3], [], since=since))
    assert needed.value.have == 0


def test_a_gap_in_the_history_is_noticed() -> None:
    advisor = Advisor()
    advisor.ask(question([1], [record(0, 1, 1)], definition=define()))
    with pytest.raises(NeedHistory) as needed:
        advisor.ask(question([3], [record(2, 2, 1)], since=2))
    assert needed.value.have == 1


def test_a_repeated_part_of_the_history_does_no_harm() -> None:
    advisor = Advisor()
    log = [record(0, 3, 2), record(1, 1, 1), record(2, 2, 2)]
    advisor.ask(question([1], log[:2], definition=define()))
    expected = answers(Advisor(), question([3], log, definition=define()))
    assert answers(advisor, question([3], log[1:], since=1)) == expected
    assert answers(advisor, question([3], log[1:], since=1)) == expected


def test_a_strategy_hears_of_each_record_once(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[TrialRecord] = []

    class Listener(ManualStrategy):
        def update(self, records: Sequence[TrialRecord]) -> None:
            heard.extend(records)

    definition = define(strategy={"name": "manual"}, initial=[{"a": 1, "b": 1}])
    monkeypatch.setattr(registry, "STRATEGIES", {"manual": Listener})
    log = [record(0, 1, 1).model_copy(update={"metrics": {"m": float(n)}}) for n in range(5)]
    advisor = Advisor()
    advisor.ask(question([0], log[:2], definition=definition))
    advisor.ask(question([0], log[1:3], since=1))
    advisor.ask(question([0], log[1:3], since=1))
    advisor.ask(question([0], log[3:], since=3))
    assert heard == log


def test_a_history_that_became_shorter_is_another_history() -> None:
    advisor = Advisor()
    advisor.ask(question([1], [record(0, 3, 2), record(1, 3, 1)], definition=define()))
    with pytest.raises(NeedHistory) as needed:
        advisor.ask(AskRequest(study="s", revision=1, since=1, indices=[2]))
    assert needed.value.have == 0


def test_a_history_from_the_start_replaces_the_one_held() -> None:
    advisor = Advisor()
    advisor.ask(question([2], [record(0, 3, 2), record(1, 3, 1)], definition=define()))
    log = [record(0, 1, 1)]
    assert answers(advisor, question([1], log)) == [{"a": 1, "b": 2}]
    assert answers(advisor, question([2], [record(1, 3, 1)], since=1)) == [{"a": 1, "b": 2}]


def test_a_changed_definition_begins_anew() -> None:
    advisor = Advisor()
    changed = define(constraints=["a > 1"])
    advisor.ask(question([0], [record(0, 1, 1)], definition=define()))
    with pytest.raises(NeedHistory):
        advisor.ask(question([1], [], since=1, definition=changed))
    assert answers(advisor, question([1], [record(0, 1, 1)], definition=changed)) == [{"a": 2, "b": 1}]


def test_the_least_recently_asked_study_is_forgotten() -> None:
    advisor = Advisor(capacity=2)
    for study in ("one", "two", "one", "three"):
        advisor.ask(AskRequest(study=study, definition=define(), indices=[0]))
    assert len(advisor.ask(AskRequest(study="one", indices=[1])).configurations) == 1
    with pytest.raises(NeedHistory):
        advisor.ask(AskRequest(study="two", indices=[1]))


def test_a_study_that_is_dropped_is_unknown() -> None:
    advisor = Advisor()
    advisor.ask(question([0], [], definition=define()))
    advisor.forget("s")
    advisor.forget("never heard of")
    with pytest.raises(NeedHistory):
        advisor.ask(question([0], []))


def test_records_must_be_those_between_since_and_revision() -> None:
    with pytest.raises(ValidationError, match=r"records has 1 entries; send exactly those from since \(1\) to"):
        AskRequest(study="s", revision=3, since=1, records=[record(0, 1, 1)], indices=[])


def test_a_study_without_configurations_stays_so() -> None:
    advisor = Advisor()
    for _ in range(2):
        with pytest.raises(NoFeasiblePoint):
            advisor.ask(question([0], [], definition=define(constraints=["a > 3"])))


@pytest.mark.parametrize(
    ("more", "problems"),
    [
        ({}, []),
        ({"initial": [{"a": 1}], "strategy": {"name": "random"}}, []),
        (
            {"constraints": ["a < b", "a *", "c < 1"]},
            [
                "constraints[1]: 'a *' ends too early: a number, a parameter or '(' is expected after '*'",
                "constraints[2]: 'c < 1', column 1: there is no parameter 'c'; there are a, b",
            ],
        ),
        (
            {"constraints": ["a > 3"]},
            [
                (
                    "constraints: no configuration was found that meets constraints[0] 'a > 3': loosen it, or widen "
                    "the bounds"
                )
            ],
        ),
        (
            {"constraints": ["a > b"], "initial": [{"a": 1, "b": 1}, {"a": 9}, {"a": 1}]},
            [
                "initial[0]: the constraint 'a > b' does not hold",
                "initial[1].a: 9 is not a value of the parameter; write a whole number from 1 to 3",
            ],
        ),
        (
            {"constraints": ["a > b"], "initial": [{"a": 1}]},
            [
                (
                    "initial[0]: no values were found for the parameters left out that meet the constraints and make "
                    "a new configuration; write all of them, or leave the entry out"
                )
            ],
        ),
        (
            {"initial": [{"a": 1, "b": 2}, {"b": 2, "a": 1}]},
            ["initial[1]: it is the same as initial[0]; write each configuration once"],
        ),
        (
            {"initial": [{"a": 1, "b": 2}, {"a": 3}], "strategy": {"name": "manual"}},
            ["initial[1]: b is missing; with strategy manual each configuration must be complete"],
        ),
        (
            {"strategy": {"name": "manual"}},
            ["strategy manual runs the list in initial: write at least one configuration there"],
        ),
        (
            {"parameters": [{"name": "x", "double": {"min": 0, "max": 1}}]},
            ["parameters[0].double.step: strategy grid needs a step here; write one, or choose another strategy"],
        ),
    ],
)
def test_check_says_each_problem_in_a_sentence(more: dict[str, Any], problems: list[str]) -> None:
    assert Advisor().check(define(**more)) == problems


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ([{"name": "x", "double": {"min": 1, "max": 0}}], "parameters[0].double.min: min must be below max"),
        ([{"name": "x"}], "parameters[0]: a parameter is exactly one of"),
        ([*SPACE, SPACE[0]], "parameters[2].name: 'a' is taken"),
        (
            [{"name": "x", "int": {"min": 0, "max": 1}, "when": {"a": [1]}}, *SPACE],
            "parameters[0].when: there is no int or categorical parameter 'a' above it in the list",
        ),
        ([{"name": "x", "double": {"min": 0, "max": 1, "step": 1e-30}}], "parameters[0].double.step: it gives more"),
    ],
)
def test_a_space_that_the_api_would_refuse_is_refused(parameters: list[Any], problem: str) -> None:
    with pytest.raises(DefinitionError) as said:
        Advisor().ask(question([0], [], definition=define(parameters=parameters)))
    assert problem in said.value.problems[0]
