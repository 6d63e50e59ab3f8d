"""What a study may still take: when it ends, and how many GPU-hours that is. None where it is not known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from tuneyard_operator.actions import Object
from tuneyard_operator.state import StudyState
from tuneyard_operator.trial_state import TrialState
from tuneyard_scheduler.reasons import Reason

_OVERDUE: Final = 0.5
"""A trial that has run for longer than the others did on average is supposed to run on for half of that."""


def running_since(state: StudyState, now: float) -> Iterator[tuple[TrialState, float]]:
    """The trials that run, and for how many seconds."""
    for index in state.active:
        trial = state.trials[index]
        if trial.seen is not None and trial.seen.started is not None:
            yield trial, max(0.0, (trial.seen.finished or now) - trial.seen.started)


def next_waiting(state: StudyState) -> Object | None:
    """What the next trial waits for, as the scheduler told it; None where the study has all that it may have."""
    told = [(trial.waiting, trial) for trial in map(state.trials.__getitem__, state.waits) if trial.waiting is not None]
    # One that backs off may have been told so when there was no other.
    waiting, trial = min(
        told, key=lambda each: (each[0]["reason"] == Reason.BACKOFF, each[1].index), default=(None, None)
    )
    if waiting is None or trial is None or waiting["reason"] == Reason.PARALLEL_LIMIT:
        return None
    return {"trial": trial.name, **waiting}


def eta(state: StudyState, now: float) -> float | None:
    """When the last trial ends if each takes as long as those that succeeded did on average, at the present pace.

    The pace is `parallel` trials at a time; where trials wait for GPUs, as many as have them now. Trials follow one
    another on so many lanes: the list scheduling of equal jobs.
    """
    rests = _rests(state, now)
    if rests is None:
        return None
    mean = state.run_seconds / state.ran
    to_start = _to_start(state)
    lanes = min(state.spec.trials.parallel, len(rests) + to_start)
    waiting = next_waiting(state)
    if waiting is not None and waiting["reason"] != Reason.BACKOFF:
        lanes = min(lanes, len(rests))
    if to_start and not lanes:
        return None
    last = max(rests, default=0.0)
    if to_start:
        # Where parallel was lowered, nothing follows on those that end first.
        free = sorted([*rests, *[0.0] * (lanes - len(rests))])[-lanes:]
        rounds, rest = divmod(to_start - 1, lanes)
        last = max(last, free[rest] + (rounds + 1) * mean)
    at = now + last
    if state.max_duration is not None and state.started_at is not None:
        at = min(at, state.started_at + state.max_duration)
    return at


def gpu_hours_to_come(state: StudyState, now: float) -> float | None:
    """GPU-hours of the trials to come and of what is left of those that run."""
    rests = _rests(state, now)
    if rests is None:
        return None
    each, mean = state.run_gpu_seconds / state.ran, state.run_seconds / state.ran
    return (_to_start(state) * each + (sum(rests) * each / mean if mean else 0.0)) / 3600


def _rests(state: StudyState, now: float) -> list[float] | None:
    """For how many seconds each of the active trials runs on; None where nothing is known of it, or there is no end."""
    if state.ran == 0 or math.isinf(state.expected):
        return None
    mean = state.run_seconds / state.ran
    ran = {trial.index: took for trial, took in running_since(state, now)}
    taken = (ran.get(index, 0.0) for index in state.active)
    return [mean - took if took < mean else _OVERDUE * took for took in taken]


def _to_start(state: StudyState) -> int:
    return max(0, int(state.expected) - state.ended - len(state.active))
