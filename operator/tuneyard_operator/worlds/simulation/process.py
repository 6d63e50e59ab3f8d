"""A process that may crash at any step: its coroutines, its calls to the API server, and its watches."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any, Final

from tuneyard_operator.worlds.simulation.apiserver import ApiServer, Object
from tuneyard_operator.worlds.simulation.faults import Faults
from tuneyard_operator.worlds.simulation.kernel import Call, Kernel, Sleep, Violation, Wish, Work, wait_for

Deliver = Callable[[str, Object], None]

_WAY: Final = 0.01
"""Seconds that a request, or its answer, is on its way at most."""
_DOWN: Final = (0.5, 8.0)
"""Seconds until a crashed process is back."""


class Unanswered(Exception):
    """A call whose answer is an error; whether it was carried out cannot be known."""


@dataclass(eq=False, slots=True)
class _Task:
    work: Work
    done: Callable[[], None] | None
    call: Call | None = None
    """The call that is on its way to the API server, not yet carried out."""


@dataclass(eq=False, slots=True)
class Watch:
    """List, then follow the log of one kind. Order is kept; events come late, again, or are lost until a new list."""

    process: Process
    kind: str
    deliver: Deliver
    select: Callable[[Object], bool] = lambda _: True
    on_listed: Callable[[Container[str], int], None] = lambda _uids, _version: None
    known: dict[str, Object] = field(default_factory=dict)
    """The objects that were told and not told to be gone, by uid: what the process may know."""
    synced: bool = False
    _at: int = 0
    _oldest: int = 0
    _busy: bool = False

    def open(self, on_synced: Callable[[], None]) -> None:
        """List after a moment, then follow."""
        self.process.later(self.process.kernel.jitter(0.01, 0.3), self._list, on_synced)

    @property
    def current(self) -> bool:
        """Whether all has been told."""
        return self.synced and self._at == len(self.process.api.logs[self.kind])

    def poke(self) -> None:
        """There is news in the log."""
        if self._busy or not self.synced:
            return
        self._busy = True
        kernel, faults = self.process.kernel, self.process.faults
        slow = kernel.chance(faults.slow_watch)
        kernel.counts["slow_watch"] += slow
        self.process.later(kernel.jitter(0.5, 5.0) if slow else kernel.jitter(0.001, 0.03), self._follow)

    def _follow(self) -> None:
        self._busy = False
        kernel, faults = self.process.kernel, self.process.faults
        if kernel.chance(faults.watch_gap):
            self.synced = False
            self.process.fault("watch_gap", f"loses its watch of {self.kind}")
            self.process.later(kernel.jitter(0.1, 5.0), self._list, None)
            return
        if kernel.chance(faults.repeated_events) and self._at > self._oldest:
            self.process.fault("repeated_events", f"hears of {self.kind} again")
            self._at = max(self._oldest, self._at - kernel.rng.randint(1, 4))
        log = self.process.api.logs[self.kind]
        while self._at < len(log):
            event, before, item = log[self._at]
            self._at += 1
            self._take(event, before, item)

    def _take(self, event: str, before: Object | None, item: Object) -> None:
        """An object that leaves the selection is told as deleted; one that was not in it is not told at all."""
        if event != "DELETED" and self.select(item):
            self.known[item["metadata"]["uid"]] = item
            self.deliver(event, item)
        elif before is not None and self.select(before):
            self.known.pop(item["metadata"]["uid"], None)
            self.deliver("DELETED", item)

    def _list(self, on_synced: Callable[[], None] | None) -> None:
        """Tell all there is, and what vanished in a gap with no more than its identity (as the reflector does)."""
        api = self.process.api
        self._at = self._oldest = len(api.logs[self.kind])
        self.synced = True
        before, self.known = self.known, {}
        for item in list(api.objects[self.kind].values()):
            if self.select(item):
                self.known[item["metadata"]["uid"]] = item
                self.deliver("ADDED", item)
        for uid, item in before.items():
            if uid not in self.known:
                self.deliver("DELETED", _stub(item))
        self.on_listed(self.known, api.version)
        if on_synced is not None:
            on_synced()


def _stub(item: Object) -> Object:
    meta = item["metadata"]
    kept = ("name", "namespace", "uid", "labels", "ownerReferences")
    return {"metadata": {key: meta[key] for key in kept if key in meta}}


class Process:
    """Runs coroutines until they end or it crashes. What it had in memory is then gone."""

    def __init__(self, name: str, kernel: Kernel, api: ApiServer, faults: Faults) -> None:
        self.name = name
        self.kernel = kernel
        self.api = api
        self.faults = faults
        self.up = False
        self.watches: list[Watch] = []
        self._life = 0
        self._tasks: dict[_Task, None] = {}

    # Life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with an empty memory."""
        self.up = True
        self.kernel.note(f"{self.name}: starts")
        self.begin()

    def begin(self) -> None:
        """Make the memory and open the watches."""
        raise NotImplementedError

    def crash(self) -> None:
        """Lose everything; of the requests on their way some are still carried out. It comes back after a while."""
        if not self.up:
            return
        self.fault("crash", "crashes")
        self.up = False
        self._life += 1
        for watch in self.watches:
            self.api.listeners[watch.kind].remove(watch)
        self.watches = []
        tasks, self._tasks = self._tasks, {}
        for task in tasks:
            if task.call is not None and self.kernel.chance(0.5):
                self._carry_out(task.call)
            task.work.close()
        self.ended()
        self.kernel.after(self.kernel.jitter(*_DOWN), self.start)

    def ended(self) -> None:
        """It has crashed."""

    def close(self) -> None:
        """The schedule is over."""
        for task in self._tasks:
            task.work.close()

    def fault(self, kind: str, said: str) -> None:
        """Count a fault, and tell it in the trace."""
        self.kernel.counts[kind] += 1
        self.kernel.note(f"{self.name}: {said}")

    def later(self, delay: float, run: Callable[..., None], *args: Any) -> None:
        """Plan something that is not done if the process has crashed by then."""
        self.kernel.after(delay, self._if_alive, self._life, run, args)

    def _if_alive(self, life: int, run: Callable[..., None], args: tuple[Any, ...]) -> None:
        if life == self._life:
            run(*args)

    def watch(self, kind: str, deliver: Deliver, select: Callable[[Object], bool] = lambda _: True) -> Watch:
        """Begin a watch; `Watch.open` lists."""
        watch = Watch(self, kind, deliver, select)
        self.watches.append(watch)
        self.api.listeners[kind].append(watch)
        return watch

    # Coroutines ------------------------------------------------------------------------------------------------

    def spawn(self, work: Work, done: Callable[[], None] | None = None, delay: float = 0.0) -> None:
        """Run a coroutine; `done` is called after its end."""
        task = _Task(work, done)
        self._tasks[task] = None
        self.later(delay, self._advance, task, None, None)

    @property
    def current(self) -> bool:
        """Whether it runs and has been told everything."""
        return self.up and all(watch.current for watch in self.watches)

    async def call(self, name: str, effect: Callable[[], Any]) -> Any:
        """Do something to the API server, and wait for the answer.

        Raises:
            Unanswered: the answer is an error; and what `effect` raises.
        """
        return await wait_for(Call(name, effect))

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await wait_for(Sleep(seconds))

    def _advance(self, task: _Task, value: Any, error: Exception | None) -> None:
        try:
            wish: Wish = task.work.send(value) if error is None else task.work.throw(error)
        except StopIteration:
            del self._tasks[task]
            if task.done is not None:
                task.done()
            return
        if isinstance(wish, Sleep):
            self.later(wish.seconds, self._advance, task, None, None)
        else:
            task.call = wish
            self.later(self.kernel.jitter(0.0, _WAY), self._arrive, task, wish)

    def _arrive(self, task: _Task, call: Call) -> None:
        """The request reaches the API server."""
        task.call = None
        kernel, faults = self.kernel, self.faults
        if kernel.chance(faults.crash_at_call):
            if kernel.chance(0.5):
                self._carry_out(call)
            self.crash()
            return
        value: Any = None
        error: Exception | None = Unanswered(f"{call.name}: the API server does not answer")
        if kernel.chance(faults.lost_write):
            self.fault("lost_write", f"{call.name} fails")
        else:
            value, refused = self._carry_out(call)
            if kernel.chance(faults.lost_answer):
                self.fault("lost_answer", f"{call.name} is not answered")
            else:
                error = refused
        slow = kernel.chance(faults.slow_answer)
        kernel.counts["slow_answer"] += slow
        self.later(kernel.jitter(0.5, 5.0) if slow else kernel.jitter(0.0, _WAY), self._advance, task, value, error)

    def _carry_out(self, call: Call) -> tuple[Any, Exception | None]:
        try:
            return call.effect(), None
        except Violation:
            raise
        except Exception as error:
            return None, error
