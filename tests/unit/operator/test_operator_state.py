"""StudyState: what it makes of events, whatever their order and number."""

import copy
import math
import random
from collections import Counter
from typing import Any

import pytest
from operator_objects import NOW, Object, Yard, study, trial

from tuneyard_api.common import epoch_seconds, timestamp
from tuneyard_operator.attempts import AttemptSeen
from tuneyard_operator.state import StudyState

SUCCEEDED = {"phase": "Succeeded", "value": 0.5, "observation": {"metrics": {"accuracy": 0.5}}}
PLACED = {"phase": "Placed", "placement": {"attempt": 0, "node": "n1", "gpus": 2}}


def sums(state: StudyState) -> Object:
    """All that the state holds in sums."""
    names = ("pending", "active", "next_index", "holes", "retries", "run_seconds", "ran", "started_at")
    phases = {phase: count for phase, count in state.phases.items() if count}
    best = state.best.index if state.best else None
    return {name: getattr(state, name) for name in names} | {
        "phases": phases, "best": best, "gpu_seconds": round(state.gpu_seconds, 6), "ended": state.ended,
        "stuck": state.stuck & state.active,
    }  # fmt: skip


# The study ---------------------------------------------------------------------------------------------------------


def test_a_study_that_is_not_newer_is_ignored() -> None:
    state = StudyState(study(version=9, generation=2), NOW)
    state.set_study(study(version=8, generation=1, trials={"max": 99}))
    state.set_study(study(version=9, generation=2, trials={"max": 99}))
    assert (state.spec.trials.max, state.generation) == (10, 2)
    state.set_study(study(version=10, generation=3, trials={"max": 99}))
    assert (state.spec.trials.max, state.generation) == (99, 3)


def test_an_exhausted_space_is_known_after_a_restart_as_long_as_the_spec_stays() -> None:
    told = {"reason": "SpaceExhausted", "observedGeneration": 1, "trials": {"created": 4}}
    assert StudyState(study(status=told), NOW).limit == 4
    assert StudyState(study(generation=2, status=told), NOW).limit == 10


# Trials ------------------------------------------------------------------------------------------------------------


def test_repeated_and_late_events_do_no_harm() -> None:
    yard = Yard().pending(0).placed(0)
    yard.set(0, SUCCEEDED)
    events = [trial(0, 2, {"phase": "Pending"}), trial(0, 3, PLACED), trial(0, 4, SUCCEEDED), trial(0, 3, PLACED)]
    before, history = sums(yard.state), len(yard.state.history)
    yard.state.touched.clear()
    for event in events * 2:
        yard.state.set_trial(event, yard.now)
    assert sums(yard.state) == before
    assert (len(yard.state.history), yard.state.newly_ended) == (history, ["u-0"])
    assert yard.state.touched == set(), "nothing to plan"


def test_the_strategy_hears_of_a_trial_when_it_appears_and_when_it_ends() -> None:
    yard = Yard().pending(0).placed(0).runs(0).ended(0).ended(0)
    assert [(record.index, record.state) for record in yard.state.history] == [(0, "pending"), (0, "succeeded")]
    assert yard.state.history[1].metrics == {"accuracy": 0.5}


def test_a_removed_trial_makes_a_hole_and_does_not_come_back() -> None:
    yard = Yard().ended(0, 1, 2)
    yard.state.remove_trial(yard.objects[1])
    assert (yard.state.holes, yard.state.next_index, yard.state.phases["Succeeded"]) == ({1}, 3, 2)
    yard.state.set_trial({**yard.objects[1], "metadata": {**yard.objects[1]["metadata"], "resourceVersion": "99"}}, NOW)
    assert 1 not in yard.state.trials, "a late answer of a trial that is gone"
    yard.state.set_trial(trial(1, 100, {"phase": "Pending"}, uid="another"), NOW)
    assert (yard.state.holes, yard.state.pending) == (set(), {1})
    yard.state.remove_trial(yard.objects[1])
    assert 1 in yard.state.trials, "news of the end of the one before"


def test_a_removal_may_be_no_more_than_metadata() -> None:
    yard = Yard().pending(0, 1)
    yard.state.remove_trial({"metadata": {"name": "s-1", "uid": "u-1"}})
    assert (yard.state.holes, set(yard.state.trials)) == ({1}, {0})


def test_a_trial_made_anew_takes_nothing_over_from_the_one_before() -> None:
    yard = Yard().runs(0)
    yard.state.add_report(0, 0, 1, {"accuracy": 1})
    yard.state.set_trial(trial(0, 50, PLACED, uid="another"), yard.now)
    fresh = yard.state.trials[0]
    assert (fresh.started, fresh.seen, fresh.reports.count) == (False, None, 0)
    yard.state.set_attempt(0, AttemptSeen(0, "ended", disrupted=True), yard.now, "u-0")
    assert fresh.seen is None, "a pod of the one before"


