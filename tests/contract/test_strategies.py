"""What every strategy promises, whatever the space: see `tuneyard_strategy.contract`."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from _spaces import CASES, LEARNING, SPACES, define, space_of

from tuneyard_api import study
from tuneyard_api.domain import admits, is_active
from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.errors import NoFeasiblePoint
from tuneyard_strategy.registry import STRATEGIES, create

TRIALS = 48
Configurations = dict[int, dict[str, Any]]

every_case = pytest.mark.parametrize(("strategy", "space"), CASES)
searching = pytest.mark.parametrize("strategy", ["grid", "random", "sobol", *LEARNING])
drawing = pytest.mark.parametrize("strategy", ["random", "sobol", *LEARNING])


def ask(definition: StudyDefinition, indices: Iterable[int], history: Iterable[TrialRecord] = ()) -> Configurations:
    """What a strategy that has just started says."""
    strategy = create(definition)
    strategy.update(list(history))
    return {suggestion.index: suggestion.parameters for suggestion in strategy.suggest(list(indices))}


def records(configurations: Mapping[int, Mapping[str, Any]], state: str = "succeeded") -> list[TrialRecord]:
    return [
        TrialRecord.model_validate({"index": index, "parameters": dict(parameters), "state": state})
        for index, parameters in configurations.items()
    ]


def keys(configurations: Configurations) -> list[tuple[Any, ...]]:
    return [tuple(sorted(configuration.items())) for configuration in configurations.values()]


def allowed(definition: StudyDefinition) -> list[tuple[Any, ...]]:
    """All configurations of a finite space, by brute force and without the code under test."""
    values: list[list[Any]] = []
    for parameter in definition.parameters:
        if parameter.categorical is not None:
            values.append(list(parameter.categorical.values))
        elif parameter.int_ is not None:
            values.append(list(range(parameter.int_.min, parameter.int_.max + 1, parameter.int_.step)))
        else:
            assert parameter.double is not None
            assert parameter.double.step is not None
            tenths = range(round(parameter.double.min * 10), round(parameter.double.max * 10) + 1)
            values.append([tenth / 10 for tenth in tenths])
    found: dict[tuple[Any, ...], None] = {}
    for row in itertools.product(*values):
        configuration: dict[str, Any] = {}
        for parameter, value in zip(definition.parameters, row, strict=True):
            if is_active(parameter, configuration):
                configuration[parameter.name] = value
        if meets(definition, configuration):
            found[tuple(sorted(configuration.items()))] = None
    return list(found)


def meets(definition: StudyDefinition, configuration: Mapping[str, Any]) -> bool:
    """The constraints as Python reads them; one that names a parameter that is not there does not count."""
    for constraint in definition.constraints:
        try:
            if not eval(constraint, {"__builtins__": {}}, dict(configuration)):
                return False
        except NameError:
            continue
    return True


def test_all_strategies_of_the_api_exist() -> None:
    assert set(STRATEGIES) == set(study.STRATEGIES) == {strategy for strategy, _ in CASES}


@every_case
def test_configurations_keep_to_space_conditions_and_constraints(strategy: str, space: str) -> None:
    definition = define(strategy, space)
    for configuration in ask(definition, range(TRIALS)).values():
        assert list(configuration) == [p.name for p in definition.parameters if p.name in configuration]
        for parameter in definition.parameters:
            assert (parameter.name in configuration) == is_active(parameter, configuration), configuration
            if parameter.name in configuration:
                value = configuration[parameter.name]
                assert type(value) in {int, float, str}
                assert admits(parameter, value), configuration
        assert meets(definition, configuration)


@every_case
def test_no_configuration_comes_twice(strategy: str, space: str) -> None:
    proposed = keys(ask(define(strategy, space), range(300)))
    assert len(set(proposed)) == len(proposed)


@searching
@pytest.mark.parametrize("space", ["finite", "single"])
def test_a_finite_space_is_searched_to_the_last_configuration(strategy: str, space: str) -> None:
    definition = define(strategy, space)
    expected = allowed(definition)
    assert len(expected) == {"finite": 28, "single": 1}[space]
    asked = create(definition)
    got = {s.index: s.parameters for s in asked.suggest(range(100))}
    assert sorted(got) == list(range(len(expected)))
    assert set(keys(got)) == set(expected)
    assert str(len(expected)) in asked.exhausted
    if strategy == "grid":
        assert keys(got) == expected


@pytest.mark.parametrize(("strategy", "count"), [("grid", 93), ("random", 62), ("sobol", 62)])
def test_improbable_values_come_last_and_impossible_ones_only_in_a_grid(strategy: str, count: int) -> None:
    got = ask(define(strategy, "skewed"), range(200))
    assert len(got) == count
    if strategy != "grid":
        assert {c["rare"] for c in got.values()} == {"a", "b"}
        assert got[0]["rare"] == "a"
        assert {c["tail"] for i, c in got.items() if i >= count - 8} > {29, 30}


@every_case
def test_the_same_answer_one_by_one_backwards_and_for_holes(strategy: str, space: str) -> None:
    definition = define(strategy, space)
    together = ask(definition, range(TRIALS))
    indices = list(together)
    patient = create(definition)
    assert {s.index: s.parameters for i in indices for s in patient.suggest([i])} == together
    assert ask(definition, reversed(indices)) == together
    hole = len(indices) // 2
    others = {index: c for index, c in together.items() if index != hole}
    assert ask(definition, [hole], records(others, "running")) == {hole: together[hole]}
    assert {s.index: s.parameters for s in patient.suggest([hole, hole])} == {hole: together[hole]}


@every_case
def test_a_restart_changes_nothing(strategy: str, space: str) -> None:
    definition = define(strategy, space)
    lasting = create(definition)
    for index in range(TRIALS):
        answer = {s.index: s.parameters for s in lasting.suggest([index])}
        if index % 16 == 7:
            history = {i: s.parameters for i in range(index) for s in lasting.suggest([i])}
            assert ask(definition, [index], records(history, "running")) == answer
        lasting.update(records(answer, "running"))
        lasting.update(records(answer, "succeeded" if index % 2 else "failed"))


def test_the_same_answer_in_any_process() -> None:
    program = (
        "import json, sys\n"
        "from tuneyard_strategy.contract import StudyDefinition\n"
        "from tuneyard_strategy.registry import create\n"
        "for line in sys.stdin:\n"
        "    strategy = create(StudyDefinition.model_validate_json(line))\n"
        "    print(json.dumps([s.parameters for s in strategy.suggest(range(40))]))\n"
    )
    definitions = [define(strategy, space) for strategy, space in CASES]
    done = subprocess.run(
        [sys.executable, "-c", program],
        input="".join(definition.model_dump_json(by_alias=True) + "\n" for definition in definitions),
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    there = [json.loads(line) for line in done.stdout.splitlines()]
    here = [list(ask(definition, range(40)).values()) for definition in definitions]
    assert there == here


@drawing
def test_another_seed_gives_other_configurations(strategy: str) -> None:
    one, other = (ask(define(strategy, "svm", seed=seed), range(10)) for seed in (1, 2))
    assert not set(keys(one)) & set(keys(other))


@searching
def test_initial_configurations_come_first_complete_and_never_again(strategy: str) -> None:
    initial: list[dict[str, Any]] = [
        {"booster": "linear", "depth": 4},
        {"booster": "tree"},
        {},
        {"drop": 1, "booster": "tree", "depth": 5},
    ]
    definition = define(strategy, "finite", initial=initial)
    got = ask(definition, range(100))
    assert got[0] == initial[0]
    assert list(got[0]) == ["depth", "booster"]
    for index, given in enumerate(initial):
        assert given.items() <= got[index].items()
    assert len(got) == len(set(keys(got))) == 28
    assert all(meets(definition, c) for c in got.values())


@searching
def test_trials_made_by_hand_count_and_are_not_proposed_again(strategy: str) -> None:
    definition = define(strategy, "finite")
    usual = ask(definition, range(28))
    by_hand = {1: usual[9], 4: {"depth": 9, "booster": "oak"}}
    got = ask(definition, range(40), records(by_hand))
    assert {index: got[index] for index in by_hand} == by_hand
    assert got[2] == usual[1]
    assert len(got) == 29
    assert len(set(keys(got))) == 29
    late = create(definition)
    late.suggest(range(40))
    late.update(records(by_hand))
    assert {s.index: s.parameters for s in late.suggest(range(40))} == got


@searching
def test_numbers_that_changed_their_type_on_the_way_are_the_same_trials(strategy: str) -> None:
    definition = define(strategy, "finite")
    strategy_told = create(definition)
    before = strategy_told.suggest(range(10))
    history = records({s.index: {**s.parameters, "depth": float(s.parameters["depth"])} for s in before})
    strategy_told.update(history)
    # These records name no rungs, so only the configurations are compared.
    assert [s.parameters for s in strategy_told.suggest(range(10))] == [s.parameters for s in before]
    restarted = ask(definition, range(10), history)
    assert str(list(restarted.values())) == str([s.parameters for s in before])


@searching
@pytest.mark.parametrize(
    ("constraints", "blamed"),
    [
        (["depth > 1", "depth * 2 < 1"], "constraints[1] 'depth * 2 < 1'"),
        (["depth > 3", "depth < 3"], "all constraints together"),
    ],
)
def test_constraints_that_nothing_meets_are_named(strategy: str, constraints: list[str], blamed: str) -> None:
    definition = define(strategy, "finite", constraints=constraints)
    with pytest.raises(NoFeasiblePoint) as said:
        ask(definition, [0])
    assert blamed in str(said.value)


@drawing
def test_a_scan_without_a_find_ends(strategy: str) -> None:
    definition = define(strategy, "svm", constraints=["C < gamma", "gamma < C"])
    with pytest.raises(NoFeasiblePoint, match="all constraints together"):
        ask(definition, [3])


@drawing
def test_a_scan_ends_when_it_finds_nothing_new(strategy: str) -> None:
    definition = define(
        strategy,
        "svm",
        parameters=[{"name": "n", "int": {"min": 1, "max": 2**40, "scale": "log"}}],
        constraints=["n <= 5"],
    )
    asked = create(definition)
    assert sorted(s.parameters["n"] for s in asked.suggest(range(10))) == [1, 2, 3, 4, 5]
    assert asked.exhausted.startswith("after 5 configurations")


@pytest.mark.parametrize("space", SPACES)
def test_the_cases_mean_what_they_say(space: str) -> None:
    assert space_of(define("random", space)).names
