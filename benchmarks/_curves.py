"""Learning curves of real trainings, computed once: validation loss after each of 81 epochs, or trees.

Each task has a grid of configurations that were trained; between them curves are interpolated. Tables are kept in
~/.cache/tuneyard/curves.
"""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import interpn
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import SGDClassifier
from sklearn.neural_network import MLPClassifier

KEPT = Path.home() / ".cache" / "tuneyard" / "curves"
EPOCHS = 81
Curve = Callable[..., np.ndarray]


@dataclass(frozen=True)
class CurveTask:
    """A training whose curves are known.

    Attributes:
        grid: for each parameter, the values for which there are curves.
        log: the parameters on a log scale.
        cost: simulated seconds of one epoch of a configuration.
    """

    name: str
    grid: dict[str, list[float]]
    log: tuple[str, ...]
    train: Curve
    cost: Callable[[dict[str, float]], float]

    @property
    def parameters(self) -> list[dict[str, Any]]:
        """The space as a study has it."""
        return [
            {"name": name, "double": {"min": v[0], "max": v[-1], "scale": "log" if name in self.log else "linear"}}
            for name, v in self.grid.items()
        ]

    def curve(self, parameters: dict[str, float]) -> np.ndarray:
        """Loss after each epoch."""
        axes = [np.log(v) if name in self.log else np.array(v) for name, v in self.grid.items()]
        own = [np.log(parameters[name]) if name in self.log else parameters[name] for name in self.grid]
        within = np.clip(own, [axis[0] for axis in axes], [axis[-1] for axis in axes])
        curve: np.ndarray = interpn(axes, self._table, within)[0]
        return curve

    @cached_property
    def _table(self) -> np.ndarray:
        path = KEPT / f"{self.name}.npy"
        if not path.exists():
            KEPT.mkdir(parents=True, exist_ok=True)
            shape = [len(values) for values in self.grid.values()]
            table = np.empty((*shape, EPOCHS))
            for number, at in enumerate(itertools.product(*map(range, shape))):
                sys.stderr.write(f"\rcurves of {self.name}: {number + 1}/{int(np.prod(shape))}".ljust(60))
                chosen = {n: v[i] for (n, v), i in zip(self.grid.items(), at, strict=True)}
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    table[at] = np.nan_to_num(self.train(**chosen), nan=10.0, posinf=10.0).clip(0, 10)
            np.save(path, table)
        kept: np.ndarray = np.load(path)
        return kept


def _digits(trained: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x, y = data.data[order] / 16, data.target[order]
    return x[:trained], y[:trained], x[trained:], y[trained:]


def _log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    chosen = np.clip(probabilities[np.arange(len(labels)), labels], 1e-7, 1)
    return float(-np.log(chosen).mean())


def mlp(lr: float, width: float, momentum: float) -> np.ndarray:
    x, y, held, labels = _digits(500)
    network = MLPClassifier(
        (int(width),), solver="sgd", learning_rate_init=lr, momentum=momentum, batch_size=50, random_state=0
    )
    curve = []
    for _ in range(EPOCHS):
        network.partial_fit(x, y, classes=np.arange(10))
        curve.append(_log_loss(network.predict_proba(held), labels))
    return np.array(curve)


def boosting(rate: float, depth: float, subsample: float, leaf: float) -> np.ndarray:
    data = load_breast_cancer()
    order = np.random.default_rng(0).permutation(len(data.target))
    x, y = data.data[order], data.target[order]
    model = GradientBoostingClassifier(
        learning_rate=rate, max_depth=int(depth), subsample=subsample, min_samples_leaf=int(leaf),
        n_estimators=EPOCHS, random_state=0,
    ).fit(x[:280], y[:280])  # fmt: skip
    return np.array([_log_loss(each, y[280:]) for each in model.staged_predict_proba(x[280:])])


def sgd(alpha: float, eta0: float, power: float) -> np.ndarray:
    x, y, held, labels = _digits(500)
    model = SGDClassifier(
        loss="log_loss", alpha=alpha, eta0=eta0, power_t=power, learning_rate="invscaling", random_state=0
    )
    curve = []
    for _ in range(EPOCHS):
        model.partial_fit(x, y, classes=np.arange(10))
        curve.append(_log_loss(model.predict_proba(held), labels))
    return np.array(curve)


CURVES = {
    task.name: task
    for task in (
        CurveTask(
            "boosting",
            {
                "rate": np.geomspace(1e-3, 1, 8).tolist(),
                "depth": [1.0, 2.0, 4.0],
                "subsample": [0.3, 0.6, 1.0],
                "leaf": [1.0, 20.0],
            },
            ("rate", "leaf"),
            boosting,
            lambda given: 0.5 + given["depth"] / 4,
        ),
        CurveTask(
            "sgd",
            {
                "alpha": np.geomspace(1e-7, 1, 8).tolist(),
                "eta0": np.geomspace(1e-4, 10, 10).tolist(),
                "power": [0.1, 0.3, 0.5],
            },
            ("alpha", "eta0"),
            sgd,
            lambda _: 1.0,
        ),
        CurveTask(
            "mlp",
            {
                "lr": np.geomspace(1e-4, 1, 10).tolist(),
                "width": [8.0, 24.0, 64.0],
                "momentum": [0.0, 0.5, 0.9],
            },
            ("lr", "width"),
            mlp,
            lambda given: 0.5 + given["width"] / 64,
        ),
    )
}
