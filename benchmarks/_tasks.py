"""What bench-search searches: functions whose minimum is known, and small real trainings. Others are in `_suites`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

Configuration = Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """Something to minimise."""

    name: str
    kind: str
    """numeric, mixed, noisy or real."""
    parameters: list[dict[str, Any]]
    loss: Callable[[Configuration], float]
    minimum: float | None = None
    """None where nobody knows: then the best that any strategy found."""
    noise: float = 0.0
    """Standard deviation of what is added to the loss before a strategy is told."""

    def seen(self, _: Configuration, loss: float, chance: np.random.Generator) -> float:
        """What a strategy is told of a configuration."""
        return loss + self.noise * chance.standard_normal()


def cube(count: int, low: float = 0.0, high: float = 1.0) -> list[dict[str, Any]]:
    return [{"name": f"x{i}", "double": {"min": low, "max": high}} for i in range(count)]


def vector(configuration: Configuration) -> np.ndarray:
    return np.array([value for name, value in configuration.items() if name.startswith("x")])


def branin(c: Configuration) -> float:
    x, y = 15 * c["x0"] - 5, 15 * c["x1"]
    bent = y - 5.1 * x**2 / (4 * math.pi**2) + 5 * x / math.pi - 6
    return bent**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


_HARTMANN_A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
_HARTMANN_P = (
    np.array(
        [
            [1312, 1696, 5569, 124, 8283, 5886],
            [2329, 4135, 8307, 3736, 1004, 9991],
            [2348, 1451, 3522, 2883, 3047, 6650],
            [4047, 8828, 8732, 5743, 1091, 381],
        ]
    )
    / 1e4
)


def hartmann(c: Configuration) -> float:
    inner = (_HARTMANN_A * (vector(c) - _HARTMANN_P) ** 2).sum(axis=1)
    return -float(np.array([1.0, 1.2, 3.0, 3.2]) @ np.exp(-inner))


def rosenbrock(c: Configuration) -> float:
    x = vector(c)
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


def ackley(c: Configuration) -> float:
    x = 20 * (vector(c) - 0.37)
    return float(-20 * np.exp(-0.2 * np.sqrt((x**2).mean())) - np.exp(np.cos(2 * np.pi * x).mean()) + 20 + math.e)


def blend(c: Configuration) -> float:
    """Each category moves the valley; the int and the log-scaled rate bend it."""
    shift = {"relu": 0.2, "tanh": 0.55, "gelu": 0.8, "elu": 0.4}[c["activation"]]
    penalty = {"relu": 0.1, "tanh": 0.4, "gelu": 0.0, "elu": 0.3}[c["activation"]]
    rate, layers = math.log10(c["rate"]), c["layers"]
    batch = 0.05 * abs(math.log2(c["batch"]) - 5)
    return (
        penalty
        + (c["x0"] - shift) ** 2 * 4
        + 0.15 * (rate + 2.5 + 0.2 * layers) ** 2
        + 0.02 * (layers - 5) ** 2
        + batch
    )


BLEND = [
    {"name": "activation", "categorical": {"values": ["relu", "tanh", "gelu", "elu"]}},
    {"name": "layers", "int": {"min": 1, "max": 8}},
    {"name": "batch", "categorical": {"values": [8, 16, 32, 64, 128]}},
    {"name": "rate", "double": {"min": 1e-6, "max": 1, "scale": "log"}},
    {"name": "x0", "double": {"min": 0, "max": 1}},
]


def branches(c: Configuration) -> float:
    """Three methods, each with parameters of its own; the best one needs the finest tuning."""
    common = 0.3 * (c["x0"] - 0.7) ** 2
    if c["method"] == "forest":
        return common + 0.25 + 0.05 * abs(math.log10(c["trees"]) - 2.2)
    if c["method"] == "linear":
        return common + 0.4 + 0.02 * (math.log10(c["penalty"]) + 1) ** 2
    depth = 0.01 * (c["depth"] - 6) ** 2
    return common + 0.05 + depth + 0.1 * (math.log10(c["eta"]) + 1.3) ** 2 + 0.2 * (c["subsample"] - 0.8) ** 2


BRANCHES = [
    {"name": "method", "categorical": {"values": ["forest", "linear", "boosting"]}},
    {"name": "trees", "int": {"min": 10, "max": 1000, "scale": "log"}, "when": {"method": ["forest"]}},
    {"name": "penalty", "double": {"min": 1e-4, "max": 1e3, "scale": "log"}, "when": {"method": ["linear"]}},
    {"name": "depth", "int": {"min": 2, "max": 12}, "when": {"method": ["boosting"]}},
    {"name": "eta", "double": {"min": 1e-3, "max": 1, "scale": "log"}, "when": {"method": ["boosting"]}},
    {"name": "subsample", "double": {"min": 0.3, "max": 1}, "when": {"method": ["boosting"]}},
    {"name": "x0", "double": {"min": 0, "max": 1}},
]


@cache
def digits() -> tuple[np.ndarray, ...]:
    from sklearn.datasets import load_digits  # noqa: PLC0415 # only the real tasks need it
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    data = load_digits()
    return tuple(train_test_split(data.data / 16, data.target, train_size=400, test_size=600, random_state=0))


@cache
def cancer() -> tuple[np.ndarray, ...]:
    from sklearn.datasets import load_breast_cancer  # noqa: PLC0415
    from sklearn.model_selection import train_test_split  # noqa: PLC0415
    from sklearn.preprocessing import scale  # noqa: PLC0415

    data = load_breast_cancer()
    return tuple(train_test_split(scale(data.data), data.target, train_size=200, random_state=0))


def log_loss(model: Any, data: tuple[np.ndarray, ...]) -> float:
    """Mean negative log likelihood on the other part of the data, of what a model gives as scores of the classes."""
    train, test, labels, truth = data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a budget of iterations is part of the task
        model.fit(train, labels)
        scores = model.decision_function(test)
    scores = np.column_stack([-scores / 2, scores / 2]) if scores.ndim == 1 else scores
    scores = scores - scores.max(axis=1, keepdims=True)
    logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return float(-logs[np.arange(len(truth)), truth].mean())


def svm(c: Configuration) -> float:
    from sklearn.svm import SVC  # noqa: PLC0415

    model = SVC(
        kernel=c["kernel"], C=c["C"], gamma=c.get("gamma", 1.0), degree=c.get("degree", 3), coef0=c.get("coef0", 0)
    )
    train, test, labels, truth = digits()
    return float(1 - model.fit(train, labels).score(test, truth))


SVM = [
    {"name": "kernel", "categorical": {"values": ["rbf", "poly", "sigmoid", "linear"]}},
    {"name": "C", "double": {"min": 1e-3, "max": 1e3, "scale": "log"}},
    {
        "name": "gamma",
        "double": {"min": 1e-4, "max": 10, "scale": "log"},
        "when": {"kernel": ["rbf", "poly", "sigmoid"]},
    },
    {"name": "degree", "int": {"min": 2, "max": 5}, "when": {"kernel": ["poly"]}},
    {"name": "coef0", "double": {"min": 0, "max": 2}, "when": {"kernel": ["poly", "sigmoid"]}},
]


def sgd(c: Configuration) -> float:
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415

    model = SGDClassifier(
        loss="log_loss",
        penalty=c["penalty"],
        alpha=c["alpha"],
        l1_ratio=c.get("l1_ratio", 0.15),
        learning_rate=c["schedule"],
        eta0=c["eta0"],
        power_t=c.get("power", 0.25),
        max_iter=c["epochs"],
        tol=None,
        random_state=0,
    )
    return min(log_loss(model, cancer()), 10.0)


SGD = [
    {"name": "penalty", "categorical": {"values": ["l2", "l1", "elasticnet"]}},
    {"name": "l1_ratio", "double": {"min": 0, "max": 1}, "when": {"penalty": ["elasticnet"]}},
    {"name": "alpha", "double": {"min": 1e-6, "max": 1, "scale": "log"}},
    {"name": "schedule", "categorical": {"values": ["constant", "invscaling", "adaptive"]}},
    {"name": "eta0", "double": {"min": 1e-5, "max": 1, "scale": "log"}},
    {"name": "power", "double": {"min": 0, "max": 1}, "when": {"schedule": ["invscaling"]}},
    {"name": "epochs", "int": {"min": 1, "max": 40, "scale": "log"}},
]


def boosting(c: Configuration) -> float:
    from sklearn.ensemble import GradientBoostingClassifier  # noqa: PLC0415

    return min(log_loss(GradientBoostingClassifier(random_state=0, **c), cancer()), 10.0)


BOOSTING = [
    {"name": "n_estimators", "int": {"min": 2, "max": 40, "scale": "log"}},
    {"name": "learning_rate", "double": {"min": 0.005, "max": 2, "scale": "log"}},
    {"name": "max_depth", "int": {"min": 1, "max": 5}},
    {"name": "subsample", "double": {"min": 0.2, "max": 1}},
    {"name": "min_samples_leaf", "int": {"min": 1, "max": 30, "scale": "log"}},
]

TASKS = {
    task.name: task
    for task in (
        Task("branin", "numeric", cube(2), branin, 0.397887),
        Task("hartmann6", "numeric", cube(6), hartmann, -3.32237),
        Task("rosenbrock5", "numeric", cube(5, -2, 2), rosenbrock, 0.0),
        Task("ackley10", "numeric", cube(10), ackley, 0.0),
        Task("blend", "mixed", BLEND, blend, 0.0),
        Task("branches", "mixed", BRANCHES, branches, 0.05),
        Task("hartmann6-noisy", "noisy", cube(6), hartmann, -3.32237, noise=0.3),
        Task("blend-noisy", "noisy", BLEND, blend, 0.0, noise=0.1),
        Task("svm", "real", SVM, svm),
        Task("sgd", "real", SGD, sgd),
        Task("boosting", "real", BOOSTING, boosting),
    )
}
