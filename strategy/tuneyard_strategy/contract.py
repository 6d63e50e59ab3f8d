"""What a strategy is: it is told of trials and proposes configurations.

The configuration of trial i is a function of (definition, i, the records that it was told). Whoever lost an answer asks
again, in this process or in another, for any index, and gets the same one as long as the records are the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tuneyard_api.common import Model
from tuneyard_api.fidelity import MAX_FIDELITY, EarlyStoppingSpec, FidelitySpec, Rung
from tuneyard_api.space import Configuration as Given
from tuneyard_api.space import Parameter
from tuneyard_api.study import Objective, StrategySpec, StudySpec
from tuneyard_strategy.space import Configuration

MAX_INDEX = 99_999
"""The largest index of a trial: a study has at most 100,000."""

MAX_EARLIER = 1000
"""Earlier observations that a strategy is given at most."""

Curve = list[tuple[int, float]]
"""How far a trial had come, and the objective's value there; in order, each step once."""

State = Literal["pending", "running", "succeeded", "failed", "infeasible", "stopped", "unknown"]


class EarlierTrial(Model):
    """A configuration that was tried before the study, and what it gave."""

    parameters: Given = Field(description="The configuration, in this study's space or in another one.")
    metrics: dict[str, float] | None = Field(default=None, description="Its metrics; left out where it failed.")


class StudyDefinition(Model):
    """The part of a Study that its strategy works with."""

    parameters: list[Parameter] = Field(min_length=1, max_length=100, description="The search space.")
    constraints: list[str] = Field(
        default_factory=list, max_length=20, description="Conditions that every configuration meets."
    )
    objectives: list[Objective] = Field(
        default_factory=list, max_length=10, description="The metric to optimise, and those to keep within bounds."
    )
    strategy: StrategySpec = Field(default_factory=StrategySpec, description="The strategy and its seed.")
    initial: list[Given] = Field(
        default_factory=list, max_length=10_000, description="The first configurations, trials 0, 1, ..."
    )
    max_trials: int | None = Field(default=None, ge=1, description="How many trials the study may have.")
    earlier: list[EarlierTrial] = Field(
        default_factory=list,
        max_length=MAX_EARLIER,
        description="Observations from before the study. They shape what is proposed, and are no trials of it.",
    )
    fidelity: FidelitySpec | None = Field(default=None, description="What trials can be given less of.")
    early_stopping: EarlyStoppingSpec | None = Field(default=None, description="The rule that stops trials.")

    @classmethod
    def from_spec(cls, spec: StudySpec, earlier: Sequence[EarlierTrial] = ()) -> StudyDefinition:
        """The definition in a Study's spec, and earlier observations."""
        return cls(
            parameters=spec.parameters,
            constraints=spec.constraints,
            objectives=spec.objectives,
            strategy=spec.strategy,
            initial=spec.initial,
            max_trials=spec.trials.max,
            earlier=list(earlier),
            fidelity=spec.fidelity,
            early_stopping=spec.early_stopping,
        )


class TrialRecord(Model):
    """What became of a trial, as a strategy is told."""

    index: int = Field(ge=0, le=MAX_INDEX, description="The trial's number within its study.")
    parameters: Given = Field(description="Its configuration.")
    state: State = Field(
        default="pending",
        description="Its state. unknown: it ended for a reason that says nothing about its configuration.",
    )
    metrics: dict[str, float] | None = Field(
        default=None, description="Its final metrics, if it has any; of one that was stopped early, those it had then."
    )
    rung: Rung | None = Field(default=None, description="For how much of the fidelity it runs; left out: all of it.")
    curve: Annotated[Curve, Field(max_length=100)] = Field(
        default_factory=list,
        description="The objective on the way: [how much of the fidelity (or how many steps) was done, value], in "
        "order. Only where the study has a fidelity or early stopping.",
    )
    judged: int | None = Field(
        default=None, ge=0, le=MAX_FIDELITY, description="The last rung at which it was let go on."
    )


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A configuration for a trial."""

    index: int
    parameters: Configuration
    rung: Rung | None = None
    """For how much of the fidelity it is to run; None: for all of it."""


class Strategy(ABC):
    """Proposes configurations for the trials of one study.

    A strategy keeps to the space, its conditions and constraints; begins with the study's initial configurations, one
    an index, where it fills in the parameters that they leave out; and never proposes a configuration twice. When the
    space has no further one, it returns fewer suggestions than it was asked for, and `exhausted` says why.

    Example:
        >>> strategy = create(definition)                    # from tuneyard_strategy.registry
        >>> first, second = strategy.suggest([0, 1])
        >>> strategy.update([TrialRecord(index=0, parameters=first.parameters, state="succeeded",
        ...                              metrics={"accuracy": 0.93}),
        ...                  TrialRecord(index=1, parameters=second.parameters, state="running")])
        >>> third, = strategy.suggest([2])
        >>> again, = strategy.suggest([2])                   # after a crash, say
        >>> again == third
        True

    Attributes:
        learns: whether suggestions depend on the results of other trials. Where they do, ask late and for few at a
            time; where they don't, as far ahead as is convenient.
    """

    learns: ClassVar[bool]
    waits: bool = False
    """Whether more suggestions will come when trials have ended that now run, though there are no others now."""

    @abstractmethod
    def update(self, records: Sequence[TrialRecord]) -> None:
        """Hear of trials that are new or have changed since the last call; a later record replaces an earlier one."""

    @abstractmethod
    def suggest(self, indices: Sequence[int]) -> list[Suggestion]:
        """Configurations for these trials, in this order; fewer when the space is exhausted.

        Raises:
            NoFeasiblePoint: not a single configuration was found that meets the constraints.
        """

    def continuable(self) -> list[int]:
        """The ended trials that a later one may go on from, the likeliest first; the state of others is spent."""
        return []

    @property
    def degraded(self) -> str | None:
        """Why another model proposes than the strategy's own at present: one sentence. None where its own does."""
        return None

    @property
    @abstractmethod
    def exhausted(self) -> str:
        """One sentence that says why there are no further configurations, for when `suggest` returned fewer."""
