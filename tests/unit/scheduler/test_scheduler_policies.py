"""Each policy by what a cycle then does."""

from typing import Any

import pytest

from tuneyard_api.trial import Phase
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.inventory import FreeIndex
from tuneyard_scheduler.views import QueueView


class TestOrdering:
    @pytest.mark.parametrize(
        ("studies", "want"),
        [
            ({"ns/a": {"priority": 0}, "ns/b": {"priority": 5}}, "ns/b"),
            ({"ns/a": {"created": 20.0}, "ns/b": {"created": 10.0}}, "ns/b"),
            ({"ns/a": {"created": 10.0, "priority": -1}, "ns/b": {"created": 20.0}}, "ns/b"),
            ({"ns/b": {"created": 10.0}, "ns/a": {"created": 10.0}}, "ns/a"),
        ],
        ids=["priority", "age", "priority before age", "by name when equal"],
    )
    def test_who_gets_the_last_gpu(self, bench: Any, studies: dict[str, Any], want: str) -> None:
        bench.node("n1", 1)
        for key, fields in studies.items():
            bench.study(key, trials=3, **fields)
        assert bench.cycle() == [(want, 0, "n1")]

    def test_a_study_that_does_not_fit_holds_up_nobody(self, bench: Any) -> None:
        bench.node("n1", 2)
        bench.study("ns/big", 4, trials=1, priority=100)
        bench.study("ns/small", 1, trials=2)
        assert bench.cycle() == [("ns/small", 0, "n1"), ("ns/small", 1, "n1")]

    def test_promising_trials_go_first(self, bench: Any) -> None:
        bench.node("n1", 4)
        bench.study(trials=2, fidelity=81)
        bench.trial(2, promise=3.0)
        bench.trial(3, promise=9.0)
        bench.trial(3, promise=0.0, attempt=1)
        bench.trial(1, promise=27.0, attempt=1)
        assert [index for _, index, _ in bench.cycle()] == [1, 2, 0, 3]

    @pytest.mark.parametrize(("fidelity", "want"), [(81, [1, 2, 0]), (None, [0, 1, 2])])
    def test_whether_a_trial_that_was_let_go_far_goes_first_depends_on_its_study(
        self, bench: Any, fidelity: int | None, want: list[int]
    ) -> None:
        bench.node("n1", 3)
        for index, promise in enumerate([0.0, 9.0, 3.0]):
            bench.trial(index, promise=promise)
        bench.study(fidelity=fidelity)  # is heard of last
        assert [index for _, index, _ in bench.cycle()] == want

    def test_trials_go_by_index(self, bench: Any) -> None:
        bench.node("n1", 3)
        bench.study()
        for index in (10, 2, 7, 30):
            bench.trial(index)
        assert [index for _, index, _ in bench.cycle()] == [2, 7, 10]


class TestCaps:
    @pytest.mark.parametrize("gpus", [0, 1])
    def test_parallel(self, bench: Any, gpus: int) -> None:
        bench.node("n1", 8)
        bench.study(gpus=gpus, trials=5, parallel=3)
        assert len(bench.cycle()) == 3
        assert bench.reasons() == {"ns/a": "ParallelLimit"}

    def test_zero_stops(self, bench: Any) -> None:
        bench.node("n1", 8)
        bench.study(trials=2, parallel=0)
        assert bench.cycle() == []

    def test_lowered_below_what_runs_gives_nothing_until_enough_have_ended(self, bench: Any) -> None:
        bench.study(gpus=0, trials=6, parallel=3)
        assert len(bench.cycle()) == 3
        bench.study(gpus=0, parallel=2)
        assert bench.cycle() == []
        bench.trial(0, phase=Phase.SUCCEEDED)
        assert bench.cycle() == []
        bench.trial(1, phase=Phase.SUCCEEDED)
        assert bench.cycle() == [("ns/a", 3, None)]

    def test_a_live_pod_of_an_earlier_attempt_counts(self, bench: Any) -> None:
        bench.study(gpus=0, parallel=1)
        bench.pod("p0", "n1", 0, of=("ns/a", 0, 0))
        bench.trial(0, attempt=1)
        assert bench.reasons() == {"ns/a": "ParallelLimit"}
        bench.state.remove_pod("p0")
        assert bench.cycle() == [("ns/a", 0, None)]


