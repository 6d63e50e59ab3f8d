"""What the scheduler sees (nodes, pods, studies, trials, queues) and what it decides: small immutable values.

The cluster process makes them from API objects, the laptop from its own processes, the simulation from nothing. Names
are plain text; a study's `key` is 'namespace/name' in a cluster. Times are epoch seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final, Literal, NamedTuple

from tuneyard_api.common import micro_timestamp
from tuneyard_api.trial import DeviceClaim, Phase, Placement, Reclaim
from tuneyard_scheduler.devices import ClaimForm, GpuRequest, Kind, Part, amount
from tuneyard_scheduler.durations import Run
from tuneyard_scheduler.memory import UNSAID, Memory
from tuneyard_scheduler.selection import ANY_NODE, NodeNeeds, Taint


@dataclass(frozen=True, slots=True)
class Node:
    """A machine: its GPUs by resource name, whether it takes new pods, and what templates may ask of it."""

    name: str
    capacity: Mapping[str, int]
    ready: bool = True
    schedulable: bool = True
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    """What the GPUs are, by resource name; left out: whole ones, of which no more is known."""
    devices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The names of the GPUs by resource name, where pods are given a certain one."""
    claims: Mapping[str, ClaimForm] = field(default_factory=dict)
    """How pods claim the GPUs by resource name, where they are handed out by claims."""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    cpu: float | None = None
    """Cores for pods; None: not known, and no limit."""
    memory: float | None = None
    """Bytes for pods; None: not known, and no limit."""

    def kind(self, resource: str) -> Kind:
        """What its GPUs of this name are."""
        return self.kinds.get(resource) or _plain(resource)


@cache
def _plain(resource: str) -> Kind:
    return Kind(resource)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a pod, or a place for one, takes of a node."""

    units: Mapping[str, int] = field(default_factory=dict)
    """GPUs (or slices of such) that are handed out as one, by resource name."""
    parts: tuple[Part, ...] = ()
    gpus: float | None = None
    """How many GPUs that is together; None: the sum."""
    cpu: float = 0.0
    memory: float = 0.0

    @property
    def resources(self) -> Collection[str]:
        """The resource names of which something is taken."""
        return {*self.units, *(part.resource for part in self.parts)} if self.parts else self.units.keys()

    @property
    def charge(self) -> float:
        """How many GPUs the queue is charged."""
        if self.gpus is not None:
            return self.gpus
        return amount(sum(self.units.values()) + sum(part.share for part in self.parts))


NOTHING: Final = Taken()


class Need(NamedTuple):
    """What a trial needs beyond what its study asks for, because it ran out of memory."""

    share: float | None = None
    """A part of one GPU; 1: a whole one."""
    gpu_memory: int | None = None
    """MiB on one GPU."""
    memory: int | None = None
    """MiB for its container."""


@dataclass(frozen=True, slots=True)
class StudyView:
    """A study: a class of identical requests, but for the trials that have a need of their own (see `fitted`)."""

    key: str
    uid: str
    namespace: str
    priority: int = 0
    created: float = 0.0
    parallel: int = 1
    suspended: bool = False
    gpu: GpuRequest | None = None
    needs: NodeNeeds = ANY_NODE
    cpu: float = 0.0
    """Cores that each of its pods asks for."""
    memory: float = 0.0
    """Bytes of memory that each of its pods asks for."""
    container: Memory = UNSAID
    """The part of that which is its program's, and grows with a trial's need."""
    queue: str | None = None
    phase: str | None = None
    """status.phase: a study that is Blocked, Complete or Failed gets no place."""
    deleting: bool = False
    timeout: float | None = None
    """Seconds that an attempt may run at most."""
    fidelity: float | None = None
    """How much of the fidelity a trial may have at most, where who was let go far is the more promising."""


def fitted(study: StudyView, need: Need | None) -> StudyView:
    """The study as it is for a trial with this need: it asks for that much, where that is more."""
    if need is None:
        return study
    grown = study.container.grown(need.memory).request - study.container.request
    gpu = study.gpu.fitted(need.share, need.gpu_memory) if study.gpu is not None else None
    return replace(study, gpu=gpu, memory=study.memory + grown)


@dataclass(frozen=True, slots=True)
class TrialView:
    """A trial: where it is in its life, and the place it has."""

    study: str
    index: int
    phase: Phase = Phase.PENDING
    attempt: int = 0
    placement: Placement | None = None
    not_before: float | None = None
    avoid: tuple[str, ...] = ()
    """Nodes to stay away from where another one fits."""
    need: Need | None = None
    lost: tuple[tuple[str, float], ...] = ()
    """Where and when attempts of it were lost, by no fault of its own but maybe by the node's."""
    proved: tuple[str, float, float] | None = None
    """The last attempt that came to an end of its own: its node, and when it began and ended."""
    owner: str | None = None
    """The uid of the study that it belongs to; a trial of an earlier study with the same key is ignored."""
    uid: str | None = None
    since: float = 0.0
    """From when it waits for its place, be it for a backoff first; or has its place. 0: not known."""
    started: float = 0.0
    """When its current attempt began to run. 0: it has not, or that is not known."""
    run: Run | None = None
    """Its last attempt, where that ran to its own end."""
    promise: float = 0.0
    """How far its strategy has let it go, by fidelity: that of its rung, or up to which it was let go on."""
    preempted: int = 0
    """How many of its attempts were stopped for others."""
    version: str | None = None
    """The object's version, for whoever writes the placement; the cycle does not look at it."""

    @property
    def standing(self) -> tuple[float, Need | None]:
        """What tells it from others of its study that wait."""
        return self.promise, self.need

    @property
    def age(self) -> tuple[int, int]:
        """How far the record is: (attempt, stage). It only ever grows."""
        return self.attempt, _STAGES.get(self.phase, 3)


