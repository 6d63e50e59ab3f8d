"""The operator as a simulated process: the very engine, state and planner; watches, timers and tasks are simulated."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from functools import partial
from typing import Final

from tuneyard_api.common import UID_LABEL
from tuneyard_operator import pods
from tuneyard_operator.actions import Action
from tuneyard_operator.engine import Engine
from tuneyard_operator.planner import wanted
from tuneyard_operator.state import StudyState
from tuneyard_operator.strategy_client import learns
from tuneyard_operator.world import WorldError
from tuneyard_operator.worlds.simulation.apiserver import ApiServer, Object
from tuneyard_operator.worlds.simulation.faults import Faults
from tuneyard_operator.worlds.simulation.kernel import Kernel
from tuneyard_operator.worlds.simulation.machines import Pod
from tuneyard_operator.worlds.simulation.process import Process
from tuneyard_operator.worlds.simulation.strategies import FaultyStrategies, OnJudged, Strategies
from tuneyard_operator.worlds.simulation.world import SimulationWorld

_TICK: Final = 3.0
_SUPPLY_RETRY: Final = 2.0
KEEP_JOBS: Final = 40.0
"""Seconds for which the Jobs of ended trials are kept."""


class OperatorProcess(Process):
    """What the controller of the cluster's operator does, in virtual time."""

    def __init__(
        self,
        kernel: Kernel,
        api: ApiServer,
        faults: Faults,
        strategies: Strategies,
        log_of: Callable[[str], str],
        on_judged: OnJudged,
    ) -> None:
        super().__init__("operator", kernel, api, faults)
        self._strategies = strategies
        self._log_of = log_of
        self._on_judged = on_judged

    def begin(self) -> None:
        """Trials and pods are listed before studies, so that planning begins with all of them known."""
        self.world = SimulationWorld(self, self._log_of)
        self.engine = Engine(self.world, FaultyStrategies(self, self._strategies.client(), self._on_judged))
        self.runners: dict[str, Runner] = {}
        self._trials: dict[str, dict[str, Object]] = {}
        self._pods: dict[str, dict[str, Object]] = {}
        unsynced = {"trials", "pods"}

        def synced(kind: str) -> None:
            unsynced.discard(kind)
            if not unsynced:
                self.watch("studies", self._on_study).open(lambda: None)

        trials = self.watch("trials", self._on_trial)
        trials.on_listed = self._on_trials_listed
        trials.open(partial(synced, "trials"))
        self.watch("pods", self._on_pod, lambda pod: pods.key(pod) is not None).open(partial(synced, "pods"))

    @property
    def current(self) -> bool:
        """Whether it runs, has been told everything, and has no status to write again because that failed."""
        return super().current and not any(runner.state.status_unsure for runner in self.runners.values())

    # What the watches say --------------------------------------------------------------------------------------

    def _on_study(self, event: str, study: Object) -> None:
        uid = study["metadata"]["uid"]
        if event == "DELETED":
            self.engine.remove_study(uid)
            for store in (self._trials, self._pods, self.runners):
                store.pop(uid, None)
            return
        state = self.engine.set_study(study)
        runner = self.runners.get(uid)
        if runner is None:
            runner = self.runners[uid] = Runner(self, state)
            for item in self._trials.pop(uid, {}).values():
                state.set_trial(item, self.kernel.now)
            for item in self._pods.pop(uid, {}).values():
                self._on_pod("ADDED", item)
        runner.wake()

    def _on_trial(self, event: str, item: Object) -> None:
        uid = item["metadata"]["labels"][UID_LABEL]
        runner = self.runners.get(uid)
        if runner is None:
            _keep(self._trials, uid, event, item)
            return
        if event == "DELETED":
            runner.state.remove_trial(item)
        else:
            runner.state.set_trial(item, self.kernel.now)
        runner.wake()

    def _on_trials_listed(self, uids: Container[str], version: int) -> None:
        for runner in self.runners.values():
            runner.state.keep_listed(uids, version)
            runner.wake()

    def _on_pod(self, event: str, pod: Object) -> None:
        key = pods.key(pod)
        assert key is not None, "other people's pods are not watched"
        runner = self.runners.get(key.study_uid)
        if runner is None:
            _keep(self._pods, key.study_uid, event, pod)
            return
        now = self.kernel.now
        gone = event == "DELETED"
        seen = pods.gone(pod, key.attempt, now) if gone else pods.seen(pod, key.attempt)
        runner.state.set_attempt(key.index, seen, now, key.trial_uid)
        runner.wake()

    def report(self, pod: Pod, points: list[tuple[int, dict[str, float]]]) -> bool:
        """A pod reports; False where it is to try again."""
        runner = self.runners.get(pod.study) if self.up else None
        if runner is None:
            return False
        trial = runner.state.trials.get(pod.index)
        if trial is not None and trial.uid == pod.trial:
            for step, metrics in points:
                runner.state.add_report(pod.index, pod.attempt, step, metrics)
            runner.wake()
        return True


