"""Trials that wait for nodes that are added on demand."""

from typing import Any

import pytest

from tuneyard_api.trial import Phase, Placement, Reclaim
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.policies.reclaim import OFTEN
from tuneyard_scheduler.views import Place, TakeBack, TrialView

GPU = "nvidia.com/gpu"


@pytest.fixture
def elastic(bench: Any) -> Any:
    """A full node, and a queue that lets two trials out."""
    bench.node("n1", 1)
    bench.pod("stranger", "n1", 1)
    bench.queue("q", unplaced=2, patience=600.0)
    return bench


def out(bench: Any, index: int, key: str = "ns/a", attempt: int = 0, since: float = 0.0, **more: Any) -> None:
    """The record shows that it was let out."""
    place = Placement(attempt=attempt, gpus=1, resource=GPU, backend="whole", **more)
    bench.trial(index, key, Phase.PLACED, attempt, placement=place, since=since)


def test_as_many_as_the_queue_says_go_out_without_a_node(elastic: Any) -> None:
    elastic.study(trials=5, queue="q")
    assert schedule(elastic.state, 0.0).placements == [
        Place("ns/a", index, 0, None, 1, GPU, "whole") for index in (0, 1)
    ]
    assert schedule(elastic.state, 0.0).placements == []
    assert elastic.state.queues.get("q").used == 2, "they count as in use"
    assert elastic.reasons() == {"ns/a": "NoNodeFits"}


def test_also_where_there_is_no_node_at_all(bench: Any) -> None:
    bench.queue("q", unplaced=1)
    bench.study(gpus=8, trials=2, queue="q")
    assert [(place.node, place.gpus) for place in schedule(bench.state, 0.0).placements] == [(None, 8)]


@pytest.mark.parametrize(
    ("queue", "study"),
    [
        ({"unplaced": 0}, {}),
        ({"unplaced": 2, "limit": 0}, {}),
        ({"unplaced": 2}, {"parallel": 0}),
        ({"unplaced": 2}, {"suspended": True}),
        ({"unplaced": 2}, {"share": 0.5}),
        ({"unplaced": 2}, {"backend": "dra"}),
        ({"unplaced": 2}, {"gpus": 0}),
    ],
)
def test_who_stays(elastic: Any, queue: Any, study: Any) -> None:
    elastic.queue("q", **queue)
    elastic.study(trials=1, queue="q", **study)
    assert all(place.gpus == 0 for place in schedule(elastic.state, 0.0).placements)


def test_the_limit_and_parallel_bind(elastic: Any) -> None:
    elastic.queue("q", unplaced=9, limit=3)
    elastic.study(trials=9, queue="q")
    assert len(schedule(elastic.state, 0.0).placements) == 3
    elastic.queue("q", unplaced=9)
    elastic.study(trials=9, queue="q", parallel=4)
    assert len(schedule(elastic.state, 0.0).placements) == 1


def test_whoever_is_bound_to_a_new_node_counts_there(elastic: Any) -> None:
    elastic.study(trials=3, queue="q")
    schedule(elastic.state, 0.0)
    for index in (0, 1):
        out(elastic, index)
    elastic.node("new", 2)
    elastic.pod("p0", "new", 1, of=("ns/a", 0, 0))
    assert elastic.used("new") == 1
    assert elastic.state.queues.get("q").used == 2
    assert elastic.cycle() == [("ns/a", 2, None)], "the other GPU is kept for the one that is still out"
    elastic.pod("p1", "new", 1, of=("ns/a", 1, 0))
    assert elastic.used("new") == 2
    elastic.state.remove_pod("p0")
    elastic.trial(0, phase=Phase.SUCCEEDED)
    assert elastic.used("new") == 1


def test_room_that_comes_is_for_those_who_are_out(elastic: Any) -> None:
    """kube-scheduler gives it to their pods; whoever were placed there would find it taken."""
    elastic.study("ns/a", trials=1, queue="q")
    assert elastic.cycle() == [("ns/a", 0, None)]
    out(elastic, 0)
    elastic.study("ns/b", trials=1)
    elastic.state.remove_pod("stranger")
    assert elastic.cycle() == []
    elastic.pod("p0", "n1", 1, of=("ns/a", 0, 0))
    assert elastic.cycle() == []
    elastic.state.remove_pod("p0")
    elastic.trial(0, "ns/a", Phase.SUCCEEDED)
    assert elastic.cycle() == [("ns/b", 0, "n1")]


