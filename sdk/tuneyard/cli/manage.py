"""`tuneyard stop` and `tuneyard delete`."""

from __future__ import annotations

import shutil
import time
from argparse import Namespace
from typing import Any, Final

from tuneyard.cli import words
from tuneyard.cli.places import again, find_study, opened
from tuneyard.cli.problem import Problem
from tuneyard_api.common import timestamp
from tuneyard_operator.worlds.home import Busy, Home, StudyLock
from tuneyard_operator.worlds.processes import GRACE_SECONDS, Process

Object = dict[str, Any]

_POLL_SECONDS: Final = 0.05
_MARGIN_SECONDS: Final = 5.0


def stop(options: Namespace) -> int:
    """Suspend a study."""
    with opened(options) as (home, store):
        study = find_study(store, options.study)
        uid = study["metadata"]["uid"]
        ended = (study.get("status") or {}).get("phase")
        if ended in {"Complete", "Failed"}:
            print(f"study {options.study} has ended already ({ended.lower()}); there is nothing to stop")
            return 0

        def suspend(item: Object) -> None:
            item["spec"]["suspend"] = True

        store.change_study(uid, suspend)
        running = sum(process.alive() for process in _processes(home, uid))
        rest = f"; {words.count(running, 'trial')} still running will go on to the end" if running else ""
        print(f"study {options.study} is suspended{rest}")
        print(f"go on with it: {again(options, 'run FILE')}; end its trials and remove it: "
              f"{again(options, 'delete ' + options.study)}")  # fmt: skip
    return 0


def delete(options: Namespace) -> int:
    """Remove a study, whoever runs it."""
    with opened(options) as (home, store):
        study = find_study(store, options.study)
        uid = study["metadata"]["uid"]

        def mark(item: Object) -> None:
            item["metadata"].setdefault("deletionTimestamp", timestamp(time.time()))

        store.change_study(uid, mark)
        with _lock(home, uid, options.study):
            stopped = _end(_processes(home, uid))
            trials = len(store.trials(uid))
            # The folder first: were this cut short, the record would say that there is more to remove.
            shutil.rmtree(home.study(uid), ignore_errors=True)
            store.delete_study(uid)
    rest = f" and {words.count(stopped, 'running program')}" if stopped else ""
    print(f"study {options.study} is deleted, with {words.count(trials, 'trial')}{rest}")
    return 0


def _processes(home: Home, uid: str) -> list[Process]:
    return [Process(folder) for _, _, folder in home.attempts(uid)]


def _lock(home: Home, uid: str, name: str) -> StudyLock:
    """The study's lock; whoever runs it sees that it is to be deleted, ends its trials and lets go."""
    give_up = time.monotonic() + GRACE_SECONDS + _MARGIN_SECONDS
    while True:
        try:
            return home.lock(uid)
        except Busy as busy:
            if time.monotonic() > give_up:
                said = f"process {busy.pid} runs study {name} and does not let go of it; end that process and try again"
                raise Problem(said, status=1) from None
        time.sleep(_POLL_SECONDS)


def _end(processes: list[Process]) -> int:
    """End what still runs; how many that were."""
    running = [process for process in processes if process.alive()]
    count = len(running)
    for process in running:
        process.stop(time.time())
    while running := [process for process in running if process.alive()]:
        for process in running:
            process.press(time.time())
        time.sleep(_POLL_SECONDS)
    return count
