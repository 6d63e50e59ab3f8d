"""Questions about a study that is there: which parameters matter, and what is to be expected of each trial."""

from __future__ import annotations

from pydantic import Field

from tuneyard_api.common import Model
from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.importances import Surrogate


class ExplainRequest(Model):
    """A study, whole: nothing is remembered of it."""

    definition: StudyDefinition = Field(description="The study.")
    records: list[TrialRecord] = Field(default_factory=list, description="Its trials.")
    metric: str | None = Field(default=None, max_length=63, description="About which metric; the one to optimise.")


class Importance(Model):
    """How much a parameter matters: parts of the variance of the metric, as a model has it."""

    name: str = Field(description="The parameter.")
    main: float = Field(description="What it explains alone, 0 to 1.")
    total: float = Field(description="What it explains alone and together with others, 0 to 1.")


class Prediction(Model):
    """What a model makes of a trial."""

    index: int = Field(description="The trial.")
    mean: float = Field(description="The metric, without its noise.")
    deviation: float = Field(description="How sure that is: a standard deviation.")


class Explanation(Model):
    """What a study's trials say."""

    metric: str = Field(description="The metric.")
    observations: int = Field(description="How many trials the model is built on.")
    explained: float = Field(
        description="The part of the metric's variance that the model foresees, each trial by the others: 1 is "
        "perfect; where it is near 0 or below, the rest means little."
    )
    importances: list[Importance] = Field(description="Of each parameter, the most important first.")
    predictions: list[Prediction] = Field(description="For each trial whose configuration lies in the space.")


def explain(request: ExplainRequest) -> Explanation:
    """What a study's trials say.

    Raises:
        TooFewTrials: there are not enough of them with a result.
        StrategyError: the study cannot be explained.
    """
    surrogate = Surrogate(request.definition, request.records, request.metric)
    return Explanation(
        metric=surrogate.metric,
        observations=surrogate.observations,
        explained=surrogate.explained,
        importances=[Importance(name=i.name, main=i.main, total=i.total) for i in surrogate.importances()],
        predictions=[Prediction(index=p.index, mean=p.mean, deviation=p.deviation) for p in surrogate.predictions()],
    )
