"""What all kinds share: the group and its labels, the base model, durations, times and conditions."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from tuneyard_api.rule import Rule, matches

GROUP = "tuneyard.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

STUDY_LABEL = f"{GROUP}/study"
UID_LABEL = f"{GROUP}/study-uid"
TRIAL_UID_LABEL = f"{GROUP}/trial-uid"
INDEX_LABEL = f"{GROUP}/index"
ATTEMPT_LABEL = f"{GROUP}/attempt"

OBJECT_NAME = matches(
    "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    "write lower-case letters, digits and -, beginning and ending with a letter or a digit",
)
ObjectName = Annotated[str, StringConstraints(max_length=63), OBJECT_NAME]
"""The name of a Kubernetes object or of something within it (a DNS label)."""

DURATION_PATTERN = "^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$"
_DURATION = re.compile(DURATION_PATTERN)

Time = Annotated[str, StringConstraints(max_length=40), Field(json_schema_extra={"format": "date-time"})]
"""A point in time as RFC 3339, the way `timestamp` and `micro_timestamp` write it."""

MAX_METRICS = 100
"""Metrics that one observation, or one point of a curve, holds at most."""
MetricValues = Annotated[dict[str, float], Field(max_length=MAX_METRICS)]


def seconds(duration: str) -> int:
    """Seconds in a duration such as '1h30m'.

    Raises:
        ValueError: the text is no duration.
    """
    match = _DURATION.fullmatch(duration)
    if match is None or not duration:
        raise ValueError(f"'{duration}' is not a duration; write hours, minutes and seconds like 90s, 2h or 1h30m")
    hours, minutes, secs = (int(part[:-1]) if part else 0 for part in match.groups())
    return hours * 3600 + minutes * 60 + secs


def is_duration(text: str) -> bool:
    """Whether the text is a duration of at least a second."""
    return bool(text) and _DURATION.fullmatch(text) is not None and seconds(text) >= 1


Duration = Annotated[
    str,
    StringConstraints(max_length=20),
    Rule(
        f"self != '' && self.matches('{DURATION_PATTERN}') && duration(self) >= duration('1s')",
        is_duration,
        "write a time of at least 1s in hours, minutes and seconds, such as 90s, 2h or 1h30m",
    ),
]
"""A length of time as hours, minutes and seconds, such as 90s, 2h or 1h30m."""


def timestamp(epoch: float) -> str:
    """Epoch seconds as the API server writes times: RFC 3339 in UTC, whole seconds."""
    return dt.datetime.fromtimestamp(epoch, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_timestamp(epoch: float) -> str:
    """Epoch seconds as RFC 3339 in UTC with microseconds (Kubernetes' MicroTime)."""
    return dt.datetime.fromtimestamp(epoch, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def epoch_seconds(time: str) -> float:
    """The inverse of `timestamp` and `micro_timestamp`."""
    return dt.datetime.fromisoformat(time).timestamp()


class Model(BaseModel):
    """Base of every API model: camelCase on the wire, unknown fields refused."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        allow_inf_nan=False,  # JSON, and so the API server, has no such numbers
    )

    def to_json(self) -> dict[str, Any]:
        """This object as the API server holds it: camelCase keys, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Condition(Model):
    """One observation of an object's state (KEP-1623)."""

    type: str = Field(max_length=64, description="What is observed, for example Complete.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(max_length=128, description="One PascalCase word that says why.")
    message: str = Field(default="", max_length=4096, description="A sentence for people.")
    last_transition_time: Time = Field(description="When the status last changed (RFC 3339).")
    observed_generation: int | None = Field(
        default=None, description="The generation of the spec that this was observed for."
    )


Conditions = Annotated[
    list[Condition],
    Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
]
"""Conditions by their type, so that several writers can each keep their own."""
