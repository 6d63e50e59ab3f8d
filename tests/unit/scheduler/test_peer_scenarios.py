"""Cases of KAI Scheduler's integration tests (pkg/scheduler/actions/integration_tests), in our words.

Comments name the file there. What we want is KAI's outcome, but where the name says 'ours': KAI's queues also give back
what is beyond their fair share, KAI stops trials for others of the same queue, and moves trials to make room; Tuneyard
gives back only what is guaranteed to others, and stops nobody for more than that (docs/queues.md).
"""

from typing import Any

import pytest
from scenarios import Runs, Scenario, Waits, play

SHARED = {"gpus": 2, "parts": "kai", "memory": 100 * 1024}
ONE_SHARED = {"gpus": 1, "parts": "kai"}
EACH = {"guaranteed": 1}

RECLAIM = {
    # reclaim/reclaim_test.go
    "who is below gets from who is above": Scenario(
        {"n": {"gpus": 4, "parts": "kai"}},
        {"a": {"guaranteed": 2, "weight": 3.0}, "b": {"guaranteed": 2}},
        {"a0": Runs("a", 1, "n"), "a1": Runs("a", 0.5, "n/0"), "b0": Runs("b", 2, "n"), "b1": Runs("b", 0.5, "n/0")},
        {"a2": Waits("a", 0.5)},
        {"a2": "n/0"},
        ("b1",),
    ),
    "a trial that is borrowed in part is given back": Scenario(
        {"n": 2}, {"a": EACH, "b": EACH}, {"a0": Runs("a", 2, "n")}, {"b0": Waits("b", 1)}, {"b0": "n"}, ("a0",)
    ),
    "so is a large one, for as much as is guaranteed": Scenario(
        {"n": 8},
        {"a": {"guaranteed": 6}, "b": {"guaranteed": 5}},
        {"a0": Runs("a", 8, "n")},
        {"b0": Waits("b", 5)},
        {"b0": "n"},
        ("a0",),
    ),
    "the one that suits, on whatever node": Scenario(
        {"n1": 2, "n2": 2},
        {"a": {"guaranteed": 2}, "b": {"guaranteed": 2}},
        {"a0": Runs("a", 1, "n1"), "b0": Runs("b", 2, "n2"), "b1": Runs("b", 1, "n1")},
        {"a1": Waits("a", 1)},
        {"a1": "n1"},
        ("b1",),
    ),
    # KAI stops a1, which leaves a with less than its 2.
    "rather one that leaves its queue with its guarantee (ours)": Scenario(
        {"n1": 2, "n2": 2},
        {"a": {"guaranteed": 2}, "b": {"guaranteed": 2}},
        {"a0": Runs("a", 1, "n2"), "a1": Runs("a", 2, "n1"), "b0": Runs("b", 1, "n2")},
        {"b1": Waits("b", 1)},
        {"b1": "n2"},
        ("a0",),
    ),
    "nobody for who has what is guaranteed": Scenario(
        {"n1": 2, "n2": 2},
        {"a": {"guaranteed": 2, "weight": 2.0}, "b": EACH},
        {"a0": Runs("a", 1, "n2"), "a1": Runs("a", 2, "n1"), "b0": Runs("b", 1, "n2")},
        {"b1": Waits("b", 1)},
        {},
    ),
    "who has no guarantee goes, and not who has one": Scenario(
        {"n": 4},
        {"a": {"guaranteed": 3}, "b": EACH, "c": {}},
        {"a0": Runs("a", 2, "n"), "a1": Runs("a", 1, "n"), "c0": Runs("c", 1, "n")},
        {"b0": Waits("b", 1)},
        {"b0": "n"},
        ("c0",),
    ),
    "between departments": Scenario(
        {"n": 2},
        {"d1": EACH, "d2": EACH, "a": {"parent": "d1", **EACH}, "b": {"parent": "d2", **EACH}},
        {"a0": Runs("a", 1, "n"), "a1": Runs("a", 1, "n")},
        {"b0": Waits("b", 1)},
        {"b0": "n"},
        ("a1",),
    ),
    "nobody where the department would have more than its own": Scenario(
        {"n": 4},
        {"d1": {"guaranteed": 2}, "d2": {"guaranteed": 2}, "a": {"parent": "d1"}, "b": {"parent": "d2"}},
        {"a0": Runs("a", 3, "n"), "b0": Runs("b", 1, "n")},
        {"b1": Waits("b", 2)},
        {},
    ),
    "from the same department and from another one, for one trial": Scenario(
        {"n": 4},
        {"d1": {}, "d2": {"guaranteed": 4}, "a": {"parent": "d1"}, "b": {"parent": "d2"},
         "c": {"parent": "d2", "guaranteed": 4}},
        {"a0": Runs("a", 2, "n"), "b0": Runs("b", 2, "n")},
        {"c0": Waits("c", 4)},
        {"c0": "n"},
        ("a0", "b0"),
    ),
    # KAI starts b1. Ours stops a0 for b1 as well; then both GPUs are idle, and b0 is first in the line of its queue.
    "what is not due does not hold up what is (ours)": Scenario(
        {"n": 2}, {"a": {}, "b": EACH},
        {"a0": Runs("a", 2, "n")},
        {"b0": Waits("b", 2), "b1": Waits("b", 1)},
        {"b0": "n"},
        ("a0",),
    ),
    "nobody for more than is guaranteed, though less is used": Scenario(
        {"n": 4}, {"a": {"guaranteed": 2}, "b": EACH}, {"a0": Runs("a", 3, "n")}, {"b0": Waits("b", 2)}, {}
    ),
    "d1 has borrowed and d2 is below": Scenario(
        {"n1": 3, "n2": 3},
        {"d1": {"guaranteed": 2}, "d2": {"guaranteed": 2}, "a": {"parent": "d1", "guaranteed": 2, "weight": 3.0},
         "b": {"parent": "d2", "guaranteed": 2}},
        {"a0": Runs("a", 2, "n2"), "a1": Runs("a", 2, "n1")},
        {"b0": Waits("b", 2)},
        {"b0": "n1"},
        ("a1",),
    ),
    "within a department that has all that it gets": Scenario(
        {"n1": 3, "n2": 3},
        {"d1": {"guaranteed": 3}, "d2": {"guaranteed": 3}, "a": {"parent": "d1", "guaranteed": 3},
         "b": {"parent": "d2", "guaranteed": 2}, "c": {"parent": "d2", "guaranteed": 1}},
        {"a0": Runs("a", 2, "n1"), "a1": Runs("a", 1, "n2"), "b0": Runs("b", 2, "n2"), "b1": Runs("b", 1, "n1")},
        {"c0": Waits("c", 1)},
        {"c0": "n1"},
        ("b1",),
    ),
    "nobody where all departments have what is guaranteed": Scenario(
        {"n1": 3, "n2": 3},
        {"d1": EACH, "d2": EACH, "a": {"parent": "d1", **EACH}, "b": {"parent": "d2", **EACH}},
        {"a0": Runs("a", 2, "n1"), "a1": Runs("a", 1, "n2"), "b0": Runs("b", 2, "n2"), "b1": Runs("b", 1, "n1")},
        {"b2": Waits("b", 1)},
        {},
    ),
    "of an elastic study only what it has beyond its guarantee": Scenario(
        {"n": 3}, {"a": EACH, "b": {"guaranteed": 2}},
        {"a0": Runs("a", 1, "n"), "a1": Runs("a", 1, "n")},
        {"b0": Waits("b", 1, 3)},
        {"b0": "n n"},
        ("a1",),
    ),
    "cores are given back with the GPU": Scenario(
        {"n": {"gpus": 2, "cpu": 4.0}}, {"a": {}, "b": EACH},
        {"a0": Runs("a", 1, "n", {"cpu": 3.0})},
        {"b0": Waits("b", 1, 1, {"cpu": 2.0})},
        {"b0": "n"},
        ("a0",),
    ),
    # KAI stops b0: of the 4 GPUs that are guaranteed to nobody, more are a's by its weight.
    "fair shares beyond guarantees stop nobody (ours)": Scenario(
        {"n": 7}, {"a": {"guaranteed": 2, "weight": 2.0}, "b": EACH},
        {"a0": Runs("a", 4, "n"), "b0": Runs("b", 3, "n")},
        {"a1": Waits("a", 1)},
        {},
    ),
}  # fmt: skip

