"""What bench-pareto reckons: true fronts by dense samples of them, and what a study is missing of one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from _fronts import CORNER, FRONTS, FrontTask, best_blends
from _searchers import searcher
from pareto import missing

from tuneyard_strategy.pareto import hypervolume, nondominated


class Listed:
    """Proposes what is on a list."""

    def __init__(self, configurations: Iterable[dict[str, Any]]) -> None:
        self._left = iter(configurations)
        self.told: list[Any] = []
        self.seconds: list[float] = []

    def know(self, trials: Any) -> None: ...

    def ask(self, index: int) -> dict[str, Any]:
        return next(self._left)

    def tell(self, index: int, loss: Any) -> None:
        self.told.append(loss)

    def close(self) -> None: ...


def at(*x: float) -> dict[str, Any]:
    return {f"x{number}": value for number, value in enumerate(x)}


def test_nothing_is_missing_of_zdt1_where_its_front_is_found() -> None:
    front = [at(x, 0, 0, 0, 0) for x in np.linspace(0, 1, 500)]
    few, all_of_it = missing(FRONTS["zdt1"], Listed(front), 1, [2, 500])
    assert few > all_of_it
    assert 0 < all_of_it < 1e-4


def test_the_volume_of_dtlz2_is_that_of_the_unit_ball() -> None:
    task, steps = FRONTS["dtlz2"], np.linspace(0, 1, 40)
    front = [task.losses(at(a, b, 0.5, 0.5, 0.5, 0.5)) for a in steps for b in steps]
    assert [math.hypot(*losses) for losses in front] == pytest.approx([1.0] * len(front))
    near = 1.1**3 - math.pi / 6
    assert task.volume == pytest.approx(near)
    rough = hypervolume(np.array(front[::7]), np.array(task.reference))
    assert 0.9 * near < rough < near


def test_no_configuration_beats_the_true_front_of_blend_cost() -> None:
    task, best = FRONTS["blend-cost"], best_blends()
    drawn = searcher("random", task.parameters, 1)
    others = np.array([task.losses(drawn.ask(index)) for index in range(500)])
    both = hypervolume(np.vstack([best, others]), np.array(CORNER))
    assert both == pytest.approx(task.volume)
    assert 0 < hypervolume(others, np.array(CORNER)) < task.volume
    assert nondominated(best).sum() >= 5  # a front, not a point


def test_noise_is_told_but_does_not_count() -> None:
    losses = {0: (0.2, 0.8), 1: (0.8, 0.2)}
    task = FrontTask("two", [], lambda c: losses[c["which"]], (1.0, 1.0), 0.28, noise=1e-3)
    listed = Listed([{"which": 0}, {"which": 1}])
    assert missing(task, listed, 1, [1, 2]) == pytest.approx([1 - 0.16 / 0.28, 0.0])
    assert listed.told != [[0.2, 0.8], [0.8, 0.2]]
    assert np.array(listed.told) == pytest.approx(np.array([[0.2, 0.8], [0.8, 0.2]]), abs=0.01)
