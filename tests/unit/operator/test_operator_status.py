"""What people see of a study: its status, its conditions and its news."""

import json
from typing import Any

import pytest
from operator_objects import NOW, Object, Yard, study

from tuneyard_api.common import timestamp
from tuneyard_api.study_status import StudyStatus
from tuneyard_operator import blocking, status
from tuneyard_operator.actions import Emit, WriteStudy
from tuneyard_operator.study_end import study_end


def look(yard: Yard) -> Object:
    """The status as it would be now, from the one that was last written."""
    end, stuck = study_end(yard.state, yard.now), blocking.blocked(yard.state, yard.now)
    before = yard.state.status_written or yard.state.status
    found = status.study_status(yard.state, before, end, stuck, yard.now)
    StudyStatus.model_validate(found)
    yard.state.status_written = found
    return found


def conditions(found: Object) -> dict[str, tuple[str, str]]:
    return {entry["type"]: (entry["status"], entry["reason"]) for entry in found["conditions"]}


def since(found: Object, kind: str) -> str:
    return next(str(entry["lastTransitionTime"]) for entry in found["conditions"] if entry["type"] == kind)


def news(yard: Yard) -> list[str]:
    """The reasons of the Events that are planned now; the status counts as written."""
    found = yard.actions()
    yard.state.status_busy = False
    assert sum(isinstance(action, WriteStudy) for action in found) <= 1
    return [action.reason for action in found if isinstance(action, Emit)]


def test_the_numbers() -> None:
    yard = Yard(trials={"max": 20, "parallel": 4}, objectives=[{"metric": "accuracy", "goal": "minimize"}])
    yard.ended(0, 1).ended(2, phase="Failed").ended(3, phase="Infeasible").ended(4, phase="Stopped", value=None)
    yard.pending(5, attempt=2).placed(6, gpus=2).runs(7, gpus=4)
    found = look(yard.tick(36))
    counts = {"created": 8, "pending": 1, "running": 2, "succeeded": 2, "failed": 1, "infeasible": 1, "stopped": 1}
    assert found["trials"] == counts | {"retries": 2}
    assert (found["phase"], found["progress"], found["replicas"], found["gpus"]) == ("Running", "5/20", 2, 6)
    assert found["gpuHours"] == 0.04, "4 GPUs for 36 seconds"
    assert found["startTime"] == timestamp(NOW)
    assert found["best"] == {
        "trial": "s-0", "index": 0, "value": 0.5, "metrics": {"accuracy": 0.5}, "parameters": {"lr": 0.1},
    }  # fmt: skip
    assert found["selector"] == "tuneyard.dev/study=s,tuneyard.dev/index"


def test_a_degraded_strategy_is_told_until_it_is_itself_again() -> None:
    yard = Yard().ended(0)
    assert "Degraded" not in conditions(look(yard))
    yard.state.degraded = "too costly; tpe proposes instead"
    assert conditions(look(yard))["Degraded"] == ("True", "ProposalsTooCostly")
    yard.state.degraded = None  # a new process has not asked yet
    found = look(yard.tick(60))
    assert conditions(found)["Degraded"] == ("True", "ProposalsTooCostly")
    assert since(found, "Degraded") == timestamp(NOW)
    yard.state.degraded = ""
    assert conditions(look(yard))["Degraded"] == ("False", "OwnModel")


def test_several_objectives_have_a_front_and_no_best_trial() -> None:
    objectives = [{"metric": "accuracy", "goal": "maximize"}, {"metric": "size", "goal": "minimize"}]
    yard = Yard(trials={"max": 50}, objectives=objectives)
    assert "front" not in look(yard)
    yard.ended(0, value=0.5, size=2.0).ended(1, value=0.9, size=3.0, other=1).ended(2, value=0.4, size=2.5)
    found = look(yard)
    assert "best" not in found
    assert found["front"] == {
        "size": 2,
        "trials": [
            {"trial": "s-1", "index": 1, "metrics": {"accuracy": 0.9, "size": 3.0}, "parameters": {"lr": 0.1}},
            {"trial": "s-0", "index": 0, "metrics": {"accuracy": 0.5, "size": 2.0}, "parameters": {"lr": 0.1}},
        ],
    }
    for index in range(3, 40):
        yard.ended(index, value=0.9 + index / 1000, size=3.0 + index)
    found = look(yard)
    assert (found["front"]["size"], len(found["front"]["trials"])) == (39, 20)


POPULATION: Object = {
    "strategy": {"name": "pbt", "population": 4},
    "fidelity": {"parameter": "epochs", "min": 2, "max": 9, "resume": True},
    "checkpoints": {"claim": "states"},
}


