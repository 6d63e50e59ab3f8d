"""What is planned for a trial, from its place to its end."""

from typing import Any

import pytest
from operator_objects import NOW, Object, Yard

from tuneyard_api.common import timestamp
from tuneyard_api.trial import Outcome, TrialStatus
from tuneyard_operator.actions import InspectAttempt, ReadLog, StartAttempt, StopAttempt, WriteTrial
from tuneyard_operator.planner import LOG_TRIES
from tuneyard_scheduler.retry import Retry, decide

GOOD = {"exit_code": 0, "termination": '{"accuracy": 0.9}', "finished": NOW + 60, "started": NOW}


def test_a_place_starts_an_attempt_once() -> None:
    yard = Yard().pending(0, 1)
    assert yard.plan() == []
    yard.placed(1)
    assert yard.plan() == [StartAttempt(1, yard.version, 0)]
    yard.state.trials[1].started = True
    assert yard.set(1, yard.objects[1]["status"]).plan() == [], "the same news again"


def test_a_place_for_an_earlier_attempt_starts_nothing() -> None:
    yard = Yard().set(0, {"phase": "Placed", "attempt": 1, "placement": {"attempt": 0, "node": "n1"}})
    assert yard.plan() == []


def test_nothing_starts_before_the_template_was_checked() -> None:
    yard = Yard(checked=False).placed(0)
    assert yard.plan() == []
    yard.checked().state.touched.add(0)
    assert yard.plan() == [StartAttempt(0, yard.version, 0)]


def test_an_attempt_of_which_nothing_is_seen_is_looked_for() -> None:
    yard = Yard().starts(0)
    assert yard.tick(14.9).plan() == []
    assert yard.tick(0.2).plan() == [InspectAttempt(0, yard.version, 0)]


def test_one_that_ran_before_this_process_began_is_looked_for_soon() -> None:
    place = {"attempt": 0, "node": "n1", "gpus": 1}
    yard = Yard().set(0, {"phase": "Running", "placement": place})
    yard.state.trials[0].started = True
    assert yard.plan() == []
    assert yard.tick(5).plan() == [InspectAttempt(0, yard.version, 0)]


def test_running_is_written_after_a_while() -> None:
    yard = Yard().runs(0)
    assert yard.plan() == []
    assert yard.tick(1.9).plan() == []
    assert yard.tick(0.2).do() == {"phase": "Running", "startTime": timestamp(NOW), "reason": None, "message": None}
    assert yard.plan() == []


def test_a_short_attempt_is_never_written_as_running() -> None:
    yard = Yard().runs(0).tick(1).sees(0, "ended", **GOOD)
    assert yard.do()["phase"] == "Succeeded"
    assert yard.tick(100).plan() == []


def test_a_good_end_is_one_patch() -> None:
    yard = Yard().runs(0, gpus=2)
    yard.plan()
    yard.state.add_report(0, 0, 1, {"accuracy": 0.4, "loss": 1.5})
    patch = yard.tick(60.4).sees(0, "ended", node="n1", **GOOD).do()
    assert patch["phase"] == "Succeeded"
    assert patch["value"] == 0.9
    assert patch["observation"] == {"metrics": {"accuracy": 0.9, "loss": 1.5}}
    assert patch["curve"] == [{"step": 1, "metrics": {"accuracy": 0.4, "loss": 1.5}}]
    assert patch["completionTime"] == timestamp(NOW + 60.4)
    (attempt,) = patch["attempts"]
    assert (attempt["number"], attempt["outcome"], attempt["node"], attempt["gpus"]) == (0, "Succeeded", "n1", 2)
    (condition,) = patch["conditions"]
    assert (condition["type"], condition["status"]) == ("Complete", "True")
    TrialStatus.model_validate(yard.objects[0]["status"])
    assert yard.state.gpu_seconds == pytest.approx(120)


@pytest.mark.parametrize(
    ("seen", "phase", "reason"),
    [
        ({"exit_code": 0}, "Infeasible", "BadMetrics"),
        ({"exit_code": 0, "termination": '{"accuracy": NaN}'}, "Infeasible", "BadMetrics"),
        ({"exit_code": 0, "disrupted": True}, "Pending", "Disrupted"),
        ({"exit_code": 1, "termination": "CUDA out of memory"}, "Infeasible", "GpuOutOfMemory"),
        ({"exit_code": 1}, "Pending", "ProgramFailed"),
        ({"disrupted": True, "reason": "DeletionByTaintManager"}, "Pending", "DeletionByTaintManager"),
    ],
)
def test_the_other_ends(seen: dict[str, Any], phase: str, reason: str) -> None:
    yard = Yard().runs(0).tick(60).sees(0, "ended", started=NOW, finished=NOW + 60, **seen)
    patch = yard.do()
    assert (patch["phase"], patch["reason"]) == (phase, reason)
    assert patch["message"]
    assert "value" not in patch
    TrialStatus.model_validate(yard.objects[0]["status"])


