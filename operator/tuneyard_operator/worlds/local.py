"""The laptop's world: objects in SQLite, attempts as processes of this machine. One study a world."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tuneyard_api.common import GROUP
from tuneyard_api.trial import Phase
from tuneyard_operator import checkpoints, render
from tuneyard_operator.actions import Emit
from tuneyard_operator.attempts import AttemptSeen
from tuneyard_operator.state import StudyState
from tuneyard_operator.trial_state import TrialState
from tuneyard_operator.world import NO_RUNGS, Conflict, Rejected, WorldError
from tuneyard_operator.worlds import program
from tuneyard_operator.worlds.home import Home
from tuneyard_operator.worlds.leases import Lease
from tuneyard_operator.worlds.machine import Machine, visible
from tuneyard_operator.worlds.processes import LOG, Look, Process, tail
from tuneyard_operator.worlds.store import Store
from tuneyard_scheduler.backends import limits

Object = dict[str, Any]

FOLDER_ANNOTATION: Final = f"{GROUP}/folder"
"""On a Study: the folder of its manifest, in which its programs run."""
_LOG_BYTES: Final = 64 * 1024
_REPORT_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Started:
    """News: an attempt runs."""

    index: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """News: an attempt's end was written into its trial, which has ended, too, or waits for a retry."""

    trial: Object


@dataclass(frozen=True, slots=True)
class Told:
    """News: something about the study as a whole."""

    reason: str
    message: str
    warning: bool


News = Started | Recorded | Told


@dataclass(slots=True)
class _Live:
    """A process, and what was last said of it."""

    process: Process
    look: Look
    reports_at: float = 0.0
    interrupted: bool = False


