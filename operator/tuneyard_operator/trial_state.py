"""What the operator knows of one trial: the recorded object, and what is seen of its attempt."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Self

from tuneyard_api.common import epoch_seconds
from tuneyard_api.trial import Outcome, Phase
from tuneyard_operator.attempts import AttemptSeen
from tuneyard_operator.metrics import Reports
from tuneyard_operator.watch import Watch
from tuneyard_strategy.contract import Curve, TrialRecord
from tuneyard_strategy.stopping import Verdict

Object = dict[str, Any]


@dataclass(slots=True)
class TrialState:
    """One trial. The first part is read from its object, the rest is seen and lost with the process."""

    name: str
    uid: str
    index: int
    version: int
    created: float
    parameters: dict[str, Any]
    phase: Phase
    attempt: int
    placement: Object | None
    needs: Object
    """What it needs beyond what the study asks for."""
    not_before: float
    """No attempt before this time: the backoff after a failure."""
    attempts: list[Object]
    value: float | None
    message: str | None
    metrics: dict[str, float]
    deleting: bool
    waiting: Object | None = None
    """What the scheduler says about its wait: reason, message, position and expectedStart; None: nothing."""
    rung: Object | None = None
    """For how much of the fidelity it runs, as in its spec."""
    judged: int = 0
    """The fidelity of the last rung at which it was let go on."""
    curve: Curve = field(default_factory=list)
    """What its recorded curve says to those who judge trials, in units of the fidelity."""

    seen: AttemptSeen | None = None
    started: bool = False
    """The attempt's Job was asked for (or its pod seen) since this process began."""
    placed_at: float = 0.0
    """When this process first saw the placement: clocks of two machines are not compared."""
    blocked_since: float | None = None
    told: str | None = None
    """The waiting message that was last written into the trial's status."""
    curve_due: float = 0.0
    """When the curve may be written again."""
    reports: Reports = field(default_factory=Reports)
    verdict: Verdict | None = None
    """What is to become of it, as long as that is not on record."""
    heard: int = 0
    """How far it had come when it was last judged."""
    log_metrics: dict[str, Any] | None = None
    log_tail: str | None = None
    """The end of its log, where it was read to find out why it failed."""
    log_failures: int = 0
    """How often its log could not be read, in a row."""

    @classmethod
    def from_object(cls, item: Object, watch: Watch | None = None) -> Self:
        """Read a Trial object, and its curve in the way of its study."""
        meta, spec, status = item["metadata"], item["spec"], item.get("status") or {}
        phase = Phase(status.get("phase", Phase.PENDING))
        attempt = status.get("attempt", 0)
        placement = status.get("placement")
        return cls(
            name=meta["name"],
            uid=meta["uid"],
            index=spec["index"],
            version=int(meta["resourceVersion"]),
            created=epoch_seconds(meta["creationTimestamp"]),
            parameters=spec["parameters"],
            phase=phase,
            attempt=attempt,
            placement=placement if placement and placement["attempt"] == attempt else None,
            needs=status.get("needs") or {},
            not_before=epoch_seconds(status["notBefore"]) if status.get("notBefore") else 0.0,
            attempts=status.get("attempts") or [],
            value=status.get("value"),
            message=status.get("message"),
            waiting=_waiting(status) if phase is Phase.PENDING else None,
            metrics=(status.get("observation") or {}).get("metrics") or {},
            deleting="deletionTimestamp" in meta,
            rung=spec.get("rung"),
            judged=status.get("judged") or 0,
            curve=watch.curve(status.get("curve") or ()) if watch is not None else [],
            reports=Reports.resumed(
                () if phase.terminal else status.get("curve") or (), watch.marks if watch is not None else ()
            ),
        )

    def keep_seen(self, before: TrialState) -> None:
        """Take over what was seen of the same attempt."""
        if before.attempt != self.attempt:
            return
        self.seen, self.started, self.placed_at = before.seen, before.started, before.placed_at
        self.blocked_since, self.told, self.curve_due = before.blocked_since, before.told, before.curve_due
        self.reports, self.heard = before.reports, before.heard
        if before.verdict is not None and (before.verdict.stop or before.verdict.fidelity > self.judged):
            self.verdict = before.verdict
        self.log_metrics, self.log_failures = before.log_metrics, before.log_failures
        self.log_tail = before.log_tail

    @property
    def stopped_early(self) -> bool:
        """Whether a rule stopped it: then it has a result, but one of less than it was to get."""
        return self.phase is Phase.STOPPED and self.value is not None

    @property
    def fidelity(self) -> float:
        """How much of the fidelity it has once it has come to its end; without a rung all of it."""
        return float(self.rung["fidelity"]) if self.rung is not None else math.inf

    @property
    def active(self) -> bool:
        """Whether it has a place and has not ended."""
        return self.phase.has_place and self.placement is not None

    @property
    def reclaim(self) -> Object | None:
        """For whom the current attempt has to give its GPUs back, if it has."""
        return self.placement.get("reclaim") if self.placement else None

    @property
    def lost(self) -> str | None:
        """Why the current attempt's place is no more, if it is not."""
        return self.placement.get("lost") if self.placement else None

    @property
    def awaits_gpu(self) -> bool:
        """Whether it is not known yet which GPU the current attempt is to share."""
        return (
            self.placement is not None
            and self.placement.get("backend") == "reservation"
            and not self.placement.get("uuid")
        )

    @property
    def gpus(self) -> float:
        """GPUs that the current attempt holds; a part of one counts as a part."""
        return float(self.placement.get("gpus", 0)) if self.placement and not self.phase.terminal else 0

    def trouble(self, generation: int, since: float) -> float | None:
        """For how long its longest attempt ran that failed under this generation of the spec; None where none did.

        An attempt that is lost or given back is no failure, unless the trial ended with it.
        """
        lost = self.phase in {Phase.FAILED, Phase.INFEASIBLE}
        failed = [
            attempt_seconds(attempt)
            for attempt in self.attempts
            if (attempt["outcome"] == Outcome.PROGRAM_FAILED or (lost and attempt is self.attempts[-1]))
            and attempt.get("generation") == generation
            and (not since or epoch_seconds(attempt["finished"]) >= since)
        ]
        return max(failed, default=None)

    def ended_attempts(self, outcome: Outcome) -> int:
        """How many attempts ended so."""
        return sum(1 for attempt in self.attempts if attempt["outcome"] == outcome)


