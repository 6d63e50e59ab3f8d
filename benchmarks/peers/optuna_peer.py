"""Optuna behind lines of JSON, in an environment of its own: see `_searchers.Peer`. Runs one study, then ends.

In, first: {"parameters": [...], "seed": 1, "sampler": "tpe"}; then {"know": [[configuration, loss], ...]}, {"ask": 0}
or {"tell": 0, "loss": 0.3}. Out, for each ask: {"parameters": {"lr": 0.01}, "seconds": CPU time since the ask before}.
"""

import json
import sys
import time
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

optuna.logging.set_verbosity(optuna.logging.ERROR)
SAMPLERS = {"tpe": optuna.samplers.TPESampler, "cmaes": optuna.samplers.CmaEsSampler}


def distribution(parameter: dict[str, Any]) -> BaseDistribution:
    if "categorical" in parameter:
        return CategoricalDistribution(parameter["categorical"]["values"])
    spec = parameter.get("int") or parameter["double"]
    kind = IntDistribution if "int" in parameter else FloatDistribution
    return kind(spec["min"], spec["max"], log=spec.get("scale") == "log")


def suggest(trial: optuna.Trial, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for parameter in parameters:
        conditions = parameter.get("when", {}).items()
        if all(parent in found and found[parent] in values for parent, values in conditions):
            found[parameter["name"]] = trial._suggest(parameter["name"], distribution(parameter))
    return found


def main() -> None:
    start = json.loads(sys.stdin.readline())
    study = optuna.create_study(sampler=SAMPLERS[start["sampler"]](seed=start["seed"]))
    distributions = {parameter["name"]: distribution(parameter) for parameter in start["parameters"]}
    trials: dict[int, optuna.Trial] = {}
    begun = time.process_time()
    for line in sys.stdin:
        message = json.loads(line)
        if "ask" in message:
            trial = trials[message["ask"]] = study.ask()
            parameters = suggest(trial, start["parameters"])
            print(json.dumps({"parameters": parameters, "seconds": time.process_time() - begun}), flush=True)
            begun = time.process_time()
        elif "tell" in message:
            study.tell(trials.pop(message["tell"]), message["loss"])
        else:
            for params, loss in message["know"]:
                known = {name: distributions[name] for name in params}
                study.add_trial(optuna.trial.create_trial(params=params, distributions=known, value=loss))


main()
