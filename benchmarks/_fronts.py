"""What bench-pareto searches: problems of several objectives whose true front is known.

| Task | Parameters | Objectives | Source |
|---|---|---|---|
| zdt1 | 5 doubles | 2 | Zitzler, Deb and Thiele 2000 |
| dtlz2 | 6 doubles | 3 | Deb, Thiele, Laumanns and Zitzler 2005 |
| blend-cost | 2 categorical, int, double, log double; noise | 2 | `_tasks.blend`, and what a model costs |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from _tasks import BLEND, blend, cube, vector

from tuneyard_strategy.pareto import hypervolume

Configuration = Mapping[str, Any]


@dataclass(frozen=True)
class FrontTask:
    """Several losses to minimise.

    Attributes:
        reference: beyond it nothing counts, one value an objective.
        volume: the hypervolume of the true front.
        noise: standard deviation of what is added to each loss before a strategy is told.
    """

    name: str
    parameters: list[dict[str, Any]]
    losses: Callable[[Configuration], tuple[float, ...]]
    reference: tuple[float, ...]
    volume: float
    noise: float = 0.0


def zdt1(c: Configuration) -> tuple[float, ...]:
    x = vector(c)
    g = 1 + 9 * x[1:].mean()
    return float(x[0]), float(g * (1 - math.sqrt(x[0] / g)))


def dtlz2(c: Configuration) -> tuple[float, ...]:
    x = vector(c)
    radius = 1 + ((x[2:] - 0.5) ** 2).sum()
    a, b = x[:2] * math.pi / 2
    return tuple(float(radius * part) for part in (np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)))


def blend_cost(c: Configuration) -> tuple[float, ...]:
    """How wrong, and how dear: more layers and dearer activations cost more, larger batches less."""
    dear = {"relu": 0.5, "elu": 0.7, "tanh": 0.8, "gelu": 1.0}[c["activation"]]
    return blend(c), dear * c["layers"] / 8 + 0.1 * math.log2(128 / c["batch"])


def best_blends() -> np.ndarray:
    """The least loss and the cost of each activation, layers and batch, on which alone the cost depends."""
    spaces = {parameter["name"]: parameter for parameter in BLEND}
    activations, batches = (spaces[name]["categorical"]["values"] for name in ("activation", "batch"))
    valley = {"relu": 0.2, "tanh": 0.55, "gelu": 0.8, "elu": 0.4}
    return np.array(
        [
            blend_cost({"activation": a, "batch": b, "layers": n, "rate": 10 ** (-2.5 - 0.2 * n), "x0": valley[a]})
            for a, b, n in product(activations, batches, range(1, 9))
        ]
    )


CORNER = (1.5, 1.5)
FRONTS = {
    task.name: task
    for task in (
        FrontTask("zdt1", cube(5), zdt1, (11.0, 11.0), 121 - 1 / 3),  # 1 - sqrt(f) has a third below it
        FrontTask("dtlz2", cube(6), dtlz2, (1.1,) * 3, 1.1**3 - math.pi / 6),  # an eighth of the unit ball
        FrontTask("blend-cost", BLEND, blend_cost, CORNER, hypervolume(best_blends(), np.array(CORNER)), noise=0.05),
    )
}