@pytest.mark.parametrize(
    ("spec", "ended", "progress"),
    [
        ({}, 0, "0/10"),
        ({"strategy": {"name": "grid"}, "trials": {"max": None}}, 3, "3/?"),
        ({"strategy": {"name": "manual"}, "trials": {"max": None}, "initial": [{"lr": 0.1}, {"lr": 0.2}]}, 1, "1/2"),
        ({"trials": {"max": 2}}, 3, "3/3"),
        ({**POPULATION, "trials": {"max": None}}, 3, "3/20"),
        ({**POPULATION, "trials": {"max": 99}}, 3, "3/20"),
        ({**POPULATION, "trials": {"max": 9}}, 3, "3/9"),
    ],
)
def test_progress(spec: Object, ended: int, progress: str) -> None:
    if spec.get("strategy", {}).get("name") == "grid":
        spec["parameters"] = [{"name": "lr", "int": {"min": 1, "max": 9}}]
    assert look(Yard(**spec).ended(*range(ended)))["progress"] == progress


def test_the_phases_and_conditions_of_a_life() -> None:
    yard = Yard(checked=False)
    found = look(yard)
    assert found["phase"] == "Pending"
    assert conditions(found)["Valid"] == ("Unknown", "NotChecked")
    found = look(yard.checked().tick(1).pending(0))
    assert found["phase"] == "Running"
    assert conditions(found) == {
        "Valid": ("True", "Accepted"), "Blocked": ("False", "TrialsCanStart"), "Suspended": ("False", "NotSuspended"),
        "Complete": ("False", "NotComplete"), "Failed": ("False", "NotFailed"),
    }  # fmt: skip
    found = look(yard.runs(0).edit(suspend=True))
    assert (found["phase"], found["message"]) == ("Suspended", "1 trials still run")
    assert conditions(found)["Suspended"] == ("True", "SpecSuspend")
    found = look(yard.edit(suspend=False).placed(1).sees(1, "waiting", reason="ErrImagePull").tick(5))
    assert (found["phase"], found["reason"]) == ("Blocked", "TrialsCannotStart")
    assert found["message"].startswith("trial 1: the image cannot be pulled (ErrImagePull)")
    assert conditions(found)["Blocked"] == ("True", "TrialsCannotStart")
    yard.state.spec_problem = "template: no"
    found = look(yard)
    assert (found["phase"], found["reason"], found["message"]) == ("Blocked", "InvalidSpec", "template: no")
    assert conditions(found)["Valid"] == ("False", "InvalidSpec")
    yard.state.spec_problem, yard.state.strategy_problem = None, "does not answer"
    found = look(yard.sees(1, "running"))
    assert (found["phase"], found["reason"], found["message"]) == ("Running", "StrategyUnavailable", "does not answer")


def test_a_study_is_over_when_its_last_trial_is() -> None:
    yard = Yard(objectives=[{"metric": "accuracy", "goal": "maximize", "target": 0.5}]).runs(0).ended(1)
    found = look(yard)
    assert (found["phase"], found["reason"]) == ("Running", "TargetReached")
    assert found["message"].endswith("(target 0.5); stopping 1 trials")
    assert "completionTime" not in found
    found = look(yard.tick(5).ended(0, phase="Stopped"))
    assert (found["phase"], found["reason"], found["completionTime"]) == (
        "Complete", "TargetReached", timestamp(NOW + 5),
    )  # fmt: skip
    assert conditions(found)["Complete"] == ("True", "TargetReached")
    assert look(yard.tick(60))["completionTime"] == timestamp(NOW + 5)


def test_a_failed_study() -> None:
    found = look(Yard(trials={"maxFailed": 0}).ended(0, phase="Failed"))
    assert (found["phase"], found["reason"]) == ("Failed", "TooManyFailed")
    assert conditions(found)["Failed"] == ("True", "TooManyFailed")
    assert conditions(found)["Complete"] == ("False", "NotComplete")


def test_a_transition_has_the_time_at_which_the_status_changed() -> None:
    yard = Yard().pending(0)
    look(yard)
    found = look(yard.tick(10).edit(suspend=True))
    assert since(found, "Suspended") == timestamp(NOW + 10)
    assert since(found, "Valid") == timestamp(NOW)
    assert since(look(yard.tick(10)), "Suspended") == timestamp(NOW + 10)
    assert since(look(yard.tick(10).edit(suspend=False)), "Suspended") == timestamp(NOW + 30)


