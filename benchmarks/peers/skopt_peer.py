"""Scikit-optimize's Gaussian process with its gp_hedge: see `lines`."""

import copy
import warnings
from typing import Any

import numpy as np
from lines import INITIAL, Parameters, active, serve
from skopt import Optimizer
from skopt.space import Categorical, Integer, Real

warnings.simplefilter("ignore")


def dimension(parameter: dict[str, Any]) -> Any:
    if "categorical" in parameter:
        return Categorical(parameter["categorical"]["values"])
    spec = parameter.get("int") or parameter["double"]
    kind = Integer if "int" in parameter else Real
    return kind(spec["min"], spec["max"], prior="log-uniform" if spec.get("scale") == "log" else "uniform")


class Skopt:
    """A study of scikit-optimize. It knows no conditions: all parameters are always there, and some have no effect.

    Running trials have what its documentation gives those of a batch, the constant liar: they are told with the least
    loss so far, to a copy.
    """

    def __init__(self, parameters: Parameters, seed: int, _: str) -> None:
        self._parameters = parameters
        self._optimizer = Optimizer([dimension(p) for p in parameters], n_initial_points=INITIAL, random_state=seed)
        self._running: dict[int, list[Any]] = {}

    def ask(self, index: int) -> dict[str, Any]:
        asked = self._optimizer
        if self._running and asked.models:
            asked = copy.copy(self._optimizer)
            asked.Xi, asked.yi, asked.models = list(asked.Xi), list(asked.yi), list(asked.models)
            asked.gains_ = np.copy(asked.gains_)
            running = list(self._running.values())
            asked.tell(running, [min(asked.yi)] * len(running))
        point = self._running[index] = asked.ask()
        names = (parameter["name"] for parameter in self._parameters)
        plain = (value.item() if isinstance(value, np.generic) else value for value in point)
        return active(self._parameters, dict(zip(names, plain, strict=True)))

    def tell(self, index: int, loss: float) -> None:
        self._optimizer.tell(self._running.pop(index), loss)


serve(Skopt)
