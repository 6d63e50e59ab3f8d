"""Trials that are judged by their curves: asked about once, stopped by one write, and what they count as."""

from typing import Any

import pytest
from operator_objects import NOW, Yard
from operator_stage import Stage

from tuneyard_operator.actions import StopAttempt, WriteTrial
from tuneyard_operator.attempts import AttemptSeen
from tuneyard_operator.metrics import MAX_POINTS, Reports
from tuneyard_operator.strategy_client import StrategyError
from tuneyard_operator.world import WorldError
from tuneyard_strategy.contract import TrialRecord
from tuneyard_strategy.stopping import Verdict

ASHA: dict[str, Any] = {"strategy": {"name": "asha"}, "fidelity": {"parameter": "epochs", "min": 1, "max": 9}}
RUNS = AttemptSeen(0, "running", "n1", NOW)
STOP = Verdict(index=0, stop=True, fidelity=3, value=0.25, message="others do better")


def stage(*indices: int, **spec: Any) -> Stage:
    made = Stage(**{**ASHA, **spec})
    for index in indices or (0,):
        made.put(index)
        made.state.set_attempt(index, RUNS, made.world.time)
    made.plan()
    return made


def report(made: Stage, index: int, *values: float, first: int = 0) -> None:
    for step, value in enumerate(values, first):
        assert made.state.add_report(index, 0, step, {"accuracy": value, "loss": 1.0})


async def test_a_trial_is_judged_when_it_reaches_a_rung_and_the_verdict_is_recorded() -> None:
    made = stage()
    assert not made.state.to_judge
    report(made, 0, 0.5)
    assert made.state.to_judge == {0}
    await made.engine.judge(made.state)
    assert not made.state.to_judge
    assert await made.do() == [("patch", 0)]
    status = made.world.trials["s-0"]["status"]
    assert status["judged"] == 1
    assert status["curve"] == [{"step": 0, "metrics": {"accuracy": 0.5, "loss": 1.0}}]
    report(made, 0, 0.6, first=1)
    assert not made.state.to_judge, "two epochs are no rung"
    report(made, 0, 0.7, first=2)
    assert made.state.to_judge == {0}


async def test_one_write_ends_a_trial_and_its_attempt_is_then_a_stray() -> None:
    made = stage()
    report(made, 0, 0.1, 0.2, 0.25)
    made.state.trials[0].verdict = STOP
    made.state.touched.add(0)
    [write] = made.plan()
    assert isinstance(write, WriteTrial)
    await made.engine.perform(made.state, write)
    status = made.world.trials["s-0"]["status"]
    assert (status["phase"], status["reason"], status["message"]) == ("Stopped", "EarlyStopped", "others do better")
    assert (status["value"], status["observation"]["metrics"]) == (0.25, {"accuracy": 0.25, "loss": 1.0})
    assert status["judged"] == 3
    assert len(status["curve"]) == 3
    [attempt] = status["attempts"]
    assert (attempt["outcome"], attempt["reason"], attempt["gpus"]) == ("EarlyStopped", "EarlyStopped", 1)
    assert made.plan() == [StopAttempt(0, 0)]


async def test_a_crash_between_the_write_and_the_stop_loses_nothing() -> None:
    """The next process lists a trial that has ended, and a pod of it that lives."""
    made = Stage(**ASHA).put(0, phase="Stopped", reason="EarlyStopped", value=0.25)
    made.state.set_attempt(0, RUNS, made.world.time)
    assert made.plan() == [StopAttempt(0, 0)]


async def test_a_program_that_has_ended_before_the_verdict_has_its_result() -> None:
    made = stage()
    report(made, 0, 0.1, 0.2, 0.25)
    made.state.trials[0].verdict = STOP
    made.state.set_attempt(0, AttemptSeen(0, "ended", exit_code=0, termination='{"accuracy": 0.9}'), NOW)
    await made.do()
    status = made.world.trials["s-0"]["status"]
    assert (status["phase"], status["value"]) == ("Succeeded", 0.9)


async def test_one_stopped_early_counts_as_a_trial_never_as_failed_and_never_is_the_best() -> None:
    yard = Yard(**ASHA, trials={"max": 2, "parallel": 1, "maxFailed": 0})
    yard.set(0, {"phase": "Stopped", "value": 0.99, "observation": {"metrics": {"accuracy": 0.99}}, "judged": 3})
    assert yard.state.best is None
    yard.ended(1, value=0.5)
    assert yard.state.best is yard.state.trials[1]
    assert yard.state.ended == 2
    assert yard.end() == ("Complete", "MaxTrialsReached")
    only_stopped = Yard(**ASHA, trials={"max": 9, "parallel": 1, "maxFailed": 0})
    only_stopped.set(0, {"phase": "Stopped", "value": 0.9}).ended(1, phase="Infeasible")
    assert only_stopped.end() is None, "there is a result, though of less than all"


