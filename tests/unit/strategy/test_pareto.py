"""Fronts, hypervolumes and their expected improvement, against definitions, closed forms and Monte Carlo."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneyard_strategy import pareto
from tuneyard_strategy.acquisition import NoisyImprovement
from tuneyard_strategy.distributions import Floats
from tuneyard_strategy.ehvi import HypervolumeImprovement
from tuneyard_strategy.gp import Kernel, Posterior

KERNEL = Kernel(np.array([False]), np.array([0.3]), 1.0)


@st.composite
def losses(draw: st.DrawFn) -> Floats:
    k = draw(st.integers(2, 4))
    row = st.lists(st.integers(0, 6), min_size=k, max_size=k)
    return np.array(draw(st.lists(row, min_size=1, max_size=16)), dtype=np.float64)


def dominates(a: Floats, b: Floats) -> bool:
    return bool((a <= b).all() and (a < b).any())


@given(losses())
def test_the_front_is_what_nothing_dominates(points: Floats) -> None:
    expected = [not any(dominates(other, point) for other in points) for point in points]
    assert pareto.nondominated(points).tolist() == expected


def test_a_front_larger_than_a_block() -> None:
    angle = np.linspace(0, np.pi / 2, 700)
    points = np.stack([np.cos(angle), np.sin(angle), np.zeros(700)], axis=1)
    both = np.vstack([points, points + 0.01])[np.random.default_rng(1).permutation(1400)]
    assert pareto.nondominated(both).sum() == 700


@given(losses(), st.integers(0, 30))
def test_the_best_are_those_of_the_first_fronts(points: Floats, count: int) -> None:
    chosen = pareto.best(points, count)
    assert len(set(chosen.tolist())) == len(chosen) == min(count, len(points))
    left = np.setdiff1d(np.arange(len(points)), chosen)
    assert not any(dominates(points[other], points[one]) for one, other in itertools.product(chosen, left))


def test_points_that_are_spread_cover_the_front() -> None:
    crowd = np.stack([np.linspace(0.50, 0.51, 50), np.linspace(0.51, 0.50, 50)], axis=1)
    points = np.vstack([crowd, [[0.0, 1.0], [1.0, 0.0]]])
    assert {50, 51} < set(pareto.spread(points, 3).tolist())


@given(losses())
def test_boxes_are_disjoint_and_hold_all_that_is_not_dominated(points: Floats) -> None:
    reference = np.full(points.shape[1], 5.5)
    lower, upper = pareto.boxes(points, reference)
    cells = np.stack(np.meshgrid(*[np.arange(-1.0, 6.0)] * points.shape[1]), axis=-1).reshape(-1, points.shape[1])
    cells = cells[(cells < reference).all(axis=1)] + 0.25  # integers have volume to their upper right
    holds = ((lower <= cells[:, None]) & (cells[:, None] < upper)).all(axis=2).sum(axis=1)
    dominated = (points <= cells[:, None]).all(axis=2).any(axis=1)
    assert holds.tolist() == (~dominated).astype(int).tolist()


@pytest.mark.parametrize(
    ("points", "reference", "expected"),
    [
        ([[1, 3], [2, 2], [3, 1]], [4, 4], 6.0),
        ([[1, 3], [2, 2], [3, 1], [3, 3], [9, 0]], [4, 4], 6.0),
        ([[0, 0, 0]], [2, 3, 4], 24.0),
        ([[0, 1, 1], [1, 0, 1], [1, 1, 0]], [2, 2, 2], 4.0),
        ([[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]], [2, 2, 2, 2], 5.0),
        ([[5, 5]], [4, 4], 0.0),
    ],
)
def test_hypervolumes(points: list[list[float]], reference: list[float], expected: float) -> None:
    assert pareto.hypervolume(np.array(points, float), np.array(reference, float)) == pytest.approx(expected)


def test_the_reference_is_a_little_worse_than_the_front_whatever_the_outliers() -> None:
    points = np.array([[0.0, 1.0], [1.0, 0.0], [1e9, 1e9]])
    np.testing.assert_allclose(pareto.reference_point(points), [1.1, 1.1])
    assert (pareto.reference_point(np.zeros((3, 2))) > 0).all()
    assert (pareto.reference_point(np.array([[0.0, 0.0], [2.0, 4.0]])) == [0.2, 0.4]).all()


def test_what_is_on_the_front_for_next_to_nothing_does_not_widen_it() -> None:
    corners = np.eye(3)
    barely = np.array([[-0.01, -0.01, 5.0], [3.0, -0.2, 0.0]])
    np.testing.assert_allclose(pareto.reference_point(corners), np.full(3, 1.1))
    np.testing.assert_allclose(pareto.reference_point(np.vstack([corners, barely])), np.full(3, 1.1))
    worth_it = np.array([[3.0, -0.5, 0.0]])
    np.testing.assert_allclose(pareto.reference_point(np.vstack([corners, worth_it])), [3.3, 1.15, 1.1])


def models(k: int) -> tuple[list[Posterior], Floats, Floats]:
    """k functions of one feature, observed at six places without noise: posteriors, places, values."""
    x = np.linspace(0.05, 0.95, 6)[:, None]
    y = np.stack([(x[:, 0] - centre) ** 2 * 4 for centre in np.linspace(0.1, 0.9, k)], axis=1)
    return [Posterior(KERNEL, x, column, np.full(6, 1e-6)) for column in y.T], x, y


@pytest.mark.parametrize("k", [2, 3, 4])
def test_the_expected_hypervolume_improvement_is_monte_carlos(k: int) -> None:
    posteriors, x, y = models(k)
    reference, random = y.max(axis=0) + 0.3, np.random.default_rng(3)  # so far off that chance alone finds gains
    candidates = np.array([[0.14], [0.5], [0.59], [0.99]])
    got = HypervolumeImprovement(posteriors, x, np.zeros((k, 6, 2)), reference)(candidates)
    lower, upper = pareto.boxes(y, reference)
    for row, candidate in enumerate(candidates):
        predictions = [posterior.predict(candidate[None]) for posterior in posteriors]
        mean, deviation = (np.array([p[i][0] for p in predictions]) for i in (0, 1))
        drawn = mean + np.sqrt(deviation) * random.standard_normal((20_000, k))
        gains = np.maximum(upper - np.maximum(lower, drawn[:, None]), 0.0).prod(axis=2).sum(axis=1)
        first = pareto.hypervolume(np.vstack([y, drawn[:1]]), reference) - pareto.hypervolume(y, reference)
        assert gains[0] == pytest.approx(first, abs=1e-12)
        error = np.std(gains) / np.sqrt(len(gains))
        assert np.exp(got[row]) == pytest.approx(np.mean(gains), abs=4 * error + 0.02 * np.mean(gains))


def test_with_one_objective_it_is_the_expected_improvement() -> None:
    (posterior, _), x, y = models(2)
    normals, candidates = np.random.default_rng(1).standard_normal((6, 16)), np.linspace(0, 1, 9)[:, None]
    got = HypervolumeImprovement([posterior], x, normals[None], np.array([y.max() + 1e6]))(candidates)
    np.testing.assert_allclose(got, NoisyImprovement(posterior, x, normals)(candidates), rtol=1e-6)


def test_it_shows_the_way_where_an_improvement_is_next_to_impossible() -> None:
    """Candidates hundreds of deviations behind the front: the nearer is still the better, and neither is nothing."""
    x = np.linspace(0.0, 1.0, 40)[:, None]
    y = np.stack([1e4 * x[:, 0] ** 2, 1e4 * x[:, 0] ** 2], axis=1)
    posteriors = [Posterior(KERNEL, x, column, np.full(40, 1e-6)) for column in y.T]
    improvement = HypervolumeImprovement(posteriors, x, np.zeros((2, 40, 4)), np.array([10.0, 10.0]))
    far = improvement(np.array([[0.41], [0.61], [0.81]]))
    assert np.isfinite(far).all()
    assert (np.diff(far) < 0).all()
    assert far[-1] < -1e4
