"""CMA-ES: the update against another implementation, and what it does with steps, categories and conditions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cmaes import CMA

from tuneyard_api.space import Parameter
from tuneyard_api.study import Objective
from tuneyard_strategy.cma import Normal, rates
from tuneyard_strategy.cmaes import Evolution
from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.history import History
from tuneyard_strategy.registry import create
from tuneyard_strategy.space import Space

X = [{"name": f"x{i}", "double": {"min": 0, "max": 1}} for i in range(3)]
MIXED = [
    *X,
    {"name": "n", "int": {"min": 1, "max": 64, "scale": "log"}},
    {"name": "kind", "categorical": {"values": ["a", "b", "c", "d"]}},
]


@pytest.mark.parametrize(("numbers", "size"), [(2, 6), (5, 8), (5, 16), (20, 12)])
def test_the_rates_are_those_of_the_cmaes_package(numbers: int, size: int) -> None:
    theirs, ours = CMA(mean=np.zeros(numbers), sigma=1.0, population_size=size), rates(numbers, size)
    assert np.allclose(ours.weights, theirs._weights)
    for name in ("mu_eff", "c_sigma", "d_sigma"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, f"_{name}"))
    assert (ours.c_c, ours.c_1, ours.c_mu) == pytest.approx((theirs._cc, theirs._c1, theirs._cmu))


@pytest.mark.parametrize("numbers", [2, 5])
def test_generation_after_generation_is_as_the_cmaes_package_has_it(numbers: int) -> None:
    """Points are its own: those far out are drawn near, which the package does not do."""
    rng = np.random.default_rng(numbers)
    theirs = CMA(mean=np.full(numbers, 0.5), sigma=0.3, seed=1)
    ours = Normal.start(np.full(numbers, 0.5), 0.3)
    for _ in range(30):
        points = ours.sample(rng.standard_normal((theirs.population_size, numbers)))
        values = ((points - 0.3) ** 2 * 10.0 ** np.arange(numbers)).sum(axis=1)
        theirs.tell(list(zip(points, values.tolist(), strict=True)))
        ours = ours.after(points[np.argsort(values)])
    assert np.allclose(ours.mean, theirs.mean, atol=1e-6)
    assert ours.sigma == pytest.approx(theirs._sigma, rel=1e-6)
    assert np.allclose(ours.covariance, theirs._C, rtol=1e-5)


def test_a_point_from_afar_does_not_blow_it_up() -> None:
    distribution = Normal.start(np.full(3, 0.5), 1e-3)
    points = np.vstack([np.full(3, 0.9), distribution.sample(np.random.default_rng(0).standard_normal((6, 3)))])
    after = distribution.after(points)
    assert after.sigma < 3e-3
    assert np.all(after.mean > distribution.mean)


def test_floors_hold_and_have_no_say_in_the_step_size() -> None:
    rng, distribution, floors = np.random.default_rng(0), Normal.start(np.full(3, 0.5), 0.3), np.array([0.2, 0.0, 0.0])
    for _ in range(60):
        points = distribution.sample(rng.standard_normal((8, 3)))
        values = ((points[:, 1:] - 0.4) ** 2).sum(axis=1)
        distribution = distribution.after(points[np.argsort(values)], floors)
        assert distribution.deviations[0] >= 0.2 * (1 - 1e-9)
    assert np.allclose(distribution.mean[1:], 0.4, atol=1e-4)
    assert distribution.deviations[1:].max() < 1e-4


def loss(parameters: dict[str, Any], flat: float = 0.0) -> float:
    total = sum(max((value - 0.3) ** 2, flat) for name, value in parameters.items() if name.startswith("x"))
    total += 0.05 * abs(np.log2(parameters.get("n", 4)) - 2.0)
    return total + (0.0 if parameters.get("kind", "b") == "b" else 0.2)


def search(
    parameters: list[dict[str, Any]], count: int, seed: int, flat: float = 0.0, **more: Any
) -> list[TrialRecord]:
    definition = StudyDefinition.model_validate(
        {
            "parameters": parameters,
            "objectives": [{"metric": "loss", "goal": "minimize"}],
            "strategy": {"name": "cmaes", "seed": seed},
            **more,
        }
    )
    strategy = create(definition)
    records: list[TrialRecord] = []
    for index in range(count):
        (suggestion,) = strategy.suggest([index])
        parameters_, fails = suggestion.parameters, index % 9 == 4
        metrics = None if fails else {"loss": loss(parameters_, flat)}
        state = "failed" if fails else "succeeded"
        records.append(TrialRecord(index=index, parameters=parameters_, state=state, metrics=metrics))
        strategy.update(records[-1:])
    return records


def is_own(indices: Any) -> Any:
    return indices % 4 != 1


def shared(own: Callable[[Any], Any] | None, gain: float) -> list[TrialRecord]:
    """A study of which others have every fourth trial, near the best; from the 400th on theirs are better by a gain."""
    space = Space.from_spec([Parameter.model_validate(each) for each in X[:2]])
    evolution, history = Evolution(space, 0, own), History(space, [Objective(metric="loss", goal="minimize")])
    records: list[TrialRecord] = []
    for index in range(600):
        others = {"x0": 0.3, "x1": 0.3 + 1e-6 * index}
        parameters = next(evolution.ranked(history, index)) if is_own(index) else others
        value = loss(parameters) - gain * (index >= 400 and not is_own(index))
        records.append(TrialRecord(index=index, parameters=parameters, state="succeeded", metrics={"loss": value}))
        history.tell(records[-1:])
        history.place([index], space.table_of([parameters]))
    return records


def best(records: list[TrialRecord]) -> float:
    return min(record.metrics["loss"] for record in records if record.metrics)


@pytest.mark.parametrize("seed", range(2))
def test_it_finds_numbers_steps_and_categories_together(seed: int) -> None:
    records = search(MIXED, 300, seed)
    assert best(records) < 1e-3
    late = records[200:]
    assert sum(r.parameters["kind"] == "b" for r in late) > 70
    assert sum(r.parameters["n"] == 4 for r in late) > 40
    assert len({r.parameters["n"] for r in late}) > 1  # it still tries others now and then


def test_a_parameter_that_some_configurations_lack() -> None:
    parameters = [*MIXED, {"name": "x9", "double": {"min": 0, "max": 1}, "when": {"kind": ["b", "c"]}}]
    assert best(search(parameters, 300, 0)) < 2e-3


def test_constraints_are_kept() -> None:
    records = search(X, 200, 0, constraints=["x0 + x1 >= 0.8"])
    assert all(r.parameters["x0"] + r.parameters["x1"] >= 0.8 for r in records)
    assert best(records) == pytest.approx(0.02, abs=2e-3)


def test_when_all_is_found_it_begins_anew_elsewhere() -> None:
    records = search(X[:1], 280, 0)
    assert best(records) < 1e-8
    places = [r.parameters["x0"] for r in records]
    first = next(i for i, place in enumerate(places) if abs(place - 0.3) < 1e-4)
    assert max(abs(place - 0.3) for place in places[first + 30 :]) > 0.1


def test_where_nothing_gets_better_it_begins_anew_too() -> None:
    """On a plateau the distribution shrinks to no point."""
    records = search(X[:2], 450, 1, flat=0.0025)
    assert best(records) == 0.005
    far = [max(abs(r.parameters[name] - 0.3) for name in ("x0", "x1")) > 0.4 for r in records]
    assert not any(far[200:350])
    assert any(far[350:])


@pytest.mark.parametrize("own", [None, is_own])
def test_after_a_new_beginning_the_trials_of_others_do_not_teach(own: Callable[[Any], Any] | None) -> None:
    """They are sought near the best of before, and rank first."""
    ways = [[r.parameters for r in shared(own, gain)] for gain in (0.0, 1.0)]
    assert ways[0][:400] == ways[1][:400]
    assert (ways[0] == ways[1]) == (own is is_own)


def test_where_most_numbers_do_not_matter_it_begins_anew_too() -> None:
    """One direction shrinks and the others do not, until rounding would leave no covariance."""
    others = [{"name": f"other{i}", "double": {"min": 0, "max": 1}} for i in range(5)]
    places = [r.parameters["x0"] for r in search([*X[:1], *others], 3500, 0)]
    first = next(i for i, place in enumerate(places) if abs(place - 0.3) < 1e-6)
    assert max(abs(place - 0.3) for place in places[first + 1000 :]) > 0.1


def test_only_categories() -> None:
    parameters = [{"name": f"k{i}", "categorical": {"values": list("abcdefgh")}} for i in range(4)]
    records = search([*parameters, MIXED[-1]], 200, 0)
    assert sum(r.parameters["kind"] == "b" for r in records[150:]) > 25
