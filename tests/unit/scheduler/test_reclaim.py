"""Who gives way to a queue that is below its guarantee."""

from collections import Counter
from typing import Any

import pytest

from tuneyard_api.trial import Phase, Reclaim
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.policies.reclaim import OFTEN

Specs = dict[str, dict[str, Any]]
HERE = {"a": {"guaranteed": 4}, "b": {"guaranteed": 4}}


def run(bench: Any, queue: str, gpus: list[int], node: str = "n1", *, first: int = 0, **study: Any) -> None:
    """A study of a queue with a trial that runs for each number of GPUs, the later ones placed later."""
    key = f"ns/{queue}"
    if bench.state.study(key) is None:
        bench.study(key, gpus[0], queue=queue, **study)
    for index, count in enumerate(gpus, first):
        bench.placed(index, node, count, key=key, since=1.0 + index)
        bench.pod(f"{key}-{index}", node, count, of=(key, index, 0))


def end(bench: Any, key: str, index: int) -> None:
    """A trial that was told to go has gone."""
    bench.state.remove_pod(f"{key}-{index}")
    bench.trial(index, key, Phase.PENDING, 1)


class TestOneNode:
    """A node of eight GPUs; queue b has trials that fit nowhere."""

    @pytest.mark.parametrize(
        ("queues", "running", "wanted", "want"),
        [
            (HERE, {"a": [1] * 8}, 1, [7]),
            (HERE, {"a": [1] * 8}, 2, [7, 6]),
            (HERE, {"a": [1] * 8}, 4, [7, 6, 5, 4]),
            (HERE, {"a": [1] * 8}, 9, [7, 6, 5, 4]),
            (HERE, {"a": [1] * 5}, 3, []),
            (HERE, {"a": [1] * 5}, 9, [4]),
            (HERE, {"a": [2] * 4}, 1, [3]),
            (HERE, {"a": [8]}, 9, [0]),
            (HERE, {"a": [2, 1, 5]}, 1, [1]),
            ({"a": {"guaranteed": 6}, "b": {"guaranteed": 4}}, {"a": [1] * 8}, 9, [7, 6]),
            ({"a": {"guaranteed": 4}, "b": {}}, {"a": [1] * 8}, 9, []),
            ({**HERE, "b": {"guaranteed": 4, "reclaim": "Never"}}, {"a": [1] * 8}, 9, []),
        ],
        ids=[
            "the least advanced",
            "one for each that waits",
            "up to the guarantee",
            "and no more",
            "none where there is room",
            "those that are missing",
            "a bigger one for a small one",
            "a very big one, where there is no other",
            "an older one, where that leaves its queue with its guarantee",
            "nothing of others' guarantees",
            "nothing without a guarantee",
            "nothing where the policy is never",
        ],
    )
    def test_victims(
        self, bench: Any, queues: Specs, running: dict[str, list[int]], wanted: int, want: list[int]
    ) -> None:
        bench.node("n1", 8)
        for name, fields in queues.items():
            bench.queue(name, **fields)
        for name, gpus in running.items():
            run(bench, name, gpus)
        bench.study("ns/b", trials=wanted, queue="b")
        told = schedule(bench.state, 100.0).preempt
        assert [(each.study, each.index) for each in told] == [("ns/a", index) for index in want]
        assert {(each.queue, each.gpus, each.attempt) for each in told} <= {("b", 1, 0)}

    def test_nobody_is_told_twice(self, bench: Any) -> None:
        bench.node("n1", 8)
        for name, fields in HERE.items():
            bench.queue(name, **fields)
        run(bench, "a", [1] * 8)
        bench.study("ns/b", trials=2, queue="b")
        assert bench.preempted(100.0) == ["ns/a-7 for ns/b-0", "ns/a-6 for ns/b-1"]
        assert bench.preempted(100.0) == []
        end(bench, "ns/a", 7)
        assert bench.cycle(101.0) == [("ns/b", 0, "n1")]
        assert bench.preempted(101.0) == []
        end(bench, "ns/a", 6)
        assert bench.cycle(102.0) == [("ns/b", 1, "n1")]
        bench.trial(2, "ns/b")
        assert bench.preempted(103.0) == ["ns/a-5 for ns/b-2"]

    def test_what_was_told_by_an_earlier_process_counts(self, bench: Any) -> None:
        bench.node("n1", 8)
        for name, fields in HERE.items():
            bench.queue(name, **fields)
        run(bench, "a", [1] * 8)
        view = bench.state.trial("ns/a", 3).view
        place = view.placement.model_copy(update={"reclaim": Reclaim(queue="b", trial="ns/b-0", gpus=1)})
        bench.trial(3, "ns/a", Phase.RUNNING, placement=place, since=3.0)
        bench.study("ns/b", trials=1, queue="b")
        assert bench.preempted() == []
        bench.trial(1, "ns/b")
        assert bench.preempted() == ["ns/a-7 for ns/b-1"]

    def test_one_that_could_not_be_told_is_told_again(self, bench: Any) -> None:
        bench.node("n1", 8)
        for name, fields in HERE.items():
            bench.queue(name, **fields)
        run(bench, "a", [1] * 8)
        bench.study("ns/b", trials=1, queue="b")
        [told] = schedule(bench.state, 0.0).preempt
        bench.state.spare(told)
        assert schedule(bench.state, 0.0).preempt == [told]

    def test_those_with_a_lower_priority_only(self, bench: Any) -> None:
        bench.node("n1", 8)
        bench.queue("a", guaranteed=2)
        bench.queue("b", guaranteed=4, reclaim="LowerPriority")
        bench.study("ns/a", queue="a", priority=5)
        bench.study("ns/c", queue="a", priority=1)
        for index in range(8):
            key = "ns/a" if index % 2 else "ns/c"
            bench.placed(index, "n1", key=key, since=float(index))
        bench.study("ns/b", trials=9, queue="b", priority=3)
        assert {told.study for told in schedule(bench.state, 0.0).preempt} == {"ns/c"}

    def test_the_least_promising_go_first(self, bench: Any) -> None:
        """The last one passed a third of the fidelity of its study, which is more than two of nine epochs."""
        bench.node("n1", 4)
        bench.queue("a")
        bench.queue("b", guaranteed=3)
        bench.study("ns/a", 1, queue="a", fidelity=9)
        bench.study("ns/c", 1, queue="a", fidelity=300)
        for index, promise in enumerate([9.0, 2.0, 0.0]):
            bench.placed(index, "n1", key="ns/a", since=float(index), promise=promise)
        bench.placed(3, "n1", key="ns/c", since=9.0, promise=100.0)
        bench.study("ns/b", 1, trials=3, queue="b")
        assert bench.preempted() == ["ns/a-2 for ns/b-0", "ns/a-1 for ns/b-1", "ns/c-3 for ns/b-2"]

    def test_a_trial_gives_way_only_so_often(self, bench: Any) -> None:
        bench.node("n1", 2)
        bench.queue("b", guaranteed=2)
        bench.study("ns/a")
        bench.placed(0, "n1", since=1.0, preempted=OFTEN - 1)
        bench.placed(1, "n1", since=2.0, preempted=OFTEN)
        bench.study("ns/b", trials=2, queue="b")
        assert bench.preempted() == ["ns/a-0 for ns/b-0"]

    def test_the_default_queue_gives_back_what_it_borrows(self, bench: Any) -> None:
        bench.node("n1", 4)
        bench.queue("b", guaranteed=1)
        bench.study("ns/a", trials=9)
        assert len(bench.cycle(5.0)) == 4
        bench.study("ns/b", trials=2, queue="b")
        assert bench.preempted(6.0) == [], "they are being written still"
        for index in range(4):
            bench.placed(index, "n1", key="ns/a", since=5.0)
        assert bench.preempted(7.0) == ["ns/a-3 for ns/b-0"]

    def test_studies_that_may_start_nothing_get_nothing(self, bench: Any) -> None:
        bench.node("n1", 8)
        bench.queue("b", guaranteed=8)
        run(bench, "default", [1] * 8)
        for number, fields in enumerate(({"suspended": True}, {"parallel": 0}, {"namespace": "x", "phase": "Blocked"})):
            bench.study(f"ns/{number}", trials=2, queue="b", **fields)
        assert bench.preempted() == []