def test_a_failed_program_waits_for_its_retry_and_then_gives_up() -> None:
    retry = {"limit": 1, "backoff": {"initial": "10s"}}
    yard = Yard(retry=retry).runs(0)
    yard.state.add_report(0, 0, 1, {"accuracy": 0.4})
    first = yard.sees(0, "ended", exit_code=1, started=NOW, finished=NOW + 5).do()
    verdict = decide(outcome=Outcome.PROGRAM_FAILED, attempts=first["attempts"], retry=yard.state.spec.retry, seed=0,
                     index=0, now=NOW)  # fmt: skip
    assert isinstance(verdict, Retry)
    assert 9 <= verdict.not_before - NOW <= 11
    assert (first["phase"], first["attempt"], first["notBefore"][:17]) == ("Pending", 1, timestamp(NOW + 9)[:17])
    assert {key for key in first if first[key] is None} == {"placement", "startTime", "curve"}
    yard.placed(0, attempt=1, attempts=first["attempts"])
    second = yard.sees(0, "ended", attempt=1, exit_code=2, started=NOW + 20, finished=NOW + 25).do()
    assert (second["phase"], second["reason"], second["notBefore"]) == ("Failed", "ProgramFailed", None)
    assert "retry.limit is 1; last: the program ended with exit code 2" in second["message"]
    assert [attempt["number"] for attempt in second["attempts"]] == [0, 1]
    assert yard.state.retries == 1


def test_what_was_lost_is_retried_at_once() -> None:
    patch = Yard().runs(0).sees(0, "ended", disrupted=True).do()
    assert (patch["phase"], patch["attempt"], patch["notBefore"]) == ("Pending", 1, None)
    none_left = Yard(retry={"infrastructureLimit": 0}).runs(0).sees(0, "ended", disrupted=True).do()
    assert (none_left["phase"], none_left["reason"]) == ("Failed", "InfrastructureFailed")


def test_a_timeout_stops_the_attempt_and_the_trial() -> None:
    yard = Yard(trials={"timeout": "1m"}).runs(0)
    yard.plan()
    yard.tick(3).do()
    assert all(not isinstance(a, WriteTrial) or "curve" in a.status for a in yard.tick(56.9).plan())
    patch = yard.tick(0.2).do()
    assert (patch["phase"], patch["reason"]) == ("Infeasible", "TimedOut")
    assert yard.plan() == [StopAttempt(0, 0)]
    assert yard.plan() == []


def test_metrics_of_a_log_are_read_first() -> None:
    yard = Yard(objectives=[{"metric": "accuracy", "goal": "maximize", "logPattern": "acc {value}"}]).runs(0)
    yard.sees(0, "ended", exit_code=0)
    assert yard.plan() == [ReadLog(0, yard.version, 0)]
    yard.state.trials[0].log_metrics = {"accuracy": "0.7"}
    yard.state.touched.add(0)
    assert yard.write()["value"] == 0.7


def test_a_log_that_cannot_be_read_is_not_asked_for_for_ever() -> None:
    """The trial runs again: it succeeded, but nobody knows how well."""
    yard = Yard(objectives=[{"metric": "accuracy", "goal": "maximize", "logPattern": "acc {value}"}]).runs(0)
    yard.sees(0, "ended", exit_code=0)
    yard.state.trials[0].log_failures = LOG_TRIES - 1
    assert yard.plan() == [ReadLog(0, yard.version, 0)]
    yard.state.trials[0].log_failures = LOG_TRIES
    yard.state.touched.add(0)
    patch = yard.write()
    assert (patch["phase"], patch["attempts"][0]["outcome"]) == ("Pending", "Infrastructure")
    assert "its log cannot be read" in patch["message"]


def test_the_curve_of_a_running_trial_is_written_now_and_then() -> None:
    yard = Yard().runs(0)
    yard.plan()
    yard.tick(3).do()
    yard.plan()
    yard.state.add_report(0, 0, 1, {"accuracy": 0.4})
    assert yard.plan() == []
    assert yard.tick(28).do() == {"curve": [{"step": 1, "metrics": {"accuracy": 0.4}}]}
    assert yard.tick(60).plan() == [], "nothing new"
    yard.state.add_report(0, 0, 2, {"accuracy": 0.5})
    assert [point["step"] for point in yard.tick(30).do()["curve"]] == [1, 2]


# What cannot start -------------------------------------------------------------------------------------------------

PULL = {"reason": "ImagePullBackOff", "message": "no such tag", "generation": 1}


def test_a_stuck_attempt_waits_until_the_study_is_edited() -> None:
    yard = Yard().placed(0).sees(0, "waiting", **PULL)
    assert yard.plan() == []
    said = "the image cannot be pulled (ImagePullBackOff): no such tag"
    assert yard.tick(5).do() == {"reason": "ImagePullBackOff", "message": said}
    assert yard.tick(100).sees(0, "waiting", **PULL).plan() == [], "told once"
    yard.edit(template={"metadata": {"labels": {"a": "b"}}})
    patch = yard.do()
    assert (patch["phase"], patch["attempt"], patch["notBefore"]) == ("Pending", 1, None)
    assert patch["attempts"][0]["outcome"] == "Blocked"
    assert yard.plan() == [StopAttempt(0, 0)]


