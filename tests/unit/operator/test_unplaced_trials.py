"""Trials whose pods wait for a node to be added: their study is not blocked, and they come back when told to."""

import pytest
from operator_stage import Stage

from tuneyard_operator import render
from tuneyard_operator.actions import StopAttempt, WriteTrial
from tuneyard_operator.attempts import AttemptSeen
from tuneyard_operator.planner import blocked

PLACE = {"attempt": 0, "gpus": 2, "resource": "nvidia.com/gpu", "backend": "whole"}
WAITS = AttemptSeen(0, "waiting", reason="Unschedulable", message="0/3 nodes are available")
GONE = AttemptSeen(0, "ended", reason="PodGone", disrupted=True)


def stage(place: dict, seen: AttemptSeen = WAITS, **spec: object) -> Stage:
    made = Stage(objectives=[{"metric": "acc", "goal": "maximize"}], **spec).put(0, placement=place)
    made.state.set_attempt(0, seen, made.world.time)
    return made


def test_it_says_what_it_waits_for_and_blocks_nothing() -> None:
    made = stage(PLACE)
    [write] = made.plan()
    assert isinstance(write, WriteTrial)
    assert write.status["reason"] == "AwaitsNode"
    made.world.time += 3600
    assert blocked(made.state, made.world.time) is None


def test_without_gpus_it_blocks_its_study_as_before() -> None:
    made = stage({"attempt": 0, "gpus": 0})
    made.world.time += 3600
    assert blocked(made.state, made.world.time) is not None


async def test_it_is_taken_back_for_free() -> None:
    made = stage({**PLACE, "reclaim": {"queue": "vision", "trial": "", "gpus": 0}})
    assert made.plan() == [StopAttempt(0, 0)]
    made.state.set_attempt(0, GONE, made.world.time)
    await made.do()
    status = made.world.trials["s-0"]["status"]
    assert (status["phase"], status["attempt"], status["reason"]) == ("Pending", 1, "NoNodeCame")
    assert status["attempts"][0]["outcome"] == "Preempted"
    assert "notBefore" not in status


@pytest.mark.parametrize(
    ("place", "selector"), [(PLACE, {"nvidia.com/gpu.product": "L4"}), ({**PLACE, "node": "n"}, None)]
)
def test_its_pod_asks_for_the_gpus_of_any_node_that_has_the_model(place: dict, selector: dict | None) -> None:
    made = stage(place, gpu={"count": 2, "model": "L4"})
    pod = render.job(made.state, made.state.trials[0], None)["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert pod.get("nodeSelector") == selector
    assert ("affinity" in pod) is (selector is None)
