from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

from tuneyard_api.space import Parameter
from tuneyard_strategy.encoding import Encoding
from tuneyard_strategy.gp import Embedding, Kernel, Posterior, Prior, Target, fit, fits
from tuneyard_strategy.space import Space
from tuneyard_strategy.warp import WARPS, half_logs, half_ranks, log_slope, signed_logs, standardised, tail_logs

RNG = np.random.default_rng(5)
HAMMING = np.array([False, True, False])
X = np.column_stack([RNG.random(15), RNG.integers(0, 3, 15), RNG.random(15)])
Y = np.sin(4 * X[:, 0]) + 0.5 * (X[:, 1] == 1) + 0.1 * RNG.standard_normal(15)
KERNEL = Kernel(HAMMING, np.array([0.4, 1.5, 2.0]), 1.3)
THETA = np.log([0.4, 1.5, 2.0, 1.3, 0.02])


def covariance(a: np.ndarray, b: np.ndarray) -> float:
    """The kernel of two inputs, as its formula is written."""
    squares = ((a[0] - b[0]) / 0.4) ** 2 + (a[1] != b[1]) / 1.5**2 + ((a[2] - b[2]) / 2.0) ** 2
    r = np.sqrt(5 * squares)
    return float(1.3 * (1 + r + r**2 / 3) * np.exp(-r))


def test_the_kernel_is_its_formula() -> None:
    expected = [[covariance(a, b) for b in X[:4]] for a in X]
    np.testing.assert_allclose(KERNEL.between(X, X[:4]), expected)


def test_the_marginal_likelihood_is_that_of_a_normal_distribution() -> None:
    """Up to the constant and the priors, which are the same for other targets."""
    matrix = KERNEL.between(X, X) + 0.02 * np.eye(15)
    normal = stats.multivariate_normal(np.zeros(15), matrix)
    other = RNG.standard_normal(15)
    difference = Target(HAMMING, X, Y)(THETA)[0] - Target(HAMMING, X, other)(THETA)[0]
    assert difference == pytest.approx(normal.logpdf(other) - normal.logpdf(Y))


def test_the_priors_are_densities_of_length_scales_signal_and_noise() -> None:
    moved = THETA + np.array([0.3, -0.5, 0.2, 0.4, -0.6])

    def prior(theta: np.ndarray) -> float:
        scales, signal = np.exp(theta[:3]), np.exp(theta[3])
        return float(
            stats.lognorm(np.sqrt(3), scale=np.exp(np.sqrt(2) + np.log(3) / 2)).logpdf(scales).sum()
            + stats.gamma(2).logpdf(signal)
            + stats.norm(-4, 2).logpdf(theta[4])
        )

    def likelihood(theta: np.ndarray) -> float:
        kernel = Kernel(HAMMING, np.exp(theta[:3]), float(np.exp(theta[3])))
        matrix = kernel.between(X, X) + np.exp(theta[4]) * np.eye(15)
        return float(stats.multivariate_normal(np.zeros(15), matrix).logpdf(Y))

    target = Target(HAMMING, X, Y)
    expected = likelihood(THETA) + prior(THETA) - likelihood(moved) - prior(moved)
    assert target(moved)[0] - target(THETA)[0] == pytest.approx(expected)


@pytest.mark.parametrize("offset", [0.0, 0.7, -0.7])
def test_the_gradient_agrees_with_finite_differences(offset: float) -> None:
    target = Target(HAMMING, X, Y)
    numeric = optimize.approx_fprime(THETA + offset, lambda theta: target(theta)[0], 1e-6)
    np.testing.assert_allclose(target(THETA + offset)[1], numeric, rtol=1e-4, atol=1e-4)


def test_the_mode_of_the_prior_is_where_its_gradient_vanishes() -> None:
    assert np.exp(Target(HAMMING, X, Y).mode[0]) == pytest.approx(0.205 * np.sqrt(3), rel=0.01)
    target = Target(HAMMING, X, Y, Prior(0.13, 0.7, -4.0))
    np.testing.assert_allclose(target.prior(target.mode)[1], 0.0, atol=1e-12)
    np.testing.assert_allclose(np.exp(target.mode), [*[0.13 * np.sqrt(3)] * 3, 1.0, np.exp(-4.0)])
    np.testing.assert_allclose(Prior(0.13, 0.7, -4.0).kernel(HAMMING).scales, 0.13 * np.sqrt(3))


def test_the_posterior_is_a_direct_solution() -> None:
    noise = np.linspace(0.01, 0.1, 15)
    inputs = np.column_stack([RNG.random(6), RNG.integers(0, 3, 6), RNG.random(6)])
    mean, variance = Posterior(KERNEL, X, Y, noise).predict(inputs)
    across = KERNEL.between(inputs, X)
    inverse = np.linalg.inv(KERNEL.between(X, X) + np.diag(noise))
    np.testing.assert_allclose(mean, across @ inverse @ Y)
    np.testing.assert_allclose(variance, 1.3 - np.diag(across @ inverse @ across.T), rtol=1e-6)


