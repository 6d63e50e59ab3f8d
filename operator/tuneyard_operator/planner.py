"""The pure planner: study state and clock in, actions out.

`plan` looks only at trials that changed or whose time has come, so that its cost goes with what happens, not with the
size of the study. `wanted` says which trials to create next.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from tuneyard_api.common import micro_timestamp, timestamp
from tuneyard_api.fidelity import NEEDS_FIDELITY
from tuneyard_api.trial import Outcome, Phase
from tuneyard_operator import status
from tuneyard_operator.actions import (
    Action,
    Emit,
    InspectAttempt,
    Object,
    ReadLog,
    Recommend,
    StartAttempt,
    StopAttempt,
    TrialAction,
    WriteStudy,
    WriteTrial,
)
from tuneyard_operator.attempts import AttemptSeen, End, classify
from tuneyard_operator.blocking import BLOCKED_AFTER, awaits_node, blocked, blocked_at, lost_place, paused
from tuneyard_operator.metrics import BadMetrics, from_termination_message, observe, usable
from tuneyard_operator.needs import Growth, after_out_of_memory
from tuneyard_operator.state import StudyState
from tuneyard_operator.study_end import StudyEnd, study_end
from tuneyard_operator.trial_state import TrialState
from tuneyard_scheduler.retry import GiveUp, decide
from tuneyard_strategy.importances import FEWEST
from tuneyard_strategy.stopping import Verdict

RUNNING_AFTER: Final = 2.0
"""Seconds that an attempt runs before phase Running is written: a shorter trial is spared one write."""
UNSEEN_AFTER: Final = 15.0
"""Seconds after which an attempt of which nothing was seen is looked for."""
LOST_AFTER: Final = 5.0
"""The same for one that is on record as running: a process that begins has listed all pods, and this one's is gone."""
STOP_SECONDS: Final = 5.0
"""After so long an attempt that was told to end, and does not show it, is told again."""
STATUS_SECONDS: Final = 1.0
STATUS_FULL_SECONDS: Final = 30.0
"""How often the study's status is written at most; and when only its estimates changed."""
CURVE_SECONDS: Final = 30.0
"""How often a running trial's curve is written at most."""
LOG_TRIES: Final = 60
"""How often a log is asked for, once a second, before the attempt counts as lost: its node may never answer again."""
LOG_TRIES_FAILED: Final = 5
"""The same where the log would only say why an attempt failed."""
MAX_ASK: Final = 200
MAX_LOOK_AHEAD: Final = 64


def wanted(state: StudyState, now: float, *, learns: bool) -> list[int]:
    """The indices of the trials to create now, at most MAX_ASK.

    Enough to fill `parallel`, and a look-ahead so that no GPU waits for an answer: wide where the strategy does not
    learn, narrow where it does.
    """
    parallel = state.spec.trials.parallel
    if state.spec.suspend or state.deleting or state.problem or parallel == 0:
        return []
    if blocked(state, now) or study_end(state, now):
        return []
    if state.waits_since == len(state.history):
        return []
    look_ahead = min(2, parallel) if learns else min(parallel, MAX_LOOK_AHEAD)
    # A trial that backs off leaves its slot to another one; many that do show a program to be mended, not more work.
    ready = len(state.pending) - min(state.backing_off(now), parallel)
    room = min(parallel + look_ahead - ready - len(state.active), MAX_ASK)
    if room <= 0:
        return []
    holes = sorted(index for index in state.holes if index < state.limit)[:room]
    top = min(state.limit, state.next_index + room - len(holes))
    return holes + list(range(state.next_index, int(top)))


def plan(state: StudyState, now: float) -> list[Action]:
    """What to do now. Trials with an action are marked busy until the engine says that it is done."""
    if state.deleting:
        return []
    actions: list[Action] = []
    end = study_end(state, now)
    if end is not None:
        state.touched |= state.pending | state.active
    for index in state.take_due(now):
        trial = state.trials.get(index)
        action = _plan_trial(state, trial, end, now) if trial is not None else None
        if action is not None:
            state.busy.add(index)
            actions.append(action)
    due = sorted(stray for stray, at in state.strays.items() if at <= now)
    actions += [StopAttempt(index, attempt) for index, attempt in due]
    for stray in due:
        del state.strays[stray]
    actions += _plan_recommendation(state, end)
    actions += _plan_status(state, end, now)
    return actions


def _allowed(state: StudyState) -> float:
    return math.inf if state.spec.trials.max is None else state.spec.trials.max


def _plan_trial(state: StudyState, trial: TrialState, end: StudyEnd | None, now: float) -> TrialAction | None:
    if trial.phase.terminal or trial.deleting:
        return None
    seen = trial.seen if trial.seen is not None and trial.seen.attempt == trial.attempt else None
    if seen is not None and seen.state == "ended":
        return _end_attempt(state, trial, seen, now)
    if end is not None:
        return _conclude(state, trial, End(Outcome.STOPPED, "StudyEnded", end.message), seen, now)
    return _plan_active(state, trial, seen, now) if trial.active else _plan_pending(state, trial, now)


