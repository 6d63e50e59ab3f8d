"""Optuna: see `lines`."""

from typing import Any

import optuna
from lines import INITIAL, Parameters, serve
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

optuna.logging.set_verbosity(optuna.logging.ERROR)


def distribution(parameter: dict[str, Any]) -> BaseDistribution:
    if "categorical" in parameter:
        return CategoricalDistribution(parameter["categorical"]["values"])
    spec = parameter.get("int") or parameter["double"]
    kind = IntDistribution if "int" in parameter else FloatDistribution
    return kind(spec["min"], spec["max"], log=spec.get("scale") == "log")


class Optuna:
    """A study of Optuna. Running trials are its samplers' business: TPE supposes them to be bad, CMA-ES overlooks them.

    GPSampler's expected improvement is that of a batch with them. Parameters that only some trials have are drawn at
    random by CMA-ES and GPSampler, those without an order by CMA-ES. A method may name the number of objectives behind
    a colon: "nsga2:2". The sampler of NSGA-II has a population of 50.
    """

    def __init__(self, parameters: Parameters, seed: int, method: str) -> None:
        method, _, objectives = method.partition(":")
        samplers = {
            "tpe": lambda: optuna.samplers.TPESampler(seed=seed, n_startup_trials=INITIAL),
            "cmaes": lambda: optuna.samplers.CmaEsSampler(
                seed=seed, n_startup_trials=INITIAL, warn_independent_sampling=False
            ),
            "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed),
            "gp": lambda: optuna.samplers.GPSampler(
                seed=seed, n_startup_trials=INITIAL, warn_independent_sampling=False
            ),
        }
        directions = ["minimize"] * int(objectives or 1)
        self._study = optuna.create_study(sampler=samplers[method](), directions=directions)
        self._parameters = parameters
        self._distributions = {parameter["name"]: distribution(parameter) for parameter in parameters}
        self._trials: dict[int, optuna.Trial] = {}

    def ask(self, index: int) -> dict[str, Any]:
        trial = self._trials[index] = self._study.ask()
        found: dict[str, Any] = {}
        for parameter in self._parameters:
            name, conditions = parameter["name"], parameter.get("when", {}).items()
            if all(parent in found and found[parent] in values for parent, values in conditions):
                found[name] = trial._suggest(name, self._distributions[name])
        return found

    def tell(self, index: int, loss: float | list[float]) -> None:
        self._study.tell(self._trials.pop(index), loss)

    def know(self, trials: list[tuple[dict[str, Any], float]]) -> None:
        for params, loss in trials:
            known = {name: self._distributions[name] for name in params}
            self._study.add_trial(optuna.trial.create_trial(params=params, distributions=known, value=loss))


serve(Optuna)
