"""Cases of Kueue's tables (pkg/scheduler/preemption/*_test.go), in our words: cohorts are parents, quotas guarantees.

Kueue knows no nodes, so there is one, with as many GPUs as there are quotas. What we want is Kueue's outcome, but where
the name says 'ours': there, trials are stopped for others of the same queue, and with fair sharing also for what queues
borrow; Tuneyard gives back only what is guaranteed to others (docs/queues.md). Of a queue's own trials Kueue goes by
priority, Tuneyard by promise and then by time.
"""

from typing import Any

import pytest
from scenarios import Runs, Scenario, Waits, play

THREE = {name: {"guaranteed": 3} for name in "abc"}
TREE = {"c": {"guaranteed": 2}, "q": {"parent": "c"}}
"""A cohort of which the queue has no quota of its own."""


def each(queue: str, count: int, size: int = 1, **more: Any) -> dict[str, Runs]:
    """Trials of a queue, named by it and their number."""
    return {f"{queue}{number}": Runs(queue, size, "n", more) for number in range(1, count + 1)}


FAIR = {
    # preemption_fair_test.go
    "of who uses most": Scenario(
        {"n": 9}, THREE, each("a", 3) | each("b", 5) | each("c", 1), {"in": Waits("c", 1)}, {"in": "n"}, ("b5",)
    ),
    "two for a trial of two": Scenario(
        {"n": 9}, THREE, each("a", 3) | each("b", 5) | each("c", 1), {"in": Waits("c", 2)}, {"in": "n"}, ("b4", "b5")
    ),
    "of two queues, one of each (ours: Kueue stops a1, and a has less than its own)": Scenario(
        {"n": 9}, THREE,
        {"a1": Runs("a", 3, "n"), "a2": Runs("a", 1, "n"), "b1": Runs("b", 2, "n"), "b2": Runs("b", 3, "n")},
        {"in": Waits("c", 3)}, {"in": "n"}, ("a2", "b1"),
    ),
    "one from each that borrows": Scenario(
        {"n": 8}, {"a": {"guaranteed": 3}, "b": {"guaranteed": 3}, "c": {"guaranteed": 2}},
        {"a1": Runs("a", 3, "n"), "a2": Runs("a", 1, "n"), "b1": Runs("b", 3, "n"), "b2": Runs("b", 1, "n")},
        {"in": Waits("c", 2)}, {"in": "n"}, ("a2", "b2"),
    ),
    "nobody where all have what is guaranteed": Scenario(
        {"n": 9}, THREE, each("a", 3) | each("b", 3) | each("c", 3), {"in": Waits("c", 1)}, {}
    ),
    "nobody for what would be borrowed (ours: Kueue evens out what is borrowed)": Scenario(
        {"n": 9}, THREE, each("a", 3) | each("b", 5) | each("c", 1), {"in": Waits("a", 1)}, {}
    ),
    "nobody for more than is guaranteed, though others borrow": Scenario(
        {"n": 8}, THREE, each("a", 3) | each("b", 5), {"in": Waits("a", 2)}, {}
    ),
    "nobody of the same queue (ours)": Scenario(
        {"n": 9}, THREE, each("a", 4, priority=-1) | each("b", 5), {"in": Waits("a", 2, 1, {"priority": 9})}, {}
    ),
    "nobody for a huge one": Scenario(
        {"n": 9}, THREE, {"a1": Runs("a", 2, "n"), "b1": Runs("b", 7, "n")}, {"in": Waits("a", 5)}, {}
    ),
    "nobody for a huge one, of small ones": Scenario(
        {"n": 9}, THREE, {"b1": Runs("b", 2, "n"), "b2": Runs("b", 2, "n"), "b3": Runs("b", 3, "n")},
        {"in": Waits("a", 6)}, {},
    ),
    "nobody who would then be below": Scenario(
        {"n": 9}, THREE, {"b1": Runs("b", 3, "n"), "b2": Runs("b", 3, "n"), "c1": Runs("c", 3, "n")},
        {"in": Waits("a", 4)}, {},
    ),
    "a small one that leaves the guarantee whole before a large one": Scenario(
        {"n": 9}, THREE, {"a1": Runs("a", 2, "n"), "b1": Runs("b", 5, "n"), "b2": Runs("b", 1, "n", {"priority": 1})},
        {"x": Waits("c", 1), "in": Waits("a", 1)}, {"x": "n", "in": "n"}, ("b2",),
    ),
    "a heavy queue borrows more": Scenario(
        {"n": 12}, {"a": {"guaranteed": 3, "weight": 2.0}, "b": {"guaranteed": 3}, "c": {"guaranteed": 3}}, {},
        {"x": Waits("a", 1, 12), "y": Waits("b", 1, 12)}, {"x": "n n n n n n n", "y": "n n n n n"},
    ),
    "all that a light queue borrows": Scenario(
        {"n": 9}, {**THREE, "b": {"guaranteed": 3, "weight": 0.01}}, each("a", 3) | each("b", 6),
        {"in": Waits("c", 3)}, {"in": "n"}, ("b4", "b5", "b6"),
    ),
    "nothing of what a light queue is guaranteed": Scenario(
        {"n": 6}, {"a": {"guaranteed": 3}, "b": {"guaranteed": 3, "weight": 0.01}}, each("a", 3) | each("b", 3),
        {"in": Waits("a", 1)}, {},
    ),
    "a light queue gets what it is guaranteed": Scenario(
        {"n": 1}, {"a": {"guaranteed": 1, "weight": 0.01}, "b": {}}, each("b", 1), {"in": Waits("a", 1)},
        {"in": "n"}, ("b1",),
    ),
    "a queue that borrows within a whole that does not": Scenario(
        {"n": 5}, {"a": {"guaranteed": 4}, "r": {"guaranteed": 1}, "b": {"parent": "r"}},
        {"b1": Runs("b", 1, "n"), "d1": Runs("default", 4, "n")}, {"in": Waits("a", 4)}, {"in": "n"}, ("d1",),
    ),
}  # fmt: skip

