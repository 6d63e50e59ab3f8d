"""Earlier observations: which fit a space, which do not and why; and that strategies that learn begin with them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tuneyard_strategy.contract import MAX_EARLIER, EarlierTrial, StudyDefinition, TrialRecord
from tuneyard_strategy.earlier import fitted
from tuneyard_strategy.history import Fate, History
from tuneyard_strategy.registry import create
from tuneyard_strategy.space import Space

PARAMETERS: list[dict[str, Any]] = [
    {"name": "layers", "int": {"min": 1, "max": 5, "step": 2}},
    {"name": "lr", "double": {"min": 0.001, "max": 1, "scale": "log"}},
    {"name": "optimizer", "categorical": {"values": ["sgd", "adam"]}},
    {"name": "momentum", "double": {"min": 0, "max": 1}, "when": {"optimizer": ["sgd"]}},
]
WHOLE = {"layers": 3, "lr": 0.1, "optimizer": "adam"}


def definition(strategy: str = "tpe", **more: Any) -> StudyDefinition:
    return StudyDefinition.model_validate(
        {
            "parameters": PARAMETERS,
            "constraints": ["layers * lr <= 1"],
            "objectives": [{"metric": "loss", "goal": "minimize"}, {"metric": "size", "atMost": 3}],
            "strategy": {"name": strategy},
            **more,
        }
    )


def fit(parameters: dict[str, Any], metrics: dict[str, float] | None) -> dict[str, Any] | str:
    """What becomes of one observation: the configuration that it counts as, or why it does not."""
    d = definition()
    found = fitted(
        Space.from_spec(d.parameters, d.constraints),
        d.objectives,
        [EarlierTrial(parameters=parameters, metrics=metrics)],
    )
    return found.trials[0].parameters if found.trials else next(iter(found.dropped))


BOTH = {"loss": 0.5, "size": 2.0, "another": 1.0}


@pytest.mark.parametrize(
    ("parameters", "metrics", "found"),
    [
        (WHOLE, BOTH, WHOLE),
        ({**WHOLE, "layers": 3.0, "dropout": 0.5}, BOTH, WHOLE),
        ({**WHOLE, "momentum": 0.5}, BOTH, WHOLE),
        ({**WHOLE, "optimizer": "sgd", "momentum": 1}, BOTH, {**WHOLE, "optimizer": "sgd", "momentum": 1}),
        ({**WHOLE, "lr": 0.9}, BOTH, {**WHOLE, "lr": 0.9}),  # against a constraint: it still says what is there
        ({**WHOLE, "optimizer": "sgd"}, BOTH, "no value for momentum"),
        ({"lr": 0.1, "optimizer": "adam"}, BOTH, "no value for layers"),
        ({**WHOLE, "layers": 2}, BOTH, "another range of layers"),
        ({**WHOLE, "lr": 2.0}, BOTH, "another range of lr"),
        ({**WHOLE, "optimizer": "adamw"}, BOTH, "another range of optimizer"),
        (WHOLE, {"loss": 0.5}, "no metric size"),
        (WHOLE, {"size": 0.5}, "no metric loss"),
        (WHOLE, None, WHOLE),
    ],
)
def test_what_fits(parameters: dict[str, Any], metrics: dict[str, float] | None, found: object) -> None:
    assert fit(parameters, metrics) == found


def test_of_too_many_the_best_and_some_of_all_others_are_kept() -> None:
    d = definition()
    trials = [
        EarlierTrial(parameters=WHOLE, metrics={"loss": float(i), "size": 1.0}) for i in range(3 * MAX_EARLIER, 0, -1)
    ]
    found = fitted(Space.from_spec(d.parameters), d.objectives, trials)
    losses = [trial.metrics["loss"] for trial in found.trials if trial.metrics]
    assert len(losses) == MAX_EARLIER
    assert losses == sorted(losses, reverse=True)
    assert set(range(1, MAX_EARLIER // 2 + 1)) <= set(losses)
    assert max(losses) > 2.9 * MAX_EARLIER
    assert found.dropped == {f"more than {MAX_EARLIER}": 2 * MAX_EARLIER}


def test_rows_of_trials_come_after_those_of_earlier_observations() -> None:
    d = definition()
    space = Space.from_spec(d.parameters)
    history = History(
        space, d.objectives, [EarlierTrial(parameters=WHOLE, metrics=BOTH), EarlierTrial(parameters=WHOLE)]
    )
    assert history.missing(2) == [0, 1]
    history.tell([TrialRecord(index=1, parameters=WHOLE, state="succeeded", metrics={"loss": 9.0, "size": 1.0})])
    history.place([1], space.table_of([WHOLE]))
    assert history.missing(2) == [0]
    assert history.is_placed(1)
    assert not history.is_placed(0)
    assert history.rows(Fate.MEASURED).tolist() == [0, 3]
    assert history.values(history.rows(Fate.MEASURED)).tolist() == [0.5, 9.0]
    assert history.rows(Fate.FAILED).tolist() == [1]
    history.forget(1)
    assert history.rows(Fate.MEASURED).tolist() == [0]


def valley(count: int, seed: int) -> list[dict[str, Any]]:
    """Observations of a function whose best is at (0.2, 0.7)."""
    rng, found = random.Random(seed), []
    for _ in range(count):
        x, y = rng.random(), rng.random()
        found.append({"parameters": {"x": x, "y": y}, "metrics": {"loss": (x - 0.2) ** 2 + (y - 0.7) ** 2}})
    return found


@pytest.mark.parametrize("strategy", ["tpe", "bayesian", "auto", "cmaes", "asha", "bohb"])
def test_strategies_begin_where_earlier_observations_are_best(strategy: str) -> None:
    square = [{"name": name, "double": {"min": 0, "max": 1}} for name in ("x", "y")]
    common: dict[str, Any] = {
        "parameters": square,
        "constraints": [],
        "objectives": [{"metric": "loss", "goal": "minimize"}],
    }
    if strategy in {"asha", "bohb"}:
        common["fidelity"] = {"parameter": "epochs", "min": 1, "max": 9}
    warm = definition(strategy, **common, earlier=valley(60, 1), initial=[{"x": 0.9}])
    first, *others = create(warm).suggest(range(13))
    assert first.parameters["x"] == 0.9
    cold = create(definition(strategy, **common, initial=[{"x": 0.9}])).suggest(range(13))[1:]

    def distance(found: list[Any]) -> float:
        return sum((s.parameters["x"] - 0.2) ** 2 + (s.parameters["y"] - 0.7) ** 2 for s in found) / len(found)

    assert distance(others) < distance(cold) / 2
    again = create(warm)
    again.update([TrialRecord(index=0, parameters=first.parameters, rung=first.rung)])
    assert again.suggest([5])[0] == others[4]
