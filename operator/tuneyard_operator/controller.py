"""The operator's process in a cluster: watches feed the engine, one task a study plans, every action is a task."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Container, Coroutine
from typing import Any, Final

from tuneyard_api.common import UID_LABEL
from tuneyard_api.validation import InvalidStudy
from tuneyard_operator import pods, status, telemetry
from tuneyard_operator.engine import Engine
from tuneyard_operator.planner import wanted
from tuneyard_operator.pods import AttemptKey
from tuneyard_operator.state import StudyState
from tuneyard_operator.strategy_client import StrategyClient, learns
from tuneyard_operator.world import WorldError
from tuneyard_operator.worlds.kubernetes import KubernetesWorld
from tuneyard_scheduler import logs
from tuneyard_scheduler.kube import Kube, path

logger = logging.getLogger(__name__)

Object = dict[str, Any]

_SUPPLY_RETRY_SECONDS: Final = 2.0
_JUDGE_SECONDS: Final = 0.2
"""Between two judgements of a study's trials: what all of them report meanwhile is one question."""
_TICK_SECONDS: Final = 1.0
_DELETE_BATCH: Final = 100
_UNHEALTHY_SECONDS: Final = 60.0


class Controller:
    """Runs the engine on a cluster.

    Trials and pods may be heard of before their study: what came is kept by study uid until the study comes.
    """

    def __init__(
        self,
        kube: Kube,
        strategies: StrategyClient,
        *,
        report_url: str | None,
        keep_jobs: float,
        gpu_runtime_class: str | None = None,
    ) -> None:
        self._kube = kube
        self._keep_jobs = keep_jobs
        self.world = KubernetesWorld(kube, report_url, gpu_runtime_class)
        self.engine = Engine(self.world, strategies)
        self.running_pods: dict[str, AttemptKey] = {}
        """Attempts by pod uid: who may report."""
        self._trials: dict[str, dict[str, Object]] = {}
        self._pods: dict[str, dict[str, Object]] = {}
        self._runners: dict[str, _Runner] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, namespace: str | None = None) -> None:
        """Begin to watch trials and pods; returns when both have been listed once, so that planning may begin."""
        synced = [asyncio.Event(), asyncio.Event()]
        watches = [
            self._kube.reflect(
                path("trials", namespace), self._on_trial, on_synced=synced[0].set, on_listed=self._on_trials_listed
            ),
            self._kube.reflect(
                path("pods", namespace), self._on_pod, label_selector=UID_LABEL, on_synced=synced[1].set
            ),
        ]
        for watch in watches:
            self.spawn(watch)
        for event in synced:
            await event.wait()

    async def stop(self) -> None:
        """End all tasks; what was under way is found out by the next process."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside; its failure is a bug and ends up in the log."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("unexpected: %s", task.exception(), exc_info=task.exception())

    # What the watches say --------------------------------------------------------------------------------------

    def on_study(self, kind: str | None, study: Object) -> None:
        """A Study was listed, changed or deleted."""
        uid = study["metadata"]["uid"]
        if kind == "DELETED":
            self.engine.remove_study(uid)
            self._trials.pop(uid, None)
            self._pods.pop(uid, None)
            runner = self._runners.pop(uid, None)
            if runner is not None:
                runner.wake.set()
            return
        try:
            state = self.engine.set_study(study)
        except InvalidStudy as error:
            self.spawn(self._refuse(study, error.problems))
            return
        runner = self._runners.get(uid)
        if runner is None:
            runner = self._runners[uid] = _Runner(self, state, self._keep_jobs)
            for item in self._trials.pop(uid, {}).values():
                self._on_trial("ADDED", item)
            for item in self._pods.pop(uid, {}).values():
                self._on_pod("ADDED", item)
            self.spawn(runner.run())
        runner.wake.set()

    async def _refuse(self, study: Object, problems: list[str]) -> None:
        """A study that only gets here where the admission policy was left out: a condition says what is wrong."""
        after = status.invalid_study(study, problems, self.world.now())
        if after == study.get("status"):
            return
        meta = study["metadata"]
        try:
            await self.world.replace_status(meta["namespace"], meta["name"], meta["uid"], after)
        except WorldError as error:
            logger.warning("study %s: %s", meta["name"], error)

    def _on_trial(self, kind: str, item: Object) -> None:
        uid = (item["metadata"].get("labels") or {}).get(UID_LABEL)
        if uid is None:
            return
        runner = self._runners.get(uid)
        if runner is None:
            _keep(self._trials, uid, kind, item)
        elif not runner.may_have(item):
            return
        elif kind == "DELETED":
            runner.state.remove_trial(item)
            runner.wake.set()
        else:
            runner.set_trial(item)

    def _on_trials_listed(self, uids: Container[str], version: int) -> None:
        for runner in self._runners.values():
            runner.state.keep_listed(uids, version)
            runner.wake.set()

    def _on_pod(self, kind: str, pod: Object) -> None:
        key = pods.key(pod)
        if key is None:
            return
        uid = pod["metadata"]["uid"]
        runner = self._runners.get(key.study_uid)
        if runner is None:
            _keep(self._pods, key.study_uid, kind, pod)
            return
        if not runner.may_have(pod):
            return
        if kind == "DELETED" or pod["status"].get("phase") in {"Succeeded", "Failed"}:
            self.running_pods.pop(uid, None)
        else:
            self.running_pods[uid] = key
        now = self.world.now()
        seen = pods.gone(pod, key.attempt, now) if kind == "DELETED" else pods.seen(pod, key.attempt)
        runner.state.set_attempt(key.index, seen, now, key.trial_uid)
        runner.wake.set()
        overdue = pods.overdue(pod)
        if kind != "DELETED" and overdue is not None:
            self.spawn(self._give_up(pod, max(0.0, overdue - now)))

    async def _give_up(self, pod: Object, delay: float) -> None:
        """A pod that should have ended by then is as good as gone, unless it has ended."""
        await asyncio.sleep(delay)
        if pod["metadata"]["uid"] in self.running_pods:
            self._on_pod("DELETED", pod)

    @property
    def healthy(self) -> bool:
        """Whether every study was planned lately."""
        now = time.monotonic()
        return all(now - runner.beat < _UNHEALTHY_SECONDS for runner in self._runners.values())

    def report(self, key: AttemptKey, reports: list[Object]) -> None:
        """Metrics that a pod pushed."""
        state = self.engine.studies.get(key.study_uid)
        trial = state.trials.get(key.index) if state is not None else None
        if state is None or trial is None or trial.uid != key.trial_uid:
            return
        for report in reports:
            state.add_report(key.index, key.attempt, report.get("step"), report.get("metrics"))
        if state.to_judge:
            self._runners[key.study_uid].wake.set()


def _keep(store: dict[str, dict[str, Object]], uid: str, kind: str, item: Object) -> None:
    """Hold an object for a study that has not been heard of yet."""
    held = store.setdefault(uid, {})
    if kind == "DELETED":
        held.pop(item["metadata"]["uid"], None)
        if not held:
            del store[uid]
    else:
        held[item["metadata"]["uid"]] = item


class _Bell(asyncio.Event):
    """An event that knows since when it has been set."""

    heard: float | None = None

    def set(self) -> None:
        if not self.is_set():
            self.heard = time.monotonic()
        super().set()

    def clear(self) -> None:
        self.heard = None
        super().clear()


class _Runner:
    """One study's task: plan when something changed or a time has come."""

    def __init__(self, controller: Controller, state: StudyState, keep_jobs: float) -> None:
        self._controller = controller
        self._engine = controller.engine
        self.state = state
        self.wake = _Bell()
        self.beat = time.monotonic()
        self._keep_jobs = keep_jobs
        self._ended: deque[tuple[float, str]] = deque()
        self._supplying = False
        self._supply_at = 0.0
        self._judging = False
        self._judge_at = 0.0

    def may_have(self, item: Object) -> bool:
        """Whether an object that says it is the study's may be: people can write any label in their own namespace."""
        return bool(item["metadata"]["namespace"] == self.state.namespace)

    def set_trial(self, item: Object) -> None:
        """Take a trial's present object."""
        self.state.set_trial(item, self._controller.world.now())
        self.wake.set()

    async def run(self) -> None:
        """Until the study is gone."""
        with logs.about(namespace=self.state.namespace, study=self.state.name):
            await self._run()

    async def _run(self) -> None:
        while self._engine.studies.get(self.state.uid) is self.state:
            heard, self.beat = self.wake.heard, time.monotonic()
            self.wake.clear()
            try:
                for action in self._engine.plan(self.state):
                    self._controller.spawn(self._perform(action))
                self._judge_if_needed()
                self._supply_if_wanted()
                self._clean_up()
            except Exception:
                # One study's bug must not take the others down; it is told, and tried again with the next event.
                logger.exception("study %s: planning failed", self.state.name)
            if heard is not None:
                telemetry.RECONCILE_SECONDS.observe(time.monotonic() - heard)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):  # wait_for forgets a cancellation that comes with the news
                    await self.wake.wait()

    def _pause(self) -> float:
        """Seconds to the next time at which something is due."""
        heap = self.state.wakeups
        now = self._controller.world.now()
        due = heap[0][0] - now if heap else _TICK_SECONDS
        if self.state.to_judge and not self._judging:
            due = min(due, self._judge_at - now)
        return min(_TICK_SECONDS, max(0.005, due))

    async def _perform(self, action: Any) -> None:
        trial = self.state.trials.get(getattr(action, "index", -1))
        with logs.about(**({"trial": trial.name} if trial is not None else {})):
            await self._engine.perform(self.state, action)
        self.wake.set()

    def _supply_if_wanted(self) -> None:
        state, now = self.state, self._controller.world.now()
        if self._supplying or now < self._supply_at:
            return
        if state.checked_generation != state.generation or wanted(state, now, learns=learns(state)):
            self._supplying = True
            self._controller.spawn(self._supply())

    def _judge_if_needed(self) -> None:
        if self.state.to_judge and not self._judging and self._controller.world.now() >= self._judge_at:
            self._judging = True
            self._controller.spawn(self._judge())

    async def _judge(self) -> None:
        pause = _SUPPLY_RETRY_SECONDS
        try:
            await self._engine.judge(self.state)
            pause = _JUDGE_SECONDS
        except WorldError as error:
            logger.warning("study %s: no verdict on its trials yet: %s", self.state.name, error)
        finally:
            self._judge_at = self._controller.world.now() + pause
            self._judging = False
            self.wake.set()

    async def _supply(self) -> None:
        pause = _SUPPLY_RETRY_SECONDS  # after what nobody has foreseen, too
        try:
            pause = 0.0 if await self._engine.supply(self.state) else 0.05
        except WorldError as error:
            logger.warning("study %s: no further trials yet: %s", self.state.name, error)
        finally:
            self._supply_at = self._controller.world.now() + pause
            self._supplying = False
            self.wake.set()

    def _clean_up(self) -> None:
        """Jobs of ended trials are kept for a while, for their logs; then they go in batches."""
        now = self._controller.world.now()
        self._ended.extend((now + self._keep_jobs, uid) for uid in self.state.newly_ended)
        self.state.newly_ended.clear()
        ready = len(self._ended) >= _DELETE_BATCH or (self._ended and now >= self._ended[0][0] + 5.0)
        if not ready or now < self._ended[0][0]:
            return
        batch: list[str] = []
        while self._ended and self._ended[0][0] <= now and len(batch) < _DELETE_BATCH:
            batch.append(self._ended.popleft()[1])
        self._controller.spawn(self._delete_jobs(batch))

    async def _delete_jobs(self, trials: list[str]) -> None:
        try:
            await self._controller.world.delete_jobs(trials, self.state.namespace)
        except WorldError as error:
            logger.warning("study %s: Jobs not deleted yet: %s", self.state.name, error)
            again = self._controller.world.now() + self._keep_jobs + 30.0
            self._ended.extend((again, uid) for uid in trials)
