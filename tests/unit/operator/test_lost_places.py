"""Trials whose GPU is held by a pod: not started before it is known, and started anew where it is lost."""

from typing import Any

import pytest
from operator_stage import Stage

from tuneyard_operator.actions import StartAttempt, StopAttempt, WriteTrial
from tuneyard_operator.attempts import AttemptSeen

PLACE = {"attempt": 0, "node": "n1", "gpus": 0.5, "resource": "nvidia.com/gpu", "backend": "reservation",
         "devices": ["0"]}  # fmt: skip
RUNS = AttemptSeen(0, "running", "n1", 5.0)
LOST = "a GPU of node n1 could not be held for it: Unschedulable: Insufficient nvidia.com/gpu"


def stage(seen: AttemptSeen | None = None, **place: Any) -> Stage:
    made = Stage(objectives=[{"metric": "acc", "goal": "maximize"}]).put(0, placement=PLACE | place)
    made.state.template_checked = made.state.generation
    if seen is not None:
        made.state.set_attempt(0, seen, made.world.time)
    return made


def test_it_starts_once_its_gpu_is_known() -> None:
    assert [type(action) for action in stage(uuid="GPU-8a").plan()] == [StartAttempt]
    assert stage().plan() == []


async def test_a_place_that_was_lost_before_the_start_is_a_free_retry_elsewhere() -> None:
    made = stage(lost=LOST)
    await made.do()
    status = made.world.trials["s-0"]["status"]
    assert (status["phase"], status["attempt"], status["reason"]) == ("Pending", 1, "PlaceLost")
    [attempt] = status["attempts"]
    assert (attempt["outcome"], attempt["node"], attempt["message"]) == ("Infrastructure", "n1", LOST)
    assert "notBefore" not in status


def test_one_that_runs_is_told_to_end_first() -> None:
    made = stage(RUNS, uuid="GPU-8a", lost=LOST)
    assert made.plan() == [StopAttempt(0, 0)]
    assert made.plan() == []


@pytest.mark.parametrize("exit_code", [143, 1, 0])
async def test_its_end_is_recorded_as_the_loss(exit_code: int) -> None:
    ended = AttemptSeen(0, "ended", "n1", 5.0, 9.0, exit_code=exit_code, reason="Error", disrupted=True)
    made = stage(ended, uuid="GPU-8a", lost=LOST)
    assert [type(action) for action in made.plan()] == [WriteTrial]
    made = stage(ended, uuid="GPU-8a", lost=LOST)
    await made.do()
    [attempt] = made.world.trials["s-0"]["status"]["attempts"]
    assert (attempt["outcome"], attempt["reason"]) == ("Infrastructure", "PlaceLost")
