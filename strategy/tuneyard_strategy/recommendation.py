"""What to use in the end: the trial that a model expects most of, which need not be the one that was luckiest."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field

from tuneyard_api.common import Model
from tuneyard_api.study import Objective
from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.importances import Surrogate, TooFewTrials


class RecommendRequest(Model):
    """A study, whole: nothing is remembered of it."""

    definition: StudyDefinition = Field(description="The study.")
    records: list[TrialRecord] = Field(default_factory=list, description="Its trials.")


class Recommendation(Model):
    """The trial with the best expected objective; none where there are too few trials for a model."""

    index: int | None = Field(default=None, description="The trial.")
    mean: float | None = Field(default=None, description="The objective, without its noise, as it is expected to be.")
    deviation: float | None = Field(default=None, description="How sure that is: a standard deviation.")


def recommend(request: RecommendRequest) -> Recommendation:
    """The trial to use.

    Of the trials that kept to all bounds it is the one whose mean under a Gaussian process of the objective is best:
    where results are noisy, the best observed one is mostly one that had luck.
    """
    definition, records = request.definition, request.records
    goal = next((o for o in definition.objectives if o.goal is not None), None)
    if goal is None:
        return Recommendation()
    try:
        surrogate = Surrogate(definition, records, goal.metric, best_first=goal.goal)
    except TooFewTrials:
        return Recommendation()
    usable = {record.index: _is_usable(record, definition.objectives) for record in records}
    candidates = (p for p in surrogate.predictions() if usable[p.index])
    found = min(candidates, key=lambda p: (goal.sign * p.mean, p.index), default=None)
    return Recommendation() if found is None else Recommendation(**vars(found))


def _is_usable(record: TrialRecord, objectives: Sequence[Objective]) -> bool:
    """Whether it came to its end, has all metrics and kept to all bounds; none that was stopped early is."""
    metrics = record.metrics or {}
    return record.state == "succeeded" and all(
        not math.isnan(value := metrics.get(o.metric, math.nan)) and o.is_kept_by(value) for o in objectives
    )
