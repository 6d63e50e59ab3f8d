"""What a proposal may cost, and what proposes instead where it is too costly: a model of a part, then TPE."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tuneyard_strategy import bayesian
from tuneyard_strategy.bayesian import NEARBY, BayesianStrategy, GaussianProcess
from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.effort import LIMIT, Effort
from tuneyard_strategy.gp import WIDE, Kernel
from tuneyard_strategy.history import Fate, History, Part
from tuneyard_strategy.region import Region
from tuneyard_strategy.registry import create
from tuneyard_strategy.space import Space

MIXED: list[dict[str, Any]] = [
    {"name": "x", "double": {"min": 0, "max": 1}},
    {"name": "y", "double": {"min": 0, "max": 1}},
    {"name": "kind", "categorical": {"values": ["a", "b"]}},
]


def define(**more: Any) -> StudyDefinition:
    document = {"parameters": MIXED, "objectives": [{"metric": "loss", "goal": "minimize"}]}
    return StudyDefinition.model_validate({**document, "strategy": {"name": "bayesian"}, **more})


def loss(parameters: Any) -> float:
    """The least is 0, at (0.3, 0.7) with a; another valley, with b, ends at 0.5."""
    x, y = parameters["x"], parameters["y"]
    return (x - 0.3) ** 2 + (y - 0.7) ** 2 if parameters["kind"] == "a" else 0.5 + (x - 0.9) ** 2


def ended(count: int, **more: float) -> list[TrialRecord]:
    drawn = create(define(strategy={"name": "random"})).suggest(range(count))
    metrics = [{"loss": loss(s.parameters), **more} for s in drawn]
    return [
        TrialRecord(index=s.index, parameters=s.parameters, state="succeeded", metrics=m)
        for s, m in zip(drawn, metrics, strict=True)
    ]


def strategy_after(records: list[TrialRecord], definition: StudyDefinition) -> BayesianStrategy:
    strategy = create(definition)
    assert isinstance(strategy, BayesianStrategy)
    strategy.update(records)
    return strategy


def between(strategy: BayesianStrategy) -> float:
    """Seconds that are too few for the whole process, and enough for one of the neighbourhood."""
    space, history = strategy.space, strategy.history
    whole, local = (
        GaussianProcess(space, 0, WIDE, reach).effort(history).seconds for reach in (bayesian.EVERYWHERE, NEARBY)
    )
    assert local < 0.7 * whole
    return (local + whole) / 2


def test_effort_grows_with_each_count_and_decides() -> None:
    base = Effort(fitted=100, modelled=300, features=20, models=2, boxes=100)
    for name in ("fitted", "modelled", "features", "models", "boxes"):
        more = {**base.__dict__, name: 2 * getattr(base, name)}
        assert Effort(**more).seconds > base.seconds
    assert base.seconds < LIMIT


def test_the_largest_studies_that_users_are_likely_to_have_are_not_too_costly() -> None:
    parameters = [{"name": f"x{i}", "double": {"min": 0, "max": 1}} for i in range(100)]
    drawn = create(define(parameters=parameters, strategy={"name": "random"})).suggest(range(400))
    records = [
        TrialRecord(index=s.index, parameters=s.parameters, state="succeeded", metrics={"loss": 1.0}) for s in drawn
    ]
    assert strategy_after(records, define(parameters=parameters)).degraded is None


def test_a_region_has_so_many_of_the_nearest_trials() -> None:
    kernel = Kernel(np.array([False, True]), np.array([1.0, 1.0]), 1.0)
    trials = np.column_stack([np.linspace(0, 1, 11), np.zeros(11)])
    centres = trials[[2, 9]]
    region = Region(kernel, centres, trials, 5)
    assert np.flatnonzero(region.covers(trials)).tolist() == [1, 2, 3, 8, 9, 10]  # of equally far ones all
    other_category = np.array([[0.2, 1.0]])
    assert not region.covers(other_category).any()
    assert Region(kernel, centres, trials, 100).covers(trials).all()


def test_a_part_of_a_history_has_no_other_trials() -> None:
    space = Space.from_spec(define().parameters)
    history = History(space, define().objectives)
    records = [*ended(6), TrialRecord(index=6, parameters={"x": 0.1, "y": 0.1, "kind": "a"})]
    history.tell(records)
    history.place(range(7), space.table_of([dict(record.parameters) for record in records]))
    part = Part(history, np.array([1, 4, 6]))
    assert part.rows(Fate.MEASURED).tolist() == [1, 4]
    assert part.rows(Fate.PENDING, Fate.MEASURED).tolist() == [1, 4, 6]
    np.testing.assert_array_equal(part.values(np.array([4])), history.values(np.array([4])))


def test_where_the_whole_is_too_costly_the_search_stays_near_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = strategy_after(ended(160), define())
    assert strategy.degraded is None
    monkeypatch.setattr(bayesian, "LIMIT", between(strategy))
    assert strategy.degraded is not None
    assert "the neighbourhood of the best trials" in strategy.degraded
    for index in (160, 161, 162):  # 163 is TPE's
        proposal = next(strategy.ranked(index))
        assert proposal["kind"] == "a"
        assert loss(proposal) < 0.01


def test_the_same_history_gives_the_same_proposal_in_a_region_too(monkeypatch: pytest.MonkeyPatch) -> None:
    records = ended(150)
    whole = strategy_after(records, define())
    monkeypatch.setattr(bayesian, "LIMIT", between(whole))
    in_parts = strategy_after(records[:140], define())
    in_parts.suggest([150])
    in_parts.update(records[140:])
    assert in_parts.suggest([150, 151]) == strategy_after(records, define()).suggest([150, 151])


def test_a_region_keeps_to_bounds_and_away_from_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    objectives = [{"metric": "loss", "goal": "minimize"}, {"metric": "size", "atMost": 0.5}]
    records = [
        record.model_copy(update={"metrics": {**(record.metrics or {}), "size": float(record.parameters["x"]) * 2}})
        if float(record.parameters["y"]) < 0.8
        else record.model_copy(update={"state": "failed", "metrics": None})
        for record in ended(160)
    ]
    strategy = strategy_after(records, define(objectives=objectives))
    monkeypatch.setattr(bayesian, "LIMIT", between(strategy))
    proposal = next(strategy.ranked(160))
    assert abs(float(proposal["x"]) - 0.25) < 0.05
    assert abs(float(proposal["y"]) - 0.7) < 0.1


def test_where_no_process_is_cheap_enough_tpe_proposes(monkeypatch: pytest.MonkeyPatch) -> None:
    records = ended(12)
    monkeypatch.setattr(bayesian, "LIMIT", 1e-9)
    strategy = strategy_after(records, define())
    assert strategy.degraded is not None
    assert "tpe proposes instead" in strategy.degraded
    tpe = create(define(strategy={"name": "tpe"}))
    tpe.update(records)
    assert strategy.suggest([12]) == tpe.suggest([12])


def test_asha_with_the_process_says_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    definition = define(
        strategy={"name": "asha", "sampler": "bayesian"}, fidelity={"parameter": "epochs", "min": 1, "max": 9}
    )
    strategy = create(definition)
    strategy.update(ended(12))
    assert strategy.degraded is None
    monkeypatch.setattr(bayesian, "LIMIT", 1e-9)
    assert "tpe proposes instead" in (strategy.degraded or "")
