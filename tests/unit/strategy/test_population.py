"""pbt: who goes on from whom, with which configuration, and where it ends."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneyard_api.fidelity import Rung
from tuneyard_api.space import Parameter
from tuneyard_strategy.contract import Strategy, StudyDefinition, Suggestion, TrialRecord
from tuneyard_strategy.population import explored
from tuneyard_strategy.registry import create
from tuneyard_strategy.rng import Stream, uniforms
from tuneyard_strategy.space import Space

X = {"name": "x", "double": {"min": 0.001, "max": 1, "scale": "log"}}


def define(population: int = 8, top: int = 6, **more: Any) -> StudyDefinition:
    settings = more.pop("settings", {})
    document = {
        "parameters": [X],
        "objectives": [{"metric": "loss", "goal": "minimize"}],
        "strategy": {"name": "pbt", "seed": 3, "population": population, **settings},
        "fidelity": {"parameter": "epochs", "min": 2, "max": top, "resume": True},
        **more,
    }
    return StudyDefinition.model_validate(document)


def record(of: Suggestion, state: str, loss: float | None = None) -> TrialRecord:
    given = {"index": of.index, "parameters": of.parameters, "rung": of.rung, "state": state}
    return TrialRecord.model_validate({**given, "metrics": None if loss is None else {"loss": loss}})


def started(definition: StudyDefinition, records: Iterable[TrialRecord]) -> Strategy:
    strategy = create(definition)
    strategy.update(list(records))
    return strategy


class Study:
    """A study that is told by hand what becomes of its trials; trial 0 is that of member 0, and so on."""

    def __init__(self, definition: StudyDefinition) -> None:
        self.strategy = create(definition)
        self.trials: dict[int, Suggestion] = {}
        self.known: dict[int, TrialRecord] = {}

    def start(self, count: int = 1) -> list[Suggestion]:
        """The next trials, which then run."""
        new = self.strategy.suggest(range(len(self.trials), len(self.trials) + count))
        for each in new:
            self.trials[each.index] = each
            self._tell(record(each, "running"))
        return new

    def end(self, index: int, loss: float | None) -> None:
        """A trial's loss, or that it failed."""
        self._tell(record(self.trials[index], "failed" if loss is None else "succeeded", loss))

    def _tell(self, news: TrialRecord) -> None:
        self.known[news.index] = news
        self.strategy.update([news])

    def next_of(self, index: int, loss: float | None) -> Suggestion:
        """What follows when a trial has ended, of several that run."""
        self.end(index, loss)
        (new,) = self.start()
        return new


def rung(of: Suggestion) -> Rung:
    assert of.rung is not None
    return of.rung


def place(of: Suggestion) -> tuple[int, int, int, int | None]:
    return rung(of).bracket, rung(of).level, rung(of).fidelity, rung(of).continues


def test_everybody_begins_and_then_nobody_can() -> None:
    study = Study(define(4))
    assert [place(each) for each in study.start(6)] == [(member, 0, 2, None) for member in range(4)]
    assert len({each.parameters["x"] for each in study.trials.values()}) == 4
    assert study.strategy.waits, "the next generations come when trials have ended"


def test_the_worst_quarter_goes_on_from_the_best_one_and_all_others_as_they_are() -> None:
    study = Study(define(8))
    study.start(8)
    losses = [5.0, 3.0, 8.0, 1.0, 7.0, 2.0, 6.0, 4.0]
    for index, loss in enumerate(losses[:-1]):
        study.end(index, loss)
    study.end(7, losses[7])
    new = study.start(8)
    assert [rung(each).bracket for each in new] == [3, 5, 1, 7, 0, 6, 4, 2], "the best first: the others may wait"
    for each in new:
        member = rung(each).bracket
        assert place(each)[:3] == (member, 1, 4)
        source = rung(each).continues
        if member in {2, 4}:
            assert source in {3, 5}, "of the best quarter"
            assert each.parameters != study.trials[source].parameters
        else:
            assert source == member
            assert each.parameters == study.trials[member].parameters


def test_who_is_first_has_nobody_to_be_compared_with_and_waits_for_nobody() -> None:
    study = Study(define(8))
    study.start(8)
    for index, loss in ((0, 9.0), (1, 8.0), (2, 7.0)):
        new = study.next_of(index, loss)
        assert place(new) == (index, 1, 4, index), "of three no quarter is as much as one"
    new = study.next_of(3, 10.0)
    assert place(new) == (3, 1, 4, 2), "the worst of four goes on from the best of them"
    assert place(study.next_of(4, 1.0)) == (4, 1, 4, 4)
    assert place(study.next_of(5, 11.0)) == (5, 1, 4, 4)
    assert place(study.next_of(8, 0.5)) == (0, 2, 6, 8), "member 0, far ahead, is compared with nobody"


