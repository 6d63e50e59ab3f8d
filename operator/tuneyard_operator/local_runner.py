"""Runs one study on this machine: engine, strategy and scheduler in one loop that looks at the processes and sleeps."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from enum import StrEnum
from typing import Any, Final, Protocol

from tuneyard_operator.engine import Engine
from tuneyard_operator.local_scheduler import LocalScheduler
from tuneyard_operator.state import StudyState
from tuneyard_operator.strategy_client import InProcess, StrategyClient
from tuneyard_operator.world import Conflict, WorldError
from tuneyard_operator.worlds.home import Home
from tuneyard_operator.worlds.local import LocalWorld, News
from tuneyard_operator.worlds.machine import Machine
from tuneyard_operator.worlds.store import Store
from tuneyard_scheduler import translate
from tuneyard_scheduler.reasons import Reason
from tuneyard_scheduler.views import Outlook
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
        machine: what its trials may use.
        audience: whom to tell.
    """

    def __init__(self, store: Store, home: Home, study: Object, machine: Machine, audience: Audience) -> None:
        self._store = store
        self._audience = audience
        self._news: list[News] = []
        meta = study["metadata"]
        self._scheduler = LocalScheduler(machine, meta["uid"], translate.study_key(meta["namespace"], meta["name"]))
        self._world = LocalWorld(store, home, machine, self._scheduler.lease, self._news.append)
        self._world.on_trial = self._scheduler.set_trial
        self._strategies = _strategies(study)
        self._engine = Engine(self._world, self._strategies)
        self._supplying: asyncio.Task[None] | None = None
        self.state = self._engine.set_study(study)
        # Whoever runs a study again has mended what failed, maybe in a program of which the manifest says nothing.
        self.state.forgiven = self._world.now()
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
            self._begin(trial)
        self._world.adopt(self.state)

    def _begin(self, trial: Object) -> None:
        """Take in a trial of an earlier run. What failed is tried again at once: see `forgiven`."""
        if "notBefore" in (trial.get("status") or {}):
            version = int(trial["metadata"]["resourceVersion"])
            trial = self._store.patch_trial(self.state.uid, trial["spec"]["index"], version, {"notBefore": None})
        self.state.set_trial(trial, self._world.now())
        self._scheduler.set_trial(trial)

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
        """Leave the places that were not used, and the strategy: an answer that is still to come is not waited for."""
        self._scheduler.close()
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
            self._scheduler.set_process(index, seen.attempt, ended=seen.state == "ended")
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
        waiting = self._scheduler.waiting
        self._audience.show(self.state, news, waiting.message if waiting is not None else None)

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
        state = self.state
        study = {**state.object, "status": state.status_written or state.status}
        wakeup = self._scheduler.schedule(study, now, self._write, suspended=state.spec.suspend)
        if wakeup is not None:
            self._plan_at = min(self._plan_at, wakeup)
        self._explain(now)

    def _explain(self, now: float) -> None:
        """Write why the next trial waits, where that lasts, for `tuneyard queue` to show. There is no line here."""
        waiting = self._scheduler.waiting
        if waiting is None or waiting.reason == Reason.PARALLEL_LIMIT:
            self._waits_for = None
        elif self._waits_for != (waiting.index, waiting.reason):
            self._waits_for, self._waits_since = (waiting.index, waiting.reason), now
        elif self._waits_since is not None and now >= self._waits_since + _WAITED_SECONDS:
            self._waits_since = None
            outlook = Outlook(start=self._scheduler.start(waiting, now))
            # Where it has changed meanwhile, there is other news soon.
            status = translate.waits(waiting, outlook, None)["status"]
            self._write(waiting.index, self._scheduler.version(waiting), status)

    def _write(self, index: int, version: int, status: Object) -> bool:
        """Write a place, or why it waits, into a trial; False where that has changed meanwhile."""
        try:
            after = self._store.patch_trial(self.state.uid, index, version, status)
        except Conflict:
            return False
        self.state.set_trial(after, self._world.now())
        self._scheduler.set_trial(after)
        return True

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
