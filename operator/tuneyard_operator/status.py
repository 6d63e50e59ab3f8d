"""The status that people see: the Study's phase, numbers and conditions; a Trial's condition; the news in a change.

All of it is computed from the state; only times of transitions and the start are carried over from the old status.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tuneyard_api.common import INDEX_LABEL, STUDY_LABEL, seconds, timestamp
from tuneyard_api.trial import Phase
from tuneyard_operator.actions import Object
from tuneyard_operator.state import StudyState
from tuneyard_operator.trial_state import TrialState

if TYPE_CHECKING:
    from tuneyard_operator.planner import StudyEnd


_TRIAL_GENERATION = 1  # a Trial's spec never changes


def study_status(state: StudyState, before: Object, end: StudyEnd | None, blocked: str | None, now: float) -> Object:
    """The Study's whole status; of constant size."""
    over = end if end is not None and not state.pending and not state.active else None
    phase, reason, message = _phase(state, over, end, blocked)
    counts = state.phases
    running = counts[Phase.PLACED] + counts[Phase.RUNNING]
    limit = state.limit
    after: Object = {
        "phase": phase,
        "reason": reason,
        "progress": f"{state.ended}/{'?' if math.isinf(limit) else max(int(limit), state.next_index)}",
        "observedGeneration": state.generation,
        "trials": {
            "created": len(state.trials),
            "pending": counts[Phase.PENDING],
            "running": running,
            "succeeded": counts[Phase.SUCCEEDED],
            "failed": counts[Phase.FAILED],
            "infeasible": counts[Phase.INFEASIBLE],
            "stopped": counts[Phase.STOPPED],
            "retries": state.retries,
        },
        "replicas": running,
        "selector": f"{STUDY_LABEL}={state.name},{INDEX_LABEL}",
        "gpus": round(sum(state.trials[index].gpus for index in state.active), 4),
        "gpuHours": round(_gpu_seconds(state, now) / 3600, 4),
        "conditions": _conditions(state, before, over, blocked, now),
    }
    if message:
        after["message"] = message
    if state.started_at is not None:
        after["startTime"] = before.get("startTime") or timestamp(state.started_at)
    if over is not None:
        after["completionTime"] = before.get("completionTime") or timestamp(now)
    elif phase == "Running":
        _add_if(after, "eta", _eta(state, now))
    if state.best is not None:
        after["best"] = _best(state.best)
    return after


def _phase(
    state: StudyState, over: StudyEnd | None, end: StudyEnd | None, blocked: str | None
) -> tuple[str, str | None, str | None]:
    if over is not None:
        return over.type, over.reason, over.message
    if end is not None:
        return "Running", end.reason, f"{end.message}; stopping {len(state.active)} trials"
    if state.problem:
        return "Blocked", "InvalidSpec", state.problem
    if blocked:
        return "Blocked", "TrialsCannotStart", blocked
    if state.spec.suspend:
        return "Suspended", "Suspended", f"{len(state.active)} trials still run" if state.active else None
    if state.strategy_problem:
        return ("Running" if state.trials else "Pending"), "StrategyUnavailable", state.strategy_problem
    return ("Running" if state.trials else "Pending"), None, None


def _conditions(
    state: StudyState, before: Object, over: StudyEnd | None, blocked: str | None, now: float
) -> list[Object]:
    complete, failed = (over is not None and over.type == kind for kind in ("Complete", "Failed"))
    goes_on = "the study goes on"
    valid = state.problem is None if state.checked_generation == state.generation else None
    wanted = [
        (
            "Valid",
            valid,
            "NotChecked" if valid is None else "Accepted" if valid else "InvalidSpec",
            state.problem or "",
        ),
        ("Blocked", blocked is not None, "TrialsCannotStart" if blocked else "TrialsCanStart", blocked or ""),
        ("Suspended", state.spec.suspend, "SpecSuspend" if state.spec.suspend else "NotSuspended", ""),
        ("Complete", complete, over.reason if over and complete else "NotComplete", over.message if over else goes_on),
        ("Failed", failed, over.reason if over and failed else "NotFailed", over.message if over else goes_on),
    ]
    old = {condition["type"]: condition for condition in before.get("conditions", [])}
    return [
        _condition(old.get(kind), kind, holds, reason, said, state.generation, now)
        for kind, holds, reason, said in wanted
    ]