CLASSIC = {
    # preemption_test.go
    "what was lent": Scenario(
        {"n": 12}, {"a": {"guaranteed": 6}, "b": {"guaranteed": 6}},
        {"a1": Runs("a", 3, "n"), "b1": Runs("b", 3, "n"), "b2": Runs("b", 3, "n"), "b3": Runs("b", 3, "n")},
        {"in": Waits("a", 3)}, {"in": "n"}, ("b3",),
    ),
    "no borrowers": Scenario(
        {"n": 12}, {"a": {"guaranteed": 6}, "b": {"guaranteed": 6}},
        {"a1": Runs("a", 4, "n"), "b1": Runs("b", 4, "n"), "x": Runs("default", 1, "n")},
        {"in": Waits("b", 4)}, {},
    ),
    "not enough borrowers": Scenario(
        {"n": 6}, {"a": {"guaranteed": 4}, "b": {"guaranteed": 2}}, each("b", 3) | each("a", 3),
        {"in": Waits("a", 2)}, {},
    ),
    "nobody of the same priority, by the policy": Scenario(
        {"n": 4}, {"a": {"guaranteed": 2, "reclaim": "LowerPriority"}, "b": {"guaranteed": 2}}, each("b", 4),
        {"in": Waits("a", 1)}, {},
    ),
    "lower ones by the policy": Scenario(
        {"n": 4}, {"a": {"guaranteed": 2, "reclaim": "LowerPriority"}, "b": {"guaranteed": 2}},
        {"b1": Runs("b", 1, "n", {"priority": -1}), "b2": Runs("b", 1, "n"), "b3": Runs("b", 2, "n")},
        {"in": Waits("a", 1)}, {"in": "n"}, ("b1",),
    ),
    "those of the same priority, by the policy": Scenario(
        {"n": 4}, {"a": {"guaranteed": 2}, "b": {"guaranteed": 2}}, each("b", 4), {"in": Waits("a", 1)},
        {"in": "n"}, ("b4",),
    ),
    "from all that borrow": Scenario(
        {"n": 8}, {"a": {"guaranteed": 4}, "b": {"guaranteed": 2}, "c": {"guaranteed": 2}},
        {"b1": Runs("b", 2, "n"), "b2": Runs("b", 2, "n"), "c1": Runs("c", 2, "n"), "c2": Runs("c", 2, "n")},
        {"in": Waits("a", 4)}, {"in": "n"}, ("b2", "c2"),
    ),
    "by the policy nobody at all": Scenario(
        {"n": 2}, {"a": {"guaranteed": 2, "reclaim": "Never"}, "b": {}}, each("b", 2), {"in": Waits("a", 1)}, {}
    ),
    "only those on GPUs that will do": Scenario(
        {"n": {"gpus": 2, "model": "T4"}, "m": {"gpus": 2, "model": "A100"}},
        {"a": {"guaranteed": 1}, "b": {}},
        {"b1": Runs("b", 2, "m"), "b2": Runs("b", 2, "n")},
        {"in": Waits("a", 1, 1, {"model": "A100"})}, {"in": "m"}, ("b1",),
    ),
    "the newest first": Scenario(
        {"n": 6}, {"a": {"guaranteed": 2}, "b": {}}, each("b", 3, 2), {"in": Waits("a", 1)}, {"in": "n"}, ("b3",)
    ),
    "none that is not needed in the end": Scenario(
        {"n": 6}, {"a": {"guaranteed": 4}, "b": {}},
        {"b1": Runs("b", 4, "n"), "b2": Runs("b", 1, "n"), "b3": Runs("b", 1, "n")},
        {"in": Waits("a", 4)}, {"in": "n"}, ("b1",),
    ),
}  # fmt: skip

