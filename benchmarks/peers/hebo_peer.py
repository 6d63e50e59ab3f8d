"""HEBO, with its defaults (a Gaussian process, MACE): see `lines`."""

from typing import Any

import numpy as np
import torch
from hebo.design_space.design_space import DesignSpace
from hebo.optimizers.hebo import HEBO
from lines import INITIAL, Parameters, active, serve
from pymoo.config import Config

Config.warnings["not_compiled"] = False  # would be a line on the way that answers take


def variable(parameter: dict[str, Any]) -> dict[str, Any]:
    name = parameter["name"]
    if "categorical" in parameter:
        return {"name": name, "type": "cat", "categories": parameter["categorical"]["values"]}
    spec = parameter.get("int") or parameter["double"]
    log = spec.get("scale") == "log"
    kind = ("pow_int" if log else "int") if "int" in parameter else ("pow" if log else "num")
    return {"name": name, "type": kind, "lb": spec["min"], "ub": spec["max"]}


class Hebo:
    """A study of HEBO. It knows no conditions: all parameters are always there, and some have no effect.

    It has no word for trials that run either (its batches are asked for and told at once), so it overlooks them.
    """

    def __init__(self, parameters: Parameters, seed: int, _: str) -> None:
        np.random.seed(seed)  # its genetic algorithm draws from it
        torch.manual_seed(seed)
        self._parameters = parameters
        space = DesignSpace().parse([variable(parameter) for parameter in parameters])
        self._optimizer = HEBO(space, rand_sample=INITIAL, scramble_seed=seed)
        self._running: dict[int, Any] = {}

    def ask(self, index: int) -> dict[str, Any]:
        row = self._running[index] = self._optimizer.suggest(1)
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in row.iloc[0].items()}
        for parameter in self._parameters:
            if "int" in parameter:
                plain[parameter["name"]] = round(plain[parameter["name"]])
        return active(self._parameters, plain)

    def tell(self, index: int, loss: float) -> None:
        self._optimizer.observe(self._running.pop(index), np.array([[loss]]))


serve(Hebo)