class TestQueues:
    def test_of_the_queue_that_borrows_most(self, bench: Any) -> None:
        bench.node("n1", 9)
        bench.queue("a", guaranteed=1)
        bench.queue("c", weight=4.0)
        bench.queue("b", guaranteed=6)
        run(bench, "a", [1] * 4)
        run(bench, "c", [1] * 5)
        bench.study("ns/b", trials=4, queue="b")
        told = Counter(told.study for told in schedule(bench.state, 0.0).preempt)
        assert told == {"ns/a": 2, "ns/c": 2}, "3/1 and 5/4, 2/1 and 5/4, then 1/1 and 5/4, then 1/1 and 4/4"

    def test_from_siblings_where_the_parent_has_all_that_it_gets(self, bench: Any) -> None:
        bench.node("n1", 8)
        bench.queue("p", guaranteed=4)
        bench.queue("a", parent="p")
        bench.queue("b", parent="p", guaranteed=2)
        run(bench, "a", [1] * 4)
        run(bench, "default", [1] * 4)
        bench.study("ns/b", trials=9, queue="b")
        assert Counter(told.study for told in schedule(bench.state, 0.0).preempt) == {"ns/a": 2}

    def test_from_others_while_the_parent_is_below_its_guarantee(self, bench: Any) -> None:
        bench.node("n1", 8)
        bench.queue("p", guaranteed=4)
        bench.queue("a", parent="p")
        bench.queue("b", parent="p", guaranteed=2)
        run(bench, "a", [1] * 2)
        run(bench, "default", [1] * 6)
        bench.study("ns/b", trials=9, queue="b")
        assert Counter(told.study for told in schedule(bench.state, 0.0).preempt) == {"ns/default": 2}

    def test_a_part_of_a_guaranteed_whole_is_no_borrower(self, bench: Any) -> None:
        bench.node("n1", 8)
        bench.queue("p", guaranteed=6)
        bench.queue("a", parent="p")
        bench.queue("b", guaranteed=2)
        run(bench, "a", [1] * 6)
        run(bench, "default", [1] * 2)
        bench.study("ns/b", trials=9, queue="b")
        assert Counter(told.study for told in schedule(bench.state, 0.0).preempt) == {"ns/default": 2}

    def test_from_siblings_where_a_limit_above_is_reached_beside_idle_gpus(self, bench: Any) -> None:
        bench.node("n1", 8)
        bench.queue("p", limit=4)
        bench.queue("a", parent="p", guaranteed=2)
        bench.queue("b", parent="p", guaranteed=2)
        run(bench, "a", [1] * 4)
        bench.study("ns/b", trials=9, queue="b")
        assert Counter(told.study for told in schedule(bench.state, 0.0).preempt) == {"ns/a": 2}
        assert bench.preempted() == []

    def test_a_limit_that_was_lowered_stops_nobody(self, bench: Any) -> None:
        bench.node("n1", 8)
        bench.queue("p", limit=4)
        bench.queue("a", parent="p")
        bench.queue("b", parent="p", guaranteed=2)
        run(bench, "a", [1] * 6)
        bench.study("ns/b", trials=9, queue="b")
        assert bench.preempted() == []


