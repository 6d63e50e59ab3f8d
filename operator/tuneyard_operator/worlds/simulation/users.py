"""People: the studies that they apply, and what they do to them afterwards."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tuneyard_api.common import API_VERSION, timestamp
from tuneyard_operator.state import StudyState
from tuneyard_operator.strategy_client import Answer
from tuneyard_operator.worlds.simulation.apiserver import ApiServer, Object
from tuneyard_operator.worlds.simulation.cluster import Cluster
from tuneyard_operator.worlds.simulation.faults import Faults
from tuneyard_operator.worlds.simulation.kernel import Kernel
from tuneyard_operator.worlds.simulation.programs import Kind, Temper

USER: Final = "user"
_TICK: Final = 2.0
_PATTERN: Final = "final loss: {value} (done)"


@dataclass(frozen=True, slots=True)
class Plan:
    """A study that somebody wants."""

    name: str
    spec: Object
    temper: Temper
    size: int | None
    """How many configurations its space has; None for more than are asked for."""

    @property
    def seed(self) -> int:
        """The seed of its strategy."""
        return int(self.spec["strategy"]["seed"])


def draw_plan(rng: random.Random, name: str, most_gpus: int) -> Plan:
    """A study by chance."""
    trials = 5 + int(rng.random() ** 3 * 36)
    parallel = rng.randint(1, min(trials, 8))
    objective: Object = {"metric": "loss", "goal": "minimize"}
    if rng.random() < 0.15:
        objective["target"] = rng.choice((0.001, 0.01, 0.02))
    if rng.random() < 0.2:
        objective["logPattern"] = _PATTERN
    hangs = rng.random() < 0.3
    limits: Object = {"max": trials, "parallel": parallel, "maxFailed": rng.choice((0, 2, 100, 100, 100))}
    if hangs or rng.random() < 0.2:
        limits["timeout"] = rng.choice(("10s", "20s"))
    weights: dict[Kind, float] = {
        "good": 1.0,
        "fails": rng.choice((0.0, 0.1, 0.5)),
        "kernel_killed": rng.choice((0.0, 0.05)),
        "out_of_memory": rng.choice((0.0, 0.1)),
        "nan": rng.choice((0.0, 0.1)),
        "silent": rng.choice((0.0, 0.1)),
        "hangs": 0.1 if hangs else 0.0,
    }
    backoff = {"initial": "1s", "factor": 2, "max": "10s"}
    retry = {"limit": rng.choice((0, 1, 3)), "backoff": backoff, "infrastructureLimit": rng.choice((3, 20, 100))}
    spec: Object = {
        "objectives": [objective],
        "parameters": [
            {"name": "x", "double": {"min": 0.0, "max": 1.0}},
            {"name": "k", "int": {"min": 0, "max": 9}},
        ],
        "strategy": {"name": "random", "seed": rng.randrange(2**32)},
        "trials": limits,
        "retry": retry,
        "priority": rng.choice((0, 0, 5)),
        "template": {"spec": {"containers": [{"name": "train", "image": "train:1", "args": ["--x=${x}", "--k=${k}"]}]}},
    }
    if rng.random() < 0.8:
        spec["gpu"] = {"count": rng.randint(1, most_gpus)}
    if rng.random() < 0.1:
        spec["maxDuration"] = "60s"
    size = rng.randint(1, trials) if rng.random() < 0.1 else None
    return Plan(name, spec, Temper(rng.randrange(2**32), weights, rng.choice((1.0, 3.0, 6.0))), size)


def configuration(seed: int, index: int) -> Object:
    """The configuration of a trial: a function of the study's seed and the index, as strategies promise."""
    rng = random.Random(seed * 100_003 + index)  # noqa: S311
    return {"x": round(rng.random(), 6), "k": rng.randrange(10)}


class SeededStrategies:
    """A strategy client that costs nothing."""

    def __init__(self, plans: Mapping[str, Plan]) -> None:
        self._plans = plans

    async def ask(self, state: StudyState, indices: list[int]) -> Answer:
        """See StrategyClient."""
        size, seed = self._plans[state.name].size, state.spec.strategy.seed
        found = {index: configuration(seed, index) for index in indices if size is None or index < size}
        return Answer(found, exhausted=len(found) < len(indices))

    async def check(self, state: StudyState) -> list[str]:
        """See StrategyClient."""
        del state
        return []

    def forget(self, uid: str) -> None:
        """See StrategyClient."""


