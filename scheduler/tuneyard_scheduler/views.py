"""What the scheduler sees (nodes, pods, studies, trials, queues) and what it decides: small immutable values.

The cluster process makes them from API objects, the laptop from its own processes, the simulation from nothing. Names
are plain text; a study's `key` is 'namespace/name' in a cluster. Times are epoch seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tuneyard_api.common import micro_timestamp
from tuneyard_api.trial import Phase, Placement, Reclaim


@dataclass(frozen=True, slots=True)
class Node:
    """A machine: how many whole GPUs it has, by resource name, and whether it takes new pods."""

    name: str
    capacity: Mapping[str, int]
    ready: bool = True
    schedulable: bool = True
    models: Mapping[str, str] = field(default_factory=dict)
    """The GPU model by resource name, where the node says it."""


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """What each trial of a study needs: `count` whole GPUs on one node, of one model where that is given."""

    resource: str
    count: int
    model: str | None = None

    def __str__(self) -> str:
        return f"{self.count} {self.resource}" + (f" ({self.model})" if self.model else "")


@dataclass(frozen=True, slots=True)
class StudyView:
    """A study: a class of identical requests."""

    key: str
    uid: str
    namespace: str
    priority: int = 0
    created: float = 0.0
    parallel: int = 1
    suspended: bool = False
    gpu: GpuRequest | None = None
    queue: str | None = None
    phase: str | None = None
    """status.phase: a study that is Blocked, Complete or Failed gets no place."""
    deleting: bool = False


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
    lost: tuple[tuple[str, float], ...] = ()
    """Where and when attempts of it were lost, by no fault of its own but maybe by the node's."""
    proved: tuple[str, float, float] | None = None
    """The last attempt that came to an end of its own: its node, and when it began and ended."""
    owner: str | None = None
    """The uid of the study that it belongs to; a trial of an earlier study with the same key is ignored."""
    uid: str | None = None
    since: float = 0.0
    """From when it waits for its place, be it for a backoff first; or has its place. 0: not known."""
    preempted: int = 0
    """How many of its attempts were stopped for others."""
    version: str | None = None
    """The object's version, for whoever writes the placement; the cycle does not look at it."""

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
    """A pod that has not ended: the GPUs it holds on its node, and the attempt that it runs, if it is ours."""

    uid: str
    node: str | None
    resources: Mapping[str, int] = field(default_factory=dict)
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
    generation: int | None = None
    """For whoever writes its conditions, as those that it has; the cycle looks at neither."""
    conditions: tuple[Mapping[str, Any], ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Place:
    """A decision: this attempt may start there. `node` is None where it needs no GPU."""

    study: str
    index: int
    attempt: int
    node: str | None = None
    gpus: int = 0
    resource: str | None = None

    def placement(self, now: float) -> Placement:
        """The decision as the trial's status holds it."""
        return Placement(
            attempt=self.attempt, node=self.node, gpus=self.gpus, resource=self.resource, time=micro_timestamp(now)
        )


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


Decision = Place | Preempt


@dataclass(frozen=True, slots=True)
class Waiting:
    """A decision: nothing (more) of this study starts now, and why; `index` is the trial that is next in line."""

    study: str
    index: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Decisions:
    """What one cycle decided."""

    placements: list[Place]
    waiting: list[Waiting]
    preempt: list[Preempt]
    next_wakeup: float | None = None
    """When the next backoff passes: run a cycle then even if nothing has happened."""

    @property
    def to_write(self) -> list[Decision]:
        """What has to be in the trials' records to come about."""
        return [*self.placements, *self.preempt]
