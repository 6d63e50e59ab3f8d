"""Runs one study on this machine: engine, strategy and scheduler in one loop that looks at the processes and sleeps."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import platform
import signal
from enum import StrEnum
from typing import Any, Final, Protocol

from tuneyard_api.trial import Placement
from tuneyard_operator.attempts import AttemptSeen
from tuneyard_operator.engine import Engine
from tuneyard_operator.state import StudyState
from tuneyard_operator.strategy_client import InProcess, StrategyClient
from tuneyard_operator.world import Conflict, WorldError
from tuneyard_operator.worlds.gpus import RESOURCE, Gpus
from tuneyard_operator.worlds.home import Home
from tuneyard_operator.worlds.local import LocalWorld, News
from tuneyard_operator.worlds.store import Store
from tuneyard_scheduler import translate
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.devices import Kind
from tuneyard_scheduler.outlook import outlook
from tuneyard_scheduler.reasons import Reason
from tuneyard_scheduler.selection import ANY_NODE
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import NOTHING, AttemptKey, Node, Outlook, Place, PodView, StudyView, Waiting, taken
from tuneyard_strategy.advisor import PATIENCE, Advisor

Object = dict[str, Any]

_LOOK_SECONDS: Final = 0.04
"""Between two looks at the processes: what a trial's end waits for at most."""
_PLAN_SECONDS: Final = 0.25
"""How often to plan while nothing is seen to happen, and to tell what there is."""
_SYNC_SECONDS: Final = 0.5
"""How often changes by other processes (`tuneyard stop`) are looked for."""
_SUPPLY_RETRY_SECONDS: Final = 2.0
_WAITED_SECONDS: Final = 2.0
"""For so long a trial waits for one reason before the reason is written."""


class Ending(StrEnum):
    """Why a run ended."""

    COMPLETE = "Complete"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    BLOCKED = "Blocked"
    DELETED = "Deleted"
    INTERRUPTED = "Interrupted"
    """By Ctrl-C: nothing runs any more, the next run goes on."""
    LEFT = "Left"
    """By SIGTERM: trials may still run, and are found by the next run."""


class Audience(Protocol):
    """Whom a run tells of itself."""

    def show(self, state: StudyState, news: list[News], waits: str | None) -> None:
        """What there is to see now (called many times a second) and what has happened; why trials wait, if they do."""

    def interrupted(self, times: int, running: int) -> None:
        """Ctrl-C was pressed for that many times, while that many trials ran."""