def test_waiting_for_an_ordinary_reason_blocks_nothing() -> None:
    yard = Yard().placed(0).sees(0, "waiting", reason=None)
    assert yard.plan() == []
    assert yard.tick(1000).plan() == []
    assert yard.wanted() == [1, 2, 3]


def test_a_lost_place_is_given_back() -> None:
    unschedulable = {"reason": "Unschedulable", "message": "0/1 nodes"}
    yard = Yard().placed(0).sees(0, "waiting", **unschedulable)
    assert yard.tick(59).plan() == []
    patch = yard.tick(1).do()
    assert (patch["phase"], patch["reason"], patch["attempts"][0]["outcome"]) == (
        "Pending", "PlaceLost", "Infrastructure",
    )  # fmt: skip
    assert yard.plan() == [StopAttempt(0, 0)]
    assert Yard().placed(0).sees(0, "waiting", **unschedulable).tick(61).wanted() == [1, 2, 3], "no reason to block"
    free = Yard().placed(0, node=None, gpus=0).sees(0, "waiting", **unschedulable).tick(61)
    assert "attempts" not in free.write(), "where Kubernetes chooses the node, it goes on choosing"
    assert free.wanted() == []


# The end of the study, and trials that are not to be touched -------------------------------------------------------


def test_the_end_stops_what_runs_and_what_waits() -> None:
    yard = Yard(objectives=[{"metric": "accuracy", "goal": "maximize", "target": 0.5}], trials={"parallel": 3})
    yard.runs(0).pending(1)
    yard.plan()
    yard.ended(2, value=0.6)
    writes = yard.plan()
    assert [(a.index, a.status["phase"]) for a in writes if isinstance(a, WriteTrial)] == [
        (0, "Stopped"), (1, "Stopped"),
    ]  # fmt: skip
    assert isinstance(writes[1], WriteTrial)
    assert writes[1].status["attempts"] == [], "it never began"


def test_an_attempt_that_ended_counts_although_the_study_is_over() -> None:
    yard = Yard(objectives=[{"metric": "accuracy", "goal": "maximize", "target": 0.5}]).runs(0)
    yard.ended(1, value=0.6).sees(0, "ended", **GOOD)
    assert yard.write()["phase"] == "Succeeded"


def test_a_lowered_maximum_stops_only_what_waits() -> None:
    yard = Yard(trials={"max": 4, "parallel": 4}).ended(0).pending(1, 2).runs(3)
    yard.plan()
    yard.edit(trials={"max": 2, "parallel": 2})
    (action,) = yard.plan()
    assert isinstance(action, WriteTrial)
    assert (action.index, action.status["phase"]) == (2, "Stopped")
    assert action.status["message"] == "trials.max was lowered to 2"


def test_an_older_attempt_that_lives_is_stopped() -> None:
    yard = Yard().placed(0, attempt=2).sees(0, "running", attempt=1)
    assert StopAttempt(0, 1) in yard.plan()
    yard = Yard().ended(0).sees(0, "running")
    assert yard.plan() == [StopAttempt(0, 0)]
    for over in ({"kind": "ended"}, {"kind": "running", "disrupted": True}):
        seen: Object = dict(over)
        assert Yard().ended(0).sees(0, seen.pop("kind"), **seen).plan() == []


def test_busy_trials_are_left_alone_until_they_are_done() -> None:
    yard = Yard().placed(0, 1)
    yard.state.busy.add(0)
    assert [action.index for action in yard.plan() if isinstance(action, StartAttempt)] == [1]
    assert yard.plan() == [StartAttempt(0, yard.version - 1, 0)], "once it is not busy any more"


def test_ended_and_deleting_trials_are_left_alone() -> None:
    yard = Yard().ended(0, phase="Failed").placed(1)
    yard.set(1, yard.objects[1]["status"], deletionTimestamp=timestamp(NOW))
    assert yard.plan() == []


def test_a_study_that_is_deleted_is_left_alone() -> None:
    yard = Yard().placed(0)
    yard.state.deleting = True
    assert yard.actions() == []


def test_only_touched_trials_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    yard = Yard(trials={"max": 3000, "parallel": 3000})
    yard.pending(*range(2000)).starts(*range(2000, 2500))
    yard.plan()
    looked: list[int] = []
    from tuneyard_operator import planner

    original = planner._plan_trial

    def counting(state: Any, trial: Any, end: Any, now: float) -> Any:
        looked.append(trial.index)
        return original(state, trial, end, now)

    monkeypatch.setattr(planner, "_plan_trial", counting)
    yard.placed(7).sees(2100, "running", started=NOW)
    yard.tick(1).plan()
    assert looked == [7, 2100]
