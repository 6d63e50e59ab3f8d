"""What to use in the end: the trial that a model expects most of, which need not be the one that was luckiest."""

from __future__ import annotations

from pydantic import Field

from tuneyard_api.common import Model
from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.history import Fate, History
from tuneyard_strategy.importances import Surrogate, TooFewTrials
from tuneyard_strategy.space import Space


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
    kept = _kept(definition, records)
    usable = (p for p in surrogate.predictions() if p.index in kept)
    found = min(usable, key=lambda p: (goal.sign * p.mean, p.index), default=None)
    return Recommendation() if found is None else Recommendation(**vars(found))


def _kept(definition: StudyDefinition, records: list[TrialRecord]) -> set[int]:
    """The trials that came to their end, have all metrics and kept to all bounds; none that was stopped early."""
    latest = {record.index: record for record in records if record.state == "succeeded"}
    space = Space.from_spec(definition.parameters, definition.constraints)
    history = History(space, definition.objectives)
    history.tell(latest.values())
    inside = [i for i, record in latest.items() if not space.problems(space.typed(record.parameters))]
    history.place(inside, space.table_of([space.typed(latest[i].parameters) for i in inside]))
    rows = history.rows(Fate.MEASURED)
    return set(rows[(history.excesses(rows) <= 0.0).all(axis=1)].tolist())
