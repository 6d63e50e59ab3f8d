"""StudyState: all that the operator knows of a study. Built once from a list, then updated by each event in O(1)."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from typing import Any

from tuneyard_api.common import epoch_seconds, seconds
from tuneyard_api.study import POPULATION, Objective, StudySpec
from tuneyard_api.trial import Outcome, Phase
from tuneyard_api.validation import validate_study
from tuneyard_operator.attempts import BLOCKING_REASONS, AttemptSeen
from tuneyard_operator.front import Front
from tuneyard_operator.sizing import Peaks
from tuneyard_operator.trial_state import TrialState, attempt_seconds, record
from tuneyard_operator.warm_start import WarmStart
from tuneyard_operator.watch import Watch
from tuneyard_strategy.contract import TrialRecord

Object = dict[str, Any]


class StudyState:
    """One study and its trials.

    The mutators take whole objects and may be called with the same object twice, or with an old one: an object whose
    resourceVersion is not above the known one is ignored (they are ordered: KEP-5504). Trials that changed are put
    into `touched`, where the planner finds them.
    """

    peaks: Peaks
    """What the trials needed of a GPU."""
    continuable: Sequence[int] | None = None
    """The ended trials that a later one may go on from, as the strategy last said; None: it is not known."""
    continuable_as_of = 0
    """How long the history was when it said so."""
    forgiven: float = 0.0
    """What failed before this time does not count as trouble."""
    goals: Sequence[Objective] = ()
    front: Front | None = None
    """Where there are several objectives, instead of a best trial."""
    degraded: str | None = None
    """Why another model proposes than the strategy's own; "" where its own does, None before it was asked."""
    recommended: Object | None = None
    """The trial to use, as the status has it; about `recommended_for` ended trials."""
    recommended_for: int | None = None
    recommending: bool = False
    strategy_note: str | None = None
    """What people should know of the strategy's last answer."""
    warm_start: WarmStart = WarmStart()
    """What the strategy learns from before the first trial."""
    status_busy = False
    stopped_early = 0
    """How many trials a rule stopped."""
    waits_since: int | None = None
    """The length of the history with which the strategy had nothing to propose until another trial has ended."""

    def __init__(self, study: Object, now: float) -> None:
        self.to_judge: set[int] = set()  # trials that reported something that may be a reason to stop them
        self.trials: dict[int, TrialState] = {}
        self._removed: set[str] = set()
        """Uids of trials that are gone: the answer to an earlier call may come after that news."""
        self._listed = 0
        """The version as of which all trials were last listed: one that is older and not known is gone."""
        self.touched: set[int] = set()
        self.busy: set[int] = set()
        """Trials with an action under way: the planner leaves them alone until it is done."""
        self.wakeups: list[tuple[float, int]] = []
        """Heap of (time, trial) at which the planner looks again."""
        self.pending: set[int] = set()
        self.active: set[int] = set()
        self.waits: set[int] = set()  # pending trials of which the scheduler has said why they wait
        self._backing_off: set[int] = set()
        self._backoffs: list[tuple[float, int]] = []
        self.strays: dict[tuple[int, int], float] = {}
        """(trial, attempt) that still live although they are over, and when to stop them."""
        self.stuck: set[int] = set()
        """Trials whose attempt waits for something that only a person can mend."""
        self.phases: Counter[Phase] = Counter()
        self.newly_ended: list[str] = []
        """Uids of trials that ended since somebody last emptied this list; the world may clean up after them."""
        self.history: list[TrialRecord] = []
        """Append-only log for the strategy: a trial when it appears, and again when it ends."""
        self.best: TrialState | None = None
        self.next_index = 0
        self.holes: set[int] = set()
        self.started_at: float | None = None
        self.troubled: dict[int, float] = {}
        """Trials that failed under the present spec, with the seconds that their longest failed attempt ran."""
        self.retries = self.ran = 0
        # of all attempts; the other two, and ran, of those that succeeded
        self.gpu_seconds = self.run_seconds = self.run_gpu_seconds = 0.0
        self.exhausted_from: int | None = None
        """The first index for which the strategy had no configuration."""
        self.spec_problem: str | None = None
        """What is wrong with the spec, as a sentence: no trial is made, and no attempt started."""
        self.refused: dict[int, str] = {}
        """Trials whose action the world refuses, with its words: no further trial is made until it takes them."""
        self.template_checked = 0
        """The generation whose template was last found to be good."""
        self.checked_generation = 0
        self.strategy_problem: str | None = None
        self.status: Object = {}
        self.status_due = self.status_full_at = now
        self.status_written: Object | None = None
        self.status_unsure = False
        """The last write failed, and may have taken effect: the next one is due even if it changes nothing."""
        self.version = 0
        self.set_study(study)

    # The study -------------------------------------------------------------------------------------------------

    def set_study(self, study: Object) -> None:
        """Take the study's present object.

        Raises:
            InvalidStudy: the study breaks a rule (where the admission policy is in place it never gets here).
        """
        meta = study["metadata"]
        version = int(meta["resourceVersion"])
        if version <= self.version:
            return
        first = self.version == 0
        self.name: str = meta["name"]
        self.namespace: str = meta.get("namespace", "default")
        self.uid: str = meta["uid"]
        self.deleting = "deletionTimestamp" in meta
        if first or meta["generation"] != self.generation:
            self.spec: StudySpec = validate_study(study).spec
            self.generation: int = meta["generation"]
            self.object = study
            self.watch = Watch.of(self.spec)
            self._set_goals([o for o in self.spec.objectives if o.goal])
            self.exhausted_from = None
            self.refused.clear()
            self.troubled.clear()
            self.timeout = seconds(self.spec.trials.timeout) if self.spec.trials.timeout else None
            self.max_duration = seconds(self.spec.max_duration) if self.spec.max_duration else None
            self.touched.update(self.pending, self.active)
        if first:
            self._take_up(study.get("status") or {})
        self.version = version

    def _set_goals(self, goals: list[Objective]) -> None:
        if goals != self.goals:
            self.goals, self.goal = goals, goals[0]
            self._rank_anew(self.trials.values())

    def _take_up(self, status: Object) -> None:
        """Go on from what an earlier process wrote: a space that was found to be exhausted still is.

        Its start counts, too, though the first trials may have been deleted since.
        """
        self.status = status
        if status.get("startTime"):
            self.started_at = epoch_seconds(status["startTime"])
        self.peaks = Peaks.resumed(status.get("sizing"))
        if self.told_end is not None:
            self.recommended = status.get("recommended")
            ended = ("succeeded", "failed", "infeasible", "stopped")
            self.recommended_for = sum((status.get("trials") or {}).get(phase, 0) for phase in ended)
        if status.get("reason") == "SpaceExhausted" and status.get("observedGeneration") == self.generation:
            self.exhausted_from = status["trials"]["created"]

    # Trials ----------------------------------------------------------------------------------------------------

    def set_trial(self, item: Object, now: float) -> None:
        """Take a trial's present object."""
        after = TrialState.from_object(item, self.watch)
        before = self.trials.get(after.index)
        if after.uid in self._removed or (before is None and after.version <= self._listed):
            return
        if before is not None:
            if before.uid == after.uid and after.version <= before.version:
                return
            if before.uid == after.uid:
                after.keep_seen(before)
                self._note_stray(before, after, now)
            self._forget(before)
        if after.active and after.placed_at == 0.0:
            after.placed_at = now
        self._learn(after, before if before is not None and before.uid == after.uid else None)
        self.touched.add(after.index)

    def remove_trial(self, item: Object) -> None:
        """A trial's object is gone: its index is free again."""
        self._removed.add(item["metadata"]["uid"])
        index = _index_of(item)
        trial = self.trials.get(index) if index is not None else None
        if trial is not None and trial.uid == item["metadata"]["uid"]:
            self._remove(trial)

    def keep_listed(self, uids: Container[str], version: int) -> None:
        """Take a list of all trials as of a version, after each of them was set: one that is not in it is gone.

        A trial is known from the answer to its creation. Where the watch breaks before it has told of it, and the trial
        is deleted before the next list, no event ever tells its end.
        """
        self._listed = version
        for trial in [t for t in self.trials.values() if t.version <= version and t.uid not in uids]:
            self._removed.add(trial.uid)
            self._remove(trial)

    def _remove(self, trial: TrialState) -> None:
        self._forget(trial)
        self.strays = {stray: at for stray, at in self.strays.items() if stray[0] != trial.index}
        del self.trials[trial.index]
        self.holes.add(trial.index)
        self.waits_since = None  # what nobody had to propose may be this one again
        self.touched.discard(trial.index)

    def _forget(self, trial: TrialState) -> None:
        """Take a trial out of all sums."""
        self.refused.pop(trial.index, None)
        self.phases[trial.phase] -= 1
        self.stopped_early -= trial.stopped_early
        self.to_judge.discard(trial.index)
        self.pending.discard(trial.index)
        self.waits.discard(trial.index)
        self._backing_off.discard(trial.index)
        self.active.discard(trial.index)
        self.stuck.discard(trial.index)
        self.troubled.pop(trial.index, None)
        self._count_attempts(trial, -1)
        if self.best is trial or (self.front is not None and trial in self.front):
            self._rank_anew(other for other in self.trials.values() if other is not trial)

    def _learn(self, trial: TrialState, before: TrialState | None) -> None:
        """Add a trial to all sums."""
        self.trials[trial.index] = trial
        self.phases[trial.phase] += 1
        self.stopped_early += trial.stopped_early
        if self.watch is not None and self.watch.is_due(trial):
            self.to_judge.add(trial.index)
        self._sort(trial)
        trouble = trial.trouble(self.generation, self.forgiven)
        if trouble is not None:
            self.troubled[trial.index] = trouble
        self._count_attempts(trial, 1)
        self.peaks.learn(trial)
        self._consider(trial)
        self.started_at = min(self.started_at or math.inf, trial.created)
        self.holes.discard(trial.index)
        if trial.index >= self.next_index:
            self.holes.update(range(self.next_index, trial.index))
            self.next_index = trial.index + 1
        ended = before is None or trial.phase.terminal != before.phase.terminal
        if ended or before is None or trial.judged != before.judged or (before.curve and not trial.curve):
            self.history.append(record(trial))
        if ended and trial.phase.terminal:
            self.newly_ended.append(trial.uid)

    def _sort(self, trial: TrialState) -> None:
        """Among the trials with a place, or those that wait for one."""
        if trial.active:
            self.active.add(trial.index)
            if trial.blocked_since is not None:
                self.stuck.add(trial.index)
        elif not trial.phase.terminal:
            self.pending.add(trial.index)
            if trial.waiting is not None:
                self.waits.add(trial.index)
            if trial.not_before:
                self._backing_off.add(trial.index)
                heapq.heappush(self._backoffs, (trial.not_before, trial.index))

    def _count_attempts(self, trial: TrialState, sign: int) -> None:
        self.retries += sign * trial.attempt
        for attempt in trial.attempts:
            took = attempt_seconds(attempt)
            self.gpu_seconds += sign * took * attempt.get("gpus", 0)
            if attempt["outcome"] in {Outcome.SUCCEEDED, Outcome.EARLY_STOPPED}:
                self.run_seconds += sign * took
                self.run_gpu_seconds += sign * took * attempt.get("gpus", 0)
                self.ran += sign

    def _rank_anew(self, trials: Iterable[TrialState]) -> None:
        self.best = None
        self.front = Front(self.goals) if len(self.goals) > 1 else None
        for trial in trials:
            self._consider(trial)

    def _consider(self, trial: TrialState) -> None:
        """Keep the best trial that meets all bounds: of those that ran for most of the fidelity, the best value.

        With several objectives, the front of them. One that was stopped early is never there. The earlier one where two
        are alike.
        """
        if not self.is_sound(trial):
            return
        if self.front is not None:
            self.front.add(trial)
            return
        if trial.value is None:
            return
        if self.best is None or self.best.value is None:
            self.best = trial
            return
        if self.rank(trial) < self.rank(self.best):
            self.best = trial

    def is_sound(self, trial: TrialState) -> bool:
        """Whether a trial came to its end and meets all bounds."""
        return trial.phase is Phase.SUCCEEDED and self.meets_bounds(trial.metrics)

    def rank(self, trial: TrialState) -> tuple[float, float, int]:
        """Smaller for a better trial, of those with a value."""
        return -trial.fidelity, self.goal.sign * (trial.value or 0.0), trial.index

    def meets_bounds(self, metrics: dict[str, float]) -> bool:
        """Whether the metrics keep within the objectives' bounds."""
        return all(
            objective.metric in metrics and objective.is_kept_by(metrics[objective.metric])
            for objective in self.spec.objectives
            if objective.goal is None
        )

    # Attempts --------------------------------------------------------------------------------------------------

    def set_attempt(self, index: int, seen: AttemptSeen, now: float, trial_uid: str | None = None) -> None:
        """What is seen of an attempt; of an older one it only matters that it still lives.

        Args:
            index: the trial's number.
            seen: its attempt.
            now: epoch seconds.
            trial_uid: whose attempt it is; one of an earlier trial with this number is left to garbage collection.
        """
        trial = self.trials.get(index)
        if trial is None or trial_uid not in (None, trial.uid):
            return
        if seen.state != "ended" and not seen.disrupted and (seen.attempt < trial.attempt or trial.phase.terminal):
            self.strays.setdefault((index, seen.attempt), now)
        elif seen.attempt == trial.attempt and (trial.seen is None or trial.seen.state != "ended"):
            trial.seen = seen
            trial.started = True
            self._note_stuck(trial, seen, now)
            self.touched.add(index)

    def _note_stray(self, before: TrialState, after: TrialState, now: float) -> None:
        """An attempt whose end is on record before its own end: it has to be stopped."""
        alive = before.started and (before.seen is None or before.seen.state != "ended")
        if before.active and alive and (after.phase.terminal or after.attempt > before.attempt):
            self.strays[before.index, before.attempt] = now

    def _note_stuck(self, trial: TrialState, seen: AttemptSeen, now: float) -> None:
        if seen.state == "waiting" and seen.reason in BLOCKING_REASONS:
            trial.blocked_since = trial.blocked_since or now
            self.stuck.add(trial.index)
        else:
            trial.blocked_since = None
            self.stuck.discard(trial.index)

    def add_report(self, index: int, attempt: int, step: object, metrics: object) -> bool:
        """Take a report of a running attempt; False where there is no such attempt."""
        trial = self.trials.get(index)
        if trial is None or trial.attempt != attempt or trial.phase.terminal:
            return False
        trial.reports.add(step, metrics)
        if self.watch is not None and self.watch.is_due(trial):
            self.to_judge.add(index)
        return True

    # For the planner -------------------------------------------------------------------------------------------

    def wake(self, index: int, at: float) -> None:
        """Have the planner look at a trial at a time."""
        heapq.heappush(self.wakeups, (at, index))

    def backing_off(self, now: float) -> int:
        """How many pending trials may not start yet, because they failed a short while ago."""
        while self._backoffs and self._backoffs[0][0] <= now:
            _, index = heapq.heappop(self._backoffs)
            if index in self._backing_off and self.trials[index].not_before <= now:
                self._backing_off.discard(index)
        return len(self._backing_off)

    def take_due(self, now: float) -> list[int]:
        """The trials to look at now: those touched and those whose time has come; each once, in order."""
        while self.wakeups and self.wakeups[0][0] <= now:
            self.touched.add(heapq.heappop(self.wakeups)[1])
        due = sorted(self.touched - self.busy)
        self.touched.difference_update(due)
        return due

    @property
    def limit(self) -> float:
        """How many trials the study may have in all."""
        allowed: float = math.inf if self.spec.trials.max is None else self.spec.trials.max
        if self.exhausted_from is not None:
            allowed = min(allowed, self.exhausted_from)
        if self.spec.strategy.name == "manual":
            allowed = min(allowed, len(self.spec.initial))
        return allowed

    @property
    def expected(self) -> float:
        """How many trials there will be, as far as that is known: of a population as many, and more where some fail."""
        strategy, fidelity = self.spec.strategy, self.spec.fidelity
        if strategy.name != "pbt" or fidelity is None:
            return self.limit
        return min(self.limit, (strategy.population or POPULATION) * fidelity.generations)

    @property
    def problem(self) -> str | None:
        """Why no trial is made, until somebody mends it."""
        return self.spec_problem or next(iter(self.refused.values()), None)

    @property
    def may_start(self) -> bool:
        """Whether attempts may start: not before it is known that the template can be run, or they would be burnt."""
        return self.spec_problem is None and self.template_checked == self.generation

    @property
    def told_phase(self) -> str | None:
        """The phase that the study's status says."""
        phase: str | None = (self.status_written or self.status).get("phase")
        return phase

    @property
    def told_end(self) -> tuple[str, str] | None:
        """Phase and reason of the study's status, if that says that it has ended."""
        told = self.status_written or self.status
        phase = told.get("phase")
        return (phase, told.get("reason", "")) if phase in {"Complete", "Failed"} else None

    @property
    def ended(self) -> int:
        """How many trials have ended for good."""
        return sum(count for phase, count in self.phases.items() if phase.terminal)


def _index_of(item: Object) -> int | None:
    """The trial number in an object, which may be no more than its metadata."""
    if "spec" in item:
        return int(item["spec"]["index"])
    number = str(item["metadata"]["name"]).rpartition("-")[2]
    return int(number) if number.isdigit() else None
