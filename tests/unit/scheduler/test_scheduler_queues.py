"""The tree of queues: guarantees, sums, what is wrong with some, and what the others make of it."""

from typing import Any

import pytest

from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.queue_status import status
from tuneyard_scheduler.queues import QueueTree
from tuneyard_scheduler.views import QueueView

Specs = dict[str, dict[str, Any]]


def tree(specs: Specs) -> QueueTree:
    found = QueueTree()
    for name, fields in specs.items():
        found.set(QueueView(name, **fields))
    return found


def conditions(found: QueueTree, name: str, capacity: int = 100) -> dict[str, tuple[str, str, str]]:
    book = found.get(name)
    assert book is not None
    told = status(found, book, capacity, (), 0.0)["conditions"]
    return {each["type"]: (each["status"], each["reason"], each["message"]) for each in told}


class TestTree:
    @pytest.mark.parametrize(
        ("specs", "want"),
        [
            ({"a": {"guaranteed": 4}, "b": {}}, {"a": 4, "b": 0}),
            ({"p": {}, "a": {"parent": "p", "guaranteed": 4}, "b": {"parent": "p", "guaranteed": 2.5}}, {"p": 6.5}),
            ({"p": {"guaranteed": 9}, "a": {"parent": "p", "guaranteed": 4}}, {"p": 9, "a": 4}),
            ({"a": {"parent": "p", "guaranteed": 4}, "p": {"parent": "top"}, "top": {}}, {"top": 4, "p": 4}),
        ],
        ids=["its own", "of its parts", "said, and more", "of the parts of its parts, in whatever order"],
    )
    def test_guaranteed(self, specs: Specs, want: dict[str, float]) -> None:
        found = tree(specs)
        assert {name: book.guaranteed for name in want if (book := found.get(name))} == want

    def test_what_the_parts_take_is_taken_of_the_whole(self) -> None:
        found = tree({"p": {"guaranteed": 1}, "a": {"parent": "p"}, "b": {"parent": "p"}})
        found.charge("a", 2, 5)
        found.charge("b", 0.5, 1)
        found.set(QueueView("c", parent="p"))
        found.charge("c", 1, 0)
        books = {book.name: (book.used, book.borrowed, book.pending) for book in found}
        assert books == {"default": (0, 0, 0), "p": (3.5, 2.5, 6), "a": (2, 2, 5), "b": (0.5, 0.5, 1), "c": (1, 1, 0)}
        found.set(QueueView("b", parent=None))
        assert {book.name: book.used for book in found} == {"default": 0, "p": 3, "a": 2, "b": 0.5, "c": 1}

    def test_the_default_queue_is_there_without_anybodys_doing(self) -> None:
        found = tree({})
        assert [(book.name, book.limit, book.guaranteed) for book in found] == [("default", None, 0)]
        assert not found.remove("default")
        assert found.set(QueueView("default", limit=3))
        assert found.remove("default")
        assert [(book.name, book.limit) for book in found] == [("default", None)]

    def test_the_same_again_is_no_news(self) -> None:
        found = tree({"a": {}})
        assert not found.set(QueueView("a", conditions=({"type": "Ready"},)))
        assert found.set(QueueView("a", weight=2.0))
        assert found.remove("a")
        assert not found.remove("a")
        assert not found.remove("never")


BAD: list[tuple[Specs, str, str, str]] = [
    ({"a": {"parent": "none"}}, "a", "ParentNotFound", "its parent 'none' does not exist; create it, or change spec"),
    ({"a": {"parent": "b"}, "b": {"parent": "a"}}, "a", "ParentCycle", "a is a part of b is a part of a; change spec"),
    ({"a": {"parent": "a"}}, "a", "ParentCycle", "a is a part of a"),
    (
        {"a": {"parent": "b"}, "b": {"parent": "c"}, "c": {"parent": "b"}},
        "a",
        "ParentNotReady",
        "its parent 'b' cannot be used: b is a part of c is a part of b",
    ),
    (
        {"a": {"parent": "b"}, "b": {"parent": "c"}},
        "a",
        "ParentNotReady",
        "its parent 'b' cannot be used: its parent 'c' does not exist",
    ),
]