FRACTIONS = {
    # reclaim/reclaimFractional_test.go
    "a GPU of which a part is used, for a whole one": Scenario(
        {"n": SHARED}, {"a": EACH, "b": EACH},
        {"a0": Runs("a", 1, "n"), "a1": Runs("a", 0.5, "n/0")},
        {"b0": Waits("b", 1)},
        {"b0": "n"},
        ("a1",),
    ),
    "one of two sharers is enough": Scenario(
        {"n": SHARED}, {"a": EACH, "b": EACH},
        {"a0": Runs("a", 1, "n"), "a1": Runs("a", 0.5, "n/0"), "a2": Runs("a", 0.5, "n/0")},
        {"b0": Waits("b", 0.4)},
        {"b0": "n/0"},
        ("a2",),
    ),
    "both sharers where one is not": Scenario(
        {"n": SHARED}, {"a": EACH, "b": EACH},
        {"a0": Runs("a", 1, "n"), "a1": Runs("a", 0.5, "n/1"), "a2": Runs("a", 0.5, "n/1")},
        {"b0": Waits("b", 0.8)},
        {"b0": "n/0"},
        ("a1", "a2"),
    ),
    "no part beyond what is guaranteed": Scenario(
        {"n": SHARED}, {"a": EACH, "b": EACH},
        {"a0": Runs("a", 1, "n"), "a1": Runs("a", 0.5, "n/0"), "b0": Runs("b", 0.5, "n/0")},
        {"b1": Waits("b", 0.8)},
        {},
    ),
    "a GPU is not emptied by halves": Scenario(
        {"n1": ONE_SHARED, "n2": ONE_SHARED}, {"a": {}, "b": {}, "c": {"guaranteed": 2}},
        {"a0": Runs("a", 0.7, "n1/0"), "b0": Runs("b", 0.7, "n2/0")},
        {"c0": Waits("c", 1)},
        {"c0": "n2"},
        ("b0",),
    ),
    # KAI stops one and starts it again beside the other one: so do we, since that is where it fits then.
    "who was stopped goes beside the other one": Scenario(
        {"n1": ONE_SHARED, "n2": ONE_SHARED}, {"a": {}, "b": {}, "c": {"guaranteed": 2}},
        {"a0": Runs("a", 0.5, "n1/0"), "b0": Runs("b", 0.5, "n2/0")},
        {"c0": Waits("c", 1)},
        {"c0": "n2", "b0": "n1/0"},
        ("b0",),
    ),
    "one is idle, one is given back": Scenario(
        {"n1": ONE_SHARED, "n2": ONE_SHARED}, {"a": {}, "b": {"guaranteed": 2}},
        {"a0": Runs("a", 0.7, "n1/0")},
        {"b0": Waits("b", 1, 2)},
        {"b0": "n2 n1"},
        ("a0",),
    ),
    "beside its own queue first, then what is given back": Scenario(
        {"n1": ONE_SHARED, "n2": ONE_SHARED}, {"a": {}, "b": {"guaranteed": 2}},
        {"a0": Runs("a", 0.7, "n1/0"), "b0": Runs("b", 0.3, "n2/0")},
        {"b1": Waits("b", 0.7, 2)},
        {"b1": "n2/0 n1/0"},
        ("a0",),
    ),
    "memory that is given back": Scenario(
        {"n": SHARED}, {"a": EACH, "b": EACH},
        {"a0": Runs("a", 1, "n"), "a1": Runs("a", "50Gi", "n/1")},
        {"b0": Waits("b", "60Gi")},
        {"b0": "n/0"},
        ("a1",),
    ),
    # allocate/allocateFractionalGpu_test.go
    "a further GPU where a part does not fit beside another": Scenario(
        {"n": SHARED}, {}, {"a0": Runs("default", 0.6, "n/0")}, {"a1": Waits("default", 0.5)}, {"a1": "n/1"}
    ),
    "not a GPU that is used as a whole": Scenario(
        {"n": SHARED}, {}, {"a0": Runs("default", 1, "n")}, {"a1": Waits("default", 0.5, 3)}, {"a1": "n/0 n/0"}
    ),
    "parts fill each GPU": Scenario(
        {"n": SHARED}, {},
        {"r": Runs("default", 0.5, "n/0")},
        {"p0": Waits("default", 0.6), "p1": Waits("default", 0.5), "p2": Waits("default", 0.5),
         "p3": Waits("default", 0.3)},
        {"p0": "n/1", "p1": "n/0", "p3": "n/1"},
    ),
    "more than is guaranteed where it is idle": Scenario(
        {"n": SHARED}, {"a": EACH}, {"a0": Runs("a", 0.5, "n/0"), "a1": Runs("a", 0.5, "n/0")},
        {"a2": Waits("a", 0.5)}, {"a2": "n/1"},
    ),
    "memory of an empty GPU": Scenario(
        {"n": SHARED}, {}, {}, {"a0": Waits("default", "50Gi", 4)}, {"a0": "n/0 n/0 n/1 n/1"}
    ),
    "the node on which a GPU is shared already": Scenario(
        {"n1": SHARED, "n2": SHARED}, {}, {"a0": Runs("default", 0.5, "n2/1")}, {"a1": Waits("default", 0.5)},
        {"a1": "n2/1"},
    ),
    # preempt/preemptFractional_test.go: KAI stops the half for the whole one, of the same queue.
    "nobody for a trial of the same queue (ours)": Scenario(
        {"n": SHARED}, {"a": {"guaranteed": 2}}, {"a0": Runs("a", 1, "n"), "a1": Runs("a", 0.5, "n/0")},
        {"a2": Waits("a", 1, 1, {"priority": 9})}, {},
    ),
    # consolidation/consolidationFractional_test.go: KAI moves a half to the GPU of the other one.
    "nobody is moved (ours)": Scenario(
        {"n": SHARED}, {"a": EACH}, {"a0": Runs("a", 0.5, "n/0"), "a1": Runs("a", 0.5, "n/1")},
        {"a2": Waits("a", 1)}, {},
    ),
}  # fmt: skip

