"""Fidelity: how much of its training a trial is given, and the rules by which it gets no more."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tuneyard_api.common import Model, ObjectName
from tuneyard_api.space import Name

MAX_FIDELITY = 10**9
MOST_RUNGS = 31
"""Rungs of a study, at most: a curve has room for each of them."""

NEEDS_FIDELITY = ("asha", "hyperband", "bohb", "pbt")
"""Strategies that divide a fidelity among the trials."""


def _as_enum(schema: dict[str, Any]) -> None:
    """Pydantic writes the only value as a const, which a structural schema does not have."""
    schema["enum"] = [schema.pop("const")]


class FidelitySpec(Model):
    """A number that says how much of its training a trial gets: epochs, steps, trees."""

    parameter: Name = Field(
        description="The name by which the program is given it, as it is given parameters: TUNEYARD_PARAM_<name>, "
        "tuneyard.parameters() and ${name}. It is none of `parameters`."
    )
    min: int = Field(
        default=1,
        ge=1,
        le=MAX_FIDELITY,
        description="The least that says something about a configuration; no trial is stopped below it. With strategy "
        "pbt, after how much a member of the population is compared with the others, each time.",
    )
    max: int = Field(ge=1, le=MAX_FIDELITY, description="All of it; above min. The best trials get that much.")
    factor: int = Field(
        default=3,
        ge=2,
        le=10,
        description="Between two rungs lies this factor, and of the trials on a rung the best one in so many goes on.",
    )
    first_step: int = Field(
        default=0,
        ge=0,
        le=1,
        description="What the program calls its first step: 0 for a loop over range(epochs), 1 where it reports how "
        "much is done.",
    )
    resume: bool = Field(
        default=False,
        description="true: the program saves its state in tuneyard.checkpoint_dir() and goes on from what it finds "
        "there. asha then runs trials to a rung, and continues the best of them later; pbt needs it.",
    )

    @property
    def generations(self) -> int:
        """How many parts of `min` all of it has, the last one maybe a smaller one."""
        return -(-self.max // self.min)


class EarlyStoppingSpec(Model):
    """A rule that stops trials."""

    rule: Literal["median"] = Field(
        default="median",
        json_schema_extra=_as_enum,
        description="median stops a trial whose best value so far is worse than the median of what the ended trials "
        "had on average up to the same step.",
    )
    warmup: int = Field(
        default=1,
        ge=1,
        le=MAX_FIDELITY,
        description="No trial is stopped before it has done so many steps (with a fidelity: so much of it).",
    )
    min_trials: int = Field(
        default=5,
        ge=1,
        le=10_000,
        description="No trial is stopped before so many have ended that came as far as it.",
    )


class CheckpointsSpec(Model):
    """Where programs keep their state for a later attempt, or for the trial that continues theirs."""

    claim: ObjectName = Field(
        description="A PersistentVolumeClaim of the study's namespace that all nodes with trials can mount at a time. "
        "On a laptop a folder takes its place."
    )
    keep: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Of so many trials that a later one may continue, and of so many of the best ones, checkpoints "
        "stay, besides those of trials that have not ended and of those that these continue. "
        "tuneyard.checkpoint_dir() deletes the others. Left out: all stay.",
    )


class Rung(Model):
    """For how much of the fidelity a trial runs, and why."""

    fidelity: int = Field(ge=1, le=MAX_FIDELITY, description="What the program is given.")
    level: int = Field(default=0, ge=0, le=99_999, description="The rung's number within its bracket, from 0.")
    bracket: int = Field(
        default=0, ge=0, le=100_000, description="The number of the bracket, from 0; with pbt, the population's member."
    )
    continues: int | None = Field(
        default=None,
        ge=0,
        le=99_999,
        description="The trial of the rung below from whose checkpoint this one goes on: with its configuration, or "
        "with pbt maybe with another one.",
    )
