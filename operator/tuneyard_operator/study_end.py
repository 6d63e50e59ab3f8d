"""Whether a study is to end, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from tuneyard_api.trial import Phase
from tuneyard_operator.state import StudyState


class StudyEnd(NamedTuple):
    """Why a study ends."""

    type: Literal["Complete", "Failed"]
    reason: str
    message: str


def study_end(state: StudyState, now: float) -> StudyEnd | None:
    """Whether the study is to end, and why; None while it goes on. Trials that still run are then stopped.

    A study that has ended keeps its reason while that holds, though another may come to hold later (maxDuration does).
    """
    ends = list(_ends(state, now))
    return next((end for end in ends if (end.type, end.reason) == state.told_end), ends[0] if ends else None)


def _ends(state: StudyState, now: float) -> Iterator[StudyEnd]:
    """All the reasons to end that hold now."""
    failed = state.phases[Phase.FAILED]
    if failed > state.spec.trials.max_failed:
        said = f"{failed} trials failed, more than trials.maxFailed allows ({state.spec.trials.max_failed})"
        yield StudyEnd("Failed", "TooManyFailed", said)
    best = state.best
    if best is not None and best.value is not None and state.goal.is_reached_by(best.value):
        said = f"trial {best.index} reached {state.goal.metric} {best.value:g} (target {state.goal.target:g})"
        yield StudyEnd("Complete", "TargetReached", said)
    reaching = state.front.reaching() if state.front is not None else None
    if reaching is not None:
        yield StudyEnd("Complete", "TargetReached", reaching)
    if state.max_duration is not None and state.started_at is not None and now >= state.started_at + state.max_duration:
        yield StudyEnd("Complete", "MaxDurationReached", f"maxDuration {state.spec.max_duration} has passed")
    missing = state.next_index < state.limit or any(index < state.limit for index in state.holes)
    if not (missing or state.pending or state.active):
        if state.spec.trials.max is not None and state.next_index >= state.spec.trials.max:
            yield StudyEnd("Complete", "MaxTrialsReached", f"all {len(state.trials)} trials have ended")
        elif state.spec.strategy.name == "pbt":
            yield StudyEnd("Complete", "SpaceExhausted", f"the population is trained, by {len(state.trials)} trials")
        else:
            yield StudyEnd("Complete", "SpaceExhausted", f"all {len(state.trials)} configurations have been tried")
