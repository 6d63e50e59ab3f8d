"""SMAC3's random forest, as its facade for hyperparameters sets it up: see `lines`."""

import tempfile
import warnings
from typing import Any

import numpy as np
from ConfigSpace import Categorical, ConfigurationSpace, Float, InCondition, Integer
from lines import INITIAL, Parameters, serve
from smac import HyperparameterOptimizationFacade, Scenario
from smac.runhistory import TrialInfo, TrialValue

warnings.simplefilter("ignore")
TRIALS = 10_000
"""More than are ever asked for."""


def hyperparameter(parameter: dict[str, Any]) -> Any:
    name = parameter["name"]
    if "categorical" in parameter:
        return Categorical(name, parameter["categorical"]["values"])
    spec = parameter.get("int") or parameter["double"]
    kind = Integer if "int" in parameter else Float
    return kind(name, (spec["min"], spec["max"]), log=spec.get("scale") == "log")


class Smac:
    """A study of SMAC, one evaluation a configuration. Its model leaves running trials out; none is repeated."""

    def __init__(self, parameters: Parameters, seed: int, _: str) -> None:
        space = ConfigurationSpace(seed=seed)
        space.add(*(hyperparameter(parameter) for parameter in parameters))
        for parameter in parameters:
            for parent, values in parameter.get("when", {}).items():
                space.add(InCondition(space[parameter["name"]], space[parent], values))
        folder = tempfile.mkdtemp(prefix="smac")
        scenario = Scenario(space, deterministic=True, n_trials=TRIALS, seed=seed, output_directory=folder)
        design = HyperparameterOptimizationFacade.get_initial_design(scenario, n_configs=INITIAL)
        self._facade = HyperparameterOptimizationFacade(
            scenario, lambda config, seed: 0.0, initial_design=design, overwrite=True, logging_level=False
        )
        self._running: dict[int, TrialInfo] = {}

    def ask(self, index: int) -> dict[str, Any]:
        info = self._running[index] = self._facade.ask()
        return {
            name: value.item() if isinstance(value, np.generic) else value for name, value in dict(info.config).items()
        }

    def tell(self, index: int, loss: float) -> None:
        self._facade.tell(self._running.pop(index), TrialValue(cost=loss), save=False)


serve(Smac)