_STAGES = {Phase.PENDING: 0, Phase.PLACED: 1, Phase.RUNNING: 2}


@dataclass(frozen=True, slots=True)
class AttemptKey:
    """An attempt of a trial of a study."""

    study: str
    index: int
    attempt: int


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod that has not ended: what it takes of its node, and the attempt that it runs, if it is ours."""

    uid: str
    node: str | None
    taken: Taken = NOTHING
    attempt: AttemptKey | None = None
    owner: str | None = None
    """The uid of the study that it runs for; the pod of an earlier study with the same key takes its GPUs, no more."""
    trial: str | None = None
    """The uid of the trial; the pod of an earlier trial with the same number does not run the present one's attempt."""


@dataclass(frozen=True, slots=True)
class QueueView:
    """A share of the cluster's GPUs."""

    name: str
    limit: float | None = None
    namespaces: frozenset[str] | None = None
    """The namespaces whose studies may use it; None: all."""
    guaranteed: float | None = None
    """None: what its parts are guaranteed together."""
    weight: float = 1.0
    parent: str | None = None
    reclaim: Literal["Any", "LowerPriority", "Never"] = "Any"
    """Whose trials are stopped so that it gets what it is guaranteed."""
    unplaced: int = 0
    """How many of its trials may wait for a node that is yet to come."""
    patience: float = 600.0
    """For how many seconds, the first time."""
    generation: int | None = None
    """For whoever writes its conditions, as those that it has; the cycle looks at neither."""
    conditions: tuple[Mapping[str, Any], ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Place:
    """A decision: this attempt may start there. `node` is None where it needs no GPU, or is to wait for a new node."""

    study: str
    index: int
    attempt: int
    node: str | None = None
    gpus: float = 0
    resource: str | None = None
    backend: str | None = None
    devices: tuple[str, ...] = ()
    """The GPUs themselves, where the place is on certain ones; each gives an equal part of `gpus`."""
    memory: int | None = None
    """MiB of GPU memory that come with a part of a GPU, where that is known."""
    claim: DeviceClaim | None = None
    """What the pod's ResourceClaim asks for, where the GPUs are handed out by claims."""

    def placement(self, now: float) -> Placement:
        """The decision as the trial's status holds it."""
        return Placement(
            attempt=self.attempt,
            node=self.node,
            gpus=self.gpus,
            resource=self.resource,
            backend=self.backend,
            devices=list(self.devices) or None,
            memory=self.memory,
            claim=self.claim,
            time=micro_timestamp(now),
        )


def taken(place: Place | Placement, study: StudyView | None) -> Taken:
    """What a place takes of its node, for a trial of this study."""
    cpu, memory = (study.cpu, study.memory) if study is not None else (0.0, 0.0)
    if place.resource is None:
        return Taken(gpus=0, cpu=cpu, memory=memory)
    devices = place.devices or ()
    parts = tuple(Part(place.resource, device, amount(place.gpus / len(devices))) for device in devices)
    units = {} if parts else {place.resource: max(1, int(place.gpus))}
    return Taken(units, parts, place.gpus, cpu, memory)


@dataclass(frozen=True, slots=True)
class Preempt:
    """A decision: this attempt is stopped, so that a trial gets GPUs that its queue is guaranteed."""

    study: str
    index: int
    attempt: int
    queue: str
    trial: str
    """The trial that is to have them: its study's key, - and its index."""
    gpus: float
    """How many that one needs on a node."""

    def reclaim(self, now: float) -> Reclaim:
        """The decision as the stopped trial's status holds it."""
        return Reclaim(queue=self.queue, trial=self.trial, gpus=self.gpus, time=micro_timestamp(now))


@dataclass(frozen=True, slots=True)
class TakeBack:
    """A decision: this attempt has waited for a new node for long enough, and is stopped."""

    study: str
    index: int
    attempt: int
    queue: str

    def reclaim(self, now: float) -> Reclaim:
        """The decision as the trial's status holds it."""
        return Reclaim(queue=self.queue, time=micro_timestamp(now))


Decision = Place | Preempt | TakeBack


@dataclass(frozen=True, slots=True)
class Waiting:
    """A decision: nothing (more) of this study starts now, and why; `index` is the trial that is next in line."""

    study: str
    index: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Outlook:
    """When a study that waits may have its next place."""

    position: int | None = None
    """Its place in the line of its queue, from 1; None where it does not stand in line for GPUs."""
    start: float | None = None
    """When its next trial is expected to start; None: not known."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What one cycle decided."""

    placements: list[Place]
    waiting: list[Waiting]
    preempt: list[Preempt]
    take_back: list[TakeBack] = field(default_factory=list)
    next_wakeup: float | None = None
    """When the next backoff passes: run a cycle then even if nothing has happened."""

    @property
    def to_write(self) -> list[Decision]:
        """What has to be in the trials' records to come about."""
        return [*self.placements, *self.preempt, *self.take_back]
