"""The GpuQueue: a share of the cluster's GPUs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from tuneyard_api.common import Conditions, Model


class GpuQueueSpec(Model):
    """What the queue's studies may use together."""

    limit: int | None = Field(
        default=None, ge=0, le=1_000_000, description="GPUs in use by all studies of this queue, at most."
    )
    namespaces: list[Annotated[str, StringConstraints(min_length=1, max_length=63)]] | None = Field(
        default=None, max_length=1000, description="The namespaces whose studies may use it. Left out: all."
    )


class GpuQueueStatus(Model):
    """What the queue's studies use."""

    used: int | None = Field(default=None, description="GPUs in use.")
    pending: int | None = Field(default=None, description="Trials that wait for a place.")
    conditions: Conditions = Field(default_factory=list, max_length=8, description="None in this release.")