class TestQuota:
    def test_limit_over_all_its_studies(self, bench: Any) -> None:
        bench.node("n1", 8)
        bench.state.set_queue(QueueView("q", limit=5))
        bench.study("ns/a", 2, trials=2, queue="q")
        bench.study("ns/b", 1, trials=3, queue="q", created=1.0)
        bench.study("ns/free", 1, trials=1)
        assert sorted(key for key, *_ in bench.cycle()) == ["ns/a", "ns/b", "ns/b", "ns/b", "ns/free"]
        queue = bench.state.queues.get("q")
        assert (queue.used, queue.pending) == (5, 1)
        [waiting] = schedule(bench.state, 0.0).waiting
        assert waiting.reason == "QueueLimit"
        assert waiting.message == "needs 2 of GpuQueue 'q', of whose 5 GPUs 5 are in use"

    def test_an_ended_pod_gives_its_gpus_back_to_the_queue(self, bench: Any) -> None:
        bench.node("n1", 8)
        bench.state.set_queue(QueueView("q", limit=1))
        bench.study(trials=2, queue="q")
        assert len(bench.cycle()) == 1
        bench.pod("p", "n1", of=("ns/a", 0, 0))
        assert bench.cycle() == []
        bench.state.remove_pod("p")
        assert bench.cycle() == [("ns/a", 1, "n1")]

    def test_a_study_that_changes_its_queue_takes_its_use_along(self, bench: Any) -> None:
        bench.node("n1", 8)
        for name in ("q", "r"):
            bench.state.set_queue(QueueView(name, limit=2))
        bench.study(trials=3, queue="q")
        assert len(bench.cycle()) == 2
        bench.study(queue="r")
        queues = {queue.name: (queue.used, queue.pending) for queue in bench.state.queues}
        assert queues == {"default": (0, 0), "q": (0, 0), "r": (2, 1)}
        assert bench.cycle() == []

    @pytest.mark.parametrize(
        ("queue", "want", "says"),
        [
            (None, "QueueNotFound", "there is no GpuQueue 'q'; create it, or change spec.queue of the study"),
            (QueueView("q", namespaces=frozenset({"other"})), "QueueNotAllowed", "is not for namespace 'ns'"),
            (QueueView("q", limit=0), "QueueLimit", "needs 1 of GpuQueue 'q', of whose 0 GPUs 0 are in use"),
        ],
    )
    def test_refusals(self, bench: Any, queue: QueueView | None, want: str, says: str) -> None:
        bench.node("n1", 8)
        if queue is not None:
            bench.state.set_queue(queue)
        bench.study(trials=1, queue="q")
        [waiting] = schedule(bench.state, 0.0).waiting
        assert waiting.reason == want
        assert says in waiting.message

    def test_created_later_and_removed_again(self, bench: Any) -> None:
        bench.node("n1", 8)
        bench.study(trials=2, queue="q", parallel=1)
        bench.state.set_queue(QueueView("q", namespaces=frozenset({"ns"})))
        assert len(bench.cycle()) == 1
        bench.trial(0, phase=Phase.FAILED)
        bench.state.remove_queue("q")
        assert bench.reasons() == {"ns/a": "QueueNotFound"}

    def test_trials_without_gpus_need_no_room_in_the_queue(self, bench: Any) -> None:
        bench.state.set_queue(QueueView("q", limit=0))
        bench.study(gpus=0, trials=2, queue="q")
        assert len(bench.cycle()) == 2


