"""Optuna's pruners behind lines of JSON: see `fidelity.Pruned`. Runs one study, then ends.

In, first: {"parameters": [...], "seed": 1, "pruner": "hyperband", "least": 3, "epochs": 81}; then {"ask": 0},
{"report": 0, "epoch": 3, "loss": 0.3} or {"tell": 0, "loss": 0.3, "pruned": false}. Out, for each ask: the
configuration; for each report: whether to prune.
"""

import json
import sys

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)


def main() -> None:
    start = json.loads(sys.stdin.readline())
    pruners = {
        "hyperband": lambda: optuna.pruners.HyperbandPruner(start["least"], start["epochs"], 3),
        "asha": lambda: optuna.pruners.SuccessiveHalvingPruner(start["least"], 3),
        "median": optuna.pruners.MedianPruner,
    }
    sampler = optuna.samplers.TPESampler(seed=start["seed"])
    study = optuna.create_study(sampler=sampler, pruner=pruners[start["pruner"]]())
    trials: dict[int, optuna.Trial] = {}
    for line in sys.stdin:
        message = json.loads(line)
        if "ask" in message:
            trial = trials[message["ask"]] = study.ask()
            found = {}
            for parameter in start["parameters"]:
                spec = parameter["double"]
                found[parameter["name"]] = trial.suggest_float(
                    parameter["name"], spec["min"], spec["max"], log=spec["scale"] == "log"
                )
            print(json.dumps(found), flush=True)
        elif "report" in message:
            trial = trials[message["report"]]
            trial.report(message["loss"], message["epoch"])
            print(json.dumps(trial.should_prune()), flush=True)
        else:
            state = optuna.trial.TrialState.PRUNED if message["pruned"] else optuna.trial.TrialState.COMPLETE
            study.tell(trials.pop(message["tell"]), None if message["pruned"] else message["loss"], state=state)


main()