class Users:
    """Apply studies and change their minds."""

    def __init__(self, kernel: Kernel, api: ApiServer, faults: Faults, cluster: Cluster, plans: list[Plan]) -> None:
        self.kernel = kernel
        self.api = api
        self.faults = faults
        self.plans = {plan.name: plan for plan in plans}
        self._to_apply = len(plans)
        self._cluster = cluster
        for plan in plans:
            kernel.after(kernel.jitter(0.0, 15.0), self._apply, plan)
        kernel.after(_TICK, self._act)

    def _apply(self, plan: Plan) -> None:
        if plan.name in self.api.objects["studies"]:
            self.kernel.after(1.0, self._apply, plan)
            return
        self._cluster.tempers[plan.name] = plan.temper
        self._to_apply -= 1
        item = {"apiVersion": API_VERSION, "kind": "Study", "metadata": {"name": plan.name}, "spec": plan.spec}
        self.api.create("studies", item, USER)

    def _act(self) -> None:
        kernel = self.kernel
        for name, study in list(self.api.objects["studies"].items()):
            if kernel.chance(self.faults.user_action * _TICK) and "deletionTimestamp" not in study["metadata"]:
                kernel.counts["user_action"] += 1
                kernel.rng.choices((self._change, self._delete_trial, self._delete_study), (10, 3, 1))[0](name, study)
        kernel.after(_TICK, self._act)

    def _change(self, name: str, study: Object) -> None:
        rng, trials = self.kernel.rng, study["spec"]["trials"]
        changes: Object = {}
        match rng.randrange(5):
            case 0:
                changes = {"trials": {"parallel": rng.randint(0, min(8, trials["max"]))}}
            case 1:
                changes = {"suspend": not study["spec"].get("suspend", False)}
            case 2:
                changes = {"trials": {"max": min(40, trials["max"] + rng.randint(1, 8))}}
            case 3:
                most = rng.randint(1, trials["max"])
                changes = {"trials": {"max": most, "parallel": min(most, trials["parallel"])}}
            case _:
                container = {**study["spec"]["template"]["spec"]["containers"][0], "image": f"train:{rng.random()}"}
                changes = {"template": {"spec": {"containers": [container]}}}
        self.api.update("studies", name, {"spec": changes}, USER)

    def _delete_trial(self, name: str, study: Object) -> None:
        mine = [key for key in self.api.objects["trials"] if key.rpartition("-")[0] == name]
        if mine:
            self._delete("trials", self.kernel.rng.choice(mine))
        del study

    def _delete_study(self, name: str, study: Object) -> None:
        self._delete("studies", name)
        if self.kernel.chance(0.6):
            self._to_apply += 1
            self.kernel.after(self.kernel.jitter(0.0, 3.0), self._apply, self.plans[name])
        del study

    def _delete(self, kind: str, name: str) -> None:
        """In the background, or in the foreground: then it is marked first, and goes last."""
        uid = self.api.get(kind, name)["metadata"]["uid"]
        if self.kernel.chance(0.5):
            self.api.delete(kind, name, USER)
        else:
            mark = {"metadata": {"deletionTimestamp": timestamp(self.kernel.now)}}
            self.api.update(kind, name, mark, USER)
            self.kernel.after(self.kernel.jitter(0.1, 3.0), self._delete_marked, kind, name, uid)

    def _delete_marked(self, kind: str, name: str, uid: str) -> None:
        if self.api.exists(uid):
            self.api.delete(kind, name, "cluster")

    @property
    def quiet(self) -> bool:
        """Whether nobody is about to apply or delete anything."""
        return self._to_apply == 0

    def calm(self) -> None:
        """Let all studies go on to their end."""
        for name, study in list(self.api.objects["studies"].items()):
            trials: dict[str, Any] = study["spec"]["trials"]
            changes = {"suspend": False, "trials": {"parallel": max(1, trials["parallel"])}}
            self.api.update("studies", name, {"spec": changes}, USER)
