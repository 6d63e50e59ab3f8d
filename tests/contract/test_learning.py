"""What strategies that learn promise beyond that: answers depend on which trials are known, and on nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest
from _spaces import LEARNING as BY_NAME
from _spaces import LOSS, SPACES, space_of
from _spaces import define as define_case

from tuneyard_api.rules import ONE_GOAL
from tuneyard_strategy.contract import State, Strategy, StudyDefinition, TrialRecord
from tuneyard_strategy.registry import create

TRIALS = 30
LEARNING = (*BY_NAME, "asha:tpe")
every_learner = pytest.mark.parametrize("strategy", LEARNING)
every_model = pytest.mark.parametrize("strategy", [s for s in LEARNING if s != "hyperband"])
"""hyperband promotes the best, and learns no more than that: see its own tests."""
every_case = pytest.mark.parametrize(("strategy", "space"), [(s, space) for s in LEARNING for space in SPACES])
WITH_FRONT = [s for s in BY_NAME if s not in ONE_GOAL]
every_with_front = pytest.mark.parametrize("strategy", WITH_FRONT)


def define(strategy: str, space: str, **more: Any) -> StudyDefinition:
    """The study of a case; a population has so few members that they go on within a test."""
    return define_case(strategy, space, population=8, **more)


def started(definition: StudyDefinition, records: Iterable[TrialRecord]) -> Strategy:
    strategy = create(definition)
    strategy.update(list(records))
    return strategy


def ended(definition: StudyDefinition, index: int, parameters: dict[str, Any]) -> TrialRecord:
    """A trial that ended with the distance from the middle of the space; each seventh fails, each eleventh is lost."""
    state: State = "failed" if index % 7 == 3 else "unknown" if index % 11 == 5 else "succeeded"
    loss = float(((space_of(definition).encode(parameters) - 0.4) ** 2).sum())
    metrics = {"loss": loss, "memory": 1.0 - loss} if state == "succeeded" else None
    return TrialRecord(index=index, parameters=parameters, state=state, metrics=metrics)


def live(definition: StudyDefinition, parallel: int) -> list[TrialRecord]:
    """The records of a study of which `parallel` trials run at a time, and end in an order of their own."""
    strategy, order = create(definition), random.Random(4)
    known: dict[int, TrialRecord] = {}
    running: list[TrialRecord] = []
    for index in range(TRIALS):
        for suggestion in strategy.suggest([index]):
            record = TrialRecord(index=index, parameters=suggestion.parameters, rung=suggestion.rung, state="running")
            running.append(record)
            known[index] = record
            strategy.update([record])
        while len(running) >= parallel:
            done = running.pop(order.randrange(len(running)))
            known[done.index] = ended(definition, done.index, dict(done.parameters)).model_copy(
                update={"rung": done.rung}
            )
            strategy.update([known[done.index]])
    return list(known.values())


@every_case
def test_proposals_from_results_are_new_and_keep_to_the_space(strategy: str, space: str) -> None:
    definition = define(strategy, space)
    records, here = live(definition, 4), space_of(definition)
    assert not any(here.problems(record.parameters) for record in records)
    new = [record for record in records if record.rung is None or record.rung.continues is None]
    assert len({here.key(record.parameters) for record in new}) == len(new)
    parameters = {record.index: record.parameters for record in records}
    continued = [(r.rung.continues, r) for r in records if r.rung is not None and r.rung.continues is not None]
    changed = [(source, record) for source, record in continued if record.parameters != parameters[source]]
    if strategy != "pbt":
        assert not changed
        assert len({source for source, _ in continued}) == len(continued)
    elif space not in {"finite", "single", "skewed"}:  # of which few configurations are near each other
        assert 0 < len(changed) < len(continued)
        assert len({(source, here.key(record.parameters)) for source, record in continued}) == len(continued)
    if space in {"finite", "single"}:
        assert len(new) <= {"finite": 28, "single": 1}[space]
    else:
        assert len(records) == TRIALS


@every_case
def test_the_order_in_which_it_heard_does_not_matter(strategy: str, space: str) -> None:
    definition = define(strategy, space)
    records = live(definition, 3)
    expected = started(definition, records).suggest(range(TRIALS, TRIALS + 3))
    shuffled = random.Random(1).sample(records, len(records))
    patient = create(definition)
    for record in shuffled:
        patient.update([record.model_copy(update={"state": "running", "metrics": None})])
        if record.index < 6:
            patient.suggest([record.index])
        patient.update([record])
    assert patient.suggest(range(TRIALS, TRIALS + 3)) == expected


@every_case
def test_several_at_a_time_are_as_one_by_one(strategy: str, space: str) -> None:
    definition = define(strategy, space)
    asked = started(definition, live(definition, 3))
    together = asked.suggest([TRIALS + 2, TRIALS, TRIALS + 1])
    alone = []
    for index in (TRIALS, TRIALS + 1, TRIALS + 2):
        for suggestion in asked.suggest([index]):
            alone.append(suggestion)
            asked.update([TrialRecord(index=index, parameters=dict(suggestion.parameters), rung=suggestion.rung)])
    assert sorted(together, key=lambda suggestion: suggestion.index) == alone
    assert asked.suggest([s.index for s in alone]) == alone


@every_model
def test_results_matter_and_so_does_the_seed(strategy: str) -> None:
    definition = define(strategy, "xgboost")
    records, some = live(definition, 1), range(TRIALS, TRIALS + 6)
    proposed = started(definition, records).suggest(some)
    upside_down = [
        r if r.metrics is None else r.model_copy(update={"metrics": {"loss": -r.metrics["loss"]}}) for r in records
    ]
    assert started(definition, upside_down).suggest(some) != proposed
    assert started(define(strategy, "xgboost", seed=12), records).suggest(some) != proposed
    assert started(define(strategy, "xgboost", objectives=[]), records).suggest(some) != proposed


@every_learner
def test_largest_and_smallest_are_each_others_mirror(strategy: str) -> None:
    records = live(define(strategy, "svm"), 1)
    mirrored = [
        r if r.metrics is None else r.model_copy(update={"metrics": {"loss": -r.metrics["loss"]}}) for r in records
    ]
    largest = define(strategy, "svm", objectives=[{"metric": "loss", "goal": "maximize"}])
    assert started(largest, mirrored).suggest([TRIALS]) == started(define(strategy, "svm"), records).suggest([TRIALS])


def history(definition: StudyDefinition, count: int, losses: Iterable[float | None]) -> list[TrialRecord]:
    """Random trials with these losses, over and over; None for one that failed."""
    drawn = create(
        definition.model_copy(update={"strategy": definition.strategy.model_copy(update={"name": "random"})})
    )
    cycle = list(losses)
    records = []
    for suggestion in drawn.suggest(range(count)):
        loss = cycle[suggestion.index % len(cycle)]
        state: State = "failed" if loss is None else "succeeded"
        metrics = None if loss is None else {"loss": loss, "memory": loss}
        records.append(
            TrialRecord(index=suggestion.index, parameters=suggestion.parameters, state=state, metrics=metrics)
        )
    return records


@every_learner
@pytest.mark.parametrize(
    "losses",
    [
        [1.0],
        [None],
        [None, None, None, None, 1.0],
        [0.0, 1e300, -1e300],
        [1e300],
        [5e-324, 0.0],
        [1.0, 1.0, 1.0, 1.0 + 1e-15],
    ],
    ids=str,
)
@pytest.mark.parametrize("space", ["network", "svm", "thousand"])
def test_whatever_the_results_it_goes_on(strategy: str, losses: list[float | None], space: str) -> None:
    bounded = [LOSS, {"metric": "memory", "atMost": 0.5}]
    for objectives in ([LOSS], bounded):
        definition = define(strategy, space, objectives=objectives)
        for count in (1, 12, 40):
            records, here = history(definition, count, losses), space_of(definition)
            (suggestion,) = started(definition, records).suggest([count])
            assert not here.problems(suggestion.parameters)
            assert here.key(suggestion.parameters) not in {here.key(record.parameters) for record in records}


@every_learner
def test_a_result_without_the_metric_is_a_failure(strategy: str) -> None:
    definition = define(strategy, "svm")
    records = history(definition, 40, [3.0, 1.0, 2.0])
    without = [r.model_copy(update={"metrics": {"accuracy": 1.0}}) if r.index % 3 else r for r in records]
    failed = [r.model_copy(update={"state": "failed", "metrics": None}) if r.index % 3 else r for r in records]
    assert started(definition, without).suggest([40]) == started(definition, failed).suggest([40])


@every_learner
def test_the_same_configuration_over_and_over_is_no_harm(strategy: str) -> None:
    definition = define(strategy, "xgboost")
    first, *_ = history(definition, 1, [0.0])
    records = [first.model_copy(update={"index": i, "metrics": {"loss": 0.1 * (i % 3)}}) for i in range(40)]
    (suggestion,) = started(definition, records).suggest([40])
    assert suggestion.parameters != first.parameters


SEVERAL = [LOSS, {"metric": "speed", "goal": "maximize"}, {"metric": "memory", "atMost": 0.9}]


def with_speed(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The same with a second objective that is at odds with the first."""
    return [
        r if r.metrics is None else r.model_copy(update={"metrics": {**r.metrics, "speed": r.metrics["loss"] ** 0.5}})
        for r in records
    ]