def _plan_active(state: StudyState, trial: TrialState, seen: AttemptSeen | None, now: float) -> TrialAction | None:
    """A trial that has a place, and whose attempt has not ended as far as is known."""
    if trial.verdict is not None:
        return _plan_verdict(state, trial, trial.verdict, seen, now)
    leaves = _leaves(trial)
    if leaves is not None and (seen is not None or not trial.started):
        return _plan_leaving(state, trial, leaves, seen, now)
    if not trial.started:
        return _plan_start(state, trial, now)
    if seen is None:
        at = trial.placed_at + (LOST_AFTER if trial.phase is Phase.RUNNING else UNSEEN_AFTER)
        if now >= at:
            return InspectAttempt(trial.index, trial.version, trial.attempt)
        state.wake(trial.index, at)
        return None
    if seen.state == "waiting":
        return _plan_waiting(state, trial, seen, now)
    return _plan_running(state, trial, seen, now)


def _plan_pending(state: StudyState, trial: TrialState, now: float) -> TrialAction | None:
    if trial.index < _allowed(state):
        return None
    lowered = End(Outcome.STOPPED, "MaxTrialsLowered", f"trials.max was lowered to {state.spec.trials.max}")
    return _conclude(state, trial, lowered, None, now)


def _plan_start(state: StudyState, trial: TrialState, now: float) -> TrialAction | None:
    """Start the attempt; or give its place back to others where something has to be mended first."""
    pause = paused(state, now)
    if state.may_start and pause is None and trial.awaits_gpu:
        return None  # which one it is will be told by the placement
    if state.may_start and pause is None:
        return StartAttempt(trial.index, trial.version, trial.attempt)
    if pause is not None:
        state.wake(trial.index, now + STATUS_SECONDS)
    elif state.spec_problem is None:
        return None
    # Not before the scheduler can know that the study is blocked: it would give the place again.
    if state.told_phase != "Blocked" or state.status_busy:
        return None
    reason = "InvalidSpec" if pause is None else pause.reason
    given_back = End(Outcome.BLOCKED, reason, "gave its place back: the study is blocked until somebody mends it")
    return _conclude(state, trial, given_back, None, now)


def _plan_verdict(
    state: StudyState, trial: TrialState, verdict: Verdict, seen: AttemptSeen | None, now: float
) -> WriteTrial:
    """What a rule decided goes on record: that the trial was let go on at a rung; or its end, by which it is stopped.

    What is then seen of its attempt is a stray. A trial that was stopped has the metrics of where it was judged.
    """
    if not verdict.stop:
        trial.reports.told = trial.reports.count
        passed = {"judged": verdict.fidelity, "curve": trial.reports.curve()}
        return WriteTrial(trial.index, trial.version, passed)
    metrics = usable(trial.reports.last) | {state.goal.metric: verdict.value}
    stopped = End(Outcome.EARLY_STOPPED, "EarlyStopped", verdict.message)
    write = _conclude(state, trial, stopped, seen, now, metrics)
    return replace(write, status={**write.status, "judged": verdict.fidelity})


def _plan_leaving(
    state: StudyState, trial: TrialState, leaves: End, seen: AttemptSeen | None, now: float
) -> WriteTrial | None:
    """The scheduler takes the place back: the attempt is told to end, and recorded when it has.

    Not before, so that what it saves at its end is there for the next one. One that was not started is recorded at
    once; if an earlier process did start it, it is stopped as one that is over. One that was started is seen first.
    """
    if seen is None:
        return _conclude(state, trial, leaves, None, now)
    if not seen.disrupted:
        state.strays.setdefault((trial.index, trial.attempt), now)
        state.wake(trial.index, now + STOP_SECONDS)
    return None


def _leaves(trial: TrialState) -> End | None:
    """Why the scheduler takes the current attempt's place back, if it does."""
    told = trial.reclaim
    if told is None:
        return End(Outcome.INFRASTRUCTURE, "PlaceLost", trial.lost) if trial.lost else None
    if not told.get("trial"):
        return End(Outcome.PREEMPTED, "NoNodeCame", "no node was added for it in time; it is tried again")
    whom = f"trial {told['trial']} of GpuQueue '{told.get('queue')}', which is guaranteed them"
    return End(Outcome.PREEMPTED, "Reclaimed", f"gave its GPUs back for {whom}")


