"""What machines have and what pods take of them: read from the objects themselves, never from the scheduler's books.

Machines hand out whole GPUs, divide them (as KAI or a reservation pod does: a pod names its GPU and its share of it),
or offer slices of them (time-slicing, MIG).
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from tuneyard_operator.worlds.simulation.apiserver import Object
from tuneyard_scheduler import memory, quantity
from tuneyard_scheduler.backends import catalog

RESOURCE: Final = "nvidia.com/gpu"
PARTS: Final = "kai"
"""The backend that divides GPUs here."""
DIVIDED: Final = "simulation/divided"
"""The label of nodes whose GPUs can be divided."""
TAINT: Final = "team"
SELECTED: Final = "disk"
"""The label that some templates select nodes by."""
_BACKENDS: Final = {"parts": PARTS, "replicas": "timeslice", "mig": "mig"}
_ROUNDING: Final = 1e-6
_MIG: Final = {"nvidia.com/mig-1g.10gb": (0.1429, 9728), "nvidia.com/mig-3g.40gb": (0.4286, 40192)}
"""Part of a GPU, and MiB."""


Sharing = Literal["whole", "parts", "replicas", "mig"]


@dataclass(frozen=True, slots=True)
class Build:
    """What a machine is."""

    gpus: int
    sharing: Sharing = "whole"
    memory: int | None = None
    """MiB of each GPU, where the node says it."""
    replicas: int = 1
    cores: float | None = None
    ram: float | None = None
    """GiB."""
    tainted: bool = False
    selected: bool = False

    @property
    def units(self) -> dict[str, int]:
        """What the node offers, by resource name."""
        if self.sharing == "mig":
            return dict.fromkeys(_MIG, self.gpus)
        return {RESOURCE: self.gpus * self.replicas}

    def size(self, resource: str) -> float:
        """How much of a GPU one unit is."""
        return _MIG[resource][0] if resource in _MIG else round(1 / self.replicas, 4)

    @property
    def labels(self) -> dict[str, str]:
        """What the node says of itself."""
        said = {DIVIDED: "yes"} if self.sharing == "parts" else {}
        if self.sharing == "replicas":
            said |= {"nvidia.com/gpu.replicas": str(self.replicas), "nvidia.com/gpu.sharing-strategy": "time-slicing"}
        if self.memory is not None:
            said["nvidia.com/gpu.memory"] = str(self.memory)
        if self.sharing == "mig":
            said |= {f"{name}.memory": str(memory) for name, (_, memory) in _MIG.items()}
        return said | ({SELECTED: "ssd"} if self.selected else {})

    def item(self) -> Object:
        """Labels, taints and allocatable resources of the Node."""
        allocatable = {name: str(units) for name, units in self.units.items()}
        allocatable |= {} if self.cores is None else {"cpu": str(self.cores)}
        allocatable |= {} if self.ram is None else {"memory": f"{self.ram:g}Gi"}
        taints = [{"key": TAINT, "value": "vision", "effect": "NoSchedule"}] if self.tainted else []
        return {"metadata": {"labels": self.labels}, "spec": {"taints": taints}, "status": {"allocatable": allocatable}}


def parts_of(node: Object) -> str | None:
    """The backend that divides the GPUs of a node, if they can be divided."""
    return PARTS if DIVIDED in (node["metadata"].get("labels") or {}) else None


def draw_build(rng: random.Random, *, plain: bool) -> Build:
    """A machine by chance; a plain one has whole GPUs, and no more is known of it."""
    gpus = rng.choice((1, 2, 4))
    if plain:
        return Build(gpus)
    kinds: tuple[Sharing, ...] = ("whole", "parts", "parts", "parts", "replicas", "mig")
    sharing = rng.choice(kinds)
    cores = rng.choice((None, None, 2.0, 4.0, 6.0))
    return Build(
        gpus,
        sharing,
        rng.choice((None, 16384, 40960)),
        rng.choice((2, 4)) if sharing == "replicas" else 1,
        cores,
        cores * 2 if cores is not None else None,
        tainted=rng.random() < 0.15,
        selected=rng.random() < 0.5,
    )


# What is asked for and taken -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Taken:
    """What a pod, or a place for one, takes of a machine."""

    gpus: float = 0.0
    """What the queue is charged."""
    units: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)
    """Shares by the name of the GPU."""
    cores: float = 0.0
    ram: float = 0.0


def taken_by_pod(pod: Object) -> Taken:
    """What a pod's object says."""
    container = pod["spec"]["containers"][0]
    limits = (container.get("resources") or {}).get("limits") or {}
    units = {name: int(count) for name, count in limits.items() if name == RESOURCE or name in _MIG}
    said = json.loads((pod["metadata"].get("annotations") or {}).get(catalog.GPUS_ANNOTATION, "{}"))
    return _taken(said.get("gpus", sum(units.values())), units, said.get("devices"), container)


