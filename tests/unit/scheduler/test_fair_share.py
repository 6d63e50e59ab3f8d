"""Who is served next: by guarantee and weight among queues, by turns within one."""

from collections import Counter
from typing import Any

import pytest

from tuneyard_api.trial import Phase
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.policies.ordering import AGING

Specs = dict[str, dict[str, Any]]

SHARES: dict[str, tuple[int, Specs, dict[str, int]]] = {
    "alike": (8, {"a": {}, "b": {}}, {"a": 4, "b": 4}),
    "by weight": (8, {"a": {"weight": 3.0}, "b": {}}, {"a": 6, "b": 2}),
    "guaranteed first": (4, {"a": {"guaranteed": 3}, "b": {}}, {"a": 3, "b": 1}),
    "the rest by weight": (10, {"a": {"guaranteed": 4}, "b": {"weight": 2.0}}, {"a": 6, "b": 4}),
    "guarantees above what there is": (6, {"a": {"guaranteed": 8}, "b": {"guaranteed": 4}}, {"a": 4, "b": 2}),
    "what a limit leaves": (8, {"a": {"limit": 1, "weight": 9.0}, "b": {}}, {"a": 1, "b": 7}),
    "one that is alone takes all": (8, {"a": {"weight": 1.0}, "b": {"guaranteed": 8}}, {"a": 8}),
    "beside those who name none": (6, {"a": {"guaranteed": 2}}, {"a": 4, "default": 2}),
    "by parents first": (
        8,
        {"p": {}, "a": {"parent": "p"}, "b": {"parent": "p"}, "c": {}},
        {"a": 2, "b": 2, "c": 4},
    ),
    "a guarantee within a parent": (
        8,
        {"p": {"guaranteed": 4}, "a": {"parent": "p", "guaranteed": 3}, "b": {"parent": "p"}, "c": {"guaranteed": 4}},
        {"a": 3, "b": 1, "c": 4},
    ),
    "a parent's limit": (
        8,
        {"p": {"limit": 2}, "a": {"parent": "p"}, "b": {"parent": "p"}, "c": {}},
        {"a": 1, "b": 1, "c": 6},
    ),
    "a part of a GPU": (3, {"a": {"guaranteed": 0.5}, "b": {"guaranteed": 1.5}}, {"a": 1, "b": 2}),
}


class TestQueues:
    @pytest.mark.parametrize("name", SHARES)
    def test_shares(self, bench: Any, name: str) -> None:
        gpus, queues, want = SHARES[name]
        bench.node("n1", gpus)
        for queue, fields in queues.items():
            bench.queue(queue, **fields)
        for queue in want:
            bench.study(f"ns/{queue}", trials=20, queue=None if queue == "default" else queue)
        assert Counter(key.removeprefix("ns/") for key, *_ in bench.cycle()) == want

    def test_a_large_trial_takes_nothing_that_others_are_guaranteed(self, bench: Any) -> None:
        """As in Kueue, where those that need not borrow go first (pkg/scheduler/scheduler.go)."""
        bench.node("n1", 4)
        bench.queue("p")
        for name, guaranteed in (("a", 1), ("b", 3)):
            bench.queue(name, guaranteed=guaranteed, parent="p")
        bench.study("ns/a", 4, trials=1, queue="a")
        bench.study("ns/b", 1, trials=9, queue="b")
        assert Counter(key for key, *_ in bench.cycle()) == {"ns/b": 4}

    def test_one_that_is_the_next_of_its_whole_counts_for_that(self, bench: Any) -> None:
        bench.node("n1", 4)
        bench.queue("p", guaranteed=2)
        bench.queue("a", parent="p")
        bench.queue("b", guaranteed=2)
        bench.study("ns/a", 4, trials=1, queue="a")
        bench.study("ns/a2", 2, trials=1, queue="a", created=5.0)
        bench.study("ns/b", 1, trials=2, queue="b", created=9.0)
        assert bench.cycle() == [("ns/b", 0, "n1"), ("ns/b", 1, "n1"), ("ns/a2", 0, "n1")]

    def test_a_queue_catches_up_as_others_end(self, bench: Any) -> None:
        bench.node("n1", 4)
        bench.queue("a")
        bench.queue("b")
        bench.study("ns/a", trials=9, queue="a")
        assert len(bench.cycle()) == 4
        bench.study("ns/b", trials=9, queue="b")
        for index in range(2):
            bench.trial(index, "ns/a", phase="Succeeded")
        assert [key for key, *_ in bench.cycle()] == ["ns/b", "ns/b"]
        bench.trial(2, "ns/a", phase="Succeeded")
        assert [key for key, *_ in bench.cycle()] == ["ns/a"]

    def test_what_does_not_fit_holds_up_no_other_queue(self, bench: Any) -> None:
        bench.node("n1", 4)
        bench.queue("a", guaranteed=8)
        bench.queue("b")
        bench.study("ns/a", 8, trials=1, queue="a")
        bench.study("ns/b", 1, trials=9, queue="b")
        assert len(bench.cycle()) == 4