def _plan_waiting(state: StudyState, trial: TrialState, seen: AttemptSeen, now: float) -> TrialAction | None:
    """An attempt that does not run yet: if it is stuck and the spec was corrected since, it starts anew."""
    if trial.blocked_since is None:
        return None
    if lost_place(trial):
        at = trial.blocked_since + BLOCKED_AFTER["Unschedulable"]
        if now >= at:
            return _conclude(state, trial, End(Outcome.INFRASTRUCTURE, "PlaceLost", seen.waits_for[:1000]), seen, now)
        state.wake(trial.index, at)
        return None
    if awaits_node(trial):
        return _tell(trial, "AwaitsNode", "no node has room for it: its pod waits for one to be added")
    at = blocked_at(trial)
    if now < at:
        state.wake(trial.index, at)
        return None
    if seen.generation is not None and seen.generation < state.generation:
        corrected = End(Outcome.BLOCKED, seen.reason or "Blocked", "started anew because the study was changed")
        return _conclude(state, trial, corrected, seen, now)
    return _tell(trial, seen.reason, seen.waits_for[:1000])


def _tell(trial: TrialState, reason: str | None, why: str) -> WriteTrial | None:
    """Say why it waits, once."""
    if trial.told == why:
        return None
    trial.told = why
    return WriteTrial(trial.index, trial.version, {"reason": reason, "message": why})


def _plan_running(state: StudyState, trial: TrialState, seen: AttemptSeen, now: float) -> TrialAction | None:
    begun = seen.started if seen.started is not None else trial.placed_at
    if state.timeout is not None:
        if now >= begun + state.timeout:
            late = f"still ran after trials.timeout {state.spec.trials.timeout}"
            return _conclude(state, trial, End(Outcome.TIMED_OUT, "TimedOut", late), seen, now)
        state.wake(trial.index, begun + state.timeout)
    if trial.phase is Phase.PLACED:
        if now >= begun + RUNNING_AFTER:
            running: Object = {"phase": Phase.RUNNING, "startTime": timestamp(begun), "reason": None, "message": None}
            return WriteTrial(trial.index, trial.version, running)
        state.wake(trial.index, begun + RUNNING_AFTER)
        return None
    return _plan_curve(state, trial, begun, now)