class LocalWorld:
    """Implements the World port on this machine.

    Args:
        store: the objects.
        home: the folders.
        machine: what trials may use.
        lease: what holds the place of an attempt (trial and number, its placement, the study) until its process does;
            None while others hold it.
        hear: is told the news.
    """

    def __init__(
        self,
        store: Store,
        home: Home,
        machine: Machine,
        lease: Callable[[int, int, Object, Object], Lease | None],
        hear: Callable[[News], None],
    ) -> None:
        self._store = store
        self._home = home
        self._machine = machine
        self._lease = lease
        self._hear = hear
        self._live: dict[tuple[int, int], _Live] = {}
        self.on_trial: Callable[[Object], None] = lambda _: None
        """Is given each Trial as it is after every write."""

    def now(self) -> float:
        """See World."""
        return time.time()

    # Processes -------------------------------------------------------------------------------------------------

    @property
    def live(self) -> set[tuple[int, int]]:
        """The attempts (trial, attempt) whose processes have not ended."""
        return {key for key, live in self._live.items() if live.look.state in {"absent", "running"}}

    @property
    def idle(self) -> bool:
        """Whether there is no process to look after."""
        return not self._live

    def adopt(self, state: StudyState) -> None:
        """Find the processes that an earlier Tuneyard started: those that live, and ends that it did not record."""
        for index, attempt, folder in self._home.attempts(state.uid):
            trial = state.trials.get(index)
            current = trial is not None and trial.active and trial.attempt == attempt
            process = Process(folder)
            if (current and process.look(self.now()).state != "absent") or process.alive():
                self._live[index, attempt] = _Live(process, Look("absent"))

    def look(self, state: StudyState) -> list[tuple[int, AttemptSeen]]:
        """What has changed about the processes since the last call; their reports go into the state."""
        now = self.now()
        changed = []
        for (index, attempt), live in list(self._live.items()):
            live.process.press(now)
            look = live.process.look(now) if live.look.state in {"absent", "running"} else live.look
            news = look != live.look
            live.look = look
            if look.state in {"ended", "gone"} and live.process.over:
                del self._live[index, attempt]
            if look.state != "absent" and (news or now >= live.reports_at):
                live.reports_at = now + _REPORT_SECONDS
                _take_reports(state, index, attempt, live.process)
            if news:
                changed.append((index, _seen(attempt, live)))
        return changed

    def interrupt(self) -> None:
        """Ask all processes to end; each counts as lost, to be run again."""
        for live in self._live.values():
            live.interrupted = True
            live.process.stop(self.now())

    def kill(self) -> None:
        """End all processes now."""
        for live in self._live.values():
            live.process.kill()

    # The port --------------------------------------------------------------------------------------------------

    async def check_template(self, state: StudyState) -> str | None:
        """See World."""
        return "; ".join(program.problems(state.spec, _folder(state))) or None

    async def create_trials(
        self, state: StudyState, configurations: dict[int, Object], rungs: Mapping[int, Object] = NO_RUNGS
    ) -> list[Object]:
        """See World."""
        wanted = [render.trial(state, index, given, rungs.get(index)) for index, given in configurations.items()]
        trials = self._store.create_trials(state.uid, wanted)
        for trial in trials:
            self.on_trial(trial)
        return trials

    async def get_trial(self, state: StudyState, name: str) -> Object | None:
        """See World."""
        trial = self._store.trial(state.uid, int(name.rpartition("-")[2]))
        if trial is not None:
            self.on_trial(trial)
        return trial

    async def trials_of(self, state: StudyState, name: str) -> list[Object] | None:
        """See World."""
        del state
        study = self._store.study(name)
        return self._store.trials(study["metadata"]["uid"]) if study is not None else None

    async def patch_trial(self, state: StudyState, trial: TrialState, status: Object) -> Object:
        """See World."""
        after = self._store.patch_trial(state.uid, trial.index, trial.version, status)
        self.on_trial(after)
        if Phase(after["status"]["phase"]).terminal or after["status"].get("attempt", 0) > trial.attempt:
            self._hear(Recorded(after))
        return after

    async def start_attempt(self, state: StudyState, trial: TrialState) -> None:
        """See World."""
        key, cwd = (trial.index, trial.attempt), _folder(state)
        if key in self._live:
            return
        placement = trial.placement or {}
        part = float(placement.get("gpus") or 0)
        told = limits.environment(part, placement.get("memory"), of_visible=part) if 0 < part < 1 else {}
        given = render.values(state.spec, trial.rung, trial.parameters)
        told |= render.measuring(state.spec, placement)
        what = program.program(state.spec, state.name, *key, given, cwd, told)
        lease = self._lease(*key, placement, state.object)
        if lease is None:
            raise WorldError("another study has just taken its place")
        process = Process(self._home.attempt(state.uid, *key))
        ours = process.environment | checkpoints.environment(str(self._home.checkpoints(state.uid)), state, trial)
        env = what.env | ours | visible(placement, self._machine)
        try:
            process.start(what.argv, env, cwd, keep_open=lease.descriptors)
        except OSError as error:
            raise Rejected(f"trial {trial.index} cannot be started in {cwd}: {error.strerror}") from error
        finally:
            lease.close()
        self._live[key] = _Live(process, Look("absent"))
        self._hear(Started(*key))

    async def stop_attempt(self, state: StudyState, index: int, attempt: int) -> None:
        """See World."""
        del state
        live = self._live.get((index, attempt))
        if live is not None:
            live.process.stop(self.now())

    async def inspect_attempt(self, state: StudyState, trial: TrialState) -> AttemptSeen | None:
        """See World; `look` misses nothing, so an attempt that it knows is only slow to begin."""
        if (trial.index, trial.attempt) in self._live:
            return None
        folder = self._home.attempt(state.uid, trial.index, trial.attempt)
        return _seen(trial.attempt, _Live(Process(folder), Look("gone", None, self.now())))

    async def read_log(self, state: StudyState, index: int, attempt: int) -> str:
        """See World."""
        return tail(self._home.attempt(state.uid, index, attempt) / LOG, _LOG_BYTES)

    async def write_study(self, state: StudyState, status: Object) -> None:
        """See World. What somebody else changed meanwhile is taken in by the way."""

        def change(study: Object) -> None:
            study["status"] = status

        try:
            state.set_study(self._store.change_study(state.uid, change))
        except Conflict:
            return  # it was deleted; that is noticed elsewhere

    async def emit(self, state: StudyState, news: Emit) -> None:
        """See World."""
        del state
        self._hear(Told(news.reason, news.message, news.warning))


def _folder(state: StudyState) -> Path:
    return Path(state.object["metadata"]["annotations"][FOLDER_ANNOTATION])


def _take_reports(state: StudyState, index: int, attempt: int, process: Process) -> None:
    while reports := process.new_reports():
        for report in reports:
            state.add_report(index, attempt, report.get("step"), report.get("metrics"))


def _seen(attempt: int, live: _Live) -> AttemptSeen:
    look, process = live.look, live.process
    if look.state == "running":
        return AttemptSeen(attempt, "running", started=look.started)
    if look.state == "gone" or (live.interrupted and process.stopping):
        stopped = "it was stopped with Ctrl-C, to be run again"
        lost = "its process is gone: killed, or lost with a restart of this machine"
        return AttemptSeen(
            attempt, "ended", started=look.started, finished=look.finished, disrupted=True,
            reason="Interrupted" if live.interrupted else "ProcessGone",
            message=stopped if live.interrupted else lost,
        )  # fmt: skip
    return AttemptSeen(
        attempt, "ended", started=look.started, finished=look.finished, exit_code=look.exit_code,
        termination=process.last_word(failed=look.exit_code != 0),
    )  # fmt: skip
