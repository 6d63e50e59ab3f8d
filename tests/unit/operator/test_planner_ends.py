"""How a study ends, and which trials it wants next."""

import pytest
from operator_objects import NOW, Yard

from tuneyard_api.common import micro_timestamp, timestamp

# The end of a study ----------------------------------------------------------------------------------------------


def test_a_study_without_a_reason_goes_on() -> None:
    yard = Yard(trials={"max": 3, "maxFailed": 1}).ended(0).ended(1, phase="Failed").pending(2)
    assert yard.end() is None
    assert Yard().end() is None


@pytest.mark.parametrize("last", ["Succeeded", "Failed", "Infeasible", "Stopped"])
def test_all_trials_have_ended(last: str) -> None:
    yard = Yard(trials={"max": 2}).ended(0)
    assert yard.end() is None
    assert yard.runs(1).end() is None
    assert yard.ended(1, phase=last).end() == ("Complete", "MaxTrialsReached")


def test_a_raised_maximum_resumes_a_study() -> None:
    yard = Yard(trials={"max": 2}).ended(0, 1)
    assert yard.edit(trials={"max": 3}).end() is None
    assert yard.wanted() == [2]


def test_a_hole_keeps_a_study_from_its_end() -> None:
    yard = Yard(trials={"max": 2}).ended(0, 1)
    yard.state.remove_trial(yard.objects[0])
    assert yard.end() is None
    assert yard.wanted() == [0]


def test_an_exhausted_space_ends_a_study() -> None:
    yard = Yard(trials={"max": 5}).ended(0).pending(1)
    yard.state.exhausted_from = 2
    assert yard.end() is None
    assert yard.ended(1).end() == ("Complete", "SpaceExhausted")
    assert yard.edit(trials={"max": 6}).end() is None, "another spec, another space"


def test_a_manual_study_ends_with_its_list() -> None:
    initial = [{"lr": 0.1}, {"lr": 0.2}]
    yard = Yard(strategy={"name": "manual"}, initial=initial, trials={"max": None, "parallel": 9})
    assert yard.wanted() == [0, 1]
    assert yard.ended(0).end() is None
    assert yard.ended(1).end() == ("Complete", "SpaceExhausted")


@pytest.mark.parametrize(
    ("goal", "target", "value", "reached"),
    [
        ("maximize", 0.9, 0.9, True),
        ("maximize", 0.9, 0.95, True),
        ("maximize", 0.9, 0.89, False),
        ("minimize", 0.1, 0.1, True),
        ("minimize", 0.1, 0.05, True),
        ("minimize", 0.1, 0.11, False),
    ],
)
def test_the_target(goal: str, target: float, value: float, reached: bool) -> None:
    yard = Yard(objectives=[{"metric": "accuracy", "goal": goal, "target": target}]).ended(0, value=value)
    assert yard.end() == (("Complete", "TargetReached") if reached else None)


def test_a_target_that_breaks_a_bound_is_not_reached() -> None:
    objectives = [{"metric": "accuracy", "goal": "maximize", "target": 0.9}, {"metric": "size", "atMost": 3.0}]
    yard = Yard(objectives=objectives).ended(0, value=0.95, size=4.0)
    assert yard.end() is None
    assert yard.ended(1, value=0.92, size=3.0).end() == ("Complete", "TargetReached")


def test_of_several_targets_one_trial_reaches_all() -> None:
    objectives = [
        {"metric": "accuracy", "goal": "maximize", "target": 0.9},
        {"metric": "size", "goal": "minimize", "target": 3.0},
        {"metric": "speed", "goal": "maximize"},
    ]
    yard = Yard(objectives=objectives).ended(0, value=0.95, size=4, speed=1).ended(1, value=0.7, size=1, speed=9)
    assert yard.end() is None
    assert yard.ended(2, value=0.9, size=3, speed=0).end() == ("Complete", "TargetReached")
    yard.state.remove_trial(yard.objects[2])
    assert yard.end() is None


def test_the_duration_counts_from_the_first_trial() -> None:
    yard = Yard(maxDuration="10m").tick(3600)
    assert yard.end() is None, "no trial, no beginning"
    yard = Yard(maxDuration="10m").pending(0)
    assert yard.tick(599).end() is None
    assert yard.tick(1).end() == ("Complete", "MaxDurationReached")
    assert yard.edit(maxDuration="11m").end() is None


def test_after_a_restart_it_still_does_though_that_trial_is_gone() -> None:
    yard = Yard(maxDuration="10m", status={"startTime": timestamp(NOW - 590)}).pending(1)
    assert yard.end() is None
    assert yard.tick(10).end() == ("Complete", "MaxDurationReached")


