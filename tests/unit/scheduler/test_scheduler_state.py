"""What counts when: places, pods, ends, in whatever order they are told."""

from itertools import permutations
from typing import Any

import pytest

from tuneyard_api.trial import Phase
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.views import Place

OURS = ("ns/a", 0, 0)


def counts(bench: Any) -> tuple[int, int]:
    return bench.used("n1"), bench.attempts()


class TestLifeOfAPlace:
    """GPUs taken on the node, and attempts that count, at each step."""

    @pytest.fixture
    def placed(self, bench: Any) -> Any:
        bench.node("n1", 4)
        bench.study(gpus=2, trials=1)
        assert bench.cycle() == [("ns/a", 0, "n1")]
        return bench

    def test_counts_from_its_decision(self, placed: Any) -> None:
        assert counts(placed) == (2, 1)
        assert placed.cycle() == []

    def test_counts_once_however_it_is_known(self, placed: Any) -> None:
        placed.placed(0, "n1", 2)
        assert counts(placed) == (2, 1)
        placed.pod("p", "n1", 2, of=OURS)
        assert counts(placed) == (2, 1)
        placed.trial(0, phase=Phase.RUNNING)
        assert counts(placed) == (2, 1)

    def test_the_pods_end_frees_it_before_the_record_says_so(self, placed: Any) -> None:
        placed.placed(0, "n1", 2)
        placed.pod("p", "n1", 2, of=OURS)
        placed.state.remove_pod("p")
        assert counts(placed) == (0, 0)
        placed.trial(0, phase=Phase.RUNNING)
        assert counts(placed) == (0, 0)
        placed.trial(0, attempt=1)
        assert placed.cycle() == [("ns/a", 0, "n1")]
        assert counts(placed) == (2, 1)

    def test_a_trial_that_was_recorded_as_ended_counts_while_its_pod_lives(self, placed: Any) -> None:
        placed.pod("p", "n1", 2, of=OURS)
        placed.trial(0, phase=Phase.STOPPED)
        assert counts(placed) == (2, 1)
        placed.state.remove_pod("p")
        assert counts(placed) == (0, 0)

    def test_an_end_without_a_pod_frees_it(self, placed: Any) -> None:
        placed.trial(0, phase=Phase.FAILED)
        assert counts(placed) == (0, 0)

    def test_forget_undoes_it(self, placed: Any) -> None:
        placed.state.forget(Place("ns/a", 0, 0, "n1", 2, "nvidia.com/gpu", "whole"))
        assert counts(placed) == (0, 0)
        assert placed.cycle() == [("ns/a", 0, "n1")]

    def test_forget_does_nothing_once_the_record_shows_the_place(self, placed: Any) -> None:
        placed.placed(0, "n1", 2)
        placed.state.forget(Place("ns/a", 0, 0, "n1", 2, "nvidia.com/gpu"))
        assert counts(placed) == (2, 1)

    def test_a_late_record_does_not_undo_it(self, placed: Any) -> None:
        placed.trial(0, not_before=None, version="7")
        assert placed.cycle() == []
        placed.placed(0, "n1", 2)
        placed.trial(0)
        assert placed.cycle() == []
        assert counts(placed) == (2, 1)

    def test_a_pod_on_another_node_counts_there(self, placed: Any) -> None:
        placed.placed(0, "n1", 2)
        placed.pod("p", "n2", 2, of=OURS)
        assert (placed.used("n1"), placed.used("n2"), placed.attempts()) == (0, 2, 1)

    def test_a_pod_that_is_not_bound_yet_leaves_the_place_held(self, placed: Any) -> None:
        placed.pod("p", None, 2, of=OURS)
        assert counts(placed) == (2, 1)

    def test_a_removed_trial_counts_while_its_pod_lives(self, placed: Any) -> None:
        placed.pod("p", "n1", 2, of=OURS)
        placed.state.remove_trial("ns/a", 0)
        assert counts(placed) == (2, 1)
        placed.state.remove_pod("p")
        assert counts(placed) == (0, 0)

    def test_a_pod_told_after_its_end_does_not_come_back(self, placed: Any) -> None:
        placed.pod("p", "n1", 2, of=OURS)
        placed.state.remove_pod("p")
        assert not placed.pod("p", "n1", 2, of=OURS)
        assert counts(placed) == (0, 0)

    def test_the_nodes_books_outlive_the_node(self, placed: Any) -> None:
        placed.state.remove_node("n1")
        placed.trial(1)
        assert placed.reasons() == {"ns/a": "NoGpuNodes"}
        placed.node("n1", 3)
        assert placed.reasons() == {"ns/a": "NoNodeFits"}


