"""Rungs and brackets: known answers of the papers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneyard_api.fidelity import MOST_RUNGS, FidelitySpec
from tuneyard_strategy.rungs import brackets, kept, rungs


def spec(low: int, high: int, factor: int = 3) -> FidelitySpec:
    return FidelitySpec(parameter="epochs", min=low, max=high, factor=factor)


TABLE = [
    [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
    [(34, 3), (11, 9), (3, 27), (1, 81)],
    [(15, 9), (5, 27), (1, 81)],
    [(8, 27), (2, 81)],
    [(5, 81)],
]
"""Hyperband for R = 81 and eta = 3 by its algorithm 1: n = ceil((s_max + 1) / (s + 1) x 3^s), n_i = floor(n / 3^i)."""


def test_the_brackets_of_the_paper() -> None:
    assert [[(level.trials, level.fidelity) for level in bracket] for bracket in brackets(spec(1, 81))] == TABLE


def test_another_factor() -> None:
    """As mlr3hyperband shows for eta = 2, from 1 to 8."""
    found = [[(level.trials, level.fidelity) for level in bracket] for bracket in brackets(spec(1, 8, 2))]
    assert found == [[(8, 1), (4, 2), (2, 4), (1, 8)], [(6, 2), (3, 4), (1, 8)], [(4, 4), (2, 8)], [(4, 8)]]


@pytest.mark.parametrize(
    ("low", "high", "factor", "expected"),
    [(1, 81, 3, (1, 3, 9, 27, 81)), (1, 100, 3, (1, 3, 9, 27, 81, 100)), (4, 10, 3, (4, 10)), (5, 6, 4, (5, 6))],
)
def test_the_rungs_of_asha(low: int, high: int, factor: int, expected: tuple[int, ...]) -> None:
    assert rungs(spec(low, high, factor)) == expected


@given(st.integers(1, 10**6), st.integers(1, 10**9), st.integers(2, 10))
def test_rungs_and_brackets_of_any_fidelity(low: int, more: int, factor: int) -> None:
    fidelity = spec(low, min(low + more, 10**9), factor)
    points = rungs(fidelity)
    assert points[0] == fidelity.min
    assert points[-1] == fidelity.max
    assert sorted(set(points)) == list(points)
    assert len(points) <= MOST_RUNGS
    for bracket in brackets(fidelity):
        assert bracket[-1].fidelity == fidelity.max
        assert all(level.trials >= 1 and level.fidelity >= fidelity.min for level in bracket)
        assert [level.fidelity for level in bracket] == sorted({level.fidelity for level in bracket})


def test_the_best_one_in_three_goes_on_and_one_at_least() -> None:
    assert [kept(trials, 3) for trials in (1, 2, 3, 5, 6, 7, 81)] == [1, 1, 1, 1, 2, 2, 27]
