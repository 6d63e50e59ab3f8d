"""Importances: known Sobol indices, and what a model makes of trials of functions that are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.distributions import Floats
from tuneyard_strategy.errors import StrategyError
from tuneyard_strategy.explanation import ExplainRequest, explain
from tuneyard_strategy.importances import Surrogate, TooFewTrials, sobol_indices
from tuneyard_strategy.registry import create


def ishigami(u: Floats) -> Floats:
    """Ishigami and Homma (1990), a = 7, b = 0.1."""
    x = (2.0 * u - 1.0) * np.pi
    value: Floats = np.sin(x[:, 0]) + 7.0 * np.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * np.sin(x[:, 0])
    return value


ISHIGAMI = ((0.3139, 0.4424, 0.0), (0.5576, 0.4424, 0.2437))
"""Its indices in closed form, main and total."""


def test_the_indices_of_ishigami() -> None:
    main, total = sobol_indices(ishigami, 3)
    assert main == pytest.approx(ISHIGAMI[0], abs=0.01)
    assert total == pytest.approx(ISHIGAMI[1], abs=0.01)


def test_the_indices_of_sobols_g() -> None:
    """Saltelli et al. (2010): main index (1 / 3 (1 + a)^2) / V, total V_i prod (1 + V_j) / V."""
    a = np.array([0.0, 1.0, 4.5, 9.0, 99.0])
    parts = 1.0 / (3.0 * (1.0 + a) ** 2)
    variance = np.prod(1.0 + parts) - 1.0
    main, total = sobol_indices(lambda u: np.prod((np.abs(4.0 * u - 2.0) + a) / (1.0 + a), axis=1), 5)
    assert main == pytest.approx(parts / variance, abs=0.01)
    assert total == pytest.approx(parts * np.prod(1.0 + parts) / (1.0 + parts) / variance, abs=0.01)


def test_a_constant_has_none_and_a_sum_has_equal_ones() -> None:
    assert [part.tolist() for part in sobol_indices(lambda u: np.full(len(u), 3.0), 2)] == [[0.0, 0.0]] * 2
    main, total = sobol_indices(lambda u: 1e6 + u.sum(axis=1), 4)
    assert main == pytest.approx([0.25] * 4, abs=0.01)
    assert total == pytest.approx([0.25] * 4, abs=0.01)


def study(parameters: list[dict[str, Any]], **more: Any) -> StudyDefinition:
    objectives = [{"metric": "loss", "goal": "minimize"}, {"metric": "size", "atMost": 1}]
    return StudyDefinition.model_validate({"parameters": parameters, "objectives": objectives, **more})


def trials(
    definition: StudyDefinition, count: int, loss: Callable[[dict[str, Any]], float], size: float = 0.0
) -> list[TrialRecord]:
    sobol = definition.model_copy(update={"strategy": definition.strategy.model_copy(update={"name": "sobol"})})
    return [
        TrialRecord(
            index=s.index, parameters=s.parameters, state="succeeded",
            metrics={"loss": loss(s.parameters), "size": size * s.index},
        )
        for s in create(sobol).suggest(range(count))
    ]  # fmt: skip


def indices(definition: StudyDefinition, records: list[TrialRecord]) -> dict[str, tuple[float, float]]:
    return {each.name: (each.main, each.total) for each in Surrogate(definition, records).importances()}


def test_a_model_of_ishigami_has_about_its_indices() -> None:
    definition = study([{"name": f"x{i}", "double": {"min": -math.pi, "max": math.pi}} for i in range(3)])

    def loss(p: dict[str, Any]) -> float:
        return float(ishigami((np.array([[p["x0"], p["x1"], p["x2"]]]) / np.pi + 1.0) / 2.0)[0])

    records = trials(definition, 256, loss)
    found = indices(definition, records)
    for i in range(3):
        assert found[f"x{i}"] == pytest.approx((ISHIGAMI[0][i], ISHIGAMI[1][i]), abs=0.1)
    assert Surrogate(definition, records).explained > 0.9


MIXED = [
    {"name": "lr", "double": {"min": 1e-4, "max": 1, "scale": "log"}},
    {"name": "layers", "int": {"min": 1, "max": 4}},
    {"name": "optimizer", "categorical": {"values": ["sgd", "adam"]}},
    {"name": "momentum", "double": {"min": 0, "max": 1}, "when": {"optimizer": ["sgd"]}},
    {"name": "nothing", "double": {"min": 0, "max": 1}},
]


def test_a_mixed_space_with_a_condition() -> None:
    """loss = log10 lr + 4 [adam], or 3 momentum for sgd: variances 4/3, and of the branch by hand."""
    definition = study(MIXED)

    def loss(p: dict[str, Any]) -> float:
        return math.log10(p["lr"]) + (4.0 if p["optimizer"] == "adam" else 3.0 * p["momentum"])

    found = indices(definition, trials(definition, 100, loss))
    variance = 16.0 / 12.0 + (0.5 * 16.0 + 0.5 * 3.0) - 2.75**2  # 8 + 1.5: E[branch^2] with E[(3 m)^2] = 3
    assert found["lr"] == pytest.approx((1.3333 / variance, 1.3333 / variance), abs=0.06)
    assert found["optimizer"][0] == pytest.approx(1.5625 / variance, abs=0.06)
    assert found["momentum"] == pytest.approx((0.25 * 0.75 / variance, 0.5 * 0.75 / variance), abs=0.06)
    assert max(found["layers"][1], found["nothing"][1]) < 0.03
    assert next(iter(found)) in {"lr", "optimizer"}


def test_noise_is_no_importance_and_is_told() -> None:
    definition = study(MIXED)
    rng = np.random.default_rng(0)
    noise = Surrogate(definition, trials(definition, 60, lambda _: float(rng.normal())))
    assert noise.explained < 0.3
    lines = Surrogate(definition, trials(definition, 60, lambda p: p["layers"] + 0.3 * float(rng.normal())))
    assert 0.7 < lines.explained < 1.0
    first = lines.importances()[0]
    assert (first.name, first.total > 0.8) == ("layers", True)


def test_one_trial_that_diverged_is_not_all_that_matters() -> None:
    definition = study(MIXED)
    records = trials(definition, 60, lambda p: float(p["layers"]))
    records[7] = records[7].model_copy(update={"metrics": {"loss": 1e300, "size": 0.0}})
    assert next(iter(indices(definition, records))) == "layers"


def test_what_is_expected_of_each_trial() -> None:
    definition = study(MIXED)
    rng = np.random.default_rng(1)
    truth: dict[int, float] = {}
    records = trials(definition, 80, lambda p: p["layers"] + 0.5 * float(rng.normal()))
    truth = {r.index: float(r.parameters["layers"]) for r in records}
    records[5] = TrialRecord(index=5, parameters=records[5].parameters, state="running")
    records[6] = TrialRecord(index=6, parameters={"lr": 5.0}, state="succeeded", metrics={"loss": 9.0, "size": 1.0})
    found = Surrogate(definition, records).predictions()
    assert [p.index for p in found] == [i for i in range(80) if i != 6]
    misses = np.array([p.mean - truth[p.index] for p in found])
    assert np.abs(misses).mean() < 0.25
    assert np.mean(np.abs(misses) < 2.5 * np.array([p.deviation for p in found])) > 0.85


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "10 trials with a result are needed for a model of 5 parameters; there are 0 so far"), (9, "there are 9")],
)
def test_too_few_trials_are_told(count: int, said: str) -> None:
    definition = study(MIXED)
    with pytest.raises(TooFewTrials, match=said):
        Surrogate(definition, trials(definition, count, lambda p: p["lr"]))


def test_trials_that_are_all_alike_say_nothing() -> None:
    definition = study(MIXED)
    with pytest.raises(TooFewTrials, match="all trials gave the same loss"):
        Surrogate(definition, trials(definition, 20, lambda _: 0.25))


def test_another_metric_and_one_that_is_not_there() -> None:
    definition = study(MIXED)
    records = trials(definition, 20, lambda p: p["lr"], size=1.0)
    assert explain(ExplainRequest(definition=definition, records=records, metric="size")).metric == "size"
    with pytest.raises(StrategyError, match="the study has no metric speed: choose one of loss, size"):
        explain(ExplainRequest(definition=definition, records=records, metric="speed"))


def test_the_same_trials_say_the_same() -> None:
    definition = study(MIXED)
    records = trials(definition, 30, lambda p: p["lr"] * p["layers"])
    one, other = (explain(ExplainRequest(definition=definition, records=r)) for r in (records, records[::-1]))
    assert one == other