@pytest.mark.parametrize(("strategy", "space"), [(s, space) for s in WITH_FRONT for space in SPACES])
def test_several_objectives(strategy: str, space: str) -> None:
    definition = define(strategy, space, objectives=SEVERAL)
    records, here = with_speed(live(define(strategy, space), 3)), space_of(definition)
    asked = started(definition, records)
    proposed = asked.suggest(range(TRIALS, TRIALS + 3))
    assert not any(here.problems(suggestion.parameters) for suggestion in proposed)
    shuffled = random.Random(1).sample(records, len(records))
    assert started(definition, shuffled).suggest(range(TRIALS, TRIALS + 3)) == proposed


@every_with_front
def test_each_objective_matters(strategy: str) -> None:
    records = with_speed(live(define(strategy, "xgboost"), 1))
    proposed = started(define(strategy, "xgboost", objectives=SEVERAL), records).suggest([TRIALS])
    for metric in ("loss", "speed"):
        other_way = [
            r if r.metrics is None else r.model_copy(update={"metrics": {**r.metrics, metric: -r.metrics[metric]}})
            for r in records
        ]
        assert started(define(strategy, "xgboost", objectives=SEVERAL), other_way).suggest([TRIALS]) != proposed


@every_with_front
@pytest.mark.parametrize("goals", [2, 4])
@pytest.mark.parametrize("losses", [[1.0], [None, 1.0], [0.0, 1e300, -1e300], [5e-324, 0.0], [1.0, 2.0, 1e-9]], ids=str)
def test_whatever_the_results_of_several_objectives_it_goes_on(
    strategy: str, losses: list[float | None], goals: int
) -> None:
    objectives: list[dict[str, Any]] = [LOSS, {"metric": "memory", "goal": "maximize"}]
    objectives += [{"metric": f"loss{number}", "goal": "minimize"} for number in range(goals - 2)]
    definition = define(strategy, "xgboost", objectives=objectives)
    for count in (1, 12, 40):
        records, here = history(definition, count, losses), space_of(definition)
        more = [
            r if r.metrics is None else r.model_copy(update={"metrics": {**r.metrics, "loss0": r.index, "loss1": 7}})
            for r in records
        ]
        (suggestion,) = started(definition, more).suggest([count])
        assert not here.problems(suggestion.parameters)


