from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.stats import qmc

from tuneyard_api.space import Parameter
from tuneyard_strategy.contract import StudyDefinition
from tuneyard_strategy.errors import DefinitionError
from tuneyard_strategy.registry import create
from tuneyard_strategy.rng import Stream, generator, uniforms
from tuneyard_strategy.scan import scan
from tuneyard_strategy.space import Space

CUBE = [{"name": name, "double": {"min": 0, "max": 1}} for name in ("x", "y", "z")]


def suggest(name: str, parameters: list[dict[str, Any]], count: int, **more: Any) -> list[dict[str, Any]]:
    document = {"parameters": parameters, "strategy": {"name": name, "seed": more.pop("seed", 3)}, **more}
    return [s.parameters for s in create(StudyDefinition.model_validate(document)).suggest(range(count))]


def test_sobol_follows_scipys_scrambled_sequence() -> None:
    reference = qmc.Sobol(3, rng=generator(3, Stream.SCRAMBLING)).random(256)
    got = np.array([list(c.values()) for c in suggest("sobol", CUBE, 256)])
    np.testing.assert_allclose(got, reference, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("sobol", [[0.2728938768, 0.7400568919, 0.6479307748], [0.7058097068, 0.4123707218, 0.1577221202]]),
        ("random", [[0.7400963481, 0.848345732, 0.8133807586], [0.3521428358, 0.1814881831, 0.3349022596]]),
    ],
)
def test_a_study_that_goes_on_under_a_new_release_keeps_its_points(name: str, points: list[list[float]]) -> None:
    assert [list(c.values()) for c in suggest(name, CUBE, 2)] == points


def test_sobol_covers_the_cube_more_evenly_than_random() -> None:
    points = {name: np.array([list(c.values()) for c in suggest(name, CUBE, 256)]) for name in ("sobol", "random")}
    assert qmc.discrepancy(points["sobol"]) < qmc.discrepancy(points["random"]) / 10


def test_each_branch_of_a_condition_is_covered_evenly_by_sobol() -> None:
    parameters = [
        {"name": "c", "categorical": {"values": ["a", "b"]}},
        {"name": "x", "double": {"min": 0, "max": 1}, "when": {"c": ["b"]}},
        {"name": "y", "double": {"min": 0, "max": 1}},
    ]
    inside = sorted(c["x"] for c in suggest("sobol", parameters, 128) if c["c"] == "b")
    assert len(inside) == 64
    np.testing.assert_allclose(inside, (np.arange(64) + 0.5) / 64, atol=1 / 64)


def test_random_draws_candidate_by_candidate_from_its_stream() -> None:
    table = uniforms(3, Stream.CANDIDATES, start=0, rows=300, width=3)
    accepted = table[table[:, 0].round(10) < table[:, 1].round(10)][:100]
    got = np.array([list(c.values()) for c in suggest("random", CUBE, 100, constraints=["x < y"])])
    np.testing.assert_allclose(got, accepted, atol=1e-10)


def test_random_draws_a_finite_space_by_its_probabilities() -> None:
    parameters = [{"name": "c", "categorical": {"values": ["a", "b", "c"], "probabilities": [0.6, 0.3, 0.1]}}]
    orders = ["".join(c["c"] for c in suggest("random", parameters, 9, seed=seed)) for seed in range(600)]
    first = [sum(order[0] == value for order in orders) for value in "abc"]
    assert stats.chisquare(first, [360, 180, 60]).pvalue > 1e-3
    second = sum(order[1] == "b" for order in orders if order[0] == "a")
    assert stats.binomtest(second, first[0], 0.75).pvalue > 1e-3


def test_random_draws_numbers_by_their_distribution() -> None:
    normal = {"min": -2, "max": 5, "distribution": "normal", "mean": 0, "stddev": 1}
    drawn = [c["x"] for c in suggest("random", [{"name": "x", "double": normal}], 3000)]
    assert stats.kstest(drawn, stats.truncnorm(-2, 5).cdf).pvalue > 1e-3


def test_random_lists_what_a_tight_constraint_leaves_of_a_large_space() -> None:
    parameters = [{"name": name, "int": {"min": 0, "max": 999}} for name in ("x", "y")]
    got = suggest("random", parameters, 2000, constraints=["x + y == 999"])
    assert len(got) == 1000
    assert len(suggest("sobol", parameters, 2000, constraints=["x + y == 999"])) == 1000


def test_patience_is_for_points_refused_in_a_row() -> None:
    space = Space.from_spec([Parameter.model_validate({"name": "n", "int": {"min": 0, "max": 9999}})])

    def draw(first: int, rows: int) -> np.ndarray:
        """0 to 499, and then nothing new."""
        return (np.minimum(np.arange(first, first + rows), 499)[:, None] + 0.5) / 10_000

    taken: set[Any] = set()
    got = []
    for configuration in scan(space, draw, taken, patience=200):
        got.append(configuration["n"])
        taken.add(space.key(configuration))
    assert got == list(range(500))


def test_a_grid_over_a_huge_space_finds_what_a_constraint_on_its_first_parameters_leaves() -> None:
    parameters = [{"name": f"n{i}", "int": {"min": 0, "max": 10**6}} for i in range(3)]
    got = suggest("grid", parameters, 10, constraints=["n0 + n1 == 2", "n2 < 2"])
    assert [tuple(c.values()) for c in got] == [(0, 2, 0), (0, 2, 1), (1, 1, 0), (1, 1, 1), (2, 0, 0), (2, 0, 1)]


def test_manual_keeps_the_order_of_the_list() -> None:
    initial = [{"x": 1.0, "y": 0.5, "z": 0}, {"z": 0.25, "y": 1, "x": 0}]
    assert suggest("manual", CUBE, 5, initial=initial) == initial


def test_a_definition_that_does_not_fit_says_all_its_problems() -> None:
    with pytest.raises(DefinitionError) as error:
        suggest("sobol", CUBE, 1, constraints=["x <", "w < 1"])
    assert len(error.value.problems) == 2
    assert str(error.value) == "; ".join(error.value.problems)
