"""Safeguards turned off one at a time: the simulation has to notice each.

A sabotage patches the code under test, or returns what to do to the simulated world itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from tuneyard_operator import blocking, engine, planner, study_end
from tuneyard_operator.actions import StartAttempt, WriteTrial
from tuneyard_operator.state import StudyState
from tuneyard_operator.strategy_client import Answer
from tuneyard_operator.trial_state import TrialState
from tuneyard_operator.worlds.simulation import Faults, Simulation
from tuneyard_operator.worlds.simulation.strategies import SeededStrategies, configuration
from tuneyard_scheduler import inventory, memory, selection, translate
from tuneyard_scheduler.policies import elastic, nodes, quota, reclaim
from tuneyard_scheduler.policies.victims import Amounts, Need
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import TrialView
from tuneyard_strategy import stopping

Tamper = Callable[[Simulation], None]
Make = Callable[[pytest.MonkeyPatch], Tamper | None]


@dataclass(frozen=True)
class Sabotage:
    make: Make
    faults: Faults


SABOTAGES: dict[str, Sabotage] = {}


ROUGH = Faults(
    lost_write=0.05,
    lost_answer=0.08,
    slow_answer=0.08,
    stale_read=0.3,
    crash_at_call=0.01,
    crash=0.02,
    slow_watch=0.1,
    watch_gap=0.05,
    repeated_events=0.05,
    node_loss=0.02,
    node_join=0.01,
    eviction=0.05,
    foreign_pod=0.02,
    broken_image=0.01,
    strategy_error=0.2,
    user_action=0.1,
)
"""All kinds of faults at once, and often."""


def sabotage(make: Make, faults: Faults = ROUGH) -> Make:
    SABOTAGES[make.__name__] = Sabotage(make, faults)
    return make


@sabotage
def writes_do_not_check_versions(patch: pytest.MonkeyPatch) -> Tamper:
    del patch

    def tamper(simulation: Simulation) -> None:
        simulation.api.check_versions = False

    return tamper


@sabotage
def actions_are_done_to_later_versions(patch: pytest.MonkeyPatch) -> None:
    """A planned write takes the version of whatever copy is there when its turn comes."""
    act = engine.Engine._act

    async def act_anyway(self: engine.Engine, state: StudyState, action: Any) -> None:
        trial = state.trials.get(action.index)
        if trial is not None and isinstance(action, WriteTrial):
            action = WriteTrial(action.index, trial.version, action.status, action.end)
        await act(self, state, action)

    patch.setattr(engine.Engine, "_act", act_anyway)


@sabotage
def configurations_by_count(patch: pytest.MonkeyPatch) -> None:
    """The strategy gives the next configuration, whatever index it is asked for."""

    async def ask(self: SeededStrategies, state: StudyState, indices: list[int]) -> Answer:
        del self
        first, seed = len(state.trials), state.spec.strategy.seed
        return Answer({index: configuration(seed, first + n) for n, index in enumerate(indices)}, exhausted=False)

    patch.setattr(SeededStrategies, "ask", ask)


@sabotage
def a_retry_keeps_its_number(patch: pytest.MonkeyPatch) -> None:
    conclude = planner._conclude

    def conclude_again(*args: Any) -> WriteTrial:
        write = conclude(*args)
        return WriteTrial(write.index, write.version, {k: v for k, v in write.status.items() if k != "attempt"})

    patch.setattr(planner, "_conclude", conclude_again)


@sabotage
def lost_attempts_are_not_looked_for(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(planner, "UNSEEN_AFTER", math.inf)


@sabotage
def attempts_may_outlive_their_record(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StudyState, "_note_stray", lambda *_: None)


@sabotage
def an_attempt_starts_before_its_placement(patch: pytest.MonkeyPatch) -> None:
    plan_trial = planner._plan_trial

    def plan_at_once(state: StudyState, trial: TrialState, end: Any, now: float) -> Any:
        if not trial.phase.terminal and not trial.started and end is None:
            return StartAttempt(trial.index, trial.version, trial.attempt)
        return plan_trial(state, trial, end, now)

    patch.setattr(planner, "_plan_trial", plan_at_once)


@sabotage
def every_end_of_a_pod_is_a_success(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(planner, "observe", lambda *_: {"loss": 0.5})


@partial(sabotage, faults=Faults(slow_answer=0.3, lost_answer=0.2, user_action=0.3))
def a_deleted_trial_may_come_back(patch: pytest.MonkeyPatch) -> None:
    """The answer to an earlier call comes after the news that the trial is gone."""
    remove = StudyState._remove

    def remove_without_memory(self: StudyState, trial: TrialState) -> None:
        remove(self, trial)
        self._removed.clear()

    patch.setattr(StudyState, "_remove", remove_without_memory)


@partial(sabotage, faults=Faults(watch_gap=0.2, slow_watch=0.2, user_action=0.3))
def lists_are_not_compared_with_what_is_known(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StudyState, "keep_listed", lambda *_: None)


@sabotage
def pods_do_not_say_whose_trial_they_run(patch: pytest.MonkeyPatch) -> None:
    set_attempt = StudyState.set_attempt
    patch.setattr(StudyState, "set_attempt", lambda self, index, seen, now, _=None: set_attempt(self, index, seen, now))


@sabotage
def a_hole_beyond_the_limit_counts(patch: pytest.MonkeyPatch) -> None:
    ends = study_end._ends
    patch.setattr(study_end, "_ends", lambda state, now: () if state.holes else ends(state, now))


@sabotage
def the_reason_of_an_end_may_change(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StudyState, "told_end", None)


@sabotage
def attempts_start_before_their_template_is_checked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StudyState, "may_start", True)


@sabotage
def no_gpu_is_kept_for_pods_that_are_not_seen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ClusterState, "_book_hold", lambda *_: None)


@sabotage
def a_gpu_that_is_shared_has_no_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(inventory._Pool, "left", lambda *_: 1.0)


@sabotage
def shared_gpus_are_given_as_whole_ones(patch: pytest.MonkeyPatch) -> None:
    left = inventory._Entry.left

    def left_beside_parts(self: inventory._Entry, resource: str) -> int:
        pool = self.pools.get(resource)
        return left(self, resource) + (len(pool.parts) if pool is not None else 0)

    patch.setattr(inventory._Entry, "left", left_beside_parts)


@partial(sabotage, faults=Faults())
def cores_and_memory_have_no_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(inventory.Inventory, "fits", lambda *_: True)


@partial(sabotage, faults=Faults())
def taints_keep_nobody_away(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(selection, "taints", lambda _: ())


@sabotage
def a_refused_place_stays_booked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ClusterState, "forget", lambda *_: None)


@sabotage
def the_scheduler_does_not_wait_for_backoffs(patch: pytest.MonkeyPatch) -> None:
    trial = translate.trial

    def at_once(item: Any) -> TrialView:
        status = {key: value for key, value in item["status"].items() if key != "notBefore"}
        return trial({**item, "status": status})

    patch.setattr(translate, "trial", at_once)


@sabotage
def ended_pods_keep_their_gpus(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ClusterState, "remove_pod", lambda *_: False)


@sabotage
def the_scheduler_ignores_pods(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(translate, "pod", lambda _: None)


@sabotage
def a_backoff_wakes_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ClusterState, "next_release", lambda _: None)


@partial(sabotage, faults=Faults())
def nobody_gives_way(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reclaim._Plan, "find", lambda *_: (None, []))


@partial(sabotage, faults=Faults())
def whoever_is_told_to_go_stays(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TrialState, "reclaim", None)


@sabotage
def more_go_than_are_needed(patch: pytest.MonkeyPatch) -> None:
    enough = reclaim._Plan._enough

    def more_than_enough(self: reclaim._Plan, groups: Any, lacks: Amounts, need: Need) -> Any:
        gpus, charge, cpu, memory = lacks
        return enough(self, groups, (gpus + 1, charge, cpu, memory), need)

    patch.setattr(reclaim._Plan, "_enough", more_than_enough)


@sabotage
def those_who_are_within_their_guarantee_go(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reclaim._Plan, "_can_spare", lambda *_: True)


@sabotage
def limits_bind_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(quota, "over_limit", lambda *_: None)
    patch.setattr(nodes, "headroom", lambda _: (None, math.inf))


@partial(sabotage, faults=Faults())
def nothing_that_works_pauses_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(blocking, "paused", lambda *_: None)
    patch.setattr(planner, "paused", lambda *_: None)


@partial(sabotage, faults=Faults())
def a_need_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A trial that ran out of memory is tried again with as much as before."""
    patch.setattr(memory, "render", lambda *_: None)


