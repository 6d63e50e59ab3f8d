"""How long a study's attempts run, learnt from those that have ended."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneyard_api.trial import Phase
from tuneyard_scheduler import translate
from tuneyard_scheduler.durations import CAUTIOUS, TYPICAL, WINDOW, Durations, Run
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import StudyView, TrialView


def learnt(lengths: list[float]) -> Durations:
    durations = Durations()
    for index, seconds in enumerate(lengths):
        durations.add(Run(1000.0 + index, seconds), index)
    return durations


@pytest.mark.parametrize(
    ("lengths", "share", "ran", "want"),
    [
        ([], TYPICAL, 0.0, None),
        ([60], TYPICAL, 0.0, 60),
        ([60], CAUTIOUS, 0.0, 60),
        ([10, 20, 30], TYPICAL, 0.0, 20),
        (list(range(1, 11)), CAUTIOUS, 0.0, 9),
        ([10, 20, 30, 4000], TYPICAL, 0.0, 20),
        ([10, 20, 30], TYPICAL, 15.0, 20),
        ([10, 20, 30], CAUTIOUS, 15.0, 30),
        ([10, 20, 30], TYPICAL, 30.0, 45),
        ([10, 20, 30], TYPICAL, 100.0, 150),
    ],
    ids=[
        "nothing is known",
        "one is something",
        "and the best guess for others",
        "the median",
        "nine of ten",
        "one that ran long does not matter",
        "of those that ran longer",
        "the worst of those",
        "longer than all",
        "and much longer",
    ],
)
def test_totals(lengths: list[float], share: float, ran: float, want: float | None) -> None:
    assert learnt(lengths).total(share, ran) == want


def test_the_last_ones_count() -> None:
    durations = learnt([10.0] * 1000 + [500.0] * WINDOW)
    assert (len(durations), durations.total(0.01)) == (WINDOW, 500.0)


RUNS = st.lists(
    st.tuples(st.integers(0, 300), st.integers(0, 40), st.sampled_from([0.0, 1.0, 2.5, 60.0, 61.0])), max_size=200
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(runs=RUNS, seed=st.integers(0, 9))
def test_neither_order_nor_repetition_matters(runs: list[tuple[int, int, float]], seed: int) -> None:
    told, again = Durations(), Durations()
    for finished, index, seconds in runs:
        told.add(Run(finished, seconds), index)
    rng = random.Random(seed)
    for finished, index, seconds in rng.sample(runs, len(runs)) + rng.sample(runs, len(runs) // 2):
        again.add(Run(finished, seconds), index)
    assert len(told) == min(WINDOW, len(set(runs)))
    for share in (0.1, TYPICAL, CAUTIOUS, 1.0):
        for ran in (0.0, 1.0, 30.0, 61.0):
            assert told.total(share, ran) == again.total(share, ran)
            total = told.total(share, ran)
            assert total is None or total > ran or not ran


def ended(index: int, seconds: float, owner: str = "u1") -> TrialView:
    return TrialView("ns/a", index, Phase.SUCCEEDED, owner=owner, run=Run(100.0 + index, seconds))


def typical(state: ClusterState) -> float | None:
    study = state.study("ns/a")
    assert study is not None
    return study.durations.total(TYPICAL)


def test_a_study_learns_from_its_own_trials_in_whatever_order_they_are_told() -> None:
    state = ClusterState()
    state.set_trial(ended(0, 99, owner="earlier"))
    state.set_trial(ended(1, 50))
    state.set_study(StudyView("ns/a", "u1", "ns"))
    assert typical(state) == 50
    for _ in range(3):
        state.set_trial(ended(2, 10))
        state.set_trial(ended(3, 20))
    assert typical(state) == 20
    state.remove_trial("ns/a", 3)
    assert typical(state) == 20, "what it taught stays"
    state.set_study(StudyView("ns/a", "u2", "ns"))
    assert typical(state) is None, "it is another study"


def attempt(outcome: str, **times: Any) -> dict[str, Any]:
    return {"number": 0, "outcome": outcome, **times}


BEGUN = {"started": "2026-01-01T00:00:00Z", "finished": "2026-01-01T00:01:30.5Z"}


@pytest.mark.parametrize(
    ("attempts", "want"),
    [
        ([], None),
        ([attempt("Succeeded", **BEGUN)], 90.5),
        ([attempt("ProgramFailed"), attempt("Succeeded", **BEGUN)], 90.5),
        ([attempt("BadMetrics", **BEGUN)], 90.5),
        ([attempt("TimedOut", **BEGUN)], 90.5),
        ([attempt("ProgramFailed", **BEGUN)], None),
        ([attempt("Preempted", **BEGUN)], None),
        ([attempt("Succeeded", finished=BEGUN["finished"])], None),
    ],
)
def test_which_attempts_teach(attempts: list[dict[str, Any]], want: float | None) -> None:
    meta = {"name": "a-0", "namespace": "ns", "uid": "t", "creationTimestamp": BEGUN["started"]}
    view = translate.trial({"metadata": meta, "spec": {}, "status": {"phase": "Succeeded", "attempts": attempts}})
    assert (view.run.seconds if view.run else None) == want


def test_what_is_known_of_an_attempt_that_runs() -> None:
    meta = {"name": "a-0", "namespace": "ns", "uid": "t", "creationTimestamp": BEGUN["started"]}
    view = translate.trial({"metadata": meta, "status": {"phase": "Running", "startTime": BEGUN["started"]}})
    assert view.started == 1_767_225_600.0
    spec = {"trials": {"timeout": "1h30m"}}
    assert translate.study({"metadata": meta, "spec": spec}).timeout == 5400
