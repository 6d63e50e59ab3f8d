"""A study in which nothing works pauses until it is mended, and a mere run of bad luck does not stop it."""

from typing import Any

import pytest
from operator_objects import NOW, Yard

from tuneyard_api.common import timestamp
from tuneyard_operator import blocking
from tuneyard_operator.actions import StartAttempt


def attempt(
    outcome: str = "ProgramFailed", *, seconds: float = 5, generation: int = 1, number: int = 0
) -> dict[str, Any]:
    return {
        "number": number,
        "outcome": outcome,
        "message": f"it is {outcome}",
        "generation": generation,
        "started": timestamp(NOW),
        "finished": timestamp(NOW + seconds),
    }


def failed(yard: Yard, *indices: int, phase: str = "Pending", **of: Any) -> Yard:
    """Trials whose first attempt failed, and that are to be tried again unless said otherwise."""
    for index in indices:
        yard.set(index, {"phase": phase, "attempt": 1, "attempts": [attempt(**of)]})
    return yard


def reason(yard: Yard) -> str | None:
    found = blocking.blocked(yard.state, yard.now)
    return found.reason if found else None


def busy(**trials: Any) -> Yard:
    return Yard(trials={"max": 6000, "parallel": 30, **trials}, retry={"limit": 3})


def test_five_trials_that_fail_are_enough() -> None:
    yard = failed(busy(), 0, 1, 2, 3)
    assert reason(yard) is None
    assert yard.wanted()
    failed(yard, 4)
    assert reason(yard) == "NoTrialSucceeds"
    assert yard.wanted() == []
    said = blocking.blocked(yard.state, yard.now)
    assert said is not None
    assert "5 trials have failed" in said.message
    assert "trial 4: it is ProgramFailed" in said.message
    assert "trials.pauseAfter" in said.message


def test_many_attempts_of_few_trials_are_not() -> None:
    yard = busy()
    attempts = [attempt(number=number) for number in range(4)]
    for index in range(4):
        yard.set(index, {"phase": "Failed", "attempt": 3, "attempts": attempts})
    assert reason(yard) is None


@pytest.mark.parametrize("outcome", ["BadMetrics", "OutOfMemory", "TimedOut"])
def test_trials_without_a_usable_result_count(outcome: str) -> None:
    assert reason(failed(busy(), *range(5), phase="Infeasible", outcome=outcome)) == "NoTrialSucceeds"


@pytest.mark.parametrize("outcome", ["Infrastructure", "Preempted", "Blocked", "OutOfMemory"])
def test_attempts_that_are_tried_again_by_no_fault_of_the_program_do_not(outcome: str) -> None:
    assert reason(failed(busy(), *range(9), outcome=outcome)) is None


def test_one_success_is_enough_to_go_on() -> None:
    yard = failed(busy(), *range(8)).ended(9)
    assert reason(yard) is None
    assert yard.wanted()


def test_one_that_was_stopped_early_has_a_result() -> None:
    yard = failed(busy(), *range(5))
    stopped = {"phase": "Stopped", "attempts": [attempt(outcome="EarlyStopped")]}
    assert reason(yard.set(7, stopped)) == "NoTrialSucceeds", "it was stopped with something else"
    assert reason(yard.set(8, {**stopped, "value": 0.5})) is None


def test_a_success_ends_the_pause() -> None:
    yard = failed(busy(), *range(5))
    assert reason(yard.runs(7)) == "NoTrialSucceeds"
    assert reason(yard.ended(7)) is None


@pytest.mark.parametrize(("others", "pauses"), [(5, True), (6, False)])
def test_most_of_those_that_run_must_have_failed(others: int, pauses: bool) -> None:
    yard = failed(busy(), *range(5)).runs(*range(5, 5 + others))
    assert (reason(yard) is not None) is pauses


def test_a_trial_that_lasts_speaks_for_the_program() -> None:
    yard = failed(busy(), *range(5), seconds=5).runs(7)
    assert reason(yard.tick(2 * 5 + 30)) == "NoTrialSucceeds"
    assert reason(yard.tick(1)) is None
    assert yard.wanted()


def test_any_change_of_the_spec_goes_on_and_counts_anew() -> None:
    yard = failed(busy(), *range(5)).edit(template={"spec": {"containers": [{"name": "train", "image": "train:2"}]}})
    assert reason(yard) is None
    assert yard.wanted()
    failed(yard, 5, 6, 7, 8, generation=2)
    assert reason(yard) is None, "those that began before the change do not count"
    assert reason(failed(yard, 9, generation=2)) == "NoTrialSucceeds"


@pytest.mark.parametrize(("after", "pauses"), [(0, False), (1, True), (6, True), (7, False)])
def test_how_many_is_for_the_study_to_say(after: int, pauses: bool) -> None:
    assert (reason(failed(busy(pauseAfter=after), *range(6))) is not None) is pauses


def test_what_failed_before_a_run_by_hand_is_forgiven() -> None:
    yard = busy()
    yard.state.forgiven = NOW + 10
    assert reason(failed(yard, *range(9), seconds=5)) is None
    assert reason(failed(yard, *range(9, 14), seconds=15)) == "NoTrialSucceeds"


def test_a_place_is_given_back_once_the_scheduler_can_know() -> None:
    yard = failed(busy(), *range(5)).placed(7)
    assert not any(isinstance(action, StartAttempt) for action in yard.plan())
    assert yard.state.status_written is not None
    assert yard.state.status_written["phase"] == "Blocked"
    patch = yard.tick(1).write()
    assert (patch["phase"], patch["attempt"], patch["attempts"][0]["outcome"]) == ("Pending", 1, "Blocked")


def test_an_attempt_says_of_which_spec_it_was() -> None:
    yard = busy().runs(0, generation=1).edit(suspend=False)
    yard.sees(0, "ended", exit_code=1, generation=1, started=NOW, finished=NOW + 3)
    assert yard.write()["attempts"][0]["generation"] == 1


def test_too_many_failures_still_end_the_study() -> None:
    yard = failed(busy(maxFailed=4), *range(5), phase="Failed")
    assert yard.end() == ("Failed", "TooManyFailed")