def test_the_generation_is_told() -> None:
    found = look(Yard().edit(priority=1).edit(priority=2))
    assert found["observedGeneration"] == 3
    assert {entry["observedGeneration"] for entry in found["conditions"]} == {3}


def test_the_start_is_kept_over_a_restart() -> None:
    assert look(Yard(status={"startTime": "2020-01-01T00:00:00Z"}).pending(0))["startTime"] == "2020-01-01T00:00:00Z"


def test_the_size_does_not_grow_with_the_number_of_trials() -> None:
    def size(trials: int) -> int:
        yard = Yard(trials={"max": 20_000, "parallel": 10})
        yard.ended(*range(0, trials, 2)).ended(*range(1, trials, 2), phase="Infeasible")
        return len(json.dumps(look(yard)))

    assert abs(size(10_000) - size(10)) < 40


@pytest.mark.parametrize(
    ("parallel", "running", "spec", "after"),
    [
        (1, 0, {}, 800),
        (2, 0, {}, 400),
        (2, 1, {}, 400),
        (2, 2, {}, 350),
        (0, 0, {}, None),
        (1, 0, {"maxDuration": "5m"}, 250),
    ],
)
def test_the_eta(parallel: int, running: int, spec: Object, after: float | None) -> None:
    """Two trials of 100 seconds are done, eight are left; those that run have run for 50 seconds."""
    yard = Yard(trials={"max": 10, "parallel": parallel}, **spec)
    done = [{"number": 0, "outcome": "Succeeded", "gpus": 0, "started": timestamp(NOW),
             "finished": timestamp(NOW + 100)}]  # fmt: skip
    for index in (0, 1):
        yard.set(index, {"phase": "Succeeded", "value": 1.0, "attempts": done})
    yard.runs(*range(2, 2 + running))
    found = look(yard.tick(50))
    assert found.get("eta") == (timestamp(yard.now + after) if after is not None else None)


WAITS = {"reason": "NoNodeFits", "message": "needs a GPU", "waiting": {"position": 2, "expectedStart": timestamp(NOW)}}


def succeeded(yard: Yard, *seconds: float, gpus: int = 0) -> Yard:
    """Trials from 0 on that took so long."""
    for index, took in enumerate(seconds):
        done = [{"number": 0, "outcome": "Succeeded", "gpus": gpus, "started": timestamp(NOW),
                 "finished": timestamp(NOW + took)}]  # fmt: skip
        yard.set(index, {"phase": "Succeeded", "value": 1.0, "attempts": done})
    return yard


@pytest.mark.parametrize(
    ("running", "ran", "waits", "after"),
    [
        (1, 50, True, 750),
        (0, 50, True, None),
        (4, 50, False, 150),
        (3, 50, False, 200),
        (2, 150, False, 200),
        (8, 30, False, 70),
    ],
    ids=[
        "one at a time, since no more get a GPU",
        "none runs, and nobody knows how many will",
        "rounds are whole",
        "the fourth begins now, and its lane takes the last",
        "those that are overdue run on for half of that",
        "the last ones run",
    ],
)
def test_the_pace(running: int, ran: float, waits: bool, after: float | None) -> None:
    """Two of ten trials took 100 seconds; four may run at a time."""
    yard = succeeded(Yard(trials={"max": 10, "parallel": 4}), 100, 100)
    yard.runs(*range(2, 2 + running))
    if waits:
        yard.pending(9)
        yard.set(9, {"phase": "Pending", **WAITS})
    found = look(yard.tick(ran))
    assert found.get("eta") == (timestamp(yard.now + after) if after is not None else None)


def test_gpu_hours_to_come() -> None:
    yard = succeeded(Yard(trials={"max": 6, "parallel": 2}), 1800, 1800, gpus=4)
    yard.runs(2, gpus=4).runs(3, gpus=4)
    assert look(yard.tick(900))["gpuHoursToCome"] == 2 * 1 + 2 * 2, "half of two, and two more"
    assert "gpuHoursToCome" not in look(Yard().runs(0)), "nothing is known yet"


def test_what_the_study_waits_for() -> None:
    yard = Yard(trials={"max": 10, "parallel": 4}, queue="research")
    yard.pending(0, 1)
    assert "waiting" not in look(yard)
    yard.set(1, {"phase": "Pending", **WAITS})
    assert look(yard)["waiting"] == {
        "queue": "research", "trial": "s-1", "trials": 2, "reason": "NoNodeFits", "message": "needs a GPU",
        "position": 2, "expectedStart": timestamp(NOW),
    }  # fmt: skip
    yard.set(0, {"phase": "Pending", **WAITS, "reason": "Backoff"})
    assert look(yard)["waiting"]["reason"] == "NoNodeFits", "the other one is next"
    yard.set(0, {"phase": "Pending", **WAITS, "reason": "ParallelLimit"})
    assert "waiting" not in look(yard), "it has all that it may have"
    yard.placed(0, 1)
    assert "waiting" not in look(yard)