def test_the_best_is_the_best_of_those_that_ran_for_most_of_the_fidelity() -> None:
    yard = Yard(**{**ASHA, "strategy": {"name": "hyperband"}})
    for index, (fidelity, value) in enumerate([(1, 0.9), (3, 0.7), (3, 0.8), (1, 0.95)]):
        yard.ended(index, value=value)
        yard.version += 1
        item = yard.objects[index]
        item["spec"] = {**item["spec"], "rung": {"fidelity": fidelity, "level": 0, "bracket": 0}}
        item["metadata"]["resourceVersion"] = str(yard.version)
        yard.state.set_trial(item, yard.now)
    assert yard.state.best is yard.state.trials[2]


async def test_trials_whose_being_let_go_on_is_not_on_record_yet_are_judged_along() -> None:
    made = stage(0, 1)
    asked: list[list[int]] = []

    async def judge(_: Any, running: list[TrialRecord]) -> list[Verdict]:
        asked.append([record.index for record in running])
        return [Verdict(index=record.index, stop=False, fidelity=1, value=0.5) for record in running]

    made.strategies.judge = judge  # type: ignore[method-assign]
    report(made, 0, 0.5)
    await made.engine.judge(made.state)
    report(made, 1, 0.4)
    await made.engine.judge(made.state)
    assert asked == [[0], [0, 1]]


async def test_without_an_answer_the_trials_are_still_to_be_judged() -> None:
    made = stage()

    async def judge(*_: Any) -> Any:
        raise StrategyError("down")

    made.strategies.judge = judge  # type: ignore[method-assign]
    report(made, 0, 0.5)
    with pytest.raises(WorldError, match="down"):
        await made.engine.judge(made.state)
    assert made.state.to_judge == {0}


async def test_a_retry_is_judged_from_the_next_rung_on_and_its_old_curve_is_forgotten() -> None:
    made = stage()
    report(made, 0, 0.5)
    await made.engine.judge(made.state)
    await made.do()
    assert made.state.history[-1].curve == [(1, 0.5)]
    made.state.set_attempt(0, AttemptSeen(0, "ended", exit_code=1, reason="Error"), NOW)
    await made.do()
    assert made.world.trials["s-0"]["status"]["attempt"] == 1
    assert made.state.history[-1].curve == []
    made.put(0, attempt=1, judged=1)
    made.state.set_attempt(0, AttemptSeen(1, "running", "n1", NOW), NOW)
    assert made.state.add_report(0, 1, 0, {"accuracy": 0.1})
    assert not made.state.to_judge
    assert made.state.add_report(0, 1, 2, {"accuracy": 0.1})
    assert made.state.to_judge == {0}


def test_the_median_rule_hears_of_every_step_after_the_warm_up() -> None:
    made = stage(strategy={"name": "random"}, fidelity=None, earlyStopping={"warmup": 2})
    report(made, 0, 0.5)
    assert not made.state.to_judge
    report(made, 0, 0.5, first=1)
    assert made.state.to_judge == {0}


@pytest.mark.parametrize(("first", "fidelities"), [(0, [1, 3, 4]), (1, [1, 3])])
def test_what_the_first_step_is_called_is_the_users_business(first: int, fidelities: list[int]) -> None:
    yard = Yard(**{**ASHA, "fidelity": {**ASHA["fidelity"], "firstStep": first}})
    points = [{"step": step, "metrics": {"accuracy": 0.5}} for step in range(4)]
    watch = yard.state.watch
    assert watch is not None
    assert [done for done, _ in watch.curve(points)] == fidelities


def test_a_study_that_stops_nobody_has_no_watch() -> None:
    assert Yard().state.watch is None
    assert Yard(**{**ASHA, "strategy": {"name": "hyperband"}}).state.watch is None


def test_a_thinned_curve_keeps_the_points_of_all_rungs() -> None:
    reports = Reports(marks=(0, 2, 8, 26, 80, 242))
    for step in range(1000):
        reports.add(step, {"loss": 1.0 / (step + 1)})
    steps = [point["step"] for point in reports.curve()]
    assert {0, 2, 8, 26, 80, 242} <= set(steps)
    assert len(steps) < MAX_POINTS
    assert steps == sorted(steps)
    assert reports.curve_to_now()[-1]["step"] == 999
    resumed = Reports.resumed(reports.curve(), reports.marks)
    assert {0, 2, 8, 26, 80, 242} <= {point["step"] for point in resumed.curve()}


def test_programs_that_skip_steps_keep_the_first_report_beyond_each_rung() -> None:
    reports = Reports(marks=(0, 2, 8, 26))
    for step in range(4, 400, 5):
        reports.add(step, {"loss": 1.0})
    assert {4, 9, 29} <= {point["step"] for point in reports.curve()}