def test_members_are_compared_after_the_same_training() -> None:
    study = Study(define(4))
    study.start(4)
    for index, loss in ((0, 4.0), (1, 3.0), (2, 2.0)):
        study.next_of(index, loss)
    study.next_of(4, 0.1)
    new = study.next_of(3, 1.0)
    assert place(new) == (3, 1, 4, 3), "the best of the first generation, though one of the second is better"


def test_those_within_bounds_are_better_and_larger_may_be_too() -> None:
    bounded = [{"metric": "score", "goal": "maximize"}, {"metric": "memory", "atMost": 4}]
    study = Study(define(4, objectives=bounded))
    study.start(4)
    for index, (score, memory) in enumerate([(9.0, 5.0), (8.0, 4.0), (1.0, 1.0), (2.0, 3.0)]):
        ended = record(study.trials[index], "succeeded")
        study.strategy.update([ended.model_copy(update={"metrics": {"score": score, "memory": memory}})])
    assert [place(each)[::3] for each in study.start(4)] == [(1, 1), (3, 3), (2, 2), (0, 1)]


@pytest.mark.parametrize("state", ["failed", "infeasible", "unknown", "stopped"])
def test_a_member_whose_trial_failed_goes_on_from_one_of_the_best(state: str) -> None:
    study = Study(define(4))
    study.start(4)
    study.strategy.update([record(study.trials[0], state)])
    (new,) = study.start()
    assert place(new) == (0, 0, 2, None), "nobody has succeeded: it begins anew"
    assert new.parameters not in [study.trials[i].parameters for i in range(4)]
    assert place(study.next_of(1, 2.0)) == (1, 1, 4, 1)
    study.strategy.update([record(study.trials[2], state)])
    (new,) = study.start()
    assert place(new) == (2, 1, 4, 1), "the only one that succeeded"
    assert new.parameters != study.trials[1].parameters
    study.strategy.update([record(study.trials[5], state)])
    (new,) = study.start()
    assert place(new) == (1, 1, 4, 1), "nobody has come further: the same generation again, with another configuration"
    assert new.parameters["x"] not in {study.trials[1].parameters["x"], study.trials[6].parameters["x"]}


def test_a_trial_without_its_metric_has_failed() -> None:
    study = Study(define(4))
    study.start(4)
    study.end(0, 1.0)
    study.strategy.update([record(study.trials[1], "succeeded").model_copy(update={"metrics": {"accuracy": 1.0}})])
    assert [place(each) for each in study.start(2)] == [(0, 1, 4, 0), (1, 1, 4, 0)]


def run(
    definition: StudyDefinition,
    parallel: int,
    ends: Callable[[Suggestion], float | None],
    trials: int = 10_000,
    order: int = 7,
) -> tuple[list[TrialRecord], Strategy]:
    """A study whose trials end in an order of their own, until there are so many or no more."""
    study, draw = Study(definition), random.Random(order)
    running: list[Suggestion] = []
    while True:
        while len(running) < parallel and len(study.trials) < trials:
            new = study.start()
            if not new:
                break
            running += new
        if not running:
            return list(study.known.values()), study.strategy
        done = running.pop(draw.randrange(len(running)))
        study.end(done.index, ends(done))


def distance(of: Suggestion) -> float:
    return abs(float(np.log(of.parameters["x"] / 0.1)))  # type: ignore[operator]


@pytest.mark.parametrize("parallel", [1, 3, 8, 20])
def test_each_member_is_trained_to_the_end_once(parallel: int) -> None:
    records, strategy = run(define(8, top=9), parallel, distance)
    levels = Counter((r.rung.bracket, r.rung.level, r.rung.fidelity) for r in records if r.rung)
    amounts = [2, 4, 6, 8, 9]
    assert levels == {(member, level, amounts[level]): 1 for member in range(8) for level in range(5)}
    assert not strategy.waits
    assert not strategy.suggest([40])
    assert strategy.exhausted == "all 8 members of the population have come to their end"
    by_index = {r.index: r for r in records}
    for each in records:
        if each.rung is not None and each.rung.continues is not None:
            source = by_index[each.rung.continues].rung
            assert source is not None
            assert source.level == each.rung.level - 1


def test_with_few_workers_the_population_keeps_step_and_the_worst_are_found() -> None:
    records, _ = run(define(8), 2, distance)
    rungs = [r.rung for r in records if r.rung]
    assert [each.level for each in rungs] == sorted(each.level for each in rungs)
    before = {r.index: r.rung.bracket for r in records if r.rung}
    copies = Counter(
        each.level for each in rungs if each.continues is not None and before[each.continues] != each.bracket
    )
    assert copies == {1: 2, 2: 2}, "a quarter in each generation"


