"""What a person has to mend before further trials start: attempts that cannot begin, and a program that never works."""

from __future__ import annotations

import math
from typing import Final, Literal, NamedTuple

from tuneyard_api.trial import Outcome, Phase
from tuneyard_operator.state import StudyState
from tuneyard_operator.trial_state import TrialState

BLOCKED_AFTER: Final = {"Unschedulable": 60.0}
BLOCKED_AFTER_DEFAULT: Final = 5.0
"""Seconds that an attempt waits for an image (or the like) before its study counts as blocked."""
LASTS_TIMES: Final = 2.0
LASTS_SECONDS: Final = 30.0
"""An attempt that has run for so many times as long as any that failed, and so much longer, is taken to work."""


_NO_FAILURES: Final = frozenset({Outcome.INFRASTRUCTURE, Outcome.BLOCKED, Outcome.PREEMPTED})


class Block(NamedTuple):
    """Why no further trial starts."""

    reason: Literal["TrialsCannotStart", "NoTrialSucceeds"]
    message: str


def blocked(state: StudyState, now: float) -> Block | None:
    """Why no further trial should start until somebody mends something; None when nothing is in the way."""
    for index in state.stuck:
        trial = state.trials[index]
        if trial.seen is not None and now >= blocked_at(trial):
            return Block("TrialsCannotStart", f"trial {index}: {trial.seen.waits_for}")
    return paused(state, now)


def blocked_at(trial: TrialState) -> float:
    """When a trial's waiting begins to block its study; a lost place is no reason to."""
    if trial.blocked_since is None or trial.seen is None or lost_place(trial) or awaits_node(trial):
        return math.inf
    return trial.blocked_since + BLOCKED_AFTER.get(trial.seen.reason or "", BLOCKED_AFTER_DEFAULT)


def lost_place(trial: TrialState) -> bool:
    """Whether the node that the scheduler chose does not take the pod any more (cordoned, gone, filled by others)."""
    on_a_node = trial.placement is not None and trial.placement.get("node") is not None
    return on_a_node and _is_unschedulable(trial)


def awaits_node(trial: TrialState) -> bool:
    """Whether the pod is there to be seen by an autoscaler: it may wait for a node as long as the scheduler lets it."""
    placement = trial.placement or {}
    no_node = placement.get("node") is None and bool(placement.get("gpus"))
    return no_node and _is_unschedulable(trial)


def _is_unschedulable(trial: TrialState) -> bool:
    return trial.seen is not None and trial.seen.reason == "Unschedulable"


def paused(state: StudyState, now: float) -> Block | None:
    """Whether the study pauses, because nothing that it tries works: a mistake must not burn thousands of Jobs.

    Not before `trials.pauseAfter` trials have failed under the present spec, and as many as run without having failed;
    and not while one lasts much longer than those that failed did. One that succeeds ends it, or was stopped early,
    for it has a result; as does a change of the spec. Costs a walk over the trials that failed or run, and only until
    one has a result.
    """
    failed, enough = state.troubled, state.spec.trials.pause_after
    if state.phases[Phase.SUCCEEDED] or state.stopped_early or not enough or len(failed) < enough:
        return None
    if len(failed) < sum(index not in failed for index in state.active):
        return None
    longest = LASTS_TIMES * max(failed.values()) + LASTS_SECONDS
    if any(_ran(state.trials[index], now) > longest for index in state.active):
        return None
    said = _last_failure(state.trials[max(failed)])
    return Block(
        "NoTrialSucceeds",
        f"{len(failed)} trials have failed, and not one gave a result; trial {max(failed)}: {said}. The study goes on "
        f"when the template is corrected, or trials.pauseAfter ({enough}) is raised (0: never pause)",
    )


def _last_failure(trial: TrialState) -> str:
    """What is said of a trial's last attempt that failed by itself; of its last one where none did."""
    failed = (a for a in reversed(trial.attempts) if a["outcome"] not in _NO_FAILURES)
    last = next(failed, trial.attempts[-1])
    return str(last.get("message") or last.get("reason") or last["outcome"])


def _ran(trial: TrialState, now: float) -> float:
    """For how long its attempt has run, in seconds."""
    seen = trial.seen
    if seen is None or seen.state != "running" or seen.started is None:
        return 0.0
    return now - seen.started