@partial(sabotage, faults=Faults())
def verdicts_are_not_carried_out(patch: pytest.MonkeyPatch) -> None:
    """The trial runs on to its end."""
    patch.setattr(TrialState, "verdict", property(lambda _: None, lambda *_: None))


@sabotage
def a_verdict_stops_without_a_record(patch: pytest.MonkeyPatch) -> None:
    """The attempt is told to end, and the trial is found to have failed."""
    plan_verdict = planner._plan_verdict

    def stop_at_once(state: StudyState, trial: TrialState, verdict: Any, seen: Any, now: float) -> Any:
        if verdict.stop:
            state.strays[trial.index, trial.attempt] = now
            return None
        return plan_verdict(state, trial, verdict, seen, now)

    patch.setattr(planner, "_plan_verdict", stop_at_once)


@sabotage
def one_that_was_stopped_may_be_the_best(patch: pytest.MonkeyPatch) -> None:
    def consider(self: StudyState, trial: TrialState) -> None:
        if trial.value is not None and (self.best is None or trial.value < (self.best.value or 0.0)):
            self.best = trial

    patch.setattr(StudyState, "_consider", consider)


@sabotage
def trials_that_are_let_go_on_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Decisions at a rung are made by those that were stopped there, and not by those that passed it."""
    judge = stopping.Halving.judge

    def judge_alone(self: stopping.Halving, running: Any) -> Any:
        return [verdict for record in running for verdict in judge(self, [record])]

    patch.setattr(stopping.Halving, "judge", judge_alone)


@sabotage
def as_many_go_out_without_a_node_as_like(patch: pytest.MonkeyPatch) -> None:
    let_out = elastic.let_out

    def as_if_nobody_were(state: ClusterState, *args: Any) -> Any:
        before, state.unplaced = state.unplaced, {}
        given = let_out(state, *args)
        state.unplaced = before | state.unplaced
        return given

    patch.setattr(elastic, "let_out", as_if_nobody_were)