def test_a_list_takes_away_what_it_does_not_have() -> None:
    yard = Yard().pending(0, 1, 2)
    yard.state.keep_listed({"u-0"}, yard.version - 1)
    assert set(yard.state.trials) == {0, 2}, "2 is newer than the list"
    late = copy.deepcopy(yard.objects[1])
    late["metadata"] |= {"uid": "another", "resourceVersion": str(yard.version - 1)}
    yard.state.set_trial(late, NOW)
    assert 1 not in yard.state.trials, "older than the list that does not have it"


@pytest.mark.parametrize(
    ("goal", "values", "best"),
    [
        ("maximize", [0.1, 0.9, 0.5], 1),
        ("minimize", [0.1, 0.9, 0.5], 0),
        ("maximize", [0.9, 0.9], 0),
        ("minimize", [-1.0, 0.0, -1.0], 0),
        ("maximize", [], None),
    ],
)
def test_the_best_trial(goal: str, values: list[float], best: int | None) -> None:
    for order in (1, -1):
        yard = Yard(objectives=[{"metric": "accuracy", "goal": goal}])
        for index, value in list(enumerate(values))[::order]:
            yard.ended(index, value=value)
        assert sums(yard.state)["best"] == best


def test_the_best_trial_keeps_the_bounds_and_may_be_removed() -> None:
    objectives: list[Object] = [
        {"metric": "accuracy", "goal": "maximize"},
        {"metric": "size", "atMost": 3.0},
        {"metric": "speed", "atLeast": 1.0},
    ]
    yard = Yard(objectives=objectives)
    yard.ended(0, value=0.9, size=3.1, speed=1).ended(1, value=0.8, size=3, speed=0.9).ended(2, value=0.95, size=1)
    assert yard.state.best is None
    yard.ended(3, value=0.5, size=3, speed=1).ended(4, value=0.6, size=3, speed=1)
    assert sums(yard.state)["best"] == 4
    yard.state.remove_trial(yard.objects[4])
    assert sums(yard.state)["best"] == 3


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_that_of_the_trials_there_are_whatever_the_order(seed: int) -> None:
    objectives: list[Object] = [
        {"metric": "accuracy", "goal": "maximize"},
        {"metric": "size", "goal": "minimize"},
        {"metric": "speed", "atLeast": 1.0},
    ]
    rng = random.Random(seed)
    trials = {index: (rng.randint(0, 9), rng.randint(0, 9), rng.randint(0, 9)) for index in range(60)}
    yard = Yard(objectives=objectives)
    for index in rng.sample(range(60), 60):
        accuracy, size, speed = trials[index]
        yard.ended(index, value=accuracy, size=size, speed=speed)
    front = yard.state.front
    assert front is not None
    while len(front):
        able = [(i, a, s) for i, (a, s, speed) in trials.items() if speed >= 1]
        expected = [
            i for i, a, s in able if not any(x >= a and y <= s and ((x, y) != (a, s) or j < i) for j, x, y in able)
        ]  # a trial is no better than itself: j < i
        assert sorted(trial.index for trial in front.shown()) == sorted(expected)
        assert len(front) == len(expected)
        gone = rng.choice(expected)
        del trials[gone]
        yard.state.remove_trial(yard.objects[gone])
        front = yard.state.front
        assert front is not None


def test_goals_may_be_changed_before_the_start() -> None:
    yard = Yard()
    assert yard.state.front is None
    two: list[Object] = [{"metric": "accuracy", "goal": "maximize"}, {"metric": "size", "goal": "minimize"}]
    yard.edit(objectives=two).ended(0, value=0.5, size=1.0)
    assert yard.state.front is not None
    assert (len(yard.state.front), yard.state.best) == (1, None)
    yard.edit(objectives=[{"metric": "accuracy", "goal": "maximize"}])
    assert (yard.state.front, yard.state.best) == (None, yard.state.trials[0])


def test_gpu_seconds_are_those_of_ended_attempts() -> None:
    def attempt(number: int, took: float, gpus: int, outcome: str) -> Object:
        return {"number": number, "outcome": outcome, "gpus": gpus, "started": timestamp(NOW),
                "finished": timestamp(NOW + took)}  # fmt: skip

    first = attempt(0, 100, 2, "Infrastructure")
    yard = Yard().pending(0, attempt=1, attempts=[first, {"number": 9, "outcome": "Blocked", "gpus": 8}])
    assert (yard.state.gpu_seconds, yard.state.ran, yard.state.retries) == (200, 0, 1)
    yard.set(0, {**SUCCEEDED, "attempt": 1, "attempts": [first, attempt(1, 50, 1, "Succeeded")]})
    assert (yard.state.gpu_seconds, yard.state.ran, yard.state.run_seconds) == (250, 1, 50)
    yard.state.remove_trial(yard.objects[0])
    assert (yard.state.gpu_seconds, yard.state.ran, yard.state.run_seconds, yard.state.retries) == (0, 0, 0, 0)


# Attempts ----------------------------------------------------------------------------------------------------------