TREES = {
    # preemption_hierarchical_test.go
    "a part without a guarantee, of a whole that has one": Scenario(
        {"n": 2}, TREE | {"x": {}}, {"x1": Runs("x", 2, "n")}, {"in": Waits("q", 2)}, {"in": "n"}, ("x1",)
    ),
    "and none of who has no more than its own": Scenario(
        {"n": 4}, TREE | {"x": {}, "y": {"guaranteed": 2}}, {"y1": Runs("y", 2, "n"), "x1": Runs("x", 2, "n")},
        {"in": Waits("q", 2)}, {"in": "n"}, ("x1",),
    ),
    "as many as are needed": Scenario(
        {"n": 2}, TREE | {"x": {}}, each("x", 2), {"in": Waits("q", 2)}, {"in": "n"}, ("x1", "x2")
    ),
    "nobody of the same whole, without a guarantee in it": Scenario(
        {"n": 2}, TREE | {"s": {"parent": "c"}}, each("s", 2), {"in": Waits("q", 1)}, {}
    ),
    "who borrows from the whole, not those of the same queue": Scenario(
        {"n": 2}, TREE | {"x": {}}, {"x1": Runs("x", 1, "n"), "q1": Runs("q", 1, "n")},
        {"in": Waits("q", 1)}, {"in": "n"}, ("x1",),
    ),
    "of the same whole, where the queue has a guarantee in it": Scenario(
        {"n": 6}, TREE | {"q": {"parent": "c", "guaranteed": 2}, "s": {"parent": "c"}, "y": {"guaranteed": 2},
                          "z": {"guaranteed": 2}},
        {"y1": Runs("y", 2, "n"), "s1": Runs("s", 2, "n"), "z1": Runs("z", 2, "n")},
        {"in": Waits("q", 2)}, {"in": "n"}, ("s1",),
    ),
    "of both, where neither is enough": Scenario(
        {"n": 6}, {"c": {"guaranteed": 4}, "q": {"parent": "c", "guaranteed": 4}, "s": {"parent": "c"}, "x": {}},
        {"x1": Runs("x", 3, "n"), "s1": Runs("s", 3, "n")}, {"in": Waits("q", 4)}, {"in": "n"}, ("s1", "x1"),
    ),
    "only who has more than its own": Scenario(
        {"n": 5}, {"c": {"guaranteed": 3}, "q": {"parent": "c"}, "x": {}, "y": {"guaranteed": 2}},
        each("x", 3) | {"y1": Runs("y", 2, "n")}, {"in": Waits("q", 1)}, {"in": "n"}, ("x3",),
    ),
    "nobody where all the others have their own": Scenario(
        {"n": 4}, TREE | {"o": {"guaranteed": 2}, "p": {"parent": "o"}, "s": {"parent": "c"}},
        each("p", 2) | {"s1": Runs("s", 2, "n")}, {"in": Waits("q", 2)}, {},
    ),
    "up to the guarantee of the whole and no more": Scenario(
        {"n": 4}, TREE | {"x": {}}, each("x", 4), {"in": Waits("q", 1, 4)}, {"in": "n n"}, ("x3", "x4")
    ),
    "a limit within the whole holds": Scenario(
        {"n": 4}, TREE | {"q": {"parent": "c", "limit": 1}, "x": {}}, each("x", 4), {"in": Waits("q", 1, 4)},
        {"in": "n"}, ("x4",),
    ),
    "three levels, where they meet": Scenario(
        {"n": 8},
        {"l": {"guaranteed": 4}, "ll": {"parent": "l"}, "q": {"parent": "ll"},
         "r": {"guaranteed": 4}, "rr": {"parent": "r", "guaranteed": 2}, "x": {"parent": "rr"}, "y": {"parent": "r"}},
        each("x", 4) | each("y", 4), {"in": Waits("q", 1, 2)}, {"in": "n n"}, ("y3", "y4"),
    ),
    "what a whole shares among its parts, by weight": Scenario(
        {"n": 8}, {"c": {"guaranteed": 6}, "q": {"parent": "c", "weight": 2.0}, "s": {"parent": "c"}, "x": {}},
        each("x", 8), {"in": Waits("q", 1, 9), "more": Waits("s", 1, 9)},
        {"in": "n n n n", "more": "n n"}, ("x3", "x4", "x5", "x6", "x7", "x8"),
    ),
}  # fmt: skip

CASES = {f"{kind}: {name}": one
         for kind, table in (("fair", FAIR), ("classic", CLASSIC), ("trees", TREES))
         for name, one in table.items()}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_as_kueue(bench: Any, name: str) -> None:
    given = CASES[name]
    assert play(bench, given) == (given.places, given.stopped)