class TestRestart:
    """A new state that is told everything in any order knows what the old one knew."""

    @pytest.mark.parametrize("order", list(permutations(range(5))))
    def test_order_of_lists_does_not_matter(self, bench: Any, order: tuple[int, ...]) -> None:
        tell = [
            lambda: bench.node("n1", 4),
            lambda: bench.study(parallel=4),
            lambda: [bench.placed(0, "n1"), bench.placed(1, "n1"), bench.trial(2), bench.trial(3)],
            lambda: bench.pod("p0", "n1", of=OURS),
            lambda: bench.pod("theirs", "n1"),
        ]
        for number in order:
            tell[number]()
        assert counts(bench) == (3, 2)
        assert bench.cycle() == [("ns/a", 2, "n1")]
        assert bench.reasons() == {"ns/a": "NoNodeFits"}


class TestRecreatedStudies:
    def test_trials_of_the_old_one_are_ignored(self, bench: Any) -> None:
        bench.node("n1", 4)
        bench.study(uid="old", parallel=2)
        bench.trial(0, phase=Phase.RUNNING, owner="old")
        bench.trial(1, owner="old")
        assert bench.attempts() == 1
        bench.study(uid="new", parallel=2)
        assert bench.attempts() == 0
        assert bench.cycle() == []
        bench.trial(0, owner="new", uid="t0")
        assert bench.cycle() == [("ns/a", 0, "n1")]

    def test_pods_of_the_old_one_take_their_gpus_and_nothing_else(self, bench: Any) -> None:
        bench.node("n1", 4)
        bench.study(uid="new", parallel=1)
        bench.pod("p", "n1", 2, of=OURS, owner="old")
        assert counts(bench) == (2, 0)
        bench.trial(0, owner="new", uid="t0")
        assert bench.cycle() == [("ns/a", 0, "n1")]
        bench.state.remove_pod("p")
        assert counts(bench) == (1, 1), "the end of the old study's pod is not the end of the new one's trial"

    def test_trials_told_before_their_study_wait_for_it(self, bench: Any) -> None:
        bench.trial(0, owner="u1")
        assert bench.cycle() == []
        bench.study(gpus=0, uid="u1")
        assert bench.cycle() == [("ns/a", 0, None)]

    def test_a_removed_study_gets_nothing(self, bench: Any) -> None:
        bench.study(gpus=0, trials=2)
        bench.state.remove_study("ns/a")
        assert bench.cycle() == []
        for index in range(2):
            bench.state.remove_trial("ns/a", index)
        assert list(bench.state.studies()) == []


def test_a_recreated_trial_starts_anew(bench: Any) -> None:
    bench.study(gpus=0)
    bench.trial(0, phase=Phase.SUCCEEDED, attempt=2, uid="t1")
    bench.trial(0, uid="t2")
    assert bench.cycle() == [("ns/a", 0, None)]


def test_the_end_of_a_recreated_trials_earlier_pod_is_not_its_own(bench: Any) -> None:
    bench.node("n1", 4)
    bench.study()
    bench.trial(0, uid="t1")
    bench.pod("p", "n1", of=OURS)
    bench.state.remove_pod("p")
    bench.trial(0, uid="t2")
    assert bench.cycle() == [("ns/a", 0, "n1")]
    assert counts(bench) == (1, 1)


def test_repeating_what_is_known_changes_nothing(bench: Any) -> None:
    def tell() -> list[bool]:
        return [
            bench.state.set_node(bench_node),
            bench.state.set_study(bench_study),
            bench.placed(0, "n1"),
            bench.trial(1, attempt=1, not_before=9.0),
            bench.pod("p0", "n1", of=OURS),
        ]

    bench.node("n1", 2)
    bench.study()
    bench_node = next(bench.state.inventory.nodes())
    bench_study = bench.state.study("ns/a").view
    tell()
    before = counts(bench), bench.reasons(), schedule(bench.state, 0.0)
    assert tell() == [False] * 5
    assert (counts(bench), bench.reasons(), schedule(bench.state, 0.0)) == before
    bench.state.remove_pod("p0")
    assert not bench.state.remove_pod("p0")
    assert counts(bench) == (0, 0)


def test_a_new_version_of_the_same_record_is_no_news_but_is_kept(bench: Any) -> None:
    bench.study(gpus=0, parallel=0)
    bench.trial(0, version="1")
    assert not bench.trial(0, version="2")
    assert bench.state.trial("ns/a", 0).view.version == "2"
