"""The status that people see: the Study's phase, numbers and conditions; a Trial's condition; the news in a change.

All of it is computed from the state; only times of transitions and the start are carried over from the old status.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

from tuneyard_api.common import INDEX_LABEL, STUDY_LABEL, timestamp
from tuneyard_api.gpuqueue import DEFAULT_QUEUE
from tuneyard_api.trial import Phase
from tuneyard_operator import forecast
from tuneyard_operator.actions import Object
from tuneyard_operator.blocking import Block
from tuneyard_operator.front import Front
from tuneyard_operator.state import StudyState
from tuneyard_operator.study_end import StudyEnd
from tuneyard_operator.trial_state import TrialState
from tuneyard_scheduler.devices import amount
from tuneyard_strategy.recommendation import Recommendation

_TRIAL_GENERATION = 1  # a Trial's spec never changes


def study_status(state: StudyState, before: Object, end: StudyEnd | None, blocked: Block | None, now: float) -> Object:
    """The Study's whole status; of constant size."""
    over = end if end is not None and not state.pending and not state.active else None
    phase, reason, message = _phase(state, over, end, blocked)
    counts = state.phases
    running = counts[Phase.PLACED] + counts[Phase.RUNNING]
    expected = state.expected
    after: Object = {
        "phase": phase,
        "reason": reason,
        "progress": f"{state.ended}/{'?' if math.isinf(expected) else max(int(expected), state.next_index)}",
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
        "gpus": amount(sum(state.trials[index].gpus for index in state.active)),
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
        at, hours = forecast.eta(state, now), forecast.gpu_hours_to_come(state, now)
        _add_if(after, "eta", timestamp(at) if at is not None else None)
        _add_if(after, "gpuHoursToCome", round(hours, 4) if hours is not None else None)
    if over is None:
        _add_if(after, "waiting", _waiting(state))
    _add_if(after, "sizing", state.peaks.status(state.spec.gpu))
    if state.best is not None:
        after["best"] = _best(state.best)
    if state.front:
        after["front"] = _front(state, state.front)
    if over is not None and state.recommended is not None:
        after["recommended"] = state.recommended
    return after


def recommended(trial: TrialState, found: Recommendation) -> Object:
    """The trial to use, for the status."""
    return {
        "trial": trial.name,
        "index": trial.index,
        "expected": found.mean,
        "deviation": found.deviation,
        "parameters": trial.parameters,
    }


def _phase(
    state: StudyState, over: StudyEnd | None, end: StudyEnd | None, blocked: Block | None
) -> tuple[str, str | None, str | None]:
    if over is not None:
        return over.type, over.reason, over.message
    if end is not None:
        return "Running", end.reason, f"{end.message}; stopping {len(state.active)} trials"
    if state.problem:
        return "Blocked", "InvalidSpec", state.problem
    if blocked:
        return "Blocked", blocked.reason, blocked.message
    if state.spec.suspend:
        return "Suspended", "Suspended", f"{len(state.active)} trials still run" if state.active else None
    if state.strategy_problem:
        return ("Running" if state.trials else "Pending"), "StrategyUnavailable", state.strategy_problem
    return ("Running" if state.trials else "Pending"), None, None


def _conditions(
    state: StudyState, before: Object, over: StudyEnd | None, blocked: Block | None, now: float
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
        (
            "Blocked",
            blocked is not None,
            blocked.reason if blocked else "TrialsCanStart",
            blocked.message if blocked else "",
        ),
        ("Suspended", state.spec.suspend, "SpecSuspend" if state.spec.suspend else "NotSuspended", ""),
        ("Complete", complete, over.reason if over and complete else "NotComplete", over.message if over else goes_on),
        ("Failed", failed, over.reason if over and failed else "NotFailed", over.message if over else goes_on),
    ]
    if state.warm_start.message:
        wanted.append(
            ("WarmStarted", bool(state.warm_start.earlier), state.warm_start.reason, state.warm_start.message)
        )
    if state.spec.strategy.service is not None:
        said = state.strategy_problem or state.strategy_note
        reason = "NoAnswer" if state.strategy_problem else "FellBack" if said else "Answers"
        wanted.append(("StrategyAvailable", said is None, reason, said or ""))
    old = {condition["type"]: condition for condition in before.get("conditions", [])}
    if state.degraded:
        wanted.append(("Degraded", True, "ProposalsTooCostly", state.degraded))
    elif "Degraded" in old:  # stays as it was until the strategy is asked again
        same = state.degraded is None and old["Degraded"]["status"] == "True"
        message = old["Degraded"]["message"] if same else ""
        wanted.append(("Degraded", same, "ProposalsTooCostly" if same else "OwnModel", message))
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
        **({"fidelity": trial.rung["fidelity"]} if trial.rung is not None else {}),
    }


def _front(state: StudyState, front: Front) -> Object:
    named = [objective.metric for objective in state.spec.objectives]
    return {
        "size": len(front),
        "trials": [
            {
                "trial": trial.name,
                "index": trial.index,
                "metrics": {metric: trial.metrics[metric] for metric in named},
                "parameters": trial.parameters,
            }
            for trial in front.shown()
        ],
    }


def _gpu_seconds(state: StudyState, now: float) -> float:
    return state.gpu_seconds + sum(trial.gpus * took for trial, took in forecast.running_since(state, now))


def _waiting(state: StudyState) -> Object | None:
    waiting = forecast.next_waiting(state)
    if waiting is None:
        return None
    return {"queue": state.spec.queue or DEFAULT_QUEUE, "trials": len(state.pending), **waiting}


def _add_if(into: Object, key: str, value: object) -> None:
    if value is not None:
        into[key] = value


def _advice(after: Object) -> str:
    """The recommended trial, where it is not the best one."""
    best, other = after.get("best"), after.get("recommended")
    if other is None or (best is not None and best["index"] == other["index"]):
        return ""
    return f"; if results are noisy use trial {other['index']}, of which {other['expected']:.6g} is expected"


_ESTIMATES = frozenset({"eta", "gpuHours", "gpuHoursToCome"})


def alike(before: Object, after: Object) -> bool:
    """Whether two statuses differ in nothing but estimates, which change all the time."""
    keys = (before.keys() | after.keys()) - _ESTIMATES
    return all(before.get(key) == after.get(key) for key in keys)


def _found(after: Object) -> str:
    best, front = after.get("best"), after.get("front")
    if front:
        return "1 trial is on the front" if front["size"] == 1 else f"{front['size']} trials are on the front"
    return f"best is trial {best['index']} with {best['value']:.6g}" if best else "no trial succeeded"


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
        yield after["reason"], f"{message}; {_found(after)}{_advice(after)}", False
    elif new in {"Failed", "Blocked"}:
        yield after["reason"], message, True
    elif new == "Suspended":
        yield "Suspended", "no further trial starts; those that run go on", False
