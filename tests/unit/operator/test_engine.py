"""The engine in a world that refuses, fails and changes its mind."""

from typing import Any

import pytest
from operator_objects import NOW, Yard, study, trial
from operator_stage import Stage, World

from tuneyard_operator.actions import Emit, InspectAttempt, ReadLog, StartAttempt, StopAttempt, WriteStudy
from tuneyard_operator.attempts import AttemptSeen
from tuneyard_operator.engine import Engine
from tuneyard_operator.strategy_client import InProcess
from tuneyard_operator.world import Conflict, Rejected, WorldError

# Actions on trials -------------------------------------------------------------------------------------------------


async def test_an_attempt_is_started_once() -> None:
    stage = Stage().put(0)
    assert await stage.do() == [("start", (0, 0))]
    assert await stage.do() == []
    assert stage.state.busy == set()


async def test_an_action_that_was_planned_for_an_older_version_is_not_done() -> None:
    stage = Stage().put(0)
    (action,) = stage.plan()
    stage.put(0, "Pending", attempt=1)
    await stage.engine.perform(stage.state, action)
    assert stage.world.calls == []
    assert stage.state.busy == set()
    (action,) = stage.put(0, attempt=1).plan()
    stage.state.remove_trial(stage.world.trials["s-0"])
    await stage.engine.perform(stage.state, action)
    assert stage.world.calls == []


async def test_nothing_starts_while_the_spec_is_wrong() -> None:
    stage = Stage().put(0)
    (action,) = stage.plan()
    stage.state.spec_problem = "template: no"
    await stage.engine.perform(stage.state, action)
    assert stage.world.calls == []


async def test_after_a_conflict_the_trial_is_read_again() -> None:
    stage = Stage().put(0)
    await stage.do()
    stage.state.set_attempt(0, AttemptSeen(0, "ended", exit_code=1), NOW)
    place = {"attempt": 0, "node": "n1", "gpus": 1}
    stage.world.put(0, {"phase": "Running", "placement": place})  # the news is not here yet
    assert await stage.do() == [("patch", 0), ("get", "s-0")]
    assert stage.state.trials[0].version == stage.world.version
    assert await stage.do() == [("patch", 0)]
    assert stage.state.trials[0].phase == "Pending"


async def test_after_a_conflict_the_trial_may_be_gone() -> None:
    stage = Stage().put(0)
    stage.world.fails["start"] = Conflict("gone")
    del stage.world.trials["s-0"]
    assert await stage.do() == [("start", (0, 0)), ("get", "s-0")]
    assert (stage.state.trials, stage.state.holes) == ({}, {0})


async def test_what_the_world_cannot_do_now_is_done_later() -> None:
    stage = Stage().put(0)
    stage.world.fails["start"] = WorldError("no answer")
    assert await stage.do() == [("start", (0, 0))]
    assert await stage.do() == []
    stage.world.time += 1
    assert await stage.do() == [("start", (0, 0))]
    assert stage.state.trials[0].started


async def test_a_failed_read_after_a_conflict_is_repeated() -> None:
    stage = Stage().put(0)
    stage.world.fails = {"start": Conflict("changed"), "get": WorldError("no answer")}
    await stage.do()
    stage.world.time += 1
    assert await stage.do() == [("start", (0, 0))]


async def test_what_is_refused_is_the_problem_until_it_is_taken() -> None:
    stage = Stage().put(0)
    stage.world.fails["start"] = Rejected("spec.containers[0].image: Required value")
    await stage.do()
    assert stage.state.problem == "spec.containers[0].image: Required value"
    assert not await stage.engine.supply(stage.state), "no further trial is made"
    stage.world.time += 30
    assert await stage.do() == [("start", (0, 0))]
    assert stage.state.problem is None


async def test_a_trial_that_went_while_it_was_refused_leaves_no_problem() -> None:
    stage = Stage().put(0)
    stage.world.fails["start"] = Rejected("no")
    stage.world.meanwhile = lambda: stage.state.remove_trial(stage.world.trials["s-0"])
    await stage.do()
    assert stage.state.problem is None