class TestNodes:
    @pytest.mark.parametrize(
        ("nodes", "gpus", "want"),
        [
            ({"n1": 8, "n2": 4, "n3": 2}, 1, "n3"),
            ({"n1": 8, "n2": 4, "n3": 2}, 4, "n2"),
            ({"n1": 8, "n2": 4, "n3": 2}, 5, "n1"),
            ({"n2": 4, "n1": 4}, 4, "n1"),
        ],
    )
    def test_the_fullest_that_fits(self, bench: Any, nodes: dict[str, int], gpus: int, want: str) -> None:
        for name, count in nodes.items():
            bench.node(name, count)
        bench.study(gpus=gpus, trials=1)
        assert bench.cycle() == [("ns/a", 0, want)]

    def test_small_trials_leave_a_whole_node_to_a_big_one(self, bench: Any) -> None:
        bench.node("n1", 4)
        bench.node("n2", 4)
        bench.study("ns/small", 1, trials=4, priority=1)
        bench.study("ns/big", 4, trials=1)
        assert bench.cycle()[-1] == ("ns/big", 0, "n2")

    @pytest.mark.parametrize(
        ("fields", "want"),
        [
            ({"ready": False}, "NoGpuNodes"),
            ({"schedulable": False}, "NoGpuNodes"),
            ({"gpus": 0}, "NoGpuNodes"),
            ({"gpus": 1}, "NoNodeFits"),
            ({"model": "T4"}, "NoGpuNodes"),
            ({"model": "A100"}, None),
        ],
    )
    def test_which_nodes_count(self, bench: Any, fields: dict[str, Any], want: str | None) -> None:
        bench.node("n1", **{"model": "A100", **fields})
        bench.study(gpus=2, trials=1, model="A100")
        decisions = schedule(bench.state, 0.0)
        assert [waiting.reason for waiting in decisions.waiting] == ([want] if want else [])
        assert len(decisions.placements) == (0 if want else 1)

    def test_the_reason_says_what_is_there(self, bench: Any) -> None:
        for number in range(12):
            bench.node(f"n{number}", 2 if number else 1)
        bench.study(gpus=4, trials=1)
        [waiting] = schedule(bench.state, 0.0).waiting
        assert waiting.message == "needs 4 nvidia.com/gpu on one node; the freest of 12 nodes has 2 free"

    def test_pods_of_others_count(self, bench: Any) -> None:
        bench.node("n1", 4)
        bench.pod("theirs", "n1", 3)
        bench.study(gpus=2, trials=1)
        assert bench.reasons() == {"ns/a": "NoNodeFits"}
        bench.state.remove_pod("theirs")
        assert bench.cycle() == [("ns/a", 0, "n1")]

    def test_a_node_is_avoided_where_another_fits(self, bench: Any) -> None:
        bench.node("n1", 2)
        bench.node("n2", 8)
        bench.study()
        bench.trial(0, avoid=("n1",))
        assert bench.cycle() == [("ns/a", 0, "n2")]

    def test_but_is_taken_when_no_other_fits(self, bench: Any) -> None:
        bench.node("n1", 2)
        bench.node("n2", 1)
        bench.study(gpus=2)
        bench.trial(0, avoid=("n1", "n2"))
        assert bench.cycle() == [("ns/a", 0, "n1")]

    def test_a_node_that_has_less_than_is_taken_counts_as_full(self, bench: Any) -> None:
        bench.node("n1", 8)
        bench.pod("theirs", "n1", 6)
        bench.node("n1", 4)
        bench.study(trials=1)
        assert bench.reasons() == {"ns/a": "NoNodeFits"}
        bench.node("n1", 7)
        assert bench.cycle() == [("ns/a", 0, "n1")]

    def test_free_index_forgets_a_removed_node(self) -> None:
        index = FreeIndex()
        index.set("n1", 3)
        index.set("n1", 2)
        assert (index.fullest(2), index.fullest(3), index.most_free(), len(index)) == ("n1", None, 2, 1)
        index.remove("n1")
        assert (index.fullest(1), index.most_free(), len(index)) == (None, 0, 0)


class TestHolds:
    @pytest.mark.parametrize(
        ("fields", "want"),
        [
            ({"suspended": True}, "Suspended"),
            ({"phase": "Blocked"}, "StudyBlocked"),
            ({"phase": "Complete"}, "StudyEnded"),
            ({"phase": "Failed"}, "StudyEnded"),
            ({"deleting": True}, "StudyEnded"),
            ({"phase": "Suspended"}, None),
            ({"phase": "Running"}, None),
        ],
    )
    def test_held_studies_start_nothing(self, bench: Any, fields: dict[str, Any], want: str | None) -> None:
        bench.study(gpus=0, trials=1, **fields)
        decisions = schedule(bench.state, 0.0)
        assert [waiting.reason for waiting in decisions.waiting] == ([want] if want else [])
        assert len(decisions.placements) == (0 if want else 1)


class TestBackoff:
    def test_waits_and_says_until_when(self, bench: Any) -> None:
        bench.study(gpus=0)
        bench.trial(0, attempt=1, not_before=1_700_000_000.0)
        decisions = schedule(bench.state, 1_699_999_999.0)
        assert decisions.placements == []
        assert decisions.next_wakeup == 1_700_000_000.0
        assert [(w.reason, w.index) for w in decisions.waiting] == [("Backoff", 0)]
        assert "2023-11-14T22:13:20Z" in decisions.waiting[0].message
        decisions = schedule(bench.state, 1_700_000_000.0)
        assert [(place.index, place.attempt) for place in decisions.placements] == [(0, 1)]
        assert decisions.next_wakeup is None

    def test_does_not_hold_up_the_trials_behind(self, bench: Any) -> None:
        bench.study(gpus=0, trials=3, parallel=1)
        bench.trial(0, attempt=1, not_before=100.0)
        assert bench.cycle(50.0) == [("ns/a", 1, None)]
        bench.trial(1, phase=Phase.SUCCEEDED)
        assert bench.cycle(100.0) == [("ns/a", 0, None)]

    def test_a_trial_that_ended_meanwhile_wakes_nobody(self, bench: Any) -> None:
        bench.study(gpus=0)
        bench.trial(0, attempt=1, not_before=100.0)
        bench.trial(0, phase=Phase.STOPPED, attempt=1)
        assert schedule(bench.state, 0.0).next_wakeup is None
        assert bench.cycle(200.0) == []