@every_with_front
def test_a_thousand_trials_of_several_objectives(strategy: str) -> None:
    definition = define(strategy, "xgboost", objectives=SEVERAL)
    asked = started(definition, with_speed(history(definition, 1000, [3.0, 1.0, None, 2.0])))
    assert len(asked.suggest([1000, 1001])) == 2


@every_learner
def test_sixty_parameters(strategy: str) -> None:
    parameters = [{"name": f"x{i}", "double": {"min": 0, "max": 1}} for i in range(60)]
    definition = define(strategy, "svm", parameters=parameters)
    assert len(started(definition, history(definition, 50, [3.0, 1.0, 2.0])).suggest([50, 51])) == 2


@every_learner
def test_trials_of_another_space_teach_nothing(strategy: str) -> None:
    definition = define(strategy, "svm")
    records = live(definition, 1)
    foreign = TrialRecord(index=3, parameters={"depth": 4}, state="succeeded", metrics={"loss": -99.0})
    lost = foreign.model_copy(update={"parameters": {"C": 1.0, "gamma": 1.0}, "state": "unknown", "metrics": None})
    rest = [record for record in records if record.index != 3]
    asked = started(definition, [*rest, foreign])
    assert asked.suggest([TRIALS]) == started(definition, [*rest, lost]).suggest([TRIALS])
    assert asked.suggest([3])[0].parameters == {"depth": 4}


@every_learner
def test_a_trial_that_became_another_counts_as_it_is(strategy: str) -> None:
    definition = define(strategy, "svm")
    records = live(definition, 2)
    changed = records[4].model_copy(update={"parameters": {"C": 1.0, "gamma": 1.0}})
    late = started(definition, records)
    late.update([changed])
    now = [changed if record.index == 4 else record for record in records]
    assert late.suggest([4, TRIALS]) == started(definition, now).suggest([4, TRIALS])


@every_learner
def test_ten_thousand_trials(strategy: str) -> None:
    definition = define(strategy, "xgboost")
    asked = started(definition, history(definition, 10_000, [3.0, 1.0, None, 2.0]))
    assert len(asked.suggest(range(10_000, 10_004))) == 4
