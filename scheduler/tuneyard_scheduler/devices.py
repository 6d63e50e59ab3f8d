"""What kinds of GPUs there are, what a study asks for, and how much of a kind that takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tuneyard_api.trial import CapacityRequest, DeviceClaim
from tuneyard_scheduler import quantity


def amount(gpus: float) -> float:
    """GPUs as the books keep them: multiples of 0.0001, so that parts that are given and taken back sum to nothing.

    The same as round(gpus, 4), in a third of its time: it is in every sum.
    """
    return round(gpus * 10_000) / 10_000 if gpus < math.inf else gpus


class Sizes(NamedTuple):
    """The amounts of memory, in MiB, in which a GPU is divided; requests are rounded up to one of them."""

    values: tuple[int, ...] = ()
    """These, ascending; empty: all from `least` on, by `step`."""
    least: int = 0
    step: int = 0
    """0: any amount."""
    most: int | None = None

    def up(self, memory: int) -> int | None:
        """What a request of so many MiB gets; None: it asks for too much."""
        if self.values:
            return next((value for value in self.values if value >= memory), None)
        found = max(memory, self.least)
        if self.step:
            found = self.least + -(-(found - self.least) // self.step) * self.step
        return found if self.most is None or found <= self.most else None


@dataclass(frozen=True, slots=True)
class Kind:
    """GPUs that are alike: those that nodes offer under one resource name."""

    family: str
    """The vendor's resource name, by which studies ask for them."""
    model: str | None = None
    memory: int | None = None
    """MiB of each, where it is known."""
    size: float = 1.0
    """How much of a GPU each is: below 1 for slices (MIG) and replicas (time-slicing)."""
    whole: str | None = "whole"
    """The backend that hands out each as one."""
    parts: str | None = None
    """The backend that divides each; None: it cannot be divided."""
    sizes: Sizes | None = None
    """In what amounts it divides them; None: any."""


@dataclass(frozen=True, slots=True)
class ClaimForm:
    """How GPUs of a node are asked for that are handed out by ResourceClaims (DRA)."""

    device_class: str
    selector: str
    """A CEL expression that holds for GPUs of this kind of device."""
    pin: str | None = None
    """The beginning of one that a list of identities ends; None: no GPU of the node can be told from others."""
    identities: Mapping[str, str] = field(default_factory=dict)
    """The CEL literal that only this GPU has, by its name."""
    capacity: tuple[tuple[str, str], ...] = ()
    """What claims consume of GPUs that several may share: names, and how much there is; memory comes first."""

    def claim(self, devices: Sequence[str], portion: Portion) -> DeviceClaim:
        """The claim of a pod that gets this portion on these devices."""
        selector = self.selector
        if self.pin is not None:
            selector += f" && {self.pin}[{', '.join(self.identities[device] for device in devices)}]"
        capacity = [CapacityRequest(name=name, amount=total) for name, total in self.capacity]
        if portion.share:
            capacity = [CapacityRequest(name=self.capacity[0][0], amount=f"{portion.memory}Mi")]
            capacity += [
                CapacityRequest(name=name, amount=str(int(quantity.parse(total) * portion.share)))
                for name, total in self.capacity[1:]
            ]
        return DeviceClaim(
            device_class=self.device_class, count=len(devices), selector=selector, capacity=capacity or None
        )


class Part(NamedTuple):
    """A part of one GPU of a node that is taken."""

    resource: str
    device: str
    share: float


class Slot(NamedTuple):
    """One GPU of a node, by the name that the books have for it."""

    node: str
    resource: str
    device: str


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """What each trial of a study needs of GPUs, on one node: `count` whole ones, or else a part of one."""

    resource: str
    """The vendor's resource name."""
    count: int = 0
    model: str | None = None
    share: float | None = None
    """A part of one GPU, between 0 and 1."""
    memory: int | None = None
    """MiB of memory on one GPU."""
    backend: str | None = None
    """The only way of sharing that will do, where the study names one."""
    or_whole: bool = False
    """A whole GPU will do where no part is large enough, or to be had at all: the size was found out, not asked for."""
    spread: bool = False
    """Rather the emptiest GPU and node than the fullest."""

    @property
    def gpus(self) -> float:
        """How many GPUs that is; 0 where it depends on the GPU."""
        return self.count or amount(self.share or 0.0)

    def fitted(self, share: float | None, memory: int | None) -> GpuRequest:
        """The same for a trial that needs so large a part of a GPU (1: a whole one), or so many MiB on it, at least."""
        if self.count:
            return self
        if share is not None and share >= 1:
            return self.whole()
        if share is not None and (self.share or 0.0) < share:
            return replace(self, share=share, memory=None, or_whole=True)
        if memory is not None and self.memory is not None and self.memory < memory:
            return replace(self, memory=memory, or_whole=True)
        return self

    def whole(self) -> GpuRequest:
        """A whole GPU instead of a part of one."""
        return replace(self, count=1, share=None, memory=None, backend=None, or_whole=False)

    def __str__(self) -> str:
        of = self.resource + (f" ({self.model})" if self.model else "")
        by = f" by {self.backend}" if self.backend else ""
        if self.count:
            return f"{self.count} {of}{by}"
        part = f"{self.share:g}" if self.share else f"{self.memory} MiB"
        return f"{part} of 1 {of}{by}"


class Portion(NamedTuple):
    """What a request takes of one kind: so many as a whole, or a share of one."""

    backend: str | None
    units: int = 0
    share: float = 0.0
    gpus: float = 0.0
    """How many GPUs that is."""
    memory: int | None = None
    """MiB of GPU memory that come with it; None: not known, or whole GPUs."""


def portion(request: GpuRequest, kind: Kind) -> Portion | None:
    """What the request takes of GPUs of this kind; None where these cannot serve it."""
    if request.resource != kind.family or request.model not in {None, kind.model}:
        return None
    if request.count:
        found = Portion(kind.whole, request.count, gpus=request.count) if kind.whole and kind.size == 1 else None
    elif kind.size < 1:
        found = _slice(request, kind)
    else:
        found = _part(request, kind)
    return found if found is None or request.backend in {None, found.backend} else None


def _slice(request: GpuRequest, kind: Kind) -> Portion | None:
    """One slice or replica, if it is large enough."""
    large = request.share <= kind.size if request.share else _holds(request, kind)
    return Portion(kind.whole, 1, gpus=kind.size, memory=kind.memory) if kind.whole and large else None


def _part(request: GpuRequest, kind: Kind) -> Portion | None:
    if not kind.parts or not (request.share or _holds(request, kind)):
        return None
    share = amount(request.share) if request.share else None
    memory = request.memory or (int((share or 0.0) * kind.memory) if kind.memory else None)
    if kind.sizes is not None and kind.memory is not None:
        memory = kind.sizes.up(memory or 0)
        if memory is None or memory > kind.memory:
            return None
        share = max(share or 0.0, _share(memory, kind))
    elif share is None:
        share = _share(request.memory or 0, kind)
    share = min(share, 1.0)
    return Portion(kind.parts, share=share, gpus=share, memory=memory)


def _share(memory: int, kind: Kind) -> float:
    """The share that so much memory is of one, rounded up."""
    return math.ceil(memory / (kind.memory or 1) * 10_000 - 1e-6) / 10_000


def _holds(request: GpuRequest, kind: Kind) -> bool:
    return request.memory is not None and kind.memory is not None and request.memory <= kind.memory
