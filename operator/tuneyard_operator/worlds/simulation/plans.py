"""The studies that people want: drawn by chance, once for a seed, whatever goes wrong later."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Final

from tuneyard_operator.worlds.simulation.apiserver import Object
from tuneyard_operator.worlds.simulation.programs import BROKEN, Kind, Temper
from tuneyard_operator.worlds.simulation.shares import PARTS, SELECTED, TAINT

SHARED: Final = "shared"
OWN: Final = "own"
"""A queue with a guarantee."""
LAB: Final = "lab"
"""The parent of the two others, now and then."""
MOST_MEMORY: Final = "4Gi"
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


def draw_queues(rng: random.Random, gpus: int, most_gpus: int) -> dict[str, Object]:
    """The specs of the queues by name, for a cluster of so many GPUs, and so many on its largest node."""
    parent: Object = {"parent": LAB} if rng.random() < 0.5 else {}
    shared: Object = {"limit": most_gpus + rng.choice((0, 0.5, 1, 2, 3)), "weight": rng.choice((1.0, 3.0)), **parent}
    shared["guaranteed"] = rng.choice((0, 0.5, 1))
    reclaim = {"reclaim": rng.choice((*["Any"] * 6, "LowerPriority", "Never"))}
    own: Object = {"guaranteed": rng.randint(1, gpus) - rng.choice((0, 0, 0.4)), "preemption": reclaim, **parent}
    if rng.random() < 0.4:
        shared["elastic"] = {"unplaced": rng.randint(1, 2), "timeout": rng.choice(("15s", "60s"))}
        own["elastic"] = {"unplaced": rng.randint(1, 3)}
    lab = {"limit": gpus} if rng.random() < 0.3 else {}
    return {LAB: lab, SHARED: shared, OWN: own}


def draw_plans(rng: random.Random, most_gpus: int, *, plain: bool) -> list[Plan]:
    """Two or three studies; now and then one borrows for long what another is guaranteed."""
    plans = [draw_plan(rng, f"s{number}", most_gpus, plain=plain) for number in range(rng.choice((2, 2, 3)))]
    if rng.random() < 0.3:
        borrower, owner = plans[:2]
        trials = borrower.spec["trials"]
        lent: Object = {"gpu": owner.spec.get("gpu", {"count": 1}), "priority": 0}
        lent |= {"trials": {**trials, "parallel": min(8, trials["max"])}, "template": owner.spec["template"]}
        spec = {key: value for key, value in borrower.spec.items() if key != "queue"} | lent
        plans[0] = replace(borrower, spec=spec, temper=replace(borrower.temper, mean_seconds=60.0))
        plans[1] = replace(owner, spec=owner.spec | {"queue": OWN, "gpu": lent["gpu"]})
    return plans


def draw_plan(rng: random.Random, name: str, most_gpus: int, *, plain: bool = True) -> Plan:
    """A study by chance, of 5 to 40 trials; on plain clusters it asks for whole GPUs and nothing else."""
    trials = 5 + int(rng.random() ** 3 * 36)
    timeout = rng.choice(("10s", "20s")) if rng.random() < 0.4 else None
    limits: Object = {"max": trials, "parallel": rng.randint(1, min(trials, 8))}
    limits["maxFailed"] = rng.choice((0, 2, 100, 100, 100))
    broken = rng.random() < 0.15
    if broken:
        limits["max"] = trials = 200  # enough to see that not all of them are burnt
    spec: Object = {
        "objectives": [_draw_objective(rng)],
        "parameters": [
            {"name": "x", "double": {"min": 0.0, "max": 1.0}},
            {"name": "k", "int": {"min": 0, "max": 9}},
        ],
        "strategy": {"name": "random", "seed": rng.randrange(2**32)},
        "trials": limits | ({"timeout": timeout} if timeout else {}),
        "retry": _draw_retry(rng),
        "priority": rng.choice((0, 0, 5)),
        "template": _draw_template(rng, BROKEN if broken else "train:1", plain=plain),
    }
    if rng.random() < 0.3:
        _limit_memory(spec["template"]["spec"]["containers"][0])
        if rng.random() < 0.7:
            spec["retry"] |= {"memoryGrowth": rng.choice((1.5, 3.0)), "maxMemory": MOST_MEMORY}
    if rng.random() < 0.8:
        spec["gpu"] = {"count": rng.randint(1, most_gpus)} if plain else _draw_gpu(rng, most_gpus)
        if plain and rng.random() < 0.15:
            # GPUs cannot be shared here: each trial has a whole one, whatever is found out.
            spec["gpu"] = {rng.choice(("memory", "fraction")): "auto"}
    if rng.random() < 0.1:
        spec["maxDuration"] = "60s"
    queue = rng.choice((None, SHARED, OWN, OWN))
    if queue is not None:
        spec["queue"] = queue
    _draw_fidelity(rng, spec)
    size = rng.randint(1, trials) if not broken and rng.random() < 0.1 else None
    return Plan(name, spec, _draw_temper(rng, hangs=timeout is not None), size)


def _draw_fidelity(rng: random.Random, spec: Object) -> None:
    """For some studies a fidelity, a rule that stops trials early, or both."""
    if rng.random() < 0.4:
        spec["fidelity"] = {"parameter": "epochs", "min": 1, "max": rng.choice((4, 9, 12))}
        if rng.random() < 0.7:
            spec["strategy"]["name"] = "asha"
    if rng.random() < 0.2:
        spec["earlyStopping"] = {"warmup": rng.choice((1, 3)), "minTrials": rng.choice((1, 5))}


def really(plan: Plan, rng: random.Random) -> Plan:
    """The same study with one of the strategies that users have."""
    usual = ("random", "sobol", "grid", "tpe", "bayesian")
    names = ("asha", "asha", "hyperband", "bohb", "pbt") if "fidelity" in plan.spec else usual
    strategy = {**plan.spec["strategy"], "name": rng.choice(names)}
    spec = {**plan.spec, "strategy": strategy, "initial": [{"x": 0.5, "k": 1}]}
    if "fidelity" in spec:
        spec["fidelity"] = {**spec["fidelity"], "resume": rng.random() < 0.5}
    if strategy["name"] == "pbt":
        spec["strategy"] = {**strategy, "population": rng.choice((4, 8))}
        spec |= {"fidelity": {**spec["fidelity"], "resume": True}, "checkpoints": {"claim": "states"}}
        spec.pop("earlyStopping", None)
    size = None
    if strategy["name"] == "grid":
        size = 20
        spec["parameters"] = [
            {"name": "x", "double": {"min": 0.0, "max": 1.0, "step": 0.25}},
            {"name": "k", "int": {"min": 0, "max": 3}},
        ]
    return replace(plan, spec=spec, size=size)


def template(image: str, argument: str = "--x=${x}") -> Object:
    """A study's pod template."""
    return {"spec": {"containers": [{"name": "train", "image": image, "args": [argument, "--k=${k}"]}]}}


