"""Which trials are stopped: asha's and the median rule's decisions, by hand and against plain counts."""

import random
from typing import Any

import pytest

from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.stopping import Judge, Verdict, decision_points, value_at

X = {"name": "x", "double": {"min": 0, "max": 1}}
FIDELITY = {"parameter": "epochs", "min": 1, "max": 81}


def define(goal: str = "minimize", strategy: str = "asha", **more: Any) -> StudyDefinition:
    document = {
        "parameters": [X],
        "objectives": [{"metric": "loss", "goal": goal}],
        "strategy": {"name": strategy},
        "fidelity": FIDELITY,
        **more,
    }
    return StudyDefinition.model_validate(document)


def trial(index: int, *values: float, state: str = "running", judged: int | None = None) -> TrialRecord:
    """A trial with a value after each epoch."""
    curve = [(epoch, value) for epoch, value in enumerate(values, 1)]
    return TrialRecord.model_validate(
        {"index": index, "parameters": {"x": 0.5}, "state": state, "curve": curve, "judged": judged}
    )


def verdicts(judge: Judge, *running: TrialRecord) -> dict[int, bool]:
    return {verdict.index: verdict.stop for verdict in judge.judge(running)}


def test_the_first_goes_on_the_next_only_if_it_is_better() -> None:
    judge = Judge(define())
    assert verdicts(judge, trial(0, 0.5)) == {0: False}
    judge.update([trial(0, 0.5, judged=1)])
    assert verdicts(judge, trial(1, 0.6)) == {1: True}
    assert verdicts(judge, trial(1, 0.4)) == {1: False}


def test_more_is_better_where_the_goal_says_so() -> None:
    judge = Judge(define("maximize"))
    judge.update([trial(0, 0.5, judged=1)])
    assert verdicts(judge, trial(1, 0.6)) == {1: False}
    assert verdicts(judge, trial(1, 0.4)) == {1: True}


def test_of_nine_that_reached_a_rung_the_best_three_go_on() -> None:
    judge = Judge(define())
    judge.update([trial(index, index / 10, state="stopped") for index in range(8)])
    for value, stop in ((0.15, False), (0.19, False), (0.21, True), (0.9, True)):
        assert verdicts(judge, trial(8, value)) == {8: stop}


def test_trials_that_are_judged_together_count_for_each_other() -> None:
    running = [trial(index, value) for index, value in enumerate((0.3, 0.1, 0.2))]
    assert verdicts(Judge(define()), *running) == {0: True, 1: False, 2: True}


def test_of_equal_trials_the_earlier_one_goes_on() -> None:
    assert verdicts(Judge(define()), trial(3, 0.5), trial(2, 0.5)) == {3: True, 2: False}


def test_between_rungs_and_after_a_verdict_there_is_nothing_to_say() -> None:
    judge = Judge(define())
    assert judge.judge([trial(0, 0.5, 0.4, judged=1)]) == []
    assert judge.judge([trial(0)]) == []
    (verdict,) = judge.judge([trial(0, 0.5, 0.4, 0.3, judged=1)])
    assert (verdict.fidelity, verdict.value) == (3, 0.3)


def test_the_value_at_a_rung_is_the_first_report_at_or_beyond_it() -> None:
    curve = [(2, 0.5), (4, 0.4), (6, 0.3)]
    assert [value_at(curve, point) for point in (1, 2, 3, 6, 7)] == [0.5, 0.5, 0.4, 0.3, None]


def test_why_it_is_stopped_is_one_sentence() -> None:
    judge = Judge(define())
    judge.update([trial(index, 0.1 * index, 0.1, 0.1 + index / 100) for index in range(3)])
    (verdict,) = judge.judge([trial(9, 0.9, 0.9, 0.75, judged=1)])
    assert verdict == Verdict(
        index=9,
        stop=True,
        fidelity=3,
        value=0.75,
        message="0.75 at fidelity 3 is number 4 of the 4 trials that came so far; asha lets the best one in 3 go on",
    )


