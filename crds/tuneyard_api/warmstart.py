"""Where a study's strategy learns from before its first trial: earlier studies, and a table of observations."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tuneyard_api.common import MetricValues, Model, ObjectName
from tuneyard_api.space import Configuration

MAX_OBSERVATIONS = 1000
"""Observations in one table."""


class Observation(Model):
    """A configuration, and the metrics that it gave."""

    parameters: Configuration = Field(description="The configuration.")
    metrics: Annotated[MetricValues, Field(min_length=1)] = Field(
        description="Its metrics: the one to optimise, and those with bounds."
    )


class WarmStart(Model):
    """One source of earlier observations: exactly one of study and observations."""

    study: ObjectName | None = Field(
        default=None,
        description="An earlier study of the same namespace. Its trials count that had ended when this study was "
        "created. When it is deleted, they count no more.",
    )
    observations: list[Observation] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_OBSERVATIONS,
        description="Configurations and what they gave, for example [{parameters: {lr: 0.01}, metrics: {loss: 0.4}}].",
    )