ALLOCATE = {
    # allocate/allocate_test.go
    "a queue's limit": Scenario(
        {"n": 4}, {"d": {"guaranteed": 2}, "a": {"parent": "d", "guaranteed": 2, "limit": 2}}, {},
        {"a0": Waits("a", 2, 2)}, {"a0": "n"},
    ),
    "a department's limit": Scenario(
        {"n": 4}, {"d": {"guaranteed": 2, "limit": 2}, "a": {"parent": "d", "guaranteed": 2}}, {},
        {"a0": Waits("a", 2, 2)}, {"a0": "n"},
    ),
    "who came first, where all else is alike": Scenario(
        {"n": 1}, {"a": EACH, "b": EACH}, {}, {"a0": Waits("a", 1), "b0": Waits("b", 1)}, {"a0": "n"}
    ),
    "shares are counted as they are given": Scenario(
        {"n": 4}, {"a": EACH, "b": EACH}, {}, {"a0": Waits("a", 1, 3), "b0": Waits("b", 1, 3)},
        {"a0": "n n", "b0": "n n"},
    ),
    "guarantees above what there is: one each": Scenario(
        {"n": 2}, dict.fromkeys("abcd", EACH), {}, {f"{name}0": Waits(name, 1, 2) for name in "abcd"},
        {"a0": "n", "b0": "n"},
    ),
    "two departments, each by its guarantee": Scenario(
        {"n": 4}, {"o": {"guaranteed": 4}, "d1": {"parent": "o", "guaranteed": 3}, "d2": {"parent": "o", **EACH},
                   "a": {"parent": "d1", "guaranteed": 2}, "b": {"parent": "d1", **EACH}, "c": {"parent": "d2"}}, {},
        {"a0": Waits("a", 1, 9), "b0": Waits("b", 1, 9), "c0": Waits("c", 1, 9)},
        {"a0": "n n", "b0": "n", "c0": "n"},
    ),
    # consolidation/consolidation_test.go
    "no trial is moved from node to node (ours)": Scenario(
        {"n1": 2, "n2": 2}, {"a": EACH}, {"a0": Runs("a", 1, "n1"), "a1": Runs("a", 1, "n2")},
        {"a2": Waits("a", 2)}, {},
    ),
    "what packing keeps free": Scenario(
        {"n1": 2, "n2": 2}, {}, {"a0": Runs("default", 1, "n2")},
        {"a1": Waits("default", 1), "a2": Waits("default", 2)}, {"a1": "n2", "a2": "n1"},
    ),
    "what spreading does not": Scenario(
        {"n1": 2, "n2": 2}, {}, {"a0": Runs("default", 1, "n2")},
        {"a1": Waits("default", 1, 1, {"spread": True}), "a2": Waits("default", 2)}, {"a1": "n1"},
    ),
}  # fmt: skip

CASES = {f"{kind}: {name}": each
         for kind, table in (("reclaim", RECLAIM), ("parts", FRACTIONS), ("places", ALLOCATE))
         for name, each in table.items()}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_as_kai(bench: Any, name: str) -> None:
    given = CASES[name]
    assert play(bench, given) == (given.places, given.stopped)