def test_failures_here_and_there_are_made_up_for() -> None:
    records, strategy = run(define(8), 4, lambda trial: None if trial.index % 3 == 1 else distance(trial))
    succeeded = Counter((r.rung.bracket, r.rung.level) for r in records if r.rung and r.state == "succeeded")
    assert set(succeeded.values()) == {1}
    assert all(succeeded[member, 2] for member in range(8))
    assert len(succeeded) < 24, "who failed and goes on from one that did not has a generation less behind itself"
    assert not strategy.waits


@pytest.mark.parametrize("parallel", [1, 5, 8])
def test_a_restart_a_repeated_question_and_the_order_of_news_change_nothing(parallel: int) -> None:
    definition = define(8, top=12)

    def ends(trial: Suggestion) -> float | None:
        return None if trial.index % 5 == 2 else distance(trial)

    for trials in (3, 9, 17, 30):
        records, lasting = run(definition, parallel, ends, trials)
        ahead = list(range(trials, trials + 8))
        answer = lasting.suggest(ahead)
        assert answer
        assert started(definition, records).suggest(ahead) == answer
        assert started(definition, records[::-1]).suggest(ahead[::-1]) == answer[::-1]
        assert lasting.suggest(ahead) == answer
        one_by_one = create(definition)
        for each in random.Random(1).sample(records, len(records)):
            one_by_one.update([each.model_copy(update={"state": "running", "metrics": None})])
            one_by_one.suggest([each.index])
            one_by_one.update([each])
        assert one_by_one.suggest(ahead) == answer


def test_another_seed_goes_on_from_others() -> None:
    def sources(seed: int) -> list[tuple[int | None, Any]]:
        study = Study(define(20, settings={"seed": seed}, initial=[{"x": (i + 1) / 20} for i in range(20)]))
        study.start(20)
        for index in range(20):
            study.end(index, float(index))
        return [(rung(each).continues, each.parameters["x"]) for each in study.start(20)[15:]]

    found = [sources(seed) for seed in (1, 2, 3)]
    assert len({str(each) for each in found}) == 3
    assert {source for each in found for source, _ in each} == set(range(5)), "each of the best has its turn"


def test_those_that_go_on_from_one_trial_do_so_with_different_configurations() -> None:
    study = Study(define(12, settings={"quantile": 0.5, "population": 12}))
    study.start(12)
    for index in range(12):
        study.end(index, float(index))
    by_source = defaultdict(list)
    for each in study.start(12):
        by_source[rung(each).continues].append(each.parameters["x"])
    assert max(map(len, by_source.values())) > 2
    for source, values in by_source.items():
        assert source is not None
        assert len(set(values)) == len(values)


def test_initial_configurations_are_the_first_members_and_a_small_space_has_few() -> None:
    n = {"name": "n", "int": {"min": 1, "max": 3}}
    definition = define(8, parameters=[n], initial=[{"n": 2}])
    study = Study(definition)
    assert study.start(8)[0].parameters == {"n": 2}
    assert sorted(each.parameters["n"] for each in study.trials.values()) == [1, 2, 3]
    assert study.strategy.waits
    records, strategy = run(definition, 2, lambda trial: float(trial.parameters["n"]))
    assert len(records) == 9
    assert "3" in strategy.exhausted


def test_trials_by_hand_are_no_members() -> None:
    by_hand = [
        TrialRecord(index=0, parameters={"x": 0.5}, state="succeeded", metrics={"loss": -9.0}),
        TrialRecord(index=1, parameters={"x": 77.0}, state="succeeded", rung=Rung(fidelity=2), metrics={"loss": -9.0}),
    ]
    found = started(define(4), by_hand).suggest(range(2, 6))
    assert [place(each) for each in found] == [(member, 0, 2, None) for member in range(1, 4)] + [(0, 0, 2, None)]


# Configurations nearby --------------------------------------------------------------------------------------------


def space(*parameters: dict[str, Any], constraints: Iterable[str] = ()) -> Space:
    return Space.from_spec([Parameter.model_validate(each) for each in parameters], list(constraints))


def draws(number: int, width: int, seed: int = 1) -> Any:
    return uniforms(seed, Stream.EXPLORATION, start=0, rows=number, width=3 * width)