def _waiting(status: Object) -> Object | None:
    if status.get("waiting") is None or not status.get("reason"):
        return None
    told = {"reason": status["reason"], "message": status.get("message"), **status["waiting"]}
    return {key: value for key, value in told.items() if value is not None}


def attempt_seconds(attempt: Object) -> float:
    """How long an ended attempt ran, in seconds; 0 when it never began."""
    if not attempt.get("started") or not attempt.get("finished"):
        return 0.0
    return max(0.0, epoch_seconds(attempt["finished"]) - epoch_seconds(attempt["started"]))


def record(trial: TrialState) -> TrialRecord:
    """A trial as the strategy is told of it."""
    states = {
        Phase.SUCCEEDED: "succeeded",
        Phase.FAILED: "failed",
        Phase.INFEASIBLE: "infeasible",
        Phase.STOPPED: "stopped",
        Phase.PLACED: "running",
        Phase.RUNNING: "running",
    }
    return TrialRecord.model_validate(
        {
            "index": trial.index,
            "parameters": trial.parameters,
            "state": states.get(trial.phase, "pending"),
            "metrics": trial.metrics or None,
            "rung": trial.rung,
            "curve": trial.curve,
            "judged": trial.judged or None,
        }
    )


def running_record(trial: TrialState, watch: Watch) -> TrialRecord:
    """A trial that runs, with its curve up to now."""
    return record(trial).model_copy(update={"curve": watch.curve(trial.reports.curve_to_now())})