class TestStudies:
    def test_a_large_study_leaves_room_for_a_small_one(self, bench: Any) -> None:
        bench.node("n1", 8)
        bench.study("ns/large", trials=600, created=0.0)
        bench.study("ns/small", trials=10, created=50.0)
        assert Counter(key for key, *_ in bench.cycle()) == {"ns/large": 4, "ns/small": 4}

    def test_by_gpus_and_not_by_trials(self, bench: Any) -> None:
        bench.node("n1", 12)
        bench.study("ns/wide", 4, trials=9)
        bench.study("ns/thin", 1, trials=9, created=1.0)
        taken = Counter(key for key, *_ in bench.cycle())
        assert taken == {"ns/wide": 2, "ns/thin": 4}

    def test_trials_without_gpus_take_turns_as_well(self, bench: Any) -> None:
        bench.study("ns/a", 0, trials=3)
        bench.study("ns/b", 0, trials=3, created=1.0)
        assert [key for key, *_ in bench.cycle()] == ["ns/a", "ns/b"] * 3

    @pytest.mark.parametrize(
        ("hours", "want"), [(0, "ns/high"), (4.9, "ns/high"), (6.1, "ns/low"), (1000, "ns/low")], ids=str
    )
    def test_waiting_is_worth_priority(self, bench: Any, hours: float, want: str) -> None:
        now = 1e9
        bench.node("n1", 1)
        bench.study("ns/high", priority=5)
        bench.trial(0, "ns/high", since=now)
        bench.study("ns/low", created=1.0)
        bench.trial(0, "ns/low", since=now - hours * AGING)
        assert [key for key, *_ in bench.cycle(now)] == [want]

    def test_what_was_served_of_late_has_not_waited(self, bench: Any) -> None:
        now = 1e9
        bench.node("n1", 2)
        bench.study("ns/high", priority=1)
        bench.trial(0, "ns/high", since=now)
        bench.study("ns/low")
        bench.placed(0, "n1", key="ns/low", since=now - 60)
        bench.trial(1, "ns/low", since=now - 9 * AGING)
        assert [key for key, *_ in bench.cycle(now)] == ["ns/high"]

    def test_nobody_starves(self, bench: Any) -> None:
        """One GPU, trials of ten minutes, and always somebody of a higher priority: the low one gets its turns."""
        bench.node("n1", 1)
        now, served = 1e9, Counter[str]()
        bench.study("ns/high", priority=3)
        bench.study("ns/low")
        bench.trial(0, "ns/low", since=now)
        for turn in range(200):
            bench.trial(turn, "ns/high", since=now)
            [(key, index, _)] = bench.cycle(now)
            served[key] += 1
            now += 600
            bench.trial(index, key, phase="Succeeded")
            if key == "ns/low":
                bench.trial(index + 1, "ns/low", since=now)
        assert 200 // 25 <= served["ns/low"] <= 200 // 18


def test_the_same_state_gives_the_same_decisions(bench: Any) -> None:
    def filled() -> Any:
        made = type(bench)()
        for number in range(5):
            made.node(f"n{number}", 4)
            made.queue(f"q{number}", guaranteed=number, weight=number + 1.0)
            made.study(f"ns/{number}", 1 + number % 3, trials=9, queue=f"q{number}")
        return made

    assert schedule(filled().state, 0.0) == schedule(filled().state, 0.0)


@pytest.mark.parametrize("queues", [["default", "default"], ["a", "default"], ["a", "b"]])
def test_those_of_whom_only_one_fits_go_by_turns(bench: Any, queues: list[str]) -> None:
    bench.node("n1", 2)
    for name in set(queues) - {"default"}:
        bench.queue(name)
    for name, queue in zip(["ns/x", "ns/y"], queues, strict=True):
        bench.study(name, 2, queue=queue, trials=3)
    order = []
    for turn in range(6):
        now = 100.0 + turn
        [(study, index, node)] = bench.cycle(now)
        bench.placed(index, node, 2, key=study, since=now)
        bench.trial(index, study, Phase.SUCCEEDED, since=now)
        order.append(study)
    assert order == ["ns/x", "ns/y"] * 3
