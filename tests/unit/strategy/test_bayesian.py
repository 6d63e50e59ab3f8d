from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tuneyard_api.space import Parameter
from tuneyard_strategy.acquisition import Feasibility, NoisyImprovement, log_h
from tuneyard_strategy.bayesian import _chosen, _milestone
from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.encoding import Encoding
from tuneyard_strategy.gp import Kernel, Posterior
from tuneyard_strategy.maximiser import Box, Maximiser
from tuneyard_strategy.pareto import hypervolume
from tuneyard_strategy.registry import create
from tuneyard_strategy.space import Space

CUBE = [{"name": name, "double": {"min": 0, "max": 1}} for name in ("x", "y")]
KERNEL = Kernel(np.array([False]), np.array([0.3]), 1.0)


@pytest.mark.parametrize(
    ("z", "expected"),
    [  # ln(phi(z) + z Phi(z)) by mpmath, with 60 digits
        (3.0, 1.09873966532770777),
        (0.0, -0.918938533204672742),
        (-0.999, -2.48321711544758544),
        (-1.001, -2.48702565795538942),
        (-5.0, -16.7443011626609901),
        (-40.0, -808.29856835661996),
        (-1e4, -50000019.3396193072),
        (-1e6, -500000000028.54996),
    ],
)
def test_log_ei_at_extreme_z(z: float, expected: float) -> None:
    assert log_h(np.array([z]))[0] == pytest.approx(expected, rel=1e-9)


def test_log_ei_is_finite_and_rises_everywhere() -> None:
    z = np.concatenate([-np.logspace(150, -8, 4000), np.logspace(-8, 8, 1000)])
    assert np.isfinite(log_h(z)).all()
    assert (np.diff(log_h(z)) >= 0).all()


def test_without_noise_the_improvement_is_the_textbooks() -> None:
    x, y = np.array([[0.1], [0.5], [0.9]]), np.array([0.3, -0.4, 0.8])
    posterior = Posterior(KERNEL, x, y, np.full(3, 1e-6))
    candidates = np.linspace(0.15, 0.85, 9)[:, None]
    got = NoisyImprovement(posterior, x, np.random.default_rng(1).standard_normal((3, 64)))(candidates)
    mean, variance = posterior.predict(candidates)
    z = (-0.4 - mean) / np.sqrt(variance)
    expected = np.sqrt(variance) * (stats.norm.pdf(z) + z * stats.norm.cdf(z))
    np.testing.assert_allclose(np.exp(got), expected, rtol=0.02, atol=1e-4)


def test_a_pending_trial_leaves_no_improvement_where_it_is() -> None:
    posterior = Posterior(KERNEL, np.array([[0.1]]), np.array([0.5]), np.array([1e-4]))
    normals = np.random.default_rng(1).standard_normal((2, 64))
    pending = NoisyImprovement(posterior, np.array([[0.1], [0.6]]), normals)(np.array([[0.6], [0.9]]))
    before = NoisyImprovement(posterior, np.array([[0.1]]), normals[:1])(np.array([[0.6], [0.9]]))
    assert before[0] > before[1] - 0.5
    assert pending[0] < before[0] - 3
    assert pending[1] > pending[0]


def test_feasibility_is_a_probability() -> None:
    posterior = Posterior(KERNEL, np.array([[0.2], [0.8]]), np.array([-1.0, 1.0]), np.full(2, 1e-4))
    mean, variance = posterior.predict(np.array([[0.2], [0.5], [0.8]]))
    got = np.exp(Feasibility([posterior, posterior])(np.array([[0.2], [0.5], [0.8]])))
    np.testing.assert_allclose(got, stats.norm.cdf(-mean / np.sqrt(variance)) ** 2)
    assert got[0] > 0.99
    assert got[2] < 0.01


def test_hyperparameters_are_fitted_to_ever_more_but_rarely() -> None:
    steps = [_milestone(count) for count in range(1, 1000)]
    assert steps[:48] == list(range(1, 49))
    assert sorted(steps) == steps
    assert len(set(steps[48:])) <= 40
    assert all(step > 0.9 * count for count, step in enumerate(steps, 1))


def test_of_too_many_the_best_and_some_of_all_others_are_modelled() -> None:
    values = np.random.default_rng(1).random(1000)
    chosen = _chosen(values, 100)
    assert len(set(chosen.tolist())) == 100
    assert set(np.argsort(values)[:50].tolist()) <= set(chosen.tolist())
    assert values[chosen].max() == values.max()


def search(
    judge: Callable[[dict[str, Any]], tuple[str, dict[str, float] | None]], trials: int, **more: Any
) -> list[tuple[dict[str, Any], dict[str, float] | None]]:
    """A study, trial by trial."""
    document = {
        "parameters": CUBE,
        "objectives": [{"metric": "loss", "goal": "minimize"}],
        "strategy": {"name": "bayesian", "seed": 2},
        **more,
    }
    strategy, done = create(StudyDefinition.model_validate(document)), []
    for index in range(trials):
        (suggestion,) = strategy.suggest([index])
        parameters = dict(suggestion.parameters)
        state, metrics = judge(parameters)
        strategy.update(
            [TrialRecord.model_validate({"index": index, "parameters": parameters, "state": state, "metrics": metrics})]
        )
        done.append((parameters, metrics))
    return done


