"""The engine: events into state, plan, act; the same in every world.

A world's edge calls `set_study`, `set_trial`, `set_attempt` ... as it hears of changes, and runs `supply` (ask the
strategy, create trials) and the actions that `plan` returns, in any order and at the same time. An action that fails is
planned again after a while; an action that took effect without an answer is found out by the next read.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any, Final

from tuneyard_api.common import epoch_seconds
from tuneyard_operator import planner, status, warm_start
from tuneyard_operator.actions import (
    Action,
    Emit,
    InspectAttempt,
    ReadLog,
    Recommend,
    StartAttempt,
    StopAttempt,
    TrialAction,
    WriteStudy,
    WriteTrial,
)
from tuneyard_operator.metrics import from_log
from tuneyard_operator.state import StudyState
from tuneyard_operator.strategy_client import StrategyClient, StrategyError, learns
from tuneyard_operator.trial_state import running_record
from tuneyard_operator.world import Conflict, Rejected, World, WorldError

logger = logging.getLogger(__name__)

Object = dict[str, Any]
RETRY_SECONDS: Final = 1.0
REJECTED_SECONDS: Final = 30.0
LOG_TAIL: Final = 4096
"""Characters that are kept of the log of an attempt that failed."""


class Engine:
    """All studies of one world, keyed by their uid."""

    def __init__(self, world: World, strategies: StrategyClient) -> None:
        self.world = world
        self.strategies = strategies
        self.studies: dict[str, StudyState] = {}
        self.outcomes: Counter[str] = Counter()
        """How the attempts ended whose end this process has recorded."""

    def set_study(self, study: Object) -> StudyState:
        """Take a Study's present object; returns its state."""
        uid = study["metadata"]["uid"]
        state = self.studies.get(uid)
        if state is None:
            state = self.studies[uid] = StudyState(study, self.world.now())
            self._check_followers(state)
        else:
            state.set_study(study)
        return state

    def remove_study(self, uid: str) -> None:
        """The Study is gone; what belonged to it goes with it."""
        gone = self.studies.pop(uid, None)
        self.strategies.forget(uid)
        if gone is not None:
            self._check_followers(gone)

    def _check_followers(self, earlier: StudyState) -> None:
        """A study has come or gone: what others learn from is read anew."""
        for state in self.studies.values():
            if state.namespace == earlier.namespace and earlier.name in warm_start.names(state.spec):
                state.checked_generation = 0

    # Supply ----------------------------------------------------------------------------------------------------

    async def supply(self, state: StudyState) -> bool:
        """Create the trials that are wanted now; True when there may be more to do at once.

        Raises:
            WorldError: the world would not create one.
        """
        try:
            if state.checked_generation != state.generation:
                await self._check(state)
            indices = planner.wanted(state, self.world.now(), learns=learns(state))
            if not indices:
                state.strategy_problem = None  # nothing is needed of it now
                return False
            known = len(state.history)
            answer = await self.strategies.ask(state, indices)
            state.degraded = answer.degraded or ""
        except StrategyError as error:
            state.strategy_problem = str(error)
            raise WorldError(str(error)) from error
        state.strategy_problem, state.strategy_note = None, answer.note
        for item in await self.world.create_trials(state, answer.configurations, answer.rungs):
            state.set_trial(item, self.world.now())
        if answer.continuable is not None:  # it counts once those that were asked for exist: they may continue others
            state.continuable, state.continuable_as_of = answer.continuable, known
        missing = [index for index in indices if index not in answer.configurations]
        if missing and answer.exhausted:
            state.exhausted_from = min(missing)
        elif missing and not answer.configurations:
            state.waits_since = known
        return bool(answer.configurations)

    async def _check(self, state: StudyState) -> None:
        """Find out, once per generation, what no schema can see; nothing is created while there is a problem."""
        generation = state.generation
        template = await self.world.check_template(state)
        if template is None and generation == state.generation:
            state.template_checked = generation
            state.touched |= state.active
        problems = [*await self.strategies.check(state), *await self._warm_start(state)]
        state.spec_problem = "; ".join([*problems, *([template] if template else [])]) or None
        state.checked_generation = generation
        state.touched |= state.active
        state.status_due = 0.0

    async def _warm_start(self, state: StudyState) -> list[str]:
        """Read what the study learns from; what is wrong with it, as long as there is no trial."""
        spec = state.spec
        if not spec.warm_start:
            return []
        found = {name: await self.world.trials_of(state, name) for name in warm_start.names(spec)}
        created = epoch_seconds(state.object["metadata"]["creationTimestamp"])
        state.warm_start = warm_start.warm_start(spec, created, found)
        return [] if state.trials else list(warm_start.missing(spec, found))

    # Judging ---------------------------------------------------------------------------------------------------

    async def judge(self, state: StudyState) -> None:
        """Have the trials judged that reported since; the verdicts are carried out by what is planned next.

        Raises:
            WorldError: there is no answer now; the trials are still to be judged.
        """
        watch, indices = state.watch, sorted(state.to_judge)
        state.to_judge.clear()
        if watch is None:
            return
        # A trial whose being let go on is not on record yet counts on its rung all the same.
        asked = {*indices, *(index for index in state.active if watch.owes(state.trials[index]))}
        trials = {index: state.trials[index] for index in sorted(asked) if index in state.trials}
        for trial in trials.values():
            watch.heard(trial)
        try:
            verdicts = await self.strategies.judge(state, [running_record(t, watch) for t in trials.values()])
        except StrategyError as error:
            state.to_judge.update(index for index in indices if index in state.trials)
            raise WorldError(str(error)) from error
        for verdict in verdicts:
            judged, now = trials.get(verdict.index), state.trials.get(verdict.index)
            if judged is None or now is None or (judged.uid, judged.attempt) != (now.uid, now.attempt):
                continue
            if now.active and now.verdict is None:
                now.verdict = verdict
                state.touched.add(now.index)

    # Actions ---------------------------------------------------------------------------------------------------

    def plan(self, state: StudyState) -> list[Action]:
        """What to do now; each of it is to be given to `perform`."""
        return planner.plan(state, self.world.now())

    async def perform(self, state: StudyState, action: Action) -> None:
        """Do one action. What fails is logged and planned again later; nothing is raised."""
        try:
            if isinstance(action, WriteStudy):
                await self._write_study(state, action)
            elif isinstance(action, Emit):
                await self.world.emit(state, action)
            elif isinstance(action, Recommend):
                await self._recommend(state)
            elif isinstance(action, StopAttempt):
                await self._stop(state, action)
            else:
                await self._perform_on_trial(state, action)
        except WorldError as error:
            logger.warning("study %s: %s: %s", state.name, type(action).__name__, error)

    async def _recommend(self, state: StudyState) -> None:
        """Ask which trial to use; where there is no answer the study ends without one."""
        ended = state.ended
        try:
            found = await self.strategies.recommend(state)
        except StrategyError as error:
            logger.warning("study %s: no trial is recommended: %s", state.name, error)
            found = None
        finally:
            state.recommending = False
        trial = state.trials.get(found.index) if found is not None and found.index is not None else None
        state.recommended = status.recommended(trial, found) if trial is not None and found is not None else None
        state.recommended_for = ended
        state.status_due = 0.0

    async def _write_study(self, state: StudyState, action: WriteStudy) -> None:
        try:
            await self.world.write_study(state, action.status)
        except WorldError:
            state.status_written, state.status_unsure = action.before, True
            state.status_due = self.world.now() + RETRY_SECONDS
            raise
        else:
            state.status_unsure = False
        finally:
            state.status_busy = False
        if not state.may_start:
            state.touched |= state.active

    async def _stop(self, state: StudyState, action: StopAttempt) -> None:
        try:
            await self.world.stop_attempt(state, action.index, action.attempt)
        except WorldError:
            state.strays[action.index, action.attempt] = self.world.now() + RETRY_SECONDS
            raise

    async def _perform_on_trial(self, state: StudyState, action: TrialAction) -> None:
        index = action.index
        try:
            await self._act(state, action)
        except Conflict:
            await self._read_again(state, index)
        except Rejected as error:
            if index in state.trials:
                state.refused[index] = str(error)
            state.wake(index, self.world.now() + REJECTED_SECONDS)
        except WorldError:
            state.wake(index, self.world.now() + RETRY_SECONDS)
            raise
        else:
            state.refused.pop(index, None)
            state.touched.add(index)
        finally:
            state.busy.discard(index)

    async def _act(self, state: StudyState, action: TrialAction) -> None:
        world, trial = self.world, state.trials.get(action.index)
        if trial is None or trial.version != action.version:
            return  # it has changed since: what is right for it now is planned anew
        match action:
            case StartAttempt() if state.may_start:
                await world.start_attempt(state, trial)
                trial.started = True
                logger.info("trial %s: attempt %d started", trial.name, trial.attempt)
            case WriteTrial(status=status, end=end):
                state.set_trial(await world.patch_trial(state, trial, status), world.now())
                if end is not None and trial.active:
                    self.outcomes[end.outcome] += 1
                    said = f" ({end.message})" if end.message else ""
                    logger.info("trial %s: attempt %d ended: %s%s", trial.name, trial.attempt, end.outcome, said)
            case ReadLog(attempt=attempt):
                trial.log_failures += 1
                text = await world.read_log(state, trial.index, attempt)
                trial.log_metrics, trial.log_failures = from_log(text, state.spec.objectives), 0
                trial.log_tail = text[-LOG_TAIL:]
            case InspectAttempt():
                seen = await world.inspect_attempt(state, trial)
                trial.placed_at = world.now()
                if seen is not None:
                    state.set_attempt(trial.index, seen, world.now(), trial.uid)

    async def _read_again(self, state: StudyState, index: int) -> None:
        """Our copy is stale and the news of it may be long in coming."""
        trial = state.trials.get(index)
        if trial is None:
            return
        try:
            item = await self.world.get_trial(state, trial.name)
        except WorldError:
            state.wake(index, self.world.now() + RETRY_SECONDS)
            return
        if item is None:
            state.remove_trial({"metadata": {"name": trial.name, "uid": trial.uid}, "spec": {"index": index}})
        else:
            state.set_trial(item, self.world.now())
        state.touched.add(index)
