"""The GpuQueue: a share of the cluster's GPUs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from tuneyard_api.common import Conditions, Duration, Model

DEFAULT_QUEUE = "default"
"""The queue of studies that name none. It need not exist: then it has no guarantee and no limit."""

QueueName = Annotated[str, StringConstraints(min_length=1, max_length=63)]
Gpus = Annotated[float, Field(ge=0, le=1_000_000)]


class PreemptionSpec(Model):
    """Whose trials are stopped for this queue."""

    reclaim: Literal["Any", "LowerPriority", "Never"] = Field(
        default="Any",
        description="How the queue gets back what it is guaranteed and others borrow: by stopping the trials of any "
        "borrower; of those studies only that have a lower priority; or Never, then it waits for borrowers to end.",
    )


class ElasticSpec(Model):
    """For clusters that add nodes when pods wait for one."""

    unplaced: int = Field(
        ge=1,
        le=1000,
        description="How many trials for which no node has room may have a pod that waits for one, so that the "
        "cluster's autoscaler sees what is needed. They count as in use.",
    )
    timeout: Duration = Field(
        default="10m",
        description="How long such a trial waits for a node before it is taken back, to be tried again; twice as long "
        "each further time.",
    )


class GpuQueueSpec(Model):
    """What the queue's studies may use together."""

    parent: QueueName | None = Field(
        default=None,
        description="The GpuQueue that this one is a part of. A queue that has parts has no studies of its own.",
    )
    guaranteed: Gpus | None = Field(
        default=None,
        description="GPUs that the queue gets whenever it has trials for them; others may borrow what it leaves idle. "
        "Left out: what its parts are guaranteed together, or 0.",
    )
    limit: Gpus | None = Field(
        default=None, description="GPUs in use by all studies of this queue, at most. Left out: no limit."
    )
    weight: float = Field(
        default=1.0,
        gt=0,
        le=1_000_000,
        description="Idle GPUs beyond the guarantees are shared out to queues of the same parent in this proportion.",
    )
    namespaces: list[Annotated[str, StringConstraints(min_length=1, max_length=63)]] | None = Field(
        default=None, max_length=1000, description="The namespaces whose studies may use it. Left out: all."
    )
    elastic: ElasticSpec | None = Field(
        default=None,
        description="For nodes that are added on demand: trials may wait for one. Left out: no pod before its node.",
    )
    preemption: PreemptionSpec = Field(
        default_factory=PreemptionSpec, description="Whose trials are stopped for this queue."
    )


class GpuQueueStatus(Model):
    """What the queue's studies use, those of its parts included."""

    guaranteed: float | None = Field(default=None, description="GPUs that it is guaranteed.")
    used: float | None = Field(default=None, description="GPUs in use.")
    borrowed: float | None = Field(default=None, description="GPUs in use beyond the guarantee.")
    pending: int | None = Field(default=None, description="Trials that wait for a place.")
    conditions: Conditions = Field(
        default_factory=list,
        max_length=8,
        description="Ready (its trials may start) and Guaranteed (the guarantee can be kept), with reason and message.",
    )
