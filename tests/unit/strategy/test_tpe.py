from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from tuneyard_api.space import Parameter
from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.encoding import Encoding
from tuneyard_strategy.parzen import Parzen
from tuneyard_strategy.registry import create
from tuneyard_strategy.space import Space

MIXED = [
    {"name": "kernel", "categorical": {"values": ["rbf", "poly", "none"], "probabilities": [0.5, 0.3, 0.2]}},
    {"name": "degree", "int": {"min": 1, "max": 5}, "when": {"kernel": ["poly"]}},
    {"name": "gamma", "double": {"min": 1e-4, "max": 1, "scale": "log"}, "when": {"kernel": ["rbf", "poly"]}},
    {"name": "width", "int": {"min": 1, "max": 1000, "scale": "log"}},
]


def space(parameters: list[dict[str, Any]]) -> Space:
    return Space.from_spec([Parameter.model_validate(parameter) for parameter in parameters])


def mixture(of: Space, count: int) -> Parzen:
    encoding, rng = Encoding(of), np.random.default_rng(count)
    observed = encoding.coordinates(of.table(rng.random((count, len(of.names)))))
    return Parzen(encoding, observed, rng.random(count) + 0.1)


@pytest.mark.parametrize("count", [0, 1, 7, 60])
@pytest.mark.parametrize(
    "parameters",
    [
        [
            {"name": "x", "double": {"min": 0, "max": 1}},
            {"name": "y", "double": {"min": 1e-3, "max": 1, "scale": "log"}},
        ],
        [{"name": "n", "int": {"min": 1, "max": 6}}, {"name": "c", "categorical": {"values": ["a", "b", 3]}}],
        [{"name": "n", "int": {"min": 1, "max": 30, "scale": "log"}}],
        [{"name": "t", "categorical": {"values": list(range(1000))}}],
        MIXED,
    ],
    ids=["doubles", "finite", "log", "thousand", "conditional"],
)
def test_the_density_integrates_to_one(parameters: list[dict[str, Any]], count: int) -> None:
    """Over points that are spread as the user's distributions say: densities are relative to these."""
    here = space(parameters)
    table = here.table(stats.qmc.Sobol(len(here.names), rng=1).random(2**14))
    density = np.exp(mixture(here, count).log_density(Encoding(here).coordinates(table)))
    assert density.mean() == pytest.approx(1, abs=0.01)


def test_the_density_is_a_sum_of_products() -> None:
    here = space([{"name": "x", "double": {"min": 0, "max": 1}}, {"name": "c", "categorical": {"values": ["a", "b"]}}])
    parzen = Parzen(Encoding(here), np.array([[0.2, 0.0], [0.9, 1.0]]), np.array([3.0, 1.0]))
    x = np.array([[0.25, 0.0]])

    def kernel(centre: float) -> float:
        a, b = (0 - centre) / parzen.width, (1 - centre) / parzen.width
        return float(stats.truncnorm(a, b, loc=centre, scale=parzen.width).pdf(0.25))

    spread = 2 / (2 + 3)
    expected = 3 / 6 * kernel(0.2) * (spread + 2 * (1 - spread)) + 1 / 6 * kernel(0.9) * spread + 2 / 6
    assert np.exp(parzen.log_density(x)) == pytest.approx(expected)


def test_samples_follow_the_density() -> None:
    here = space(MIXED)
    parzen = mixture(here, 5)
    drawn = parzen.sample(np.random.default_rng(2).random((20_000, 9)))
    table = here.table(np.random.default_rng(3).random((20_000, 4)))
    density = np.exp(parzen.log_density(Encoding(here).coordinates(table)))
    for kernel in range(3):
        share = (here.table(drawn).cells[:, 0] == kernel).mean()
        assert share == pytest.approx((density * (table.cells[:, 0] == kernel)).mean(), abs=0.02)
    widths = Encoding(here).coordinates(here.table(drawn))[:, 3]
    expected = (density * Encoding(here).coordinates(table)[:, 3]).mean()
    assert widths.mean() == pytest.approx(expected, abs=0.02)


def test_it_finds_the_good_branch_and_keeps_parallel_trials_apart() -> None:
    definition = StudyDefinition.model_validate(
        {
            "parameters": MIXED,
            "objectives": [{"metric": "loss", "goal": "minimize"}],
            "strategy": {"name": "tpe", "seed": 3},
        }
    )
    strategy = create(definition)
    for index in range(60):
        (suggestion,) = strategy.suggest([index])
        parameters = suggestion.parameters
        loss = {"rbf": 1.0, "poly": 0.0, "none": 2.0}[str(parameters["kernel"])] + abs(
            np.log10(float(parameters.get("gamma", 1))) + 2
        )
        strategy.update(
            [TrialRecord(index=index, parameters=parameters, state="succeeded", metrics={"loss": float(loss)})]
        )
    proposed = [s.parameters for s in strategy.suggest(range(60, 76))]
    assert sum(parameters["kernel"] == "poly" for parameters in proposed) > 8
    assert len({parameters["width"] for parameters in proposed}) > 8