def test_worlds_have_the_posteriors_mean_and_covariance_and_become_certain() -> None:
    posterior = Posterior(KERNEL, X[:5], Y[:5], np.full(5, 0.1))
    worlds = posterior.draw(X[8:11], np.random.default_rng(1).standard_normal((3, 40_000)))
    mean, variance = posterior.predict(X[8:11])
    np.testing.assert_allclose(worlds.mean(axis=1), mean, atol=0.02)
    np.testing.assert_allclose(worlds.var(axis=1), variance, rtol=0.03)
    known, certain = posterior.given(X[8:11], worlds[:, :4]).predict(X[8:11])
    np.testing.assert_allclose(known, worlds[:, :4], atol=1e-3)
    assert certain.max() < 1e-4


def test_fitting_finds_which_features_matter_and_how_noisy_it_is() -> None:
    rng = np.random.default_rng(3)
    x = np.column_stack([rng.random((120, 3)), rng.integers(0, 2, 120)])
    y = np.sin(6 * x[:, 0]) + x[:, 3]
    y = (y - y.mean()) / y.std() + 0.2 * rng.standard_normal(120)
    kernel, noise, _ = fit(np.array([False, False, False, True]), x, y)
    assert kernel.scales[0] < kernel.scales[1:3].min() / 4
    assert kernel.scales[3] < kernel.scales[1:3].min()
    assert noise == pytest.approx(0.04, rel=0.4)


def test_conditions_are_features_of_their_own() -> None:
    parameters: list[dict[str, Any]] = [
        {"name": "c", "categorical": {"values": ["a", "b"]}},
        {"name": "x", "double": {"min": 0, "max": 1}, "when": {"c": ["a"]}},
        {"name": "y", "double": {"min": 0, "max": 1}, "when": {"c": ["a"]}},
        {"name": "k", "categorical": {"values": [1, 2]}, "when": {"c": ["b"]}},
    ]
    here = Space.from_spec([Parameter.model_validate(p) for p in parameters])
    encoding = Encoding(here)
    embedding = Embedding(here, encoding)
    table = here.table_of([{"c": "a", "x": 0.25, "y": 1.0}, {"c": "b", "k": 2}])
    features = embedding.features(encoding.coordinates(table))
    np.testing.assert_allclose(features, [[0, 0.25, 1, -1, 1, 0], [1, 0.5, 0.5, 1, 0, 1]])
    assert embedding.hamming.tolist() == [True, False, False, True, False, False]


def test_the_output_warp_keeps_the_better_half_and_the_order_of_the_worse() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 1e150, 6.0, 6.0])
    got = half_ranks(values)
    assert got.mean() == pytest.approx(0)
    assert got.std() == pytest.approx(1)
    np.testing.assert_allclose(np.diff(got[:4]), np.diff(got[:2])[0])
    assert got[3] < got[4] < got[6] == got[7] < got[5] < 3


def test_only_what_is_far_out_is_drawn_near() -> None:
    values = np.sort(np.random.default_rng(1).random(40))
    np.testing.assert_allclose(tail_logs(values), standardised(values))
    got = tail_logs(np.append(values, [1e3, 1e6]))
    slope = np.diff(got[:40]) / np.diff(values)
    np.testing.assert_allclose(slope, slope[0], rtol=1e-6)  # those that are not far out keep their shape
    assert np.ptp(got[:40]) > 0.5  # and are not flattened
    assert got[39] < got[40] < got[41]


@pytest.mark.parametrize("values", [[0.0], [2.0, 2.0], [0.0, 0.0, 1e150], [-1e150, 1e150], [5e-324, 0.0]])
def test_warps_of_odd_values_are_numbers(values: list[float]) -> None:
    for warp in (*WARPS, tail_logs, signed_logs):
        got = warp(np.array(values))
        assert np.isfinite(got).all()
        assert np.abs(got).max() < 1e3
        assert np.isfinite(log_slope(np.array(values), got))


def test_the_slope_of_a_warp_is_what_a_density_grows_by() -> None:
    values = np.random.default_rng(3).standard_normal(400) + 9.0
    exact = -len(values) * np.log(values.std() / np.abs(values).max())
    assert log_slope(values, standardised(values)) == pytest.approx(exact)
    roots = np.sqrt(values)
    exact = np.log(np.abs(values).max() / (2.0 * roots)).sum()
    assert log_slope(values, roots) == pytest.approx(exact, abs=4.0)
    assert log_slope(np.repeat([1.0, 2.0], 50), np.repeat([0.0, 1.0], 50)) == pytest.approx(0.0, abs=9.0)


def test_the_warp_that_explains_most_is_taken() -> None:
    """Noise that is the same everywhere wants none; what grows by powers of ten wants one."""
    rng = np.random.default_rng(4)
    x = rng.random((60, 2))
    smooth = (x[:, 0] - 0.3) ** 2 + x[:, 1]

    def chosen(values: np.ndarray) -> object:
        ways = [warp(values) for warp in WARPS]
        found = fits(np.zeros(2, dtype=np.bool_), x, ways)
        chances = [one.evidence + log_slope(values, way) for one, way in zip(found, ways, strict=True)]
        return WARPS[int(np.argmax(chances))]

    assert chosen(smooth + 0.1 * rng.standard_normal(60)) is standardised
    assert chosen(np.exp(9.0 * smooth)) in {half_logs, half_ranks}


def test_a_bound_stays_where_it_is() -> None:
    np.testing.assert_allclose(signed_logs(np.array([-1.0, 0.0, 1.0])), [-np.log(2), 0, np.log(2)])