def _plan_curve(state: StudyState, trial: TrialState, begun: float, now: float) -> TrialAction | None:
    """While a trial runs its curve is written now and then, for people to see and for a restart to find."""
    due = begun + CURVE_SECONDS * (1 + (now - begun) // CURVE_SECONDS)
    state.wake(trial.index, due)
    if trial.reports.count == trial.reports.told or now < trial.curve_due:
        return None
    trial.curve_due = now + CURVE_SECONDS
    trial.reports.told = trial.reports.count
    return WriteTrial(trial.index, trial.version, {"curve": trial.reports.curve()})


def _end_attempt(state: StudyState, trial: TrialState, seen: AttemptSeen, now: float) -> TrialAction:
    """The attempt is over: find out what it was worth."""
    leaves = _leaves(trial)
    if leaves is not None and seen.disrupted:
        return _conclude(state, trial, leaves, seen, now)
    found = classify(seen)
    if found.outcome is Outcome.PROGRAM_FAILED and from_termination_message(seen.termination):
        # Its last metrics stand where the end of its log would else be, which says why it failed.
        if trial.log_tail is None and trial.log_failures < LOG_TRIES_FAILED:
            return ReadLog(trial.index, trial.version, trial.attempt)
        found = classify(replace(seen, termination=trial.log_tail))
    if found.outcome is not Outcome.SUCCEEDED:
        return _conclude(state, trial, found, seen, now)
    objectives = state.spec.objectives
    if trial.log_metrics is None and any(objective.log_pattern for objective in objectives):
        if trial.log_failures < LOG_TRIES:
            return ReadLog(trial.index, trial.version, trial.attempt)
        unread = End(Outcome.INFRASTRUCTURE, "LogUnreadable", "its log cannot be read: its node does not answer")
        return _conclude(state, trial, unread, seen, now)
    sources = (trial.log_metrics or {}, trial.reports.last, from_termination_message(seen.termination))
    try:
        metrics = observe(objectives, sources, trial.reports.problem)
    except BadMetrics as error:
        lost = End(Outcome.INFRASTRUCTURE, seen.reason or "Disrupted", "the pod was told to end before it was done")
        bad = End(Outcome.BAD_METRICS, "BadMetrics", str(error))
        return _conclude(state, trial, lost if seen.disrupted else bad, seen, now)
    return _conclude(state, trial, found, seen, now, metrics)


def _conclude(
    state: StudyState,
    trial: TrialState,
    end: End,
    seen: AttemptSeen | None,
    now: float,
    metrics: dict[str, float] | None = None,
) -> WriteTrial:
    """The one patch that records an attempt's end: a retry, or the trial's end."""
    attempts = list(trial.attempts)
    if trial.active:
        attempts.append(_ended_attempt(state, trial, end, seen, now))
    growth = _growth(state, trial, end)
    verdict = decide(
        outcome=end.outcome, attempts=attempts, retry=state.spec.retry, seed=state.spec.strategy.seed,
        index=trial.index, now=now, grown=growth.needs is not None,
    )  # fmt: skip
    patch: Object = {"attempts": attempts, "reason": end.reason, "message": end.message or None}
    if trial.waiting is not None:
        patch["waiting"] = None
    if not isinstance(verdict, GiveUp):
        patch |= {
            "phase": Phase.PENDING,
            "attempt": trial.attempt + 1,
            "placement": None,
            "startTime": None,
            "curve": None,
        }
        patch["notBefore"] = micro_timestamp(verdict.not_before) if verdict.not_before > now else None
        if growth.needs is not None:
            patch["needs"] = growth.needs
        return WriteTrial(trial.index, trial.version, patch, end)
    patch |= {"phase": verdict.phase, "notBefore": None, "completionTime": timestamp(now)}
    curve = trial.reports.curve()
    if curve:
        patch["curve"] = curve
    if metrics is not None:
        value = metrics[state.goal.metric] if len(state.goals) == 1 else None
        patch |= {"observation": {"metrics": metrics}, "value": value}
    if verdict.phase is Phase.SUCCEEDED:
        patch["message"] = None
    else:
        said = f"{verdict.message}; last: {end.message}" if verdict.phase is Phase.FAILED else end.message
        said += f" ({growth.why_not})" if growth.why_not else ""
        reason = end.reason if end.outcome is Outcome.OUT_OF_MEMORY else verdict.reason
        patch |= {"reason": reason, "message": said[:1024] or None}
    patch["conditions"] = [status.trial_condition(verdict.phase, patch["reason"], patch["message"] or "", now)]
    return WriteTrial(trial.index, trial.version, patch, end)


def _growth(state: StudyState, trial: TrialState, end: End) -> Growth:
    """What the trial needs for another attempt, if this one ran out of memory and the study allows more."""
    if end.outcome is not Outcome.OUT_OF_MEMORY:
        return Growth(None)
    return after_out_of_memory(state.spec, end.reason, trial.needs, trial.placement or {})


def _ended_attempt(state: StudyState, trial: TrialState, end: End, seen: AttemptSeen | None, now: float) -> Object:
    """The attempt for the trial's record. Its GPUs were taken from start to end."""
    placement = trial.placement or {}
    ended: Object = {"number": trial.attempt, "outcome": end.outcome, "reason": end.reason}
    if end.message:
        ended["message"] = end.message[:1024]
    node = (seen.node if seen else None) or placement.get("node")
    if node:
        ended["node"] = node
    known = seen.generation if seen is not None else None
    ended["generation"] = state.generation if known is None else known
    ended["gpus"] = placement.get("gpus", 0)
    if placement.get("memory"):
        ended["gpuMemory"] = placement["memory"]
    started = seen.started if seen is not None else None
    finished = (seen.finished if seen is not None else None) or now
    if started is not None:
        ended["started"] = micro_timestamp(started)
        finished = max(finished, started)
    ended["finished"] = micro_timestamp(finished)
    return ended


def _plan_recommendation(state: StudyState, end: StudyEnd | None) -> list[Action]:
    """Once all trials have ended a model of them is asked which one to use; the study's end is told after that."""
    ended = end is not None and not state.pending and not state.active and state.ended >= FEWEST
    if not ended or state.recommending or state.recommended_for == state.ended or not _is_modelled(state):
        return []
    state.recommending = True
    return [Recommend()]


def _is_modelled(state: StudyState) -> bool:
    """Whether one model fits all trials: where they are of different fidelity it does not."""
    strategy = state.spec.strategy
    return strategy.service is None and strategy.name not in NEEDS_FIDELITY and len(state.goals) == 1


def _plan_status(state: StudyState, end: StudyEnd | None, now: float) -> list[Action]:
    """A new study status when it differs: at once when the phase changes, else at most once a second."""
    unknown = state.checked_generation != state.generation and state.strategy_problem is None
    if state.status_busy or state.recommending or unknown:
        return []  # whether the spec is valid, or which trial is recommended, will be known in a moment
    if now < state.status_due and not (end and not state.pending and not state.active):
        return []
    state.status_due = now + STATUS_SECONDS
    before = state.status_written or state.status
    after = status.study_status(state, before, end, blocked(state, now), now)
    same = after == before or (now < state.status_full_at and status.alike(before, after))
    if same and not state.status_unsure:
        return []
    state.status_written = after
    state.status_busy = True
    state.status_full_at = now + STATUS_FULL_SECONDS
    turn = status.turn(before)
    news = (Emit(reason, message, warning, turn) for reason, message, warning in status.news(before, after))
    return [WriteStudy(after, before), *news]