def test_too_many_failures_end_a_study_until_more_are_allowed() -> None:
    yard = Yard(trials={"maxFailed": 2}).ended(0).ended(1, 2, phase="Failed").ended(3, 4, 5, phase="Infeasible")
    assert yard.end() is None
    assert yard.ended(6, phase="Failed").end() == ("Failed", "TooManyFailed")
    assert yard.edit(trials={"maxFailed": 3}).end() is None


def test_an_ended_study_keeps_its_reason() -> None:
    yard = Yard(trials={"max": 1, "parallel": 1}, maxDuration="1m").ended(0)
    assert yard.end() == ("Complete", "MaxTrialsReached")
    assert yard.tick(3600).end() == ("Complete", "MaxDurationReached"), "nobody has been told of another yet"
    told = Yard(
        trials={"max": 1, "parallel": 1}, maxDuration="1m", status={"phase": "Complete", "reason": "MaxTrialsReached"}
    )
    assert told.ended(0).tick(3600).end() == ("Complete", "MaxTrialsReached")


# What is wanted ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trials", "learns", "count"),
    [
        ({"max": 100, "parallel": 4}, False, 8),
        ({"max": 100, "parallel": 4}, True, 6),
        ({"max": 100, "parallel": 1}, True, 2),
        ({"max": 1000, "parallel": 100}, False, 164),
        ({"max": 1000, "parallel": 500}, False, 200),
        ({"max": 3, "parallel": 3}, False, 3),
        ({"max": 100, "parallel": 0}, False, 0),
    ],
)
def test_parallel_and_a_look_ahead_are_wanted(trials: dict[str, int], learns: bool, count: int) -> None:
    assert Yard(trials=trials).wanted(learns=learns) == list(range(count))


def test_trials_that_wait_or_run_count_and_ended_ones_do_not() -> None:
    yard = Yard(trials={"max": 100, "parallel": 3}).ended(0, 1, 2).pending(3).placed(4).runs(5)
    assert yard.wanted() == [6, 7, 8]


def test_a_trial_that_backs_off_leaves_its_slot_to_another_one() -> None:
    later = micro_timestamp(NOW + 60)
    yard = Yard(trials={"max": 100, "parallel": 2}).pending(0, 1, attempt=1, notBefore=later).pending(2, 3)
    assert yard.wanted() == [4, 5]
    assert yard.tick(60).wanted() == [], "they are back"


def test_many_trials_that_back_off_hold_new_ones_back() -> None:
    later = micro_timestamp(NOW + 60)
    yard = Yard(trials={"max": 100, "parallel": 2}).pending(*range(6), attempt=1, notBefore=later)
    assert yard.wanted() == []


def test_a_strategy_that_waits_is_asked_again_when_a_trial_has_ended_or_was_deleted() -> None:
    yard = Yard().placed(0, 1)
    yard.state.waits_since = len(yard.state.history)
    assert yard.wanted(learns=True) == []
    assert yard.ended(0).wanted(learns=True) == [2, 3, 4]
    yard.state.waits_since = len(yard.state.history)
    assert yard.wanted(learns=True) == []
    yard.state.remove_trial(yard.objects[1])
    assert yard.wanted(learns=True)[0] == 1, "nothing else may ever end"


def test_holes_are_filled_first() -> None:
    yard = Yard(trials={"max": 9, "parallel": 2}).pending(5)
    assert yard.wanted() == [0, 1, 2]
    yard = Yard(trials={"max": 9, "parallel": 4}).ended(0, 1, 2, 3, 4)
    for index in (1, 3):
        yard.state.remove_trial(yard.objects[index])
    assert yard.wanted() == [1, 3, 5, 6, 7, 8]
    assert yard.edit(trials={"max": 4}).wanted() == [1, 3], "what is over the maximum stays as it is"


def _stuck(yard: Yard) -> Yard:
    return yard.placed(0).sees(0, "waiting", reason="ImagePullBackOff", message="no such tag").tick(5)


def test_what_keeps_a_study_from_new_trials() -> None:
    assert Yard(suspend=True).wanted() == []
    assert Yard(suspend=True).edit(suspend=False).wanted() == [0, 1, 2, 3]
    invalid = Yard()
    invalid.state.spec_problem = "template: no"
    assert invalid.wanted() == []
    assert _stuck(Yard()).wanted() == []
    assert _stuck(Yard()).sees(0, "running").wanted() == [1, 2, 3]
    leaving = Yard()
    leaving.state.deleting = True
    assert leaving.wanted() == []
    assert Yard(trials={"max": 1, "parallel": 1}).ended(0).wanted() == []
    exhausted = Yard().ended(0)
    exhausted.state.exhausted_from = 2
    assert exhausted.wanted() == [1]