class LocalRunner:
    """One study's run.

    Args:
        store: where its objects are.
        home: where its folders are.
        study: its object.
        gpus: what its trials may use; None if it needs none.
        audience: whom to tell.
    """

    def __init__(self, store: Store, home: Home, study: Object, gpus: Gpus | None, audience: Audience) -> None:
        self._store = store
        self._gpus = gpus
        self._audience = audience
        self._news: list[News] = []
        self._world = LocalWorld(store, home, gpus, self._news.append)
        self._world.on_trial = self._take_trial
        self._strategies = _strategies(study)
        self._engine = Engine(self._world, self._strategies)
        self._supplying: asyncio.Task[None] | None = None
        self.state = self._engine.set_study(study)
        # Whoever runs a study again has mended what failed, maybe in a program of which the manifest says nothing.
        self.state.forgiven = self._world.now()
        self._cluster = ClusterState()
        self._waits: str | None = None
        self._waits_for: tuple[int, str] | None = None
        """The next trial and its reason; and since when that is so, until it is written."""
        self._waits_since: float | None = None
        self._plan_at = 0.0
        self._sync_at = 0.0
        self._supply_at = 0.0
        self._judge_at = 0.0
        self._interrupts = 0
        self._ending: Ending | None = None
        for trial in store.trials(self.state.uid):
            self.state.set_trial(trial, self._world.now())
            self._take_trial(trial)
        self._world.adopt(self.state)

    async def run(self) -> Ending:
        """Until the study has ended or is not to go on. Trials that run then are found by the next run."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        loop.add_signal_handler(signal.SIGTERM, self._leave)
        try:
            while True:
                ending = await self._turn()
                if ending is not None:
                    break
                await asyncio.sleep(self._pause())
            await self._write_last_status()
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            loop.remove_signal_handler(signal.SIGTERM)
            await self._close()
        return ending

    async def _close(self) -> None:
        """Leave the strategy: an answer that is still to come is not waited for."""
        if self._supplying is not None:
            self._supplying.cancel()
            await asyncio.gather(self._supplying, return_exceptions=True)
        close = getattr(self._strategies, "close", None)
        if close is not None:
            await close()

    async def _turn(self) -> Ending | None:
        """Look, and plan if there is news or it is time to: why the run is over, None while it goes on."""
        now = self._world.now()
        changed = self._world.look(self.state)
        if not changed and now < self._plan_at:
            return None
        for index, seen in changed:
            self.state.set_attempt(index, seen, now)
            self._take_process(index, seen)
        await self._plan(now)
        return self._ending if self._ending is Ending.LEFT else self._end()

    async def _plan(self, now: float) -> None:
        """What to do about the present state, and which trials to start."""
        if now >= self._sync_at:
            self._sync_at = now + _SYNC_SECONDS
            self._sync()
        self._plan_at = now + _PLAN_SECONDS
        await self._act()
        if not self._interrupts and self._ending is None:
            await self._judge(now)
            if self.state.spec.strategy.service is None:
                await self._supply(now)
            elif self._supplying is None or self._supplying.done():
                # An answer from the network may be long in coming; what runs is looked after meanwhile.
                self._supplying = asyncio.create_task(self._supply(now))
            self._schedule(now)
            await self._act()
        news = self._news[:]
        self._news.clear()
        self._audience.show(self.state, news, self._waits)

    async def _act(self) -> None:
        """Do what the engine plans, until nothing more follows from it."""
        while actions := self._engine.plan(self.state):
            for action in actions:
                await self._engine.perform(self.state, action)

    async def _judge(self, now: float) -> None:
        """Have the trials judged that reported; those that are stopped give their places to others at once."""
        if self.state.to_judge and now >= self._judge_at:
            try:
                await self._engine.judge(self.state)
            except WorldError:
                self._judge_at = now + _SUPPLY_RETRY_SECONDS
            await self._act()

    async def _supply(self, now: float) -> None:
        if now < self._supply_at:
            return
        try:
            while await self._engine.supply(self.state):
                self._plan_at = 0.0
        except WorldError:
            # The study's status says why.
            self._supply_at = now + _SUPPLY_RETRY_SECONDS

    def _pause(self) -> float:
        """Seconds to the next look, or to the next plan where there is nothing to look at."""
        if self.state.wakeups:
            self._plan_at = min(self._plan_at, self.state.wakeups[0][0])
        due = max(0.001, self._plan_at - self._world.now())
        return due if self._world.idle else min(due, _LOOK_SECONDS)

    # The scheduler's side --------------------------------------------------------------------------------------

    def _schedule(self, now: float) -> None:
        """Give places to waiting trials."""
        self._cluster.set_study(self._view())
        if self._gpus is not None and self._gpus.all:
            self._cluster.set_node(self._node(self._gpus))
        decisions = schedule(self._cluster, now)
        if decisions.next_wakeup is not None:
            self._plan_at = min(self._plan_at, decisions.next_wakeup)
        waiting = next(iter(decisions.waiting), None)
        self._waits = waiting.message if waiting is not None else None
        self._explain(waiting, now)
        for place in decisions.placements:
            self._place(place, now)

    def _view(self) -> StudyView:
        """The study for the scheduler: there are no queues here, and GPUs only where it is to use them."""
        state = self.state
        view = translate.study({**state.object, "status": state.status_written or state.status})
        gpu = view.gpu if self._gpus is not None and self._gpus.all else None
        return dataclasses.replace(
            view, queue=None, gpu=gpu, needs=ANY_NODE, cpu=0.0, memory=0.0, suspended=state.spec.suspend
        )

    def _node(self, gpus: Gpus) -> Node:
        """This machine, with the GPUs that no other study uses."""
        study = self._cluster.study(translate.study_key(self.state.namespace, self.state.name))
        capacity = gpus.free() + (study.gpus if study is not None else 0)
        kind = Kind(RESOURCE, gpus.all[0].model)
        return Node(platform.node(), {RESOURCE: min(int(capacity), len(gpus.all))}, kinds={RESOURCE: kind})

    def _explain(self, waiting: Waiting | None, now: float) -> None:
        """Write why the next trial waits, where that lasts, for `tuneyard queue` to show. There is no line here."""
        if waiting is None or waiting.reason == Reason.PARALLEL_LIMIT:
            self._waits_for = None
        elif self._waits_for != (waiting.index, waiting.reason):
            self._waits_for, self._waits_since = (waiting.index, waiting.reason), now
        elif self._waits_since is not None and now >= self._waits_since + _WAITED_SECONDS:
            self._waits_since = None
            start = outlook(self._cluster, [waiting], now)[waiting.study].start
            with contextlib.suppress(Conflict):  # it has changed: then there is other news soon
                self._write(waiting, translate.waits(waiting, Outlook(start=start), None)["status"], now)

    def _place(self, place: Place, now: float) -> None:
        try:
            self._write(place, translate.placed(place, None, now)["status"], now)
        except Conflict:
            self._cluster.forget(place)

    def _write(self, about: Place | Waiting, status: Object, now: float) -> None:
        """Change a trial's status, if it is still the one that was decided on.

        Raises:
            Conflict: it is not.
        """
        trial = self._cluster.trial(about.study, about.index)
        version = int(trial.view.version or 0) if trial is not None and trial.view is not None else 0
        after = self._store.patch_trial(self.state.uid, about.index, version, status)
        self.state.set_trial(after, now)
        self._take_trial(after)

    def _take_trial(self, trial: Object) -> None:
        self._cluster.set_trial(translate.trial(trial))

    def _take_process(self, index: int, seen: AttemptSeen) -> None:
        """A process counts against parallel and holds its GPUs for as long as it lives, also when it is told to end."""
        uid = f"{index}/{seen.attempt}"
        if seen.state == "ended":
            self._cluster.remove_pod(uid)
            return
        key = AttemptKey(translate.study_key(self.state.namespace, self.state.name), index, seen.attempt)
        trial = self.state.trials.get(index)
        place = Placement.model_validate(trial.placement) if trial is not None and trial.placement else None
        held = taken(place, None) if place is not None else NOTHING
        self._cluster.set_pod(PodView(uid, place.node if place else None, held, key, self.state.uid))

    # The end ---------------------------------------------------------------------------------------------------

    def _sync(self) -> None:
        """Take in what other processes did to the study."""
        try:
            study = self._store.study_if_changed(self.state.uid, self.state.version)
        except Conflict:
            study = None
            self.state.deleting = True
        if study is not None:
            self.state.set_study(study)
        if self.state.deleting and self._ending is None:
            self._ending = Ending.DELETED
            self._world.interrupt()

    def _interrupt(self) -> None:
        """Ctrl-C: first wait for the trials that run, then stop them, then kill them."""
        self._interrupts += 1
        self._plan_at = 0.0
        self._audience.interrupted(self._interrupts, len(self._world.live))
        if self._interrupts == 2:
            self._world.interrupt()
        elif self._interrupts > 2:
            self._world.kill()

    def _leave(self) -> None:
        self._plan_at = 0.0
        self._ending = Ending.LEFT

    def _end(self) -> Ending | None:
        """Why the run is over; None while it goes on."""
        state = self.state
        if not self._world.idle:
            return None
        if self._ending is not None:
            return self._ending
        phase = (state.status_written or state.status).get("phase")
        if phase in {Ending.COMPLETE, Ending.FAILED} and not state.pending and not state.active:
            return Ending(phase)
        if self._interrupts:
            return Ending.INTERRUPTED
        if phase == Ending.BLOCKED or (phase == Ending.SUSPENDED and not state.active):
            return Ending(phase)
        return None

    async def _write_last_status(self) -> None:
        """The last numbers may have come within the second after the last write."""
        self.state.status_due = self.state.status_full_at = 0.0
        with contextlib.suppress(WorldError):
            await self._act()


def _strategies(study: Object) -> StrategyClient:
    """In this process; a study with a service of its own may ask whatever there is, as its programs may."""
    inner = InProcess(Advisor(patience=PATIENCE))
    if not (study["spec"].get("strategy") or {}).get("service"):
        return inner
    from tuneyard_operator.strategy_services import WithServices  # noqa: PLC0415 - few need what it imports

    return WithServices(inner, ["*"])
