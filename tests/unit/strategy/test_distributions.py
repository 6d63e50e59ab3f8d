from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tuneyard_strategy.distributions import law

U = np.array([0.0, 1e-9, 0.001, 0.1, 0.25, 0.5, 0.75, 0.9, 0.999, 1 - 1e-9])


def test_a_uniform_law_spans_its_bounds() -> None:
    spread = law(-2.0, 6.0, log=False, mean=None, stddev=None)
    assert spread.quantile(np.array([0.0, 0.25, 1.0])).tolist() == [-2.0, 0.0, 6.0]
    assert spread.cdf(np.array([-3.0, -2.0, 0.0, 6.0, 7.0])).tolist() == [0.0, 0.0, 0.25, 1.0, 1.0]


def test_the_middle_of_a_log_scale_is_the_geometric_mean() -> None:
    spread = law(1e-5, 1e-1, log=True, mean=None, stddev=None)
    assert spread.quantile(np.array([0.5]))[0] == pytest.approx(1e-3, rel=1e-12)
    assert spread.cdf(np.array([1e-4]))[0] == pytest.approx(0.25)


def test_bounds_of_any_size_do_not_overflow() -> None:
    spread = law(-1.7e308, 1.7e308, log=False, mean=None, stddev=None)
    assert spread.quantile(np.array([0.25]))[0] == pytest.approx(-0.85e308)
    assert spread.cdf(np.array([0.85e308]))[0] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("low", "high", "mean", "stddev"), [(-1, 5, 0, 1), (0, 1, 0.9, 0.05), (-3, 3, -3, 2), (0, 10, 5, 100)]
)
def test_a_normal_law_is_the_truncated_normal_of_scipy(low: float, high: float, mean: float, stddev: float) -> None:
    spread = law(low, high, log=False, mean=mean, stddev=stddev)
    reference = stats.truncnorm((low - mean) / stddev, (high - mean) / stddev, mean, stddev)
    np.testing.assert_allclose(spread.quantile(U), reference.ppf(U), rtol=1e-7, atol=1e-9)
    places = np.linspace(low, high, 9)
    np.testing.assert_allclose(spread.cdf(places), reference.cdf(places), rtol=1e-9, atol=1e-12)
    found = spread.log_mass(places[:-1], places[1:])
    expected = np.log(np.diff(reference.cdf(places)))
    np.testing.assert_allclose(found - found[0], expected - expected[0], rtol=1e-4, atol=1e-6)


def test_known_quantiles_of_the_half_normal() -> None:
    spread = law(0.0, 100.0, log=False, mean=0.0, stddev=1.0)
    # the median of |Z|, and its 95 % point
    np.testing.assert_allclose(spread.quantile(np.array([0.5, 0.95])), [0.6744897501960817, 1.959963984540054])


def test_a_normal_law_on_a_log_scale_is_a_truncated_lognormal() -> None:
    spread = law(1.0, 4096.0, log=True, mean=64.0, stddev=1.0)
    assert spread.quantile(np.array([0.5]))[0] == pytest.approx(64.0)
    bounds = np.log([1 / 64, 4096 / 64])
    reference = np.exp(stats.truncnorm(bounds[0], bounds[1], np.log(64.0), 1.0).ppf(U))
    np.testing.assert_allclose(spread.quantile(U), reference, rtol=1e-7)


def test_the_far_tails_keep_an_order() -> None:
    spread = law(-1e6, 1e6, log=False, mean=0.0, stddev=1.0)
    edges = np.array([-1000.0, -100.0, -50.0, -1.0, 1.0, 50.0, 100.0, 1000.0])
    mass = spread.log_mass(edges[:-1], edges[1:])
    assert np.isfinite(mass).all()
    np.testing.assert_allclose(mass, mass[::-1], rtol=1e-9)
    assert (np.diff(mass[:4]) > 0).all()
