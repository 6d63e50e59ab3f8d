from __future__ import annotations

from typing import Any

import pytest

from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.registry import create

PARAMETERS = [
    {"name": "x", "double": {"min": 0, "max": 1}},
    {"name": "n", "int": {"min": 1, "max": 9}},
    {"name": "c", "categorical": {"values": ["a", "b"]}},
]


def define(name: str, **more: Any) -> StudyDefinition:
    document = {"parameters": PARAMETERS, "objectives": [{"metric": "loss", "goal": "minimize"}]}
    return StudyDefinition.model_validate({**document, "strategy": {"name": name, "seed": 3}, **more})


def told(name: str, count: int, state: str = "succeeded", **more: Any) -> list[dict[str, Any]]:
    """What comes after so many trials, for which random points were taken: their loss is the first parameter."""
    drawn = create(define("random", **more)).suggest(range(count))
    strategy = create(define(name, **more))
    strategy.update(
        [
            TrialRecord.model_validate(
                {
                    "index": s.index,
                    "parameters": s.parameters,
                    "state": state if s.index > 12 else "succeeded",
                    "metrics": {"loss": float(next(iter(s.parameters.values()))), "time": float(s.index % 7)}
                    if s.index <= 12 or state == "succeeded"
                    else None,
                }
            )
            for s in drawn
        ]
    )
    return [s.parameters for s in strategy.suggest(range(count, count + 2))]


@pytest.mark.parametrize("name", ["tpe", "bayesian", "auto"])
def test_it_starts_as_sobol_does_and_then_learns(name: str) -> None:
    strategy, sobol = create(define(name)), create(define("sobol")).suggest(range(8))
    started = strategy.suggest(range(4))
    assert started == sobol[:4]
    ended = [
        TrialRecord(index=s.index, parameters=s.parameters, state="succeeded", metrics={"loss": float(s.index)})
        for s in started
    ]
    strategy.update(ended)
    assert strategy.suggest([4]) == sobol[4:5]
    strategy.update([TrialRecord(index=4, parameters=sobol[4].parameters, state="succeeded", metrics={"loss": 0.5})])
    assert strategy.suggest([5]) != sobol[5:6]


@pytest.mark.parametrize("name", ["tpe", "bayesian", "auto"])
def test_initial_configurations_come_first_whatever_has_ended(name: str) -> None:
    initial: list[dict[str, Any]] = [{"x": i / 16, "n": 1 + i % 9, "c": "a"} for i in range(12)]
    strategy = create(define(name, initial=initial))
    for index, given in enumerate(initial):
        (suggestion,) = strategy.suggest([index])
        assert suggestion.parameters == given
        strategy.update([TrialRecord(index=index, parameters=given, state="succeeded", metrics={"loss": 1.0 * index})])
    assert strategy.suggest([12])[0].parameters not in initial


def test_auto_is_bayesian_until_there_are_many_trials() -> None:
    assert told("auto", 40) == told("bayesian", 40)
    assert told("auto", 300)[0] == told("bayesian", 300)[0]


def test_auto_is_cmaes_in_three_of_four_later_trials() -> None:
    """The fourth is in the box around the best; told(name, n)[0] is trial n."""
    for count in (400, 402, 403):
        assert told("auto", count)[0] == told("cmaes", count)[0]
    assert told("auto", 401)[0] == told("bayesian", 401)[0] != told("cmaes", 401)[0]


def test_auto_is_tpe_in_every_other_later_trial_with_several_objectives() -> None:
    objectives = [{"metric": metric, "goal": "minimize"} for metric in ("loss", "time")]
    later = {
        name: [told(name, n, objectives=objectives)[0] for n in (400, 401)] for name in ("auto", "bayesian", "tpe")
    }
    assert later["auto"] == [later["bayesian"][0], later["tpe"][1]]


def test_auto_is_tpe_where_many_trials_are_pending() -> None:
    assert told("auto", 120, "running") == told("tpe", 120, "running")