async def test_a_log_is_read_for_its_metrics() -> None:
    stage = Stage(objectives=[{"metric": "accuracy", "goal": "maximize", "logPattern": "acc {value}"}]).put(0)
    await stage.do()
    stage.state.set_attempt(0, AttemptSeen(0, "ended", exit_code=0), NOW)
    (action,) = stage.plan()
    assert isinstance(action, ReadLog)
    await stage.engine.perform(stage.state, action)
    assert await stage.do() == [("patch", 0)]
    assert stage.state.trials[0].value == 0.7


async def test_a_log_that_cannot_be_read_now_is_read_later_and_its_failures_are_counted() -> None:
    stage = Stage(objectives=[{"metric": "accuracy", "goal": "maximize", "logPattern": "acc {value}"}]).put(0)
    await stage.do()
    stage.state.set_attempt(0, AttemptSeen(0, "ended", exit_code=0), NOW)
    for failures in (1, 2):
        stage.world.fails["log"] = WorldError("no route to the node")
        for action in stage.plan():
            await stage.engine.perform(stage.state, action)
        assert stage.state.trials[0].log_failures == failures
        stage.world.time += 1
    await stage.do()
    assert stage.state.trials[0].log_failures == 0


async def test_an_attempt_of_which_nothing_was_seen_is_looked_for_now_and_then() -> None:
    stage = Stage().put(0)
    await stage.do()
    await stage.do()
    stage.world.time += 15
    assert await stage.do() == [("inspect", 0)]
    stage.world.time += 14
    assert await stage.do() == []
    stage.world.time += 1
    stage.world.seen = AttemptSeen(0, "ended", reason="PodGone", disrupted=True)
    assert await stage.do() == [("inspect", 0)]
    assert await stage.do() == [("patch", 0)]
    assert stage.state.trials[0].attempt == 1


async def test_what_was_found_of_a_trial_is_not_taken_for_the_one_after_it() -> None:
    stage = Stage().put(0)
    trial_of = stage.state.trials[0]
    stage.world.seen = AttemptSeen(0, "ended", disrupted=True)

    def made_anew() -> None:
        stage.state.remove_trial(stage.world.trials["s-0"])
        place = {"attempt": 0, "node": "n1", "gpus": 1}
        stage.state.set_trial(trial(0, 900, {"phase": "Placed", "placement": place}, uid="another"), NOW)

    stage.world.meanwhile = made_anew
    await stage.engine.perform(stage.state, InspectAttempt(0, trial_of.version, 0))
    assert stage.state.trials[0].uid == "another"
    assert stage.state.trials[0].seen is None


async def test_a_stray_that_could_not_be_stopped_is_stopped_later() -> None:
    stage = Stage().put(0, "Succeeded", value=1.0)
    stage.state.set_attempt(0, AttemptSeen(0, "running"), NOW)
    stage.world.fails["stop"] = WorldError("no answer")
    assert await stage.do() == [("stop", (0, 0))]
    assert stage.plan() == []
    stage.world.time += 1
    assert stage.plan() == [StopAttempt(0, 0)]


# The study's status ------------------------------------------------------------------------------------------------


async def test_a_status_that_was_not_written_is_written_again_and_loses_nothing() -> None:
    stage = Stage()

    async def do() -> list[tuple[str, Any]]:
        stage.world.calls.clear()
        for action in stage.engine.plan(stage.state):
            await stage.engine.perform(stage.state, action)
        return stage.world.calls

    assert await do() == [("study", "Pending")]
    stage.world.time += 2
    stage.put(0, "Pending")
    assert await do() == [("study", "Running"), ("emit", "Started")]
    first = stage.state.status_written
    stage.world.time += 2
    stage.state.set_study(study(version=9, generation=2, suspend=True))
    stage.state.checked_generation = stage.state.template_checked = 2
    stage.world.fails["study"] = WorldError("no answer")
    assert await do() == [("study", "Suspended"), ("emit", "Suspended")]
    assert stage.state.status_written == first
    assert await do() == []
    stage.world.time += 1
    assert ("study", "Suspended") in await do()
    assert stage.state.status_written is not None
    assert first is not None
    kept = {entry["type"]: entry["lastTransitionTime"] for entry in first["conditions"]}
    now = {entry["type"]: entry["lastTransitionTime"] for entry in stage.state.status_written["conditions"]}
    assert {kind for kind in now if now[kind] != kept[kind]} == {"Suspended"}