def test_asha_that_resumes_and_the_brackets_stop_nobody() -> None:
    resumes = define(fidelity={**FIDELITY, "resume": True})
    for definition in (resumes, define(strategy="hyperband"), define(strategy="tpe")):
        assert decision_points(definition) == ()
        assert Judge(definition).judge([trial(0, 0.5)]) == []
    assert decision_points(define()) == (1, 3, 9, 27)


@pytest.mark.parametrize("seed", range(5))
def test_a_study_keeps_as_many_on_each_rung_as_the_rule_says(seed: int) -> None:
    """Trials one after the other; each decision is compared with a count over all that is known."""
    chance, judge, reached = random.Random(seed), Judge(define()), {1: [], 3: [], 9: [], 27: []}  # type: ignore[var-annotated]
    for index in range(60):
        curve = [chance.random() for _ in range(81)]
        judged = None
        for point, values in reached.items():
            values.append(curve[point - 1])
            now = trial(index, *curve[:point], judged=judged)
            (verdict,) = judge.judge([now])
            rank = sum(value < curve[point - 1] for value in values)
            assert verdict.stop == (rank >= max(1, len(values) // 3))
            judged = point
            state = "stopped" if verdict.stop else "running"
            judge.update([trial(index, *curve[:point], judged=judged, state=state)])
            if verdict.stop:
                break
    assert len(reached[1]) == 60
    assert len(reached[27]) < len(reached[9]) < len(reached[3]) < 60 / 1.5


MEDIAN = {"earlyStopping": {"rule": "median", "warmup": 2, "minTrials": 3}}


def with_ended(*curves: list[float], state: str = "succeeded") -> Judge:
    judge = Judge(define(strategy="sobol", **MEDIAN))
    judge.update([trial(index, *curve, state=state) for index, curve in enumerate(curves)])
    return judge


def test_a_trial_that_is_worse_than_the_median_of_averages_is_stopped() -> None:
    """Averages up to the second step: 0.5, 0.6, 0.7."""
    judge = with_ended([0.6, 0.4], [0.7, 0.5], [0.8, 0.6])
    (verdict,) = judge.judge([trial(5, 0.9, 0.61)])
    assert verdict.message == (
        "its best value up to step 2, 0.61, is worse than 0.6, the median of what 3 ended trials had on average up to "
        "there"
    )
    assert judge.judge([trial(5, 0.9, 0.6)]) == [], "as good is not worse"
    assert judge.judge([trial(5, 0.3, 0.9)]) == [], "its best counts, not its last"


def test_the_median_waits_for_the_warm_up_and_for_enough_trials() -> None:
    judge = with_ended([0.1, 0.1], [0.1, 0.1], [0.1, 0.1])
    assert judge.judge([trial(5, 0.9)]) == []
    assert verdicts(judge, trial(5, 0.9, 0.9)) == {5: True}
    assert judge.judge([trial(5, 0.9, 0.9, 0.9)]) == [], "none of them came so far"
    assert with_ended([0.1, 0.1], [0.1, 0.1]).judge([trial(5, 0.9, 0.9)]) == []


def test_those_that_were_stopped_count_as_far_as_they_came() -> None:
    assert verdicts(with_ended([0.1, 0.1], [0.1, 0.1], [0.1, 0.1], state="stopped"), trial(5, 0.9, 0.9)) == {5: True}
    assert with_ended([0.1, 0.1], [0.1, 0.1], [0.1, 0.1], state="failed").judge([trial(5, 0.9, 0.9)]) == []


def test_asha_and_the_median_together() -> None:
    judge = Judge(define(earlyStopping={"warmup": 1, "minTrials": 1}))
    judge.update([trial(0, 0.2, state="succeeded")])
    (verdict,) = judge.judge([trial(1, 0.3)])
    assert "asha" in verdict.message, "the first rule that stops it says why"
    (verdict,) = judge.judge([trial(1, 0.1)])
    assert not verdict.stop
