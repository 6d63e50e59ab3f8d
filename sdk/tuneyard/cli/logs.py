"""`tuneyard logs`."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Final

from tuneyard.cli.places import find_study, opened
from tuneyard.cli.problem import Problem
from tuneyard_operator.worlds.home import Home
from tuneyard_operator.worlds.processes import LOG, Process
from tuneyard_operator.worlds.store import Store

_CHUNK: Final = 1024 * 1024
_FOLLOW_SECONDS: Final = 0.2


def logs(options: Namespace) -> int:
    """Print a trial's log."""
    with opened(options) as (home, store):
        folder = _folder(home, store, options.trial, options.attempt)
    process = Process(folder)
    with (folder / LOG).open("rb") as log:
        while True:
            # Looked at first, so that what a program prints last is printed, too.
            runs = options.follow and process.look(time.time()).state == "running"
            while chunk := log.read(_CHUNK):
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            if not runs:
                return 0
            time.sleep(_FOLLOW_SECONDS)


def _folder(home: Home, store: Store, trial: str, attempt: int | None) -> Path:
    """The folder of the attempt that the user means."""
    name, slash, number = trial.rpartition("/")
    if not slash:
        name, _, number = trial.rpartition("-")  # the trial's own name, as `tuneyard get trials` prints it
    if not name or not number.isdigit():
        raise Problem(f"'{trial}' is no trial; write STUDY/INDEX, for example digits/7")
    study, index = find_study(store, name), int(number)
    trials = store.trials(study["metadata"]["uid"])
    if index >= len(trials):
        there = f"it has trials 0 to {len(trials) - 1}" if trials else "it has none yet"
        raise Problem(f"study {name} has no trial {index}; {there}")
    begun = {n: at for i, n, at in home.attempts(study["metadata"]["uid"]) if i == index and (at / LOG).exists()}
    if not begun:
        raise Problem(f"trial {index} of study {name} has not begun yet, so there is no log", status=1)
    if attempt is not None and attempt not in begun:
        raise Problem(f"trial {index} of study {name} has no attempt {attempt}; it has {', '.join(map(str, begun))}")
    return begun[max(begun) if attempt is None else attempt]
