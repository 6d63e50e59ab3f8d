"""What kinds of GPUs there are, what a study asks for, and how much of a kind that takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


def amount(gpus: float) -> float:
    """GPUs as the books keep them: multiples of 0.0001, so that parts that are given and taken back sum to nothing."""
    return round(gpus, 4)


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


class Part(NamedTuple):
    """A part of one GPU of a node that is taken."""

    resource: str
    device: str
    share: float


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
    spread: bool = False
    """Rather the emptiest GPU and node than the fullest."""

    @property
    def gpus(self) -> float:
        """How many GPUs that is; 0 where it depends on the GPU."""
        return self.count or amount(self.share or 0.0)

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
    share = request.share or math.ceil((request.memory or 0) / (kind.memory or 1) * 10_000 - 1e-6) / 10_000
    share = min(amount(share), 1.0)
    memory = request.memory or (int(share * kind.memory) if kind.memory else None)
    return Portion(kind.parts, share=share, gpus=share, memory=memory)


def _holds(request: GpuRequest, kind: Kind) -> bool:
    return request.memory is not None and kind.memory is not None and request.memory <= kind.memory