def test_without_an_end_in_sight_there_is_no_eta() -> None:
    assert "eta" not in look(Yard().runs(0))


def test_news_is_told_once() -> None:
    yard = Yard(trials={"max": 2})
    assert news(yard) == []
    assert news(yard.tick(2).pending(0)) == ["Started"]
    assert news(yard.tick(2).runs(0)) == []
    assert news(yard.tick(2).edit(suspend=True)) == ["Suspended"]
    assert news(yard.tick(2)) == []
    assert news(yard.tick(2).edit(suspend=False)) == ["Resumed"]
    assert news(yard.tick(2).ended(0, 1)) == ["MaxTrialsReached"]
    assert news(yard.tick(60)) == []
    assert news(yard.tick(2).edit(trials={"max": 3})) == ["Resumed"]


def test_news_that_is_planned_again_is_known_by_its_turn_and_news_of_another_turn_is_not() -> None:
    def turns(yard: Yard) -> list[str]:
        yard.state.status_busy = False
        return [action.turn for action in yard.actions() if isinstance(action, Emit)]

    yard = Yard().pending(0)
    first = turns(yard)
    yard.state.status_written, yard.state.status_due = {}, 0.0  # the write failed
    assert turns(yard.tick(1)) == first
    stops = [turns(yard.tick(2).edit(suspend=suspend)) for suspend in (True, False, True)]
    assert len({turn for [turn] in stops}) == 3


def test_the_news_of_an_end_names_the_best() -> None:
    yard = Yard(trials={"max": 2}).ended(0, value=0.25).ended(1, phase="Failed")
    told = [action for action in yard.actions() if isinstance(action, Emit)]
    assert [(event.reason, event.warning) for event in told] == [("Started", False), ("MaxTrialsReached", False)]
    assert told[1].message == "all 2 trials have ended; best is trial 0 with 0.25"
    failed = [a for a in Yard(trials={"maxFailed": 0}).ended(0, phase="Failed").actions() if isinstance(a, Emit)]
    assert (failed[-1].reason, failed[-1].warning) == ("TooManyFailed", True)


def test_a_status_is_written_at_most_once_a_second_but_the_end_at_once() -> None:
    def writes() -> int:
        found = sum(isinstance(action, WriteStudy) for action in yard.actions())
        yard.state.status_busy = False
        return found

    yard = Yard(trials={"max": 3}).pending(0)
    assert writes() == 1
    assert writes() == 0
    yard.tick(0.5).pending(1)
    assert writes() == 0
    assert [writes(), yard.tick(0.5) and writes(), writes()] == [0, 1, 0]
    yard.ended(0, 1, 2)
    assert writes() == 1
    yard.tick(2)
    assert writes() == 0
    busy = Yard()
    busy.state.status_busy = True
    assert busy.actions() == []


def test_estimates_alone_are_written_every_half_minute() -> None:
    yard = Yard().runs(0)
    yard.actions()
    times: list[float] = []
    yard.state.status_busy = False
    for _ in range(70):
        yard.tick(1)
        times += [yard.now - NOW for action in yard.actions() if isinstance(action, WriteStudy)]
        yard.state.status_busy = False
        yard.state.busy.clear()
    assert times == [30, 60]


def test_an_invalid_study_gets_nothing_but_a_condition() -> None:
    before: Any = {"trials": {"created": 3}, "conditions": [
        {"type": "Valid", "status": "True", "lastTransitionTime": timestamp(NOW - 9), "reason": "Accepted"},
        {"type": "Complete", "status": "False", "lastTransitionTime": timestamp(NOW - 9), "reason": "NotComplete"},
    ]}  # fmt: skip
    item = study(generation=4, status=before)
    found = status.invalid_study(item, ["spec.a: wrong", "spec.b: wrong"], NOW)
    assert (found["phase"], found["reason"], found["message"]) == (
        "Blocked", "InvalidSpec", "spec.a: wrong; spec.b: wrong",
    )  # fmt: skip
    assert found["trials"] == {"created": 3}
    assert (found["observedGeneration"], since(found, "Valid")) == (4, timestamp(NOW))
    assert conditions(found)["Complete"] == ("False", "NotComplete")
    again = status.invalid_study({**item, "status": found}, ["spec.a: wrong", "spec.b: wrong"], NOW + 60)
    assert again == found, "so that it is written once"