class TestBadQueues:
    @pytest.mark.parametrize(("specs", "name", "reason", "says"), BAD)
    def test_say_what_is_wrong(self, specs: Specs, name: str, reason: str, says: str) -> None:
        holds, why, message = conditions(tree(specs), name)["Ready"]
        assert (holds, why) == ("False", reason)
        assert says in message

    @pytest.mark.parametrize(("specs", "name", "reason", "says"), BAD)
    def test_stop_nothing_but_their_own(self, bench: Any, specs: Specs, name: str, reason: str, says: str) -> None:
        bench.node("n1", 8)
        for queue, fields in {**specs, "good": {}}.items():
            bench.queue(queue, **fields)
        bench.study("ns/held", trials=1, queue=name)
        bench.study("ns/free", trials=1, queue="good")
        bench.study("ns/none", trials=1)
        decisions = schedule(bench.state, 0.0)
        assert sorted(place.study for place in decisions.placements) == ["ns/free", "ns/none"]
        [waiting] = decisions.waiting
        assert (waiting.study, waiting.reason) == ("ns/held", "QueueNotReady")
        assert waiting.message.startswith(f"GpuQueue '{name}' cannot be used: ")
        assert says in waiting.message
        assert reason

    def test_are_used_again_once_mended(self, bench: Any) -> None:
        bench.node("n1", 8)
        bench.queue("a", parent="b")
        bench.study(trials=1, queue="a")
        assert bench.reasons() == {"ns/a": "QueueNotReady"}
        bench.queue("b")
        assert bench.cycle() == [("ns/a", 0, "n1")]

    @pytest.mark.parametrize(
        ("specs", "name", "want"),
        [
            ({"a": {"guaranteed": 4}}, "a", ("True", "Kept", "")),
            ({"a": {}}, "a", ("True", "Kept", "")),
            (
                {"p": {"guaranteed": 8}, "a": {"parent": "p", "guaranteed": 6}, "b": {"parent": "p", "guaranteed": 4}},
                "a",
                ("False", "AboveParent", "the parts of GpuQueue 'p' are guaranteed 10 GPUs together, and it has 8"),
            ),
            (
                {"p": {"limit": 3}, "a": {"parent": "p", "guaranteed": 4}},
                "a",
                ("False", "AboveLimit", "4 GPUs are more than the limit of GpuQueue 'p' (3)"),
            ),
            (
                {"a": {"guaranteed": 60}, "b": {"guaranteed": 41}},
                "b",
                ("False", "AboveCapacity", "all queues are guaranteed 101 GPUs together, and the cluster has 100"),
            ),
        ],
    )
    def test_guarantees_that_cannot_be_kept(self, specs: Specs, name: str, want: tuple[str, str, str]) -> None:
        holds, reason, message = conditions(tree(specs), name)["Guaranteed"]
        assert (holds, reason, message[: len(want[2])]) == want

    def test_a_condition_keeps_the_time_of_its_last_change(self) -> None:
        found = tree({"a": {"parent": "none"}})
        book = found.get("a")
        assert book is not None
        first = status(found, book, 8, (), 60.0)["conditions"]
        later = status(found, book, 8, first, 120.0)["conditions"]
        found.set(QueueView("none"))
        mended = status(found, book, 8, later, 180.0)["conditions"]
        assert [each[0]["lastTransitionTime"][14:] for each in (first, later, mended)] == ["01:00Z", "01:00Z", "03:00Z"]


class TestLimits:
    def test_of_all_that_are_above(self, bench: Any) -> None:
        bench.node("n1", 8)
        bench.queue("p", limit=3)
        bench.queue("a", parent="p", limit=2)
        bench.queue("b", parent="p")
        bench.study("ns/a", trials=4, queue="a")
        bench.study("ns/b", trials=4, queue="b")
        assert len(bench.cycle()) == 3
        messages = {waiting.study: waiting.message for waiting in schedule(bench.state, 0.0).waiting}
        assert messages == {
            "ns/a": "needs 1 of GpuQueue 'a', of whose 2 GPUs 2 are in use",
            "ns/b": "needs 1 of GpuQueue 'p', of whose 3 GPUs 3 are in use",
        }

    def test_a_queue_that_has_parts_has_no_studies(self, bench: Any) -> None:
        bench.node("n1", 8)
        bench.queue("p")
        bench.study(trials=2, queue="p", parallel=1)
        assert len(bench.cycle()) == 1
        bench.queue("b", parent="p")
        bench.queue("a", parent="p")
        bench.trial(0, phase="Succeeded")
        [waiting] = schedule(bench.state, 0.0).waiting
        assert waiting.reason == "QueueHasParts"
        assert waiting.message.endswith("write it as spec.queue of the study: a, b")

    def test_namespaces_of_all_that_are_above(self, bench: Any) -> None:
        bench.queue("p", namespaces=frozenset({"other"}))
        bench.queue("a", parent="p")
        bench.study(trials=1, queue="a")
        assert bench.reasons() == {"ns/a": "QueueNotAllowed"}

    def test_the_default_queue_binds_those_who_name_none(self, bench: Any) -> None:
        bench.node("n1", 8)
        bench.study(trials=9)
        bench.queue("default", limit=2)
        assert len(bench.cycle()) == 2
        assert bench.reasons() == {"ns/a": "QueueLimit"}
