from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import recommended
from _cells import Cell, Ended


def ended(seed: int) -> list[Ended]:
    """Sixty trials of two parameters, with noise."""
    chance = np.random.default_rng(seed)
    rows = [{f"x{i}": float(x) for i, x in enumerate(row)} for row in chance.random((60, 2))]
    losses = [sum((x - 0.5) ** 2 for x in row.values()) for row in rows]
    return [
        Ended(i, row, loss + chance.normal(0, 0.05), loss)
        for i, (row, loss) in enumerate(zip(rows, losses, strict=True))
    ]


def test_one_loss_is_of_the_luckiest_and_one_of_the_recommended() -> None:
    cell, studies = Cell("branin", "sequential", "tpe", 1), [ended(seed) for seed in range(6)]
    found = np.array([recommended.losses(cell, trials) for trials in studies])
    assert found[:, 0].tolist() == [min(trials, key=lambda each: each.seen).loss for trials in studies]
    assert found[:, 1].mean() < 0.8 * found[:, 0].mean()
    few = recommended.losses(cell, studies[0][:9])
    assert few[0] == few[1]


def test_regret_is_a_part_of_random_searchs_best_and_peers_have_no_recommended_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regret = np.array([[[[2.0, 4.0], [1.0, 1.0]]] * 3, [[[1.0, 2.0], [3.0, 0.0]]] * 3])
    rows, figures = recommended.table([regret], ["random", "optuna-tpe"])
    assert rows == [
        ["random", "best", 1.0, 1.0, 1.0],
        ["random", "recommended", *[1 / 3] * 3],
        ["optuna-tpe", "best", *[0.5] * 3],
    ]
    assert figures["random_recommended_50"] == 0.333

    monkeypatch.setattr(recommended, "KEPT", tmp_path)
    monkeypatch.setattr(recommended, "BUDGETS", (12,))
    found = recommended.regrets("blend-noisy", "parallel4", ["random"], range(2))
    assert found.shape == (1, 1, 2, 2)
    assert (found >= 0).all()
    assert np.array_equal(recommended.regrets("blend-noisy", "parallel4", ["random"], range(2)), found)