def _condition(
    old: Object | None, kind: str, holds: bool | None, reason: str, message: str, generation: int | None, now: float
) -> Object:
    """A condition (KEP-1623); lastTransitionTime changes only with its status."""
    truth = "Unknown" if holds is None else "True" if holds else "False"
    same = old is not None and old["status"] == truth
    condition: Object = {
        "type": kind,
        "status": truth,
        "reason": reason,
        "message": message[:4096],
        "lastTransitionTime": old["lastTransitionTime"] if old is not None and same else timestamp(now),
    }
    _add_if(condition, "observedGeneration", generation)
    return condition


def invalid_study(study: Object, problems: list[str], now: float) -> Object:
    """The status of a study that breaks a rule of the API: nothing is done with it but to say so."""
    before, generation = study.get("status") or {}, study["metadata"]["generation"]
    said = "; ".join(problems)
    old = next((entry for entry in before.get("conditions", []) if entry["type"] == "Valid"), None)
    others = [entry for entry in before.get("conditions", []) if entry["type"] != "Valid"]
    valid = _condition(old, "Valid", False, "InvalidSpec", said, generation, now)
    after = {"phase": "Blocked", "reason": "InvalidSpec", "message": said[:4096], "observedGeneration": generation}
    return {**before, **after, "conditions": [valid, *others]}


def trial_condition(phase: Phase, reason: str, message: str, now: float) -> Object:
    """The Complete condition of a trial that has ended: True where it has a result."""
    return _condition(None, "Complete", phase is Phase.SUCCEEDED, reason, message, _TRIAL_GENERATION, now)


def _best(trial: TrialState) -> Object:
    return {
        "trial": trial.name,
        "index": trial.index,
        "value": trial.value,
        "metrics": trial.metrics,
        "parameters": trial.parameters,
    }


def _running_since(state: StudyState, now: float) -> Iterator[tuple[TrialState, float]]:
    for index in state.active:
        trial = state.trials[index]
        if trial.seen is not None and trial.seen.started is not None:
            yield trial, max(0.0, (trial.seen.finished or now) - trial.seen.started)


def _gpu_seconds(state: StudyState, now: float) -> float:
    return state.gpu_seconds + sum(trial.gpus * took for trial, took in _running_since(state, now))


def _eta(state: StudyState, now: float) -> str | None:
    """When the study ends if the remaining trials take as long as the finished ones did on average."""
    if state.ran == 0 or math.isinf(state.limit) or state.spec.trials.parallel == 0:
        return None
    mean = state.run_seconds / state.ran
    left = max(0.0, (state.limit - state.ended) * mean - sum(took for _, took in _running_since(state, now)))
    lanes = max(1, min(state.spec.trials.parallel, len(state.active) or state.spec.trials.parallel))
    at = now + left / lanes
    if state.spec.max_duration and state.started_at is not None:
        at = min(at, state.started_at + seconds(state.spec.max_duration))
    return timestamp(at)


def _add_if(into: Object, key: str, value: object) -> None:
    if value is not None:
        into[key] = value


_ESTIMATES = frozenset({"eta", "gpuHours"})


def alike(before: Object, after: Object) -> bool:
    """Whether two statuses differ in nothing but estimates, which change all the time."""
    keys = (before.keys() | after.keys()) - _ESTIMATES
    return all(before.get(key) == after.get(key) for key in keys)


def turn(before: Object) -> str:
    """What tells one change of phase from an alike one earlier or later: the status that it follows."""
    since = sorted((entry["type"], entry["lastTransitionTime"]) for entry in before.get("conditions", []))
    return json.dumps([before.get("phase"), before.get("observedGeneration"), since])


def news(before: Object, after: Object) -> Iterator[tuple[str, str, bool]]:
    """What deserves an Event: (reason, message, whether it is a warning). Each turn of the study is told once."""
    old, new = before.get("phase"), after["phase"]
    if old == new:
        return
    message = after.get("message") or ""
    if old in {None, "Pending"} and after["trials"]["created"]:
        yield "Started", "the first trials are created", False
    elif new == "Running":
        yield "Resumed", "trials start again", False
    if new == "Complete":
        best = after.get("best")
        found = f"; best is trial {best['index']} with {best['value']:.6g}" if best else "; no trial succeeded"
        yield after["reason"], message + found, False
    elif new in {"Failed", "Blocked"}:
        yield after["reason"], message, True
    elif new == "Suspended":
        yield "Suspended", "no further trial starts; those that run go on", False
