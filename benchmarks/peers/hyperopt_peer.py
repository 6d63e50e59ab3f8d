"""Hyperopt's TPE: see `lines`."""

import math
from typing import Any

import numpy as np
from hyperopt import STATUS_OK, Trials, hp, space_eval, tpe
from hyperopt.base import JOB_STATE_DONE, JOB_STATE_RUNNING, Domain
from hyperopt.pyll import scope
from lines import INITIAL, Parameters, serve


def number(parameter: dict[str, Any]) -> Any:
    name, spec = parameter["name"], parameter.get("int") or parameter["double"]
    low, high = spec["min"], spec["max"]
    if spec.get("scale") != "log":
        return hp.uniformint(name, low, high) if "int" in parameter else hp.uniform(name, low, high)
    if "int" in parameter:
        return scope.int(hp.qloguniform(name, math.log(low), math.log(high), 1))
    return hp.loguniform(name, math.log(low), math.log(high))


def space(parameters: Parameters) -> list[Any]:
    """Conditions as hyperopt's documentation has them: each choice of a parent holds the children that it has."""
    children = {p["name"]: number(p) for p in parameters if "when" in p}
    found = []
    for parameter in (p for p in parameters if "when" not in p):
        name = parameter["name"]
        if "categorical" not in parameter:
            found.append({name: number(parameter)})
            continue
        choices = []
        for value in parameter["categorical"]["values"]:
            own = [p["name"] for p in parameters if value in p.get("when", {}).get(name, [])]
            choices.append({name: value} | {child: children[child] for child in own})
        found.append(hp.choice(name, choices))
    return found


class Hyperopt:
    """A study of hyperopt. Its TPE counts running trials among the bad ones by itself."""

    def __init__(self, parameters: Parameters, seed: int, _: str) -> None:
        self._space = space(parameters)
        self._domain = Domain(lambda _: 0.0, self._space)
        self._trials = Trials()
        self._seeds = np.random.default_rng(seed)
        self._documents: dict[int, dict[str, Any]] = {}

    def ask(self, index: int) -> dict[str, Any]:
        seed = int(self._seeds.integers(2**31 - 1))
        ids = self._trials.new_trial_ids(1)
        (document,) = tpe.suggest(ids, self._domain, self._trials, seed, n_startup_jobs=INITIAL, verbose=False)
        document["state"] = JOB_STATE_RUNNING
        self._trials.insert_trial_docs([document])
        self._trials.refresh()
        self._documents[index] = self._trials._dynamic_trials[-1]
        drawn = {name: values[0] for name, values in document["misc"]["vals"].items() if values}
        found: dict[str, Any] = {}
        for part in space_eval(self._space, drawn):
            found |= part
        return {name: value.item() if isinstance(value, np.generic) else value for name, value in found.items()}

    def tell(self, index: int, loss: float) -> None:
        document = self._documents.pop(index)
        document["state"], document["result"] = JOB_STATE_DONE, {"loss": loss, "status": STATUS_OK}
        self._trials.refresh()


serve(Hyperopt)
