"""Vizier's GP-UCB-PE, which its service has too: see `lines`."""

from typing import Any

import jax
from lines import INITIAL, Parameters, active, serve
from vizier import algorithms, pyvizier

# By its private name: the public module wants the solvers of other designers as well.
from vizier._src.algorithms.designers.gp_ucb_pe import VizierGPUCBPEBandit

jax.config.update("jax_enable_x64", val=True)  # as its service does


def add(root: pyvizier.SearchSpaceSelector, parameter: dict[str, Any]) -> None:
    name = parameter["name"]
    if "categorical" in parameter:
        root.add_categorical_param(name, [str(value) for value in parameter["categorical"]["values"]])
        return
    spec = parameter.get("int") or parameter["double"]
    scale = pyvizier.ScaleType.LOG if spec.get("scale") == "log" else pyvizier.ScaleType.LINEAR
    if "int" in parameter:
        root.add_int_param(name, spec["min"], spec["max"], scale_type=scale)
    else:
        root.add_float_param(name, spec["min"], spec["max"], scale_type=scale)


class Vizier:
    """A study of Vizier. Its Gaussian process knows no conditions: all parameters are always there.

    Trials that run are told, and its pure exploration keeps away from them. Categories are texts.
    """

    def __init__(self, parameters: Parameters, seed: int, _: str) -> None:
        self._parameters = parameters
        problem = pyvizier.ProblemStatement()
        for parameter in parameters:
            add(problem.search_space.root, parameter)
        problem.metric_information.append(
            pyvizier.MetricInformation("loss", goal=pyvizier.ObjectiveMetricGoal.MINIMIZE)
        )
        self._designer = VizierGPUCBPEBandit(problem, rng=jax.random.PRNGKey(seed), num_seed_trials=INITIAL)
        self._ended: list[pyvizier.Trial] = []
        self._running: dict[int, pyvizier.Trial] = {}

    def ask(self, index: int) -> dict[str, Any]:
        running = algorithms.ActiveTrials(list(self._running.values()))
        self._designer.update(algorithms.CompletedTrials(self._ended), running)
        self._ended = []
        (suggestion,) = self._designer.suggest(1)
        self._running[index] = suggestion.to_trial(index + 1)
        given = suggestion.parameters.as_dict()
        for parameter in self._parameters:
            if "categorical" in parameter:
                named = {str(value): value for value in parameter["categorical"]["values"]}
                given[parameter["name"]] = named[given[parameter["name"]]]
            elif "int" in parameter:
                given[parameter["name"]] = round(given[parameter["name"]])
        return active(self._parameters, given)

    def tell(self, index: int, loss: float) -> None:
        trial = self._running.pop(index)
        trial.complete(pyvizier.Measurement({"loss": loss}))
        self._ended.append(trial)


serve(Vizier)