class TestNodes:
    def test_several_on_one_node_and_what_they_free_is_kept(self, bench: Any) -> None:
        for name in ("n1", "n2"):
            bench.node(name, 4)
        bench.queue("b", guaranteed=4)
        run(bench, "default", [1] * 4, "n1")
        run(bench, "default", [1, 1, 1], "n2", first=4)
        bench.study("ns/b", 4, trials=1, queue="b")
        told = schedule(bench.state, 0.0).preempt
        assert [each.index for each in told] == [6, 5, 4], "a GPU of n2 is free, so three there are enough"
        bench.study("ns/other", trials=9, created=1.0)
        assert bench.cycle() == [], "the free GPU of n2 is kept"
        for index in (6, 5):
            end(bench, "ns/default", index)
            assert bench.cycle() == []
        end(bench, "ns/default", 4)
        assert bench.cycle() == [("ns/b", 0, "n2")]

    def test_none_that_need_not_go(self, bench: Any) -> None:
        bench.node("n1", 4)
        bench.queue("b", guaranteed=2)
        bench.study("ns/a")
        bench.placed(0, "n1", 2, since=1.0)
        bench.placed(1, "n1", 1, since=2.0)
        bench.placed(2, "n1", 1, since=3.0)
        bench.study("ns/b", 2, trials=1, queue="b")
        assert bench.preempted() == ["ns/a-2 for ns/b-0", "ns/a-1 for ns/b-0"]

    def test_a_small_one_is_spared_where_a_big_one_has_to_go_anyway(self, bench: Any) -> None:
        bench.node("n1", 3)
        bench.queue("b", guaranteed=2)
        bench.study("ns/a")
        bench.placed(0, "n1", 2, since=1.0)
        bench.placed(1, "n1", 1, since=2.0)
        bench.study("ns/b", 2, trials=1, queue="b")
        assert bench.preempted() == ["ns/a-0 for ns/b-0"]

    def test_several_where_they_hold_the_least_together(self, bench: Any) -> None:
        for name in ("n1", "n2"):
            bench.node(name, 4)
        bench.queue("b", guaranteed=4)
        run(bench, "default", [1, 1], "n1")
        run(bench, "default", [1] * 4, "n2", first=2)
        bench.study("ns/b", 4, trials=1, queue="b")
        assert bench.preempted() == ["ns/default-1 for ns/b-0", "ns/default-0 for ns/b-0"]

    def test_one_that_is_enough_is_the_last_one(self, bench: Any) -> None:
        for name in ("n1", "n2"):
            bench.node(name, 2)
        bench.queue("b", guaranteed=2)
        run(bench, "default", [1, 1], "n1")
        run(bench, "default", [2], "n2", first=2)
        bench.study("ns/b", 1, trials=1, queue="b")
        assert bench.preempted() == ["ns/default-2 for ns/b-0"]

    def test_nobody_goes_where_it_would_not_help(self, bench: Any) -> None:
        for name in ("n1", "n2"):
            bench.node(name, 2)
        bench.pod("stranger", "n1", 1)
        bench.pod("another", "n2", 1)
        bench.queue("b", guaranteed=2)
        run(bench, "default", [1], "n1")
        run(bench, "default", [1], "n2", first=1)
        for name in ("ns/b", "ns/c"):
            bench.study(name, 2, trials=1, queue="b")
        assert bench.preempted() == []
        bench.study("ns/d", 1, trials=1, queue="b")
        assert bench.preempted() == ["ns/default-1 for ns/d-0"], "who can be helped is, whoever cannot stands before"

    @pytest.mark.parametrize(
        "fields", [{"model": "T4"}, {"ready": False}, {"schedulable": False}], ids=["model", "lost", "closed"]
    )
    def test_only_on_nodes_that_the_trial_can_use(self, bench: Any, fields: dict[str, Any]) -> None:
        bench.node("n1", 4, **{"model": "A100", **fields})
        bench.node("n2", 4, model="A100")
        bench.queue("b", guaranteed=2)
        run(bench, "default", [4], "n1")
        run(bench, "default", [4], "n2", first=1)
        bench.placed(1, "n2", 4, key="ns/default", since=0.0)
        bench.study("ns/b", trials=1, queue="b", model="A100")
        assert bench.preempted() == ["ns/default-1 for ns/b-0"]

    def test_two_queues_at_once(self, bench: Any) -> None:
        bench.node("n1", 8)
        bench.queue("b", guaranteed=2)
        bench.queue("c", guaranteed=3)
        run(bench, "default", [1] * 8)
        bench.study("ns/b", trials=9, queue="b")
        bench.study("ns/c", trials=9, queue="c")
        told = schedule(bench.state, 0.0).preempt
        assert Counter(each.queue for each in told) == {"b": 2, "c": 3}
        assert len({each.index for each in told}) == 5
        for each in told:
            end(bench, each.study, each.index)
        assert Counter(key for key, *_ in bench.cycle()) == {"ns/b": 2, "ns/c": 3}

    def test_no_more_at_once_than_can_be_written(self, bench: Any) -> None:
        bench.node("n1", 8)
        bench.queue("b", guaranteed=8)
        run(bench, "default", [1] * 8)
        bench.study("ns/b", trials=9, queue="b")
        assert len(schedule(bench.state, 0.0, limit=3).preempt) == 3
        assert len(schedule(bench.state, 0.0, limit=3).preempt) == 3
        assert len(schedule(bench.state, 0.0).preempt) == 2