@pytest.mark.parametrize(
    ("kind", "value", "down", "up"),
    [
        ({"double": {"min": 1e-5, "max": 0.1, "scale": "log"}}, 0.01, 0.008, 0.012),
        ({"double": {"min": 1e-5, "max": 0.1, "scale": "log"}}, 0.09, 0.072, 0.1),
        ({"double": {"min": 0, "max": 0.99}}, 0.5, 0.4, 0.6),
        ({"double": {"min": -1, "max": 3}}, 0.0, -0.4, 0.4),
        ({"double": {"min": -5, "max": -1}}, -2.0, -2.4, -1.6),
        ({"double": {"min": 0, "max": 10, "distribution": "normal", "mean": 1, "stddev": 0.1}}, 9.0, 7.2, 10.0),
        ({"double": {"min": 0.1, "max": 0.9, "step": 0.1}}, 0.2, 0.1, 0.3),
        ({"double": {"min": 0, "max": 10, "step": 0.5}}, 10.0, 8.0, 10.0),
        ({"int": {"min": 8, "max": 512, "scale": "log"}}, 100, 80, 120),
        ({"int": {"min": 0, "max": 9}}, 0, 0, 1),
        ({"int": {"min": 1, "max": 4}}, 2, 1, 3),
        ({"int": {"min": 8, "max": 64, "step": 8}}, 16, 8, 24),
        ({"categorical": {"values": [64, 16, 32, 128]}}, 32, 16, 64),
        ({"categorical": {"values": [64, 16, 32, 128], "probabilities": [0, 0.5, 0.25, 0.25]}}, 32, 16, 128),
        ({"categorical": {"values": ["adam", "sgd"]}}, "adam", "adam", "adam"),
    ],
    ids=str,
)
def test_values_nearby(kind: dict[str, Any], value: Any, down: Any, up: Any) -> None:
    (dimension,) = space({"name": "p", **kind}).dimensions
    found = dimension.moved(value, up=False), dimension.moved(value, up=True)
    assert found == (down, up)
    assert [type(each) for each in found] == [type(value)] * 2


def test_what_is_drawn_anew_and_how_often() -> None:
    here = space(X, {"name": "o", "categorical": {"values": ["a", "b", "c"], "probabilities": [0.5, 0.5, 0]}})
    found = list(explored(here, {"x": 0.1, "o": "a"}, draws(2000, 2), 0.25))
    assert sum(each["x"] in {0.08, 0.12} for each in found) == pytest.approx(1500, abs=80)
    assert sum(each["o"] == "b" for each in found) == pytest.approx(250, abs=60)
    assert not any(each["o"] == "c" for each in found)
    assert {each["x"] for each in explored(here, {"x": 0.1, "o": "a"}, draws(50, 2), 0.0)} == {0.08, 0.12}


NESTED = space(
    {"name": "optimizer", "categorical": {"values": ["adam", "sgd"]}},
    {"name": "momentum", "double": {"min": 0, "max": 0.99}, "when": {"optimizer": ["sgd"]}},
    {"name": "layers", "int": {"min": 1, "max": 4}},
    {"name": "width", "int": {"min": 8, "max": 128, "scale": "log"}},
    constraints=["layers * width <= 128", "momentum <= 0.9"],
)


@given(st.integers(0, 2**32), st.floats(0, 1), st.integers(0, 200))
def test_changed_configurations_are_of_the_space(seed: int, resampled: float, which: int) -> None:
    found = NESTED.configurations(NESTED.feasible_table(uniforms(3, Stream.CANDIDATES, start=0, rows=1000, width=4)))
    before = found[which % len(found)]
    for after in explored(NESTED, before, draws(16, 4, seed), resampled):
        assert not NESTED.problems(after)


def test_a_parameter_that_comes_to_be_is_drawn_and_one_that_goes_is_left_out() -> None:
    adam = {"optimizer": "adam", "layers": 2, "width": 16}
    others = [each for each in explored(NESTED, adam, draws(200, 4), 0.5) if each["optimizer"] == "sgd"]
    assert len({each["momentum"] for each in others}) == len(others) > 20
    sgd = {"optimizer": "sgd", "momentum": 0.5, "layers": 2, "width": 16}
    assert any("momentum" not in each for each in explored(NESTED, sgd, draws(50, 4), 0.5))


def test_pbt_finds_a_schedule_that_no_single_configuration_has() -> None:
    """Each generation has an x of its own that is best; a state is the sum of what all of them gained."""
    definition = define(12, top=24, settings={"seed": 5})
    wanted = [10 ** (-3 + 3 * level / 11) for level in range(12)]
    gained: dict[int, float] = {}

    def ends(trial: Suggestion) -> float:
        at = rung(trial)
        before = gained[at.continues] if at.continues is not None else 0.0
        gained[trial.index] = before + abs(float(np.log(trial.parameters["x"] / wanted[at.level])))  # type: ignore[operator]
        return gained[trial.index]

    records, _ = run(definition, 6, ends)
    best = min(gained[r.index] for r in records if r.rung and r.rung.level == 11)
    fixed = min(sum(abs(np.log(x / each)) for each in wanted) for x in np.logspace(-3, 0, 200))
    assert best < 0.7 * fixed