class TestTakenBack:
    def test_when_no_node_comes_in_time(self, elastic: Any) -> None:
        elastic.study(trials=1, queue="q")
        out(elastic, 0, since=100.0)
        assert schedule(elastic.state, 699.0).take_back == []
        assert schedule(elastic.state, 699.0).next_wakeup == 700.0
        assert schedule(elastic.state, 700.0).take_back == [TakeBack("ns/a", 0, 0, "q")]
        assert schedule(elastic.state, 700.0).take_back == [], "told once"
        elastic.state.leave_out(TakeBack("ns/a", 0, 0, "q"))
        assert len(schedule(elastic.state, 701.0).take_back) == 1, "what could not be written is told again"

    def test_later_each_time_and_at_last_not_at_all(self, elastic: Any) -> None:
        elastic.study(trials=1, queue="q")
        for times in range(OFTEN):
            place = Placement(attempt=times, gpus=1, resource=GPU)
            elastic.state.set_trial(TrialView("ns/a", 0, Phase.PLACED, times, place, since=0.0, preempted=times))
            due = 600.0 * 2**times
            assert schedule(elastic.state, due - 1).take_back == []
            assert len(schedule(elastic.state, due).take_back) == (times < OFTEN - 1)
            elastic.trial(0, attempt=times + 1)

    def test_and_then_its_slot_is_free(self, elastic: Any) -> None:
        elastic.queue("q", unplaced=1)
        elastic.study(trials=1, queue="q")
        out(elastic, 0)
        out(elastic, 0, reclaim=Reclaim(queue="q"))
        assert schedule(elastic.state, 9e9).take_back == []
        assert not elastic.state.giving.leaving
        elastic.trial(0, attempt=1)
        assert elastic.state.queues.get("q").used == 0
        assert elastic.cycle() == [("ns/a", 0, None)]


def test_one_that_found_a_node_can_be_reclaimed_there(bench: Any) -> None:
    bench.queue("mine", guaranteed=1)
    bench.queue("q", unplaced=1)
    bench.study("ns/a", trials=1, queue="q")
    out(bench, 0)
    bench.node("new", 1)
    bench.pod("p0", "new", 1, of=("ns/a", 0, 0))
    bench.study("ns/m", trials=1, queue="mine")
    assert bench.preempted() == ["ns/a-0 for ns/m-0"]


def test_nobody_goes_out_for_whom_others_are_stopped(bench: Any) -> None:
    bench.node("n1", 1)
    bench.queue("mine", guaranteed=1, unplaced=1)
    bench.study("ns/b", trials=1)
    assert len(bench.cycle()) == 1
    bench.placed(0, "n1", key="ns/b")
    bench.study("ns/m", trials=1, queue="mine")
    decisions = schedule(bench.state, 0.0)
    assert (len(decisions.preempt), decisions.placements) == (1, [])


def test_nodes_that_empty_are_left_empty(bench: Any) -> None:
    """A smaller load draws together as trials end, so that an autoscaler can remove nodes."""
    for number in range(4):
        bench.node(f"n{number}", 4)
    bench.queue("q", unplaced=2)
    bench.study(trials=200, queue="q", parallel=16)
    running = bench.cycle()
    assert len(running) == 16
    bench.study(queue="q", parallel=5)
    for study, index, node in running:
        bench.placed(index, node, key=study)
    for step in range(60):
        study, index, _ = running.pop(step * 7 % len(running))
        bench.trial(index, study, Phase.SUCCEEDED)
        placed = bench.cycle()
        for key, number, node in placed:
            bench.placed(number, node, key=key)
        running += placed
    assert len(running) == 5
    assert sum(bench.used(f"n{number}") == 0 for number in range(4)) >= 2