async def test_a_write_that_may_have_taken_effect_is_followed_by_another() -> None:
    stage = Stage().put(0, "Pending")
    for action in stage.engine.plan(stage.state):
        await stage.engine.perform(stage.state, action)
    before = stage.state.status_written
    stage.world.time += 2
    stage.world.fails["study"] = WorldError("no answer")
    stage.state.spec_problem = "no"
    stage.plan()
    await stage.engine.perform(stage.state, WriteStudy({"phase": "Blocked"}, before or {}))
    stage.state.spec_problem = None
    stage.world.time += 1
    (action,) = stage.engine.plan(stage.state)
    assert action == WriteStudy(before or {}, before or {}), "although it says what was said before"
    await stage.engine.perform(stage.state, action)
    stage.world.time += 1
    assert stage.engine.plan(stage.state) == []


async def test_an_event_that_is_not_taken_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.world.fails["emit"] = WorldError("forbidden")
    await stage.engine.perform(stage.state, Emit("Started", "go"))
    assert "study s: Emit: forbidden" in caplog.text


# Supply ------------------------------------------------------------------------------------------------------------


async def test_the_spec_is_checked_once_a_generation_before_anything_is_made() -> None:
    stage = Stage(checked=False)
    assert await stage.engine.supply(stage.state)
    assert await stage.engine.supply(stage.state) is False
    assert stage.world.calls == [("check", 1), ("create", [0, 1, 2, 3])]
    assert sorted(stage.state.trials) == [0, 1, 2, 3]
    stage.engine.set_study(study(version=2, generation=2, trials={"parallel": 3}))
    await stage.engine.supply(stage.state)
    assert stage.world.calls[2:] == [("check", 2), ("create", [4, 5])]


async def test_nothing_is_made_of_a_spec_that_is_wrong() -> None:
    stage = Stage(checked=False, constraints=["lr > 2"])
    stage.world.template = "template: the API server does not take the Job: no"
    assert await stage.engine.supply(stage.state) is False
    assert stage.world.calls == [("check", 1)]
    assert stage.state.problem is not None
    assert "constraints" in stage.state.problem
    assert stage.state.problem.endswith("; template: the API server does not take the Job: no")
    assert not stage.state.may_start


async def test_a_strategy_that_does_not_answer_is_told_and_asked_again() -> None:
    stage = Stage()
    stage.strategies.broken = "the strategy service does not answer"
    with pytest.raises(WorldError, match=r"^the strategy service does not answer$"):
        await stage.engine.supply(stage.state)
    assert stage.state.strategy_problem == "the strategy service does not answer"
    stage.strategies.broken = None
    assert await stage.engine.supply(stage.state)
    assert stage.state.strategy_problem is None


async def test_trials_that_could_not_be_made_are_wanted_again() -> None:
    stage = Stage()
    stage.world.fails["create"] = WorldError("no answer")
    with pytest.raises(WorldError):
        await stage.engine.supply(stage.state)
    await stage.engine.supply(stage.state)
    assert stage.world.calls == [("create", [0, 1, 2, 3])] * 2


async def test_a_space_without_further_configurations_is_remembered() -> None:
    stage = Stage()
    stage.strategies.only = 3
    assert await stage.engine.supply(stage.state)
    assert (sorted(stage.state.trials), stage.state.exhausted_from) == ([0, 1, 2], 3)
    assert await stage.engine.supply(stage.state) is False


def test_studies_are_known_by_their_uid() -> None:
    yard = Yard()
    engine = Engine(World(), InProcess())
    state = engine.set_study(yard.study)
    assert engine.set_study(yard.study) is state
    engine.remove_study("u-s")
    assert engine.studies == {}
    assert engine.set_study(yard.study) is not state


def test_a_start_is_planned_for_a_version() -> None:
    stage = Stage().put(0)
    assert stage.plan() == [StartAttempt(0, stage.world.version, 0)]