def _keep(store: dict[str, dict[str, Object]], uid: str, event: str, item: Object) -> None:
    held = store.setdefault(uid, {})
    if event == "DELETED":
        held.pop(item["metadata"]["name"], None)
    else:
        held[item["metadata"]["name"]] = item


class Runner:
    """One study: plan when something changed or a time has come; actions and supply go on at the same time."""

    def __init__(self, process: OperatorProcess, state: StudyState) -> None:
        self._process = process
        self.state = state
        self.supplying = False
        self._supply_at = 0.0
        self._judging = False
        self._judge_at = 0.0
        self._ended: deque[tuple[float, str]] = deque()
        self._awake = False
        self._tick = 0

    def wake(self) -> None:
        """Plan in a moment."""
        if not self._awake:
            self._awake = True
            self._process.later(self._process.kernel.jitter(0.0, 0.02), self._plan)

    def _timer(self, tick: int) -> None:
        if tick == self._tick:
            self.wake()

    def _plan(self) -> None:
        self._awake = False
        process, kernel, state = self._process, self._process.kernel, self.state
        if process.runners.get(state.uid) is not self:
            return
        actions: list[Action] = process.engine.plan(state)
        kernel.rng.shuffle(actions)
        for action in actions:
            process.spawn(process.engine.perform(state, action), self.wake, kernel.jitter(0.0, 0.02))
        self._judge_if_needed()
        self._supply_if_wanted()
        self._clean_up()
        self._tick += 1
        due = state.wakeups[0][0] - kernel.now if state.wakeups else _TICK
        process.later(min(_TICK, max(0.005, due)), self._timer, self._tick)

    def _supply_if_wanted(self) -> None:
        process, state, now = self._process, self.state, self._process.kernel.now
        if self.supplying or now < self._supply_at:
            return
        if state.checked_generation != state.generation or wanted(state, now, learns=learns(state)):
            self.supplying = True
            process.spawn(self._supply(), self._supplied, process.kernel.jitter(0.0, 0.02))

    def _judge_if_needed(self) -> None:
        if self.state.to_judge and not self._judging and self._process.kernel.now >= self._judge_at:
            self._judging = True
            self._process.spawn(self._judge(), self._judged, self._process.kernel.jitter(0.0, 0.02))

    async def _judge(self) -> None:
        try:
            await self._process.engine.judge(self.state)
        except WorldError:
            self._judge_at = self._process.kernel.now + _SUPPLY_RETRY

    def _judged(self) -> None:
        self._judging = False
        self.wake()

    async def _supply(self) -> None:
        try:
            if not await self._process.engine.supply(self.state):
                self._supply_at = self._process.kernel.now + 0.05
        except WorldError:
            self._supply_at = self._process.kernel.now + _SUPPLY_RETRY

    def _supplied(self) -> None:
        self.supplying = False
        self.wake()

    def _clean_up(self) -> None:
        """Jobs of ended trials go after a while."""
        now = self._process.kernel.now
        self._ended.extend((now + KEEP_JOBS, uid) for uid in self.state.newly_ended)
        self.state.newly_ended.clear()
        if self._ended and now >= self._ended[0][0] + 5.0:
            batch: list[str] = []
            while self._ended and self._ended[0][0] <= now:
                batch.append(self._ended.popleft()[1])
            self._process.spawn(self._delete_jobs(batch))

    async def _delete_jobs(self, trials: list[str]) -> None:
        try:
            await self._process.world.delete_jobs(trials)
        except WorldError:
            again = self._process.kernel.now + KEEP_JOBS
            self._ended.extend((again, uid) for uid in trials)
