"""Syne Tune's ASHA, which stops trials, with random configurations or (BOHB) a kernel density's: see `pruning`."""

import logging
from typing import Any

from pruning import serve
from syne_tune.backend.trial_status import Trial
from syne_tune.config_space import loguniform, uniform
from syne_tune.optimizer.baselines import ASHA, BOHB
from syne_tune.optimizer.scheduler import SchedulerDecision

logging.disable(logging.WARNING)


class SyneTune:
    """A study of Syne Tune."""

    def __init__(self, start: dict[str, Any]) -> None:
        space = {
            p["name"]: (loguniform if p["double"]["scale"] == "log" else uniform)(
                p["double"]["min"], p["double"]["max"]
            )
            for p in start["parameters"]
        }
        kind = {"asha": ASHA, "bohb": BOHB}[start["pruner"]]
        self._scheduler = kind(
            space, "loss", "epoch", start["epochs"],
            random_seed=start["seed"], grace_period=start["least"], reduction_factor=3,
        )  # fmt: skip
        self._trials: dict[int, Trial] = {}

    def ask(self, index: int) -> dict[str, float]:
        config = self._scheduler.suggest().config
        trial = self._trials[index] = Trial(index, config, None)
        self._scheduler.on_trial_add(trial)
        return dict(config)

    def report(self, index: int, epoch: int, loss: float) -> bool:
        decision = self._scheduler.on_trial_result(self._trials[index], {"loss": loss, "epoch": epoch})
        return bool(decision == SchedulerDecision.STOP)

    def tell(self, index: int, epoch: int, loss: float, *, pruned: bool) -> None:
        trial = self._trials.pop(index)
        if pruned:
            self._scheduler.on_trial_remove(trial)
        else:
            self._scheduler.on_trial_complete(trial, {"loss": loss, "epoch": epoch})


serve(SyneTune)
