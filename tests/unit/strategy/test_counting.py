from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneyard_strategy import counting
from tuneyard_strategy.counting import Condition, count


def on(parent: int, *codes: int) -> Condition:
    return Condition(parent, frozenset(codes))


@pytest.mark.parametrize(
    ("sizes", "conditions", "expected"),
    [
        ([3, 4], [[], []], 12),
        ([10**30, 10**30], [[], []], 10**60),
        ([3, None], [[], []], None),
        ([2, 5], [[], [on(0, 1)]], 6),
        ([2, None], [[], [on(0, 1)]], None),
        ([2, None], [[], [on(0)]], 2),
        ([3, 4, 5], [[], [on(0, 1, 2)], [on(1, 0)]], 1 + 2 * (3 + 5)),
        ([2, 2, 7], [[], [], [on(0, 1), on(1, 1)]], 3 + 7),
        ([2, 4, 4], [[], [on(0, 0)], [on(0, 1)]], 8),
        ([10**12, 3], [[], [on(0, 5, 6)]], 10**12 - 2 + 6),
    ],
)
def test_counts(sizes: list[int | None], conditions: list[list[Condition]], expected: int | None) -> None:
    assert count(sizes, conditions) == expected


def test_many_switches_listed_before_their_children_are_no_burden() -> None:
    conditions: list[list[Condition]] = [[] for _ in range(50)] + [[on(i, 1)] for i in range(50)]
    assert count([2] * 50 + [5] * 50, conditions) == 6**50


def test_hopelessly_entangled_conditions_give_an_upper_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    conditions: list[list[Condition]] = [[] for _ in range(6)] + [[on(i, 1), on((i + 1) % 6, 1)] for i in range(6)]
    exact = count([2] * 6 + [3] * 6, conditions)
    monkeypatch.setattr(counting, "MAX_STATES", 1)
    bound = count([2] * 6 + [3] * 6, conditions)
    assert exact is not None
    assert bound is not None
    assert exact < bound <= 2**6 * 3**6


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[int], list[list[Condition]]]:
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=6))
    conditions: list[list[Condition]] = []
    for position in range(len(sizes)):
        parents = draw(st.lists(st.integers(0, position - 1), max_size=2, unique=True)) if position else []
        conditions.append([on(p, *draw(st.sets(st.integers(0, sizes[p] - 1)))) for p in parents])
    return sizes, conditions


@given(trees())
def test_the_count_is_that_of_a_list(tree: tuple[list[int], list[list[Condition]]]) -> None:
    sizes, conditions = tree
    found = set()
    for row in itertools.product(*map(range, sizes)):
        values: list[int | None] = []
        for position, value in enumerate(row):
            there = all(values[c.parent] in c.codes for c in conditions[position])
            values.append(value if there else None)
        found.add(tuple(values))
    assert count(sizes, conditions) == len(found)
