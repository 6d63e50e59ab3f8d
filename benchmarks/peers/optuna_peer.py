"""Optuna behind lines of JSON, in an environment of its own: see `_searchers.Peer`. Runs one study, then ends.

In, first: {"parameters": [...], "seed": 1, "sampler": "tpe"}; then {"ask": 0} or {"tell": 0, "loss": 0.3}.
Out, for each ask: {"lr": 0.01, ...}.
"""

import json
import sys

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)


def suggest(trial, parameters):
    found = {}
    for parameter in parameters:
        name = parameter["name"]
        if any(name_ not in found or found[name_] not in values for name_, values in parameter.get("when", {}).items()):
            continue
        if "categorical" in parameter:
            found[name] = trial.suggest_categorical(name, parameter["categorical"]["values"])
        else:
            method, kind = (trial.suggest_int, "int") if "int" in parameter else (trial.suggest_float, "double")
            spec = parameter[kind]
            found[name] = method(name, spec["min"], spec["max"], log=spec.get("scale") == "log")
    return found


def main():
    start = json.loads(sys.stdin.readline())
    samplers = {"tpe": optuna.samplers.TPESampler, "cmaes": optuna.samplers.CmaEsSampler}
    study = optuna.create_study(sampler=samplers[start["sampler"]](seed=start["seed"]))
    trials = {}
    for line in sys.stdin:
        message = json.loads(line)
        if "ask" in message:
            trial = trials[message["ask"]] = study.ask()
            print(json.dumps(suggest(trial, start["parameters"])), flush=True)
        else:
            study.tell(trials.pop(message["tell"]), message["loss"])


main()