def reworded(before: Object, image: str, argument: str = "--x=${x}") -> Object:
    """A template with another image and other arguments."""
    container = {**before["spec"]["containers"][0], **template(image, argument)["spec"]["containers"][0]}
    return {"spec": {"containers": [container]}}


def _limit_memory(container: Object) -> None:
    """Let a container use so much, and ask for no more than that."""
    resources = container.setdefault("resources", {})
    resources["limits"] = {"memory": "1Gi"}
    if "requests" in resources:
        resources["requests"]["memory"] = "1Gi"


def _draw_template(rng: random.Random, image: str, *, plain: bool) -> Object:
    """A template that may ask for cores and memory, select nodes, or tolerate their taint; a plain one does not."""
    drawn = template(image)
    if plain:
        return drawn
    if rng.random() < 0.5:
        cores = rng.choice(("0.5", "1", "2"))
        drawn["spec"]["containers"][0]["resources"] = {"requests": {"cpu": cores, "memory": rng.choice(("1Gi", "3Gi"))}}
    if rng.random() < 0.5:
        drawn["spec"]["tolerations"] = [{"key": TAINT, "operator": "Exists"}]
    if rng.random() < 0.1:
        drawn["spec"]["nodeSelector"] = {SELECTED: "ssd"}
    return drawn


def _draw_gpu(rng: random.Random, most_gpus: int) -> Object:
    """Whole GPUs, or a part of one."""
    count: Object = {"count": rng.randint(1, most_gpus)}
    fraction: Object = {"fraction": rng.choice((0.1, 0.14, 0.25, 0.3, 0.5, 0.7))}
    memory: Object = {"memory": rng.choice(("2Gi", "5Gi", "9Gi", "20Gi"))}
    gpu = rng.choice((count, fraction, fraction, memory))
    if rng.random() < 0.1:
        gpu["sharing"] = "whole" if "count" in gpu else PARTS
    return gpu | ({"packing": "Spread"} if rng.random() < 0.2 else {})


def _draw_objective(rng: random.Random) -> Object:
    objective: Object = {"metric": "loss", "goal": "minimize"}
    if rng.random() < 0.15:
        objective["target"] = rng.choice((0.001, 0.01, 0.02))
    if rng.random() < 0.2:
        objective["logPattern"] = _PATTERN
    return objective


def _draw_retry(rng: random.Random) -> Object:
    backoff = {"initial": "1s", "factor": 2, "max": "10s"}
    return {"limit": rng.choice((0, 1, 3)), "backoff": backoff, "infrastructureLimit": rng.choice((3, 20, 100))}


def _draw_temper(rng: random.Random, *, hangs: bool) -> Temper:
    weights: dict[Kind, float] = {
        "good": 1.0,
        "fails": rng.choice((0.0, 0.1, 0.5)),
        "kernel_killed": rng.choice((0.0, 0.05)),
        "out_of_memory": rng.choice((0.0, 0.1)),
        "nan": rng.choice((0.0, 0.1)),
        "silent": rng.choice((0.0, 0.1)),
        "hangs": rng.choice((0.0, 0.1)) if hangs else 0.0,
    }
    return Temper(rng.randrange(2**32), weights, rng.choice((1.0, 3.0, 6.0, 30.0, 30.0)))
