"""Whom a node is kept for, and who may use it meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from tuneyard_api.trial import Phase
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.durations import Run
from tuneyard_scheduler.policies.reservation import PATIENCE
from tuneyard_scheduler.views import TrialView

NOW = 10_000.0


def runs(bench: Any, index: int, *, key: str, node: str, gpus: int = 1, since: float = NOW - 10) -> None:
    """A trial that runs."""
    bench.placed(index, node, gpus, key=key, since=since, started=since)
    bench.pod(f"{key}-{index}", node, gpus, of=(key, index, 0))


def ends(bench: Any, index: int, *, key: str, at: float) -> None:
    bench.state.remove_pod(f"{key}-{index}")
    bench.trial(index, key, Phase.SUCCEEDED, run=Run(at, 10.0))


def took(bench: Any, seconds: float, key: str) -> None:
    """An earlier trial of the study took so long."""
    bench.state.set_trial(TrialView(key, 900, Phase.SUCCEEDED, run=Run(1.0, seconds)))


@pytest.fixture
def full(bench: Any) -> Any:
    """Two nodes of two GPUs, all held by ns/small, whose trials take 100 s; ns/big needs two GPUs."""
    bench.node("n1", 2)
    bench.node("n2", 2)
    bench.study("ns/small", 1, created=1.0)
    took(bench, 100.0, "ns/small")
    for index, (node, since) in enumerate([("n1", -50), ("n1", -10), ("n2", -30), ("n2", -20)]):
        runs(bench, index, key="ns/small", node=node, since=NOW + since)
    bench.study("ns/big", 2, created=2.0)
    bench.trial(0, "ns/big", since=NOW)
    for index in range(10, 20):
        bench.trial(index, "ns/small", since=NOW)
    return bench


def test_the_node_that_has_room_first(full: Any) -> None:
    assert full.cycle(NOW) == []
    held = full.state.reservation
    assert held is not None
    assert (held.study, held.trial, held.node, held.at) == ("ns/big", 0, "n2", NOW + 80)


def test_what_falls_free_there_is_kept_and_elsewhere_given(full: Any) -> None:
    full.cycle(NOW)
    ends(full, 2, key="ns/small", at=NOW + 1)
    ends(full, 0, key="ns/small", at=NOW + 1)
    assert full.cycle(NOW + 1) == [("ns/small", 10, "n1")]
    assert full.reasons(NOW + 1) == {"ns/big": "NoNodeFits", "ns/small": "HeldForBiggerTrial"}
    [waiting] = [each for each in schedule(full.state, NOW + 1).waiting if each.study == "ns/small"]
    assert waiting.message == (
        "node n2 has room, but that is held for trial ns/big-0, which needs more and is expected to start by "
        "1970-01-01T02:48:00Z"
    )
    ends(full, 3, key="ns/small", at=NOW + 2)
    assert full.cycle(NOW + 2) == [("ns/big", 0, "n2")]


@pytest.mark.parametrize(
    ("seconds", "timeout", "fills"),
    [(30, None, True), (79, None, True), (80, None, False), (None, None, False), (None, 60, True), (500, 60, True)],
    ids=["short", "just in time", "too long", "nobody knows", "by its time-out", "its time-out is shorter"],
)
def test_who_fills_in(full: Any, seconds: float | None, timeout: float | None, fills: bool) -> None:
    full.cycle(NOW)
    full.study("ns/new", 1, created=3.0, timeout=timeout)
    full.trial(0, "ns/new", since=NOW)
    if seconds is not None:
        took(full, seconds, "ns/new")
    ends(full, 2, key="ns/small", at=NOW)
    assert full.cycle(NOW + 1) == ([("ns/new", 0, "n2")] if fills else [])
    full.cycle(NOW + 2)
    assert full.state.reservation.at == NOW + 80, "it does not move"


def test_nobody_fills_in_once_the_time_has_passed(full: Any) -> None:
    full.cycle(NOW)
    full.study("ns/new", 1, created=3.0)
    full.trial(0, "ns/new", since=NOW)
    took(full, 5.0, "ns/new")
    ends(full, 2, key="ns/small", at=NOW)
    assert full.cycle(NOW + 79) == []
    assert full.cycle(NOW + 74) == [("ns/new", 0, "n2")]


def test_what_is_left_beside_is_for_everybody(bench: Any) -> None:
    bench.node("n1", 4)
    bench.study("ns/small", 1, created=1.0)
    took(bench, 100.0, "ns/small")
    for index in range(3):
        runs(bench, index, key="ns/small", node="n1", since=NOW - 10)
    bench.study("ns/big", 2, created=2.0)
    bench.trial(0, "ns/big", since=NOW)
    assert bench.cycle(NOW) == []
    assert bench.state.reservation.at == NOW + 90
    for index in (10, 11, 12):
        bench.trial(index, "ns/small", since=NOW)
    assert bench.cycle(NOW) == [("ns/small", 10, "n1")], "in 90 s three others have ended, and two are enough"


class TestWhoIsChosen:
    def test_nobody_where_all_need_as_much(self, bench: Any) -> None:
        bench.node("n1", 2)
        bench.study("ns/a", 2)
        runs(bench, 0, key="ns/a", node="n1", gpus=2)
        took(bench, 100.0, "ns/a")
        bench.trial(1, "ns/a", since=NOW)
        bench.cycle(NOW)
        assert bench.state.reservation is None

    def test_the_first_in_line(self, full: Any) -> None:
        full.study("ns/first", 2, created=3.0, priority=1)
        full.trial(0, "ns/first", since=NOW)
        full.cycle(NOW)
        assert full.state.reservation.study == "ns/first"

    def test_an_hour_of_waiting_goes_before_the_line(self, full: Any) -> None:
        full.queue("q", weight=0.001)
        full.study("ns/late", 2, created=3.0, queue="q")
        full.trial(0, "ns/late", since=NOW - 3600)
        full.study("ns/other", 1, queue="q")
        full.pod("other", "n9", 1, of=("ns/other", 0, 0))
        full.cycle(NOW)
        assert full.state.reservation.study == "ns/late"

    def test_nobody_whom_no_node_could_hold(self, full: Any) -> None:
        full.study("ns/big", 3, created=2.0)
        full.cycle(NOW)
        assert full.state.reservation is None

    def test_not_where_others_hold_what_is_needed(self, full: Any) -> None:
        full.node("n2", 3)
        full.pod("theirs", "n2", 1)
        full.node("n1", 2, schedulable=False)
        full.study("ns/big", 3, created=2.0)
        full.cycle(NOW)
        assert full.state.reservation is None

    def test_not_before_patience_is_at_an_end_where_nothing_is_known(self, bench: Any) -> None:
        bench.node("n1", 2)
        bench.node("n2", 4)
        bench.study("ns/small", 1, created=1.0)
        for index in range(2):
            runs(bench, index, key="ns/small", node="n1")
        for index in range(2, 5):
            runs(bench, index, key="ns/small", node="n2")
        bench.study("ns/big", 2, created=2.0)
        bench.trial(0, "ns/big", since=NOW)
        bench.cycle(NOW + PATIENCE - 1)
        assert bench.state.reservation is None
        bench.cycle(NOW + PATIENCE)
        assert bench.state.reservation[2:] == ("n2", "nvidia.com/gpu", NOW + PATIENCE), "the emptiest"
        bench.trial(10, "ns/small", since=NOW)
        assert bench.cycle(NOW + PATIENCE) == []
        assert bench.reasons(NOW + PATIENCE)["ns/small"] == "HeldForBiggerTrial"


class TestItsEnd:
    """A reservation goes with its reason, and what was kept is given at once."""

    def kept(self, full: Any) -> Any:
        full.cycle(NOW)
        ends(full, 2, key="ns/small", at=NOW)
        assert full.cycle(NOW + 1) == []
        return full

    def given(self, full: Any) -> list[Any]:
        """The places of the next cycles, for as long as each asks for another one at once."""
        found: list[Any] = []
        for _ in range(5):
            decisions = schedule(full.state, NOW + 2)
            found += [(place.study, place.index, place.node) for place in decisions.placements]
            if decisions.next_wakeup != NOW + 2:
                return found
        pytest.fail("cycles ask for one another for ever")

    def test_suspended(self, full: Any) -> None:
        self.kept(full).study("ns/big", 2, created=2.0, suspended=True)
        assert self.given(full) == [("ns/small", 10, "n2")]

    def test_deleted(self, full: Any) -> None:
        self.kept(full).state.remove_study("ns/big")
        assert self.given(full) == [("ns/small", 10, "n2")]

    def test_stopped(self, full: Any) -> None:
        self.kept(full).trial(0, "ns/big", Phase.STOPPED)
        assert self.given(full) == [("ns/small", 10, "n2")]

    def test_needs_less_now(self, full: Any) -> None:
        self.kept(full).study("ns/big", 1, created=2.0)
        assert self.given(full) == [("ns/big", 0, "n2")]

    def test_another_node_has_room(self, full: Any) -> None:
        self.kept(full).study("ns/big", 2, created=0.5)
        full.node("n3", 2)
        assert self.given(full) == [("ns/big", 0, "n3"), ("ns/small", 10, "n2")]

    def test_others_take_the_node(self, full: Any) -> None:
        self.kept(full).pod("theirs", "n2", 1)
        assert self.given(full) == []
        assert full.state.reservation.node == "n1"

    def test_another_reason(self, full: Any) -> None:
        self.kept(full).queue("default", limit=4)
        assert self.given(full) == [("ns/small", 10, "n2")]

    def test_the_node_is_closed(self, full: Any) -> None:
        self.kept(full).node("n2", 2, schedulable=False)
        assert self.given(full) == []
        assert full.state.reservation.node == "n1"

    def test_a_place_that_comes_to_nothing_loses_nothing(self, full: Any) -> None:
        self.kept(full)
        ends(full, 3, key="ns/small", at=NOW)
        [place] = schedule(full.state, NOW + 2).placements
        assert place.study == "ns/big"
        assert full.cycle(NOW + 2) == []
        full.state.forget(place)
        assert full.cycle(NOW + 2) == [("ns/big", 0, "n2")]
        full.placed(0, "n2", 2, key="ns/big", since=NOW + 2)
        full.cycle(NOW + 3)
        assert full.state.reservation is None


class TestWhoGoesBefore:
    """A guarantee goes before what is kept for a trial of another queue, and a priority within a queue."""

    @pytest.mark.parametrize(
        ("small", "big", "goes"),
        [
            ({}, {}, False),
            ({"priority": 1}, {}, True),
            ({"priority": 1}, {"priority": 1}, False),
            ({"priority": 1, "queue": "loose"}, {}, False),
            ({"queue": "due"}, {}, True),
            ({"queue": "due"}, {"queue": "due"}, False),
            ({"queue": "due"}, {"queue": "half"}, True),
            ({"queue": "half"}, {"queue": "half"}, True),
            ({"queue": "part"}, {}, True),
            ({"queue": "part"}, {"queue": "other part"}, False),
        ],
        ids=[
            "nobody",
            "a higher priority",
            "not the same",
            "nor of another queue",
            "a queue below its guarantee",
            "unless that is the other's own as well",
            "or that of another queue",
            "or is not enough for it",
            "a part of a queue below its guarantee",
            "but not before another part of it",
        ],
    )
    def test_places(self, bench: Any, small: dict[str, Any], big: dict[str, Any], goes: bool) -> None:
        bench.node("n1", 2)
        bench.queue("loose")
        bench.queue("due", guaranteed=2, reclaim="Never")
        bench.queue("half", guaranteed=1, reclaim="Never")
        for part in ("part", "other part"):
            bench.queue(part, parent="whole", reclaim="Never")
        bench.queue("whole", guaranteed=2)
        bench.study("ns/old", 1, created=1.0)
        took(bench, 100.0, "ns/old")
        for index in range(2):
            runs(bench, index, key="ns/old", node="n1")
        bench.study("ns/big", 2, created=2.0, **big)
        bench.trial(0, "ns/big", since=NOW)
        assert bench.cycle(NOW) == []
        assert bench.state.reservation is not None
        ends(bench, 0, key="ns/old", at=NOW)
        bench.study("ns/small", 1, created=3.0, **small)
        bench.trial(0, "ns/small", since=NOW)
        assert bench.cycle(NOW) == ([("ns/small", 0, "n1")] if goes else [])


class TestReclaim:
    def owed(self, bench: Any) -> None:
        """Queue a is guaranteed four GPUs and gets three; a big trial of it waits, and b borrows a node."""
        bench.node("n1", 4)
        bench.queue("a", guaranteed=3)
        bench.study("ns/a", 1, queue="a", created=1.0)
        took(bench, 100.0, "ns/a")
        bench.study("ns/b", 1)
        took(bench, 100.0, "ns/b")
        for index in range(2):
            runs(bench, index, key="ns/a", node="n1")
        for index in range(2):
            runs(bench, index, key="ns/b", node="n1")
        bench.study("ns/big", 3, created=0.5)
        bench.trial(0, "ns/big", since=NOW)
        assert bench.cycle(NOW) == []
        assert bench.state.reservation.study == "ns/big"

    def test_a_guarantee_is_honoured_on_the_node_that_is_kept(self, bench: Any) -> None:
        self.owed(bench)
        bench.trial(2, "ns/a", since=NOW)
        assert bench.preempted(NOW) == ["ns/b-1 for ns/a-2"]
        bench.state.remove_pod("ns/b-1")
        bench.trial(1, "ns/b", Phase.PENDING, 1, since=NOW)
        assert bench.cycle(NOW + 1) == [("ns/a", 2, "n1")]

    def test_one_who_is_helped_needs_no_reservation(self, bench: Any) -> None:
        bench.node("n1", 2)
        bench.node("n2", 2)
        bench.queue("a", guaranteed=2)
        bench.study("ns/b", 1)
        took(bench, 100.0, "ns/b")
        for index in range(4):
            runs(bench, index, key="ns/b", node=f"n{1 + index // 2}", since=NOW - 10 + index)
        bench.study("ns/a", 2, queue="a")
        bench.trial(0, "ns/a", since=NOW)
        assert bench.preempted(NOW) == ["ns/b-3 for ns/a-0", "ns/b-2 for ns/a-0"]
        assert bench.state.reservation is None


class TestCpu:
    """Six GPUs and eight cores: GPUs are free, and what trials of two cores give back is kept for one of six."""

    @pytest.fixture
    def narrow(self, bench: Any) -> Any:
        bench.node("n1", 6, cpu=8.0)
        bench.study("ns/small", 1, created=1.0, cpu=2.0)
        took(bench, 100.0, "ns/small")
        for index, ago in enumerate([40, 30, 20, 10]):
            bench.placed(index, "n1", key="ns/small", since=NOW - ago, started=NOW - ago)
        bench.study("ns/big", 1, created=2.0, cpu=6.0)
        bench.trial(0, "ns/big", since=NOW)
        bench.trial(10, "ns/small", since=NOW)
        return bench

    def test_cores_are_kept(self, narrow: Any) -> None:
        assert narrow.cycle(NOW) == []
        assert narrow.state.reservation[:5] == ("ns/big", 0, "n1", "nvidia.com/gpu", NOW + 80)
        for index in (0, 1):
            narrow.trial(index, "ns/small", Phase.SUCCEEDED)
            assert narrow.cycle(NOW + 1) == []
        assert narrow.reasons(NOW + 1)["ns/small"] == "HeldForBiggerTrial"
        narrow.trial(2, "ns/small", Phase.SUCCEEDED)
        assert narrow.cycle(NOW + 2) == [("ns/big", 0, "n1")]

    def test_who_needs_few_of_them_fills_in(self, narrow: Any) -> None:
        narrow.cycle(NOW)
        narrow.trial(0, "ns/small", Phase.SUCCEEDED)
        narrow.study("ns/tiny", 1, created=3.0, trials=1)
        assert narrow.cycle(NOW + 1) == [("ns/tiny", 0, "n1")]

    def test_not_where_others_have_them_for_good(self, narrow: Any) -> None:
        narrow.node("n1", 6, cpu=5.0)
        assert narrow.cycle(NOW) == []
        assert narrow.state.reservation is None

    def test_who_lacks_gpus_only_is_no_bigger_for_asking_for_more_cores(self, narrow: Any) -> None:
        narrow.node("n1", 4, cpu=64.0)
        assert narrow.cycle(NOW) == []
        assert narrow.state.reservation is None


class TestParts:
    """A GPU that is shared is kept for one who needs all of it, and a whole node for one who needs several."""

    @pytest.fixture
    def shared(self, bench: Any) -> Any:
        """Two GPUs with two trials of a half each, of 100 s."""
        bench.node("n1", 2, parts="dra")
        bench.study("ns/half", share=0.5, created=1.0)
        for index in range(4):
            bench.trial(index, "ns/half", since=NOW - 50)
        took(bench, 100.0, "ns/half")
        for place in schedule(bench.state, NOW - 40).placements:
            bench.trial(
                place.index, "ns/half", Phase.RUNNING, placement=place.placement(NOW), since=NOW - 40 + place.index
            )
        return bench

    def ends(self, bench: Any, index: int) -> None:
        bench.trial(index, "ns/half", Phase.SUCCEEDED, run=Run(NOW, 100.0))

    def test_the_first_gpu_that_is_empty(self, shared: Any) -> None:
        shared.study("ns/whole", 1, created=2.0)
        shared.trial(0, "ns/whole", since=NOW)
        assert shared.cycle(NOW) == []
        assert shared.state.reservation[2:] == ("n1", "nvidia.com/gpu", NOW + 61), "when both of a GPU have ended"
        shared.trial(10, "ns/half", since=NOW)
        self.ends(shared, 0)
        assert shared.cycle(NOW + 1) == []
        assert shared.reasons(NOW + 1)["ns/half"] == "HeldForBiggerTrial"
        self.ends(shared, 1)
        assert shared.cycle(NOW + 2) == [("ns/whole", 0, "n1")]

    def test_a_part_of_the_other_gpu_is_no_delay(self, shared: Any) -> None:
        shared.study("ns/whole", 1, created=2.0)
        shared.trial(0, "ns/whole", since=NOW)
        assert shared.cycle(NOW) == []
        shared.trial(10, "ns/half", since=NOW)
        self.ends(shared, 3)
        assert shared.cycle(NOW + 1) == [("ns/half", 10, "n1")]

    def test_halves_go_before_quarters(self, bench: Any) -> None:
        bench.node("n1", 1, parts="dra")
        bench.study("ns/quarter", share=0.25, created=1.0)
        took(bench, 100.0, "ns/quarter")
        for index in range(4):
            bench.trial(index, "ns/quarter", since=NOW)
        for place in schedule(bench.state, NOW).placements:
            since = NOW - 10 * place.index
            bench.trial(place.index, "ns/quarter", Phase.RUNNING, placement=place.placement(NOW), since=since)
        bench.study("ns/half", share=0.5, created=2.0)
        bench.trial(0, "ns/half", since=NOW)
        bench.trial(9, "ns/quarter", since=NOW)
        assert bench.cycle(NOW) == []
        bench.trial(3, "ns/quarter", Phase.SUCCEEDED)
        assert bench.cycle(NOW + 1) == []
        bench.trial(2, "ns/quarter", Phase.SUCCEEDED)
        assert bench.cycle(NOW + 2) == [("ns/half", 0, "n1")]