def test_a_bowl() -> None:
    done = search(lambda p: ("succeeded", {"loss": (p["x"] - 0.3) ** 2 + (p["y"] - 0.8) ** 2}), 25)
    assert min(metrics["loss"] for _, metrics in done if metrics) < 1e-4


def test_bounds_on_metrics_are_kept() -> None:
    """The minimum on the allowed side of x + y = 1 is at (0.5, 0.5)."""

    def judge(p: dict[str, Any]) -> tuple[str, dict[str, float]]:
        return "succeeded", {"loss": p["x"] ** 2 + p["y"] ** 2, "sum": 100 * (p["x"] + p["y"])}

    objectives = [{"metric": "loss", "goal": "minimize"}, {"metric": "sum", "atLeast": 100}]
    done = search(judge, 30, objectives=objectives)
    allowed = [metrics["loss"] for _, metrics in done if metrics and metrics["sum"] >= 100]
    assert min(allowed) < 0.52
    assert len(allowed) > 10


def test_a_front_within_a_bound_is_covered() -> None:
    """On the allowed side of x + y = 1 the front is that line: it dominates half of the unit square."""

    def judge(p: dict[str, Any]) -> tuple[str, dict[str, float]]:
        return "succeeded", {"x": p["x"], "y": 100 * p["y"], "sum": p["x"] + p["y"]}

    goals = [{"metric": "x", "goal": "minimize"}, {"metric": "y", "goal": "minimize"}, {"metric": "sum", "atLeast": 1}]
    done = search(judge, 18, objectives=goals)
    allowed = np.array([[m["x"], m["y"] / 100] for _, m in done if m and m["sum"] >= 1])
    assert hypervolume(allowed, np.ones(2)) > 0.37


def test_failures_are_avoided_and_lost_trials_are_not() -> None:
    def beyond(state: str, centre: float) -> list[dict[str, Any]]:
        """The trials with x above 0.5, where none gives a result, after the first ten."""

        def judge(p: dict[str, Any]) -> tuple[str, dict[str, float] | None]:
            return (state, None) if p["x"] > 0.5 else ("succeeded", {"loss": (p["x"] - centre) ** 2 + p["y"]})

        return [parameters for parameters, _ in search(judge, 30)[10:] if parameters["x"] > 0.5]

    assert len(beyond("failed", 0.4)) < 11  # once the minimum is found, only they are left to explore
    assert len(beyond("failed", 0.9)) < len(beyond("unknown", 0.9))


def test_one_of_four_trials_is_near_the_best() -> None:
    done = search(lambda p: ("succeeded", {"loss": abs(p["x"] - 0.3) + abs(p["y"] - 0.8)}), 26)

    def steps(index: int) -> float:
        """How far the trial is from the best one before it."""
        best, _ = min(done[:index], key=lambda each: each[1]["loss"] if each[1] else 0.0)
        return max(abs(done[index][0][name] - best[name]) for name in ("x", "y"))

    assert all(steps(index) <= 0.2 + 1e-9 for index in (9, 13, 17, 21, 25))
    assert max(steps(index) for index in range(8, 26)) > 0.2


def test_a_box_bounds_numbers_and_nothing_else() -> None:
    space = Space.from_spec(
        [
            Parameter.model_validate(spec)
            for spec in (
                {"name": "lr", "double": {"min": 1e-4, "max": 1, "scale": "log"}},
                {"name": "layers", "int": {"min": 1, "max": 100}},
                {"name": "kind", "categorical": {"values": ["a", "b", "c"]}},
                {"name": "momentum", "double": {"min": 0, "max": 1}, "when": {"kind": ["b"]}},
            )
        ],
        ["layers < 60"],
    )
    encoding = Encoding(space)
    centre = encoding.coordinates(space.table_of([{"lr": 0.01, "layers": 50, "kind": "a"}]))
    box = Box.around(centre[0], encoding.categorical)
    found = list(space.rounded(Maximiser(space, encoding, 1, 2, box).best(lambda c: -c[:, 0], encoding.points(centre))))
    assert all(1e-2 * 10**-0.81 < c["lr"] < 1e-2 * 10**0.81 for c in found)
    assert all(29 <= c["layers"] < 60 for c in found)
    assert min(c["lr"] for c in found) == pytest.approx(1e-2 * 10**-0.8, rel=0.02), "the best lies on its side"
    assert {c["kind"] for c in found} == {"a", "b", "c"}
    assert len({round(c["momentum"], 1) for c in found if "momentum" in c}) > 6
