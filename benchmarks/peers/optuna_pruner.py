"""Optuna's pruners, with its TPE: see `pruning`."""

from typing import Any

import optuna
from pruning import serve

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Optuna:
    """A study of Optuna."""

    def __init__(self, start: dict[str, Any]) -> None:
        pruners = {
            "hyperband": lambda: optuna.pruners.HyperbandPruner(start["least"], start["epochs"], 3),
            "asha": lambda: optuna.pruners.SuccessiveHalvingPruner(start["least"], 3),
            "median": optuna.pruners.MedianPruner,
        }
        sampler = optuna.samplers.TPESampler(seed=start["seed"])
        self._study = optuna.create_study(sampler=sampler, pruner=pruners[start["pruner"]]())
        self._parameters = {p["name"]: p["double"] for p in start["parameters"]}
        self._trials: dict[int, optuna.Trial] = {}

    def ask(self, index: int) -> dict[str, float]:
        trial = self._trials[index] = self._study.ask()
        return {
            name: trial.suggest_float(name, spec["min"], spec["max"], log=spec["scale"] == "log")
            for name, spec in self._parameters.items()
        }

    def report(self, index: int, epoch: int, loss: float) -> bool:
        self._trials[index].report(loss, epoch)
        return self._trials[index].should_prune()

    def tell(self, index: int, epoch: int, loss: float, *, pruned: bool) -> None:
        state = optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE
        self._study.tell(self._trials.pop(index), None if pruned else loss, state=state)


serve(Optuna)
