"""Where trials keep their state, and whose is still of use: what they are told by their environment."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from tuneyard_operator.state import StudyState
from tuneyard_operator.trial_state import TrialState


def environment(folder: str, state: StudyState, of: TrialState) -> dict[str, str]:
    """Where a trial keeps its state, where that of the trial is that it continues, and whose has to stay.

    Each trial writes to a folder of its own: several may continue one at the same time, and that one's state stays as
    it is. The SDK copies it, and deletes what trials of lower numbers left and nobody needs: no other process has the
    volume at hand (tuneyard.checkpoint_dir).

    Args:
        folder: the study's.
        state: the study.
        of: one of its trials.
    """
    found = {"TUNEYARD_CHECKPOINT_DIR": f"{folder}/{_name(of)}"}
    source = _source(state, of)
    if source is not None:
        found["TUNEYARD_CHECKPOINT_FROM"] = f"{folder}/{_name(source)}"
    count = keep(state)
    if count is not None and state.continuable is not None:
        kept = sorted({trial.index: trial for trial in _kept(state, count)}.items())
        found["TUNEYARD_CHECKPOINTS_KEPT"] = " ".join(_name(trial) for index, trial in kept if index < of.index)
    return found


def keep(state: StudyState) -> int | None:
    """Of how many trials of either kind checkpoints stay; None: of all."""
    return state.spec.checkpoints.keep if state.spec.checkpoints is not None else None


def _name(trial: TrialState) -> str:
    """A trial's folder. The uid is for one that was deleted and made again."""
    return f"{trial.index}-{trial.uid[:8]}"


def _source(state: StudyState, of: TrialState) -> TrialState | None:
    return state.trials.get((of.rung or {}).get("continues", -1))


def _kept(state: StudyState, count: int) -> Iterator[TrialState]:
    """Whose checkpoints stay; some of them more than once."""
    for index in state.pending | state.active:
        trial = state.trials[index]
        yield trial
        source = _source(state, trial)
        if source is not None:
            yield source
    since = {record.index for record in state.history[state.continuable_as_of :]}
    yield from (state.trials[index] for index in since if index in state.trials)
    yield from (state.trials[index] for index in (state.continuable or ())[:count] if index in state.trials)
    yield from _best(state, count)


def _best(state: StudyState, count: int) -> list[TrialState]:
    """The best trials, of which the first is `StudyState.best`; with several objectives the front."""
    if state.front is not None:
        return state.front.shown()
    sound = (trial for trial in state.trials.values() if trial.value is not None and state.is_sound(trial))
    return heapq.nsmallest(count, sound, key=state.rank)
