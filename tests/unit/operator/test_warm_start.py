"""Warm start: which earlier trials count, what people are told, and what becomes of it when the earlier study goes."""

from __future__ import annotations

from typing import Any

from operator_objects import NOW, Object, study
from operator_stage import Stage

from tuneyard_api.common import timestamp


def ended(index: int, lr: float, accuracy: float | None, *, at: float = NOW - 60, **more: Any) -> Object:
    phase = "Failed" if accuracy is None else "Succeeded"
    status: Object = {"phase": phase, "completionTime": timestamp(at)}
    if accuracy is not None:
        status["observation"] = {"metrics": {"accuracy": accuracy}}
    status |= more
    return {"spec": {"index": index, "parameters": {"lr": lr}}, "status": status}


FROM_OLD = {"strategy": {"name": "tpe"}, "warmStart": [{"study": "old"}]}


def stage(**spec: Any) -> Stage:
    return Stage(checked=False, **{**FROM_OLD, **spec})


def condition(on: Stage) -> Object | None:
    status = next(a.status for a in on.engine.plan(on.state) if hasattr(a, "status") and "conditions" in a.status)
    return next((entry for entry in status["conditions"] if entry["type"] == "WarmStarted"), None)


async def test_the_trials_that_had_ended_when_the_study_was_created_count() -> None:
    on = stage()
    on.world.earlier["old"] = [
        ended(2, 0.5, None),
        ended(0, 0.1, 0.9),
        ended(1, 0.2, 0.8, at=NOW + 1),
        ended(3, 7.0, 0.9),
        {"spec": {"index": 4, "parameters": {"lr": 0.3}}, "status": {"phase": "Running"}},
        ended(5, 0.4, 0.5, observation={"metrics": {"loss": 1.0}}),
    ]
    await on.engine.supply(on.state)
    found = [(trial.parameters, trial.metrics) for trial in on.state.warm_start.earlier]
    assert found == [({"lr": 0.1}, {"accuracy": 0.9}), ({"lr": 0.5}, None)]
    told = condition(on)
    assert told is not None
    assert (told["status"], told["reason"]) == ("True", "Observed")
    assert told["message"] == (
        "2 of 4 earlier observations count; left out: 1 (another range of lr), 1 (no metric accuracy)"
    )


async def test_they_shape_what_is_proposed_and_are_not_counted() -> None:
    table = [{"parameters": {"lr": 0.03 + i / 1000}, "metrics": {"accuracy": 0.9}} for i in range(10)]
    table += [{"parameters": {"lr": 0.5 + i / 100}, "metrics": {"accuracy": 0.1}} for i in range(40)]
    on, cold = stage(warmStart=[{"observations": table}]), stage(warmStart=[])
    assert await on.engine.supply(on.state)
    assert await cold.engine.supply(cold.state)
    assert len(on.state.trials) == len(cold.state.trials) > 0
    assert on.state.best is None
    answers = [(await some.strategies.ask(some.state, [5])).configurations for some in (on, cold)]
    assert answers[0] != answers[1]
    assert condition(cold) is None


async def test_a_name_that_no_study_has_blocks_until_it_is_corrected() -> None:
    on = stage()
    assert await on.engine.supply(on.state) is False
    assert on.state.spec_problem == (
        "warmStart[0].study: there is no study 'old' in this namespace; correct the name, or leave the entry out"
    )
    assert on.state.trials == {}


async def test_one_that_comes_later_lets_it_go_on_with_nothing_to_learn() -> None:
    on = stage()
    await on.engine.supply(on.state)
    on.world.earlier["old"] = [ended(0, 0.1, 0.9, at=NOW + 5)]
    on.engine.set_study({**study(), "metadata": {**on.state.object["metadata"], "name": "old", "uid": "u-old"}})
    assert await on.engine.supply(on.state)
    assert (on.state.spec_problem, on.state.warm_start.reason) == (None, "NothingFound")


async def test_when_the_earlier_study_is_deleted_it_counts_no_more_and_the_study_goes_on() -> None:
    on = stage()
    on.world.earlier["old"] = [ended(i, 0.01 * (i + 1), 0.5) for i in range(8)]
    other = on.engine.set_study({**study(), "metadata": {**on.state.object["metadata"], "name": "old", "uid": "u-old"}})
    await on.engine.supply(on.state)
    assert len(on.state.warm_start.earlier) == 8
    del on.world.earlier["old"]
    on.engine.remove_study(other.uid)
    on.put(0, "Succeeded")
    await on.engine.supply(on.state)
    assert on.state.warm_start.earlier == ()
    assert on.state.spec_problem is None
    told = condition(on)
    assert told is not None
    assert (told["status"], told["reason"]) == ("False", "StudyGone")
    assert "study old is gone" in told["message"]


async def test_a_restart_finds_the_same() -> None:
    answers = []
    for _ in range(2):
        on = stage()
        on.world.earlier["old"] = [ended(i, 0.01 * (i + 1), 0.5 + i / 100) for i in range(8)]
        await on.engine.supply(on.state)
        answers.append((await on.strategies.ask(on.state, [5, 6])).configurations)
    assert answers[0] == answers[1]
