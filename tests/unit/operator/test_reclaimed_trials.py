"""A trial whose place the scheduler takes back: told to end, recorded when it has, tried again for free."""

from dataclasses import replace
from typing import Any

import pytest
from operator_stage import Stage

from tuneyard_operator.actions import StopAttempt, WriteTrial
from tuneyard_operator.attempts import AttemptSeen
from tuneyard_operator.planner import STOP_SECONDS

TOLD = {"queue": "vision", "trial": "team/other-3", "gpus": 1}
PLACE = {"attempt": 0, "node": "n1", "gpus": 1, "resource": "nvidia.com/gpu", "reclaim": TOLD}
RUNS = AttemptSeen(0, "running", "n1", 5.0)
ENDED = AttemptSeen(0, "ended", "n1", 5.0, 9.0, exit_code=143, reason="Error", disrupted=True)


def stage(seen: AttemptSeen | None = RUNS, **status: Any) -> Stage:
    made = Stage(objectives=[{"metric": "acc", "goal": "maximize"}]).put(0, placement=PLACE, **status)
    if seen is not None:
        made.state.set_attempt(0, seen, made.world.time)
    return made


def test_it_is_told_to_end_until_it_shows_that_it_was() -> None:
    made = stage()
    assert made.plan() == [StopAttempt(0, 0)]
    assert made.plan() == []
    made.world.time += STOP_SECONDS
    assert made.plan() == [StopAttempt(0, 0)]
    made.state.set_attempt(0, replace(RUNS, disrupted=True), made.world.time)
    made.world.time += 60
    assert made.plan() == [], "it has its grace period"


@pytest.mark.parametrize("exit_code", [143, 1, 0], ids=["killed", "failed", "saved and left"])
async def test_its_end_is_a_free_retry_whatever_the_program_made_of_it(exit_code: int) -> None:
    made = stage(replace(ENDED, exit_code=exit_code, termination='{"acc": 0.5}'))
    await made.do()
    status = made.world.trials["s-0"]["status"]
    assert (status["phase"], status["attempt"], status["reason"]) == ("Pending", 1, "Reclaimed")
    assert "notBefore" not in status
    assert "placement" not in status
    [attempt] = status["attempts"]
    assert (attempt["outcome"], attempt["node"]) == ("Preempted", "n1")
    assert status["message"] == (
        "gave its GPUs back for trial team/other-3 of GpuQueue 'vision', which is guaranteed them"
    )


async def test_one_that_had_ended_before_it_was_told_has_its_result() -> None:
    made = stage(replace(ENDED, exit_code=0, disrupted=False, termination='{"acc": 0.5}'))
    await made.do()
    assert made.world.trials["s-0"]["status"]["phase"] == "Succeeded"


async def test_one_that_never_was_seen_is_recorded_at_once_and_stopped_should_it_come() -> None:
    made = stage(None)
    assert [type(action) for action in made.plan()] == [WriteTrial]
    made = stage(None)
    await made.do()
    assert made.world.trials["s-0"]["status"]["attempt"] == 1
    made.state.set_attempt(0, RUNS, made.world.time)
    assert made.plan() == [StopAttempt(0, 0)]


def test_it_is_not_started_any_more() -> None:
    made = stage(None)
    assert not any(action for action in made.plan() if "Start" in type(action).__name__)


def test_a_study_that_ends_stops_it_for_good() -> None:
    made = stage()
    made.state.set_study(
        {
            **made.state.object,
            "spec": {**made.state.object["spec"], "maxDuration": "1s"},
            "metadata": {**made.state.object["metadata"], "generation": 2, "resourceVersion": "9999"},
        }
    )
    made.world.time += 100
    [write] = [action for action in made.plan() if isinstance(action, WriteTrial)]
    assert write.status["phase"] == "Stopped"
