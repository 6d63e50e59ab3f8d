"""This machine as a node: its cores, its memory, its GPUs, and what of them the trials of all studies hold."""

from __future__ import annotations

import dataclasses
import platform
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from tuneyard_api.study import StudySpec
from tuneyard_operator.worlds.gpus import RESOURCE, Gpu
from tuneyard_operator.worlds.leases import Holding, Leases
from tuneyard_scheduler import translate
from tuneyard_scheduler.devices import Kind, Part, amount
from tuneyard_scheduler.selection import ANY_NODE
from tuneyard_scheduler.views import Node, Place, StudyView, Taken

PARTS: Final = "local"
"""The backend that divides GPUs here: by what programs are told."""
_ROUNDING: Final = 1e-6


class Machine:
    """What one study may use.

    Args:
        leases: where it is on record who holds what.
        cores: of the machine.
        memory: of the machine, in bytes.
        gpus: those that the study may use; None where it needs none, and its programs see what this process sees.
    """

    def __init__(self, leases: Leases, cores: float, memory: float, gpus: Sequence[Gpu] | None = None) -> None:
        self.leases = leases
        self.cores = cores
        self.memory = memory
        self.gpus = list(gpus) if gpus is not None else None
        self.name = platform.node()

    def node(self, view: StudyView) -> Node:
        """The machine as the scheduler sees it for this study.

        GPUs are alike for whoever asks for whole ones, and a kind of its own each model for whoever asks for a part.
        """
        kinds: dict[str, Kind] = {}
        devices: defaultdict[str, list[str]] = defaultdict(list)
        for gpu in self.gpus or ():
            resource = self._resource(gpu, view)
            devices[resource].append(gpu.number)
            kinds.setdefault(resource, Kind(RESOURCE, gpu.model, gpu.memory, parts=PARTS))
        return Node(
            self.name,
            {resource: len(numbers) for resource, numbers in devices.items()},
            kinds=kinds,
            devices={resource: tuple(numbers) for resource, numbers in devices.items()},
            cpu=self.cores,
            memory=self.memory,
        )

    def _resource(self, gpu: Gpu, view: StudyView) -> str:
        alike = view.gpu is None or view.gpu.count or len({(each.model, each.memory) for each in self.gpus or ()}) == 1
        return RESOURCE if alike else f"{RESOURCE}.{gpu.model}.{gpu.memory}"

    def view(self, study: Mapping[str, Any]) -> StudyView:
        """A study as the scheduler sees it here: there are no queues, one node, and one way to share a GPU.

        Its pods are the programs of their first containers. Who asks for more cores or memory than there are gets all.
        """
        view = translate.study(dict(study))
        gpu = dataclasses.replace(view.gpu, backend=None) if view.gpu is not None and self.gpus else None
        cpu, memory = asks(study["spec"]["template"])
        return dataclasses.replace(
            view, queue=None, gpu=gpu, needs=ANY_NODE, cpu=min(cpu, self.cores), memory=min(memory, self.memory)
        )

    def taken(self, holding: Holding, view: StudyView) -> Taken:
        """What is held, as the scheduler counts it for this study."""
        known = {gpu.number: self._resource(gpu, view) for gpu in self.gpus or ()}
        parts = tuple(Part(known[number], number, share) for number, share in holding.gpus.items() if number in known)
        return Taken({}, parts, amount(sum(holding.gpus.values())), holding.cores, holding.memory)

    def holding(self, uid: str, place: Place, view: StudyView) -> Holding:
        """What a place is to hold, of a study with this uid."""
        share = amount(place.gpus / len(place.devices)) if place.devices else 0.0
        return Holding(uid, place.index, place.attempt, dict.fromkeys(place.devices, share), view.cpu, view.memory)

    def fits(self, wanted: Holding, held: Iterable[Holding]) -> bool:
        """Whether this can be held beside all that is held."""
        others = [each for each in held if each.name != wanted.name]
        gpus = (
            (share, sum(each.gpus.get(number, 0.0) for each in others), 1.0) for number, share in wanted.gpus.items()
        )
        cores = wanted.cores, sum(each.cores for each in others), self.cores
        memory = wanted.memory, sum(each.memory for each in others), self.memory
        return all(not mine or mine + theirs <= whole + _ROUNDING for mine, theirs, whole in (*gpus, cores, memory))


def asks(template: Mapping[str, Any]) -> tuple[float, float]:
    """Cores, and bytes of memory, that the program of a template asks for."""
    first = {"containers": (template.get("spec") or {}).get("containers", [])[:1]}
    return translate.asks(first, "cpu"), translate.asks(first, "memory")


def visible(placement: Mapping[str, Any], machine: Machine) -> dict[str, str]:
    """What shows a program its GPUs, and no others."""
    if machine.gpus is None:
        return {}
    return {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the order in which nvidia-smi counts
        "CUDA_VISIBLE_DEVICES": ",".join(placement.get("devices") or ()),
    }


def notes(spec: StudySpec, machine: Machine) -> Iterator[str]:
    """A sentence for each thing about cores and memory that people may not expect."""
    cpu, memory = asks(spec.template)
    at, parallel = "spec.template.spec.containers[0].resources", spec.trials.parallel
    if cpu > machine.cores:
        yield f"{at} asks for {cpu:g} cores, and this machine has {machine.cores:g}: trials run one at a time"
    if memory > machine.memory:
        asked, whole = (f"{size / 2**30:.3g} GiB" for size in (memory, machine.memory))
        yield f"{at} asks for {asked} of memory, and this machine has {whole}: trials run one at a time"
    if not cpu and spec.gpu is None and parallel > machine.cores:
        yield (
            f"{parallel} trials run at a time on {machine.cores:g} cores; to have fewer, say what each needs in {at}: "
            'requests: {cpu: "1"}'
        )