def test_an_attempt_that_ended_is_not_seen_to_run_again() -> None:
    yard = Yard().runs(0).sees(0, "ended", exit_code=0).sees(0, "running")
    assert yard.state.trials[0].seen == AttemptSeen(0, "ended", exit_code=0)


def test_what_is_seen_belongs_to_its_attempt() -> None:
    yard = Yard().runs(0).sees(0, "running", attempt=1)
    assert yard.state.trials[0].seen is not None
    assert yard.state.trials[0].seen.attempt == 0
    yard.pending(0, attempt=1).placed(0, attempt=1)
    assert (yard.state.trials[0].seen, yard.state.trials[0].started) == (None, False)


def test_reports_are_taken_of_the_present_attempt_only() -> None:
    yard = Yard().placed(0, attempt=1)
    assert [yard.state.add_report(0, attempt, 1, {"accuracy": 1}) for attempt in (0, 1, 2)] == [False, True, False]
    assert not yard.state.add_report(7, 0, 1, {"accuracy": 1})
    assert yard.ended(0).state.trials[0].reports.last == {}
    assert not yard.state.add_report(0, 0, 1, {"accuracy": 1})


def test_times_to_look_again_come_once_and_in_order() -> None:
    yard = Yard()
    for index, at in ((3, 5.0), (1, 1.0), (1, 1.5), (2, 9.0)):
        yard.state.wake(index, NOW + at)
    assert yard.state.take_due(NOW) == []
    assert yard.state.take_due(NOW + 5) == [1, 3]
    yard.state.busy.add(2)
    assert yard.state.take_due(NOW + 10) == []
    yard.state.busy.clear()
    assert yard.state.take_due(NOW + 10) == [2]


# All sums, against a recount ---------------------------------------------------------------------------------------


def _random_status(rng: random.Random, attempt: int) -> Object:
    done = [
        {"number": number, "outcome": rng.choice(["Succeeded", "ProgramFailed"]), "gpus": rng.randrange(3),
         "started": timestamp(NOW), "finished": timestamp(NOW + rng.randrange(100))}
        for number in range(attempt)
    ]  # fmt: skip
    base: Object = {"attempt": attempt, "attempts": done}
    value = rng.choice([0.1, 0.2, 0.3])
    kinds: list[Object] = [
        {"phase": "Pending"},
        {"phase": "Placed", "placement": {"attempt": attempt, "node": "n1", "gpus": 1}},
        {"phase": "Running", "placement": {"attempt": attempt, "node": "n1", "gpus": 1}},
        {"phase": "Succeeded", "value": value, "observation": {"metrics": {"accuracy": value}}},
        {"phase": rng.choice(["Failed", "Infeasible", "Stopped"])},
    ]
    return base | rng.choice(kinds)


def _recount(state: StudyState) -> Object:
    trials = list(state.trials.values())
    done = [(a["outcome"] == "Succeeded", epoch_seconds(a["finished"]) - NOW, a) for t in trials for a in t.attempts]
    good = [t for t in trials if t.phase == "Succeeded"]
    best = max(good, key=lambda t: (t.value if t.value is not None else -math.inf, -t.index), default=None)
    return {
        "pending": {t.index for t in trials if t.phase == "Pending"},
        "active": {t.index for t in trials if t.phase in ("Placed", "Running")},
        "stuck": {t.index for t in trials if t.blocked_since is not None and t.phase in ("Placed", "Running")},
        "next_index": state.next_index,
        "holes": set(range(state.next_index)) - set(state.trials),
        "retries": sum(t.attempt for t in trials),
        "run_seconds": sum(took for good_end, took, _ in done if good_end),
        "ran": sum(good_end for good_end, _, _ in done),
        "started_at": NOW,
        "phases": dict(Counter(t.phase for t in trials)),
        "best": best.index if best else None,
        "gpu_seconds": sum(took * a["gpus"] for _, took, a in done),
        "ended": sum(t.phase.terminal for t in trials),
    }


@pytest.mark.parametrize("seed", range(20))
def test_the_sums_are_those_of_a_recount(seed: int) -> None:
    rng = random.Random(seed)
    yard = Yard()
    sent: list[Any] = []
    uids = {index: f"u-{index}" for index in range(8)}
    for step in range(200):
        index = rng.randrange(8)
        known = yard.state.trials.get(index)
        turn = rng.random()
        if turn < 0.1 and known is not None:
            yard.state.remove_trial(yard.objects[index])
            uids[index] = f"u-{index}-{step}"
        elif turn < 0.3 and sent:
            yard.state.set_trial(rng.choice(sent), yard.now)
        elif turn < 0.45:
            reason = rng.choice(["ImagePullBackOff", None])
            yard.sees(index, rng.choice(["waiting", "running"]), attempt=rng.randrange(3), reason=reason)
        else:
            yard.set(index, _random_status(rng, rng.randrange(3)), uid=uids[index])
            sent.append(copy.deepcopy(yard.objects[index]))
        if yard.state.next_index:
            assert sums(yard.state) == _recount(yard.state)