def taken_by_place(gpus: float, resource: str | None, devices: Iterable[str] | None, spec: Object, need: int) -> Taken:
    """What a place takes, for a trial of a study with this spec that needs so many MiB of memory, if not 0."""
    units = {resource: max(1, int(gpus))} if resource is not None else {}
    return _taken(gpus, units, list(devices or ()), spec["template"]["spec"]["containers"][0], need)


def _taken(gpus: float, units: dict[str, int], devices: list[str] | None, container: Object, need: int = 0) -> Taken:
    cores, ram = _requests(container, need)
    parts = {device: gpus / len(devices) for device in devices} if devices else {}
    return Taken(gpus, {} if parts else units, parts, cores, ram)


def _requests(container: Object, need: int) -> tuple[float, float]:
    """Cores and GiB."""
    requests = (container.get("resources") or {}).get("requests") or {}
    return quantity.parse(requests.get("cpu", 0)), memory.of(container).grown(need).request / 2**30


class Way(NamedTuple):
    """How a machine could serve a trial: by so many units, or by a share of one GPU."""

    gpus: float
    resource: str
    units: int = 0
    share: float = 0.0


class Demand(NamedTuple):
    """What a trial of a study asks for."""

    whole: int
    share: float | None
    memory: int | None
    """MiB."""
    by: str | None
    """The only backend that will do."""
    cores: float
    ram: float
    tolerates: bool
    selects: bool

    @classmethod
    def of(cls, spec: Object, need: int = 0) -> Demand:
        """From the spec, for a trial that needs so many MiB of memory; a size to be found out is a whole GPU."""
        gpu, pod = spec.get("gpu") or {}, spec["template"]["spec"]
        if "auto" in gpu.values():
            gpu = {"count": 1}
        size = int(gpu["memory"].removesuffix("Gi")) * 1024 if "memory" in gpu else None
        selects = SELECTED in (pod.get("nodeSelector") or {})
        found = gpu.get("count", 0), gpu.get("fraction"), size, gpu.get("sharing")
        return cls(*found, *_requests(pod["containers"][0], need), bool(pod.get("tolerations")), selects)

    @property
    def gpus(self) -> bool:
        """Whether it needs GPUs at all."""
        return bool(self.whole or self.share or self.memory)

    def accepts(self, build: Build) -> bool:
        """Whether its template may run on such a machine."""
        return (self.tolerates or not build.tainted) and (build.selected or not self.selects)

    def ways(self, build: Build) -> Iterator[Way]:
        """How such a machine, were it empty, could serve it."""
        if not self.accepts(build) or self.by not in {None, "whole" if self.whole else _BACKENDS.get(build.sharing)}:
            return
        if self.whole:
            if build.sharing in {"whole", "parts"}:
                yield Way(self.whole, RESOURCE, self.whole)
        elif build.sharing == "parts":
            share = self.share or (math.ceil(1e4 * (self.memory or 0) / build.memory) / 1e4 if build.memory else 2)
            if share <= 1:
                yield Way(share, RESOURCE, share=share)
        elif build.sharing != "whole":
            for resource in build.units:
                memory = _MIG[resource][1] if resource in _MIG else (build.memory or 0) // build.replicas
                if (self.share or 0) <= build.size(resource) and (self.memory or 0) <= memory:
                    yield Way(build.size(resource), resource, 1)


class Room:
    """What is left of a machine."""

    def __init__(self, build: Build, taken: Iterable[Taken]) -> None:
        self._build = build
        self._units: Counter[str] = Counter()
        self.shares: defaultdict[str, float] = defaultdict(float)
        self._cores = self._ram = 0.0
        for each in taken:
            self._units.update(each.units)
            for device, share in each.parts.items():
                self.shares[device] += share
            self._cores, self._ram = self._cores + each.cores, self._ram + each.ram

    def left(self, resource: str) -> int:
        """Units of which nobody has anything; below zero where more is taken."""
        divided = len(self.shares) if resource == RESOURCE else 0
        return self._build.units.get(resource, 0) - self._units[resource] - divided

    def has(self, way: Way, demand: Demand) -> bool:
        """Whether a trial could be served so."""
        if not self._roomy(demand.cores, demand.ram):
            return False
        if not way.share:
            return self.left(way.resource) >= way.units
        return self.left(RESOURCE) >= 1 or any(used + way.share <= 1 + _ROUNDING for used in self.shares.values())

    def takes(self, taken: Taken) -> bool:
        """Whether a kubelet would admit a pod that takes this."""
        if taken.parts and self._build.sharing != "parts":
            return False
        fresh = sum(device not in self.shares for device in taken.parts)
        return (
            self._roomy(taken.cores, taken.ram)
            and all(self.left(resource) >= units for resource, units in taken.units.items())
            and (not fresh or self.left(RESOURCE) >= fresh)
            and all(self.shares.get(name, 0.0) + share <= 1 + _ROUNDING for name, share in taken.parts.items())
        )

    def _roomy(self, cores: float, ram: float) -> bool:
        build = self._build
        return (not cores or build.cores is None or self._cores + cores <= build.cores + _ROUNDING) and (
            not ram or build.ram is None or self._ram + ram <= build.ram + _ROUNDING
        )
