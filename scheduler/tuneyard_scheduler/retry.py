"""What becomes of a trial whose attempt has ended: the failure table of docs/design.md."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from tuneyard_api.common import seconds
from tuneyard_api.study import BackoffSpec, RetrySpec
from tuneyard_api.trial import Outcome, Phase

JITTER: Final = 0.1
"""The largest part of a wait that is added or taken away, so that trials that failed together don't return together."""


class Retry(NamedTuple):
    """Another attempt, not before this time (epoch seconds; `now` where it need not wait)."""

    not_before: float


class GiveUp(NamedTuple):
    """The trial has ended."""

    phase: Phase
    reason: str
    message: str


_ENDS: Final = {
    Outcome.SUCCEEDED: GiveUp(Phase.SUCCEEDED, "Succeeded", ""),
    Outcome.STOPPED: GiveUp(Phase.STOPPED, "Stopped", "the study ended before the trial did"),
    Outcome.EARLY_STOPPED: GiveUp(Phase.STOPPED, "EarlyStopped", "a rule stopped it"),
    Outcome.OUT_OF_MEMORY: GiveUp(Phase.INFEASIBLE, "OutOfMemory", "the program ran out of memory"),
    Outcome.BAD_METRICS: GiveUp(Phase.INFEASIBLE, "BadMetrics", "the program reported no usable metrics"),
    Outcome.TIMED_OUT: GiveUp(Phase.INFEASIBLE, "TimedOut", "the attempt ran longer than trials.timeout"),
}


def decide(
    *,
    outcome: Outcome,
    attempts: Sequence[Mapping[str, Any]],
    retry: RetrySpec,
    seed: int,
    index: int,
    now: float,
    grown: bool = False,
) -> Retry | GiveUp:
    """Whether a trial is tried again after an attempt, and when.

    Args:
        outcome: How the attempt ended.
        attempts: All ended attempts of the trial as in its status.attempts, this one included.
        retry: The study's limits and waits.
        seed: The study's seed; with `index` it settles the jitter, so that a repeated decision is the same.
        index: The trial's number.
        now: Epoch seconds.
        grown: It ran out of memory, and the next attempt gets more of it.
    """
    count = sum(attempt["outcome"] == outcome for attempt in attempts)
    if outcome is Outcome.PROGRAM_FAILED:
        if count <= retry.limit:
            return Retry(now + _wait(retry.backoff, count - 1, f"{seed}/{index}/{len(attempts)}"))
        return GiveUp(
            Phase.FAILED, "ProgramFailed", f"the program failed {_times(count)}; retry.limit is {retry.limit}"
        )
    if outcome is Outcome.INFRASTRUCTURE:
        if count <= retry.infrastructure_limit:
            return Retry(now)
        said = f"lost {_times(count)} by no fault of its own; retry.infrastructureLimit is {retry.infrastructure_limit}"
        return GiveUp(Phase.FAILED, "InfrastructureFailed", said)
    if outcome in {Outcome.BLOCKED, Outcome.PREEMPTED} or grown:
        return Retry(now)
    return _ENDS[outcome]


def _wait(backoff: BackoffSpec, earlier: int, key: str) -> float:
    """Seconds to wait after a failure that came after `earlier` others: initial x factor^earlier up to max, +- 10 %."""
    longest = seconds(backoff.max)
    # factor^earlier is at most 10^19 (retry.limit <= 20), so this cannot overflow.
    wait = min(longest, seconds(backoff.initial) * backoff.factor**earlier)
    share = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64
    return float(wait * (1 + JITTER * (2 * share - 1)))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
