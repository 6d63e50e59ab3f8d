"""Which trial this process is, and with which parameters: read from the environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_CHECKPOINT = re.compile(r"\.?(?P<name>(?P<index>\d+)-[0-9a-f]{8})(-.*)?")
"""A trial's folder, or with a dot and an ending a copy that becomes one."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The trial that this process belongs to.

    Attributes:
        study: the Study's name.
        name: the Trial's name, `<study>-<index>`.
        index: its number within the study, from 0.
        attempt: how often it was tried before: 0 unless this is a retry.
    """

    study: str
    name: str
    index: int
    attempt: int


def trial() -> Trial | None:
    """The trial that this process belongs to, or None where the program runs by hand.

    Raises:
        ValueError: TUNEYARD_INDEX or TUNEYARD_ATTEMPT is no whole number.
    """
    name = os.environ.get("TUNEYARD_TRIAL")
    if not name:
        return None
    study = os.environ.get("TUNEYARD_STUDY", "")
    return Trial(study=study, name=name, index=_number("TUNEYARD_INDEX"), attempt=_number("TUNEYARD_ATTEMPT"))


def checkpoint_dir() -> Path | None:
    """The folder in which the program finds the state that it may go on from, and keeps its own.

    All attempts of a trial have the same one. That of a trial that continues another begins with a copy of what the
    other one kept; with strategy pbt its configuration may be another one, and what is in the copy (an optimizer's
    learning rate, say) has to give way to it. It is empty where there is nothing to go on from. None where the program
    runs by hand, or in a cluster without `checkpoints`. Write a file under another name and rename it: the program may
    be ended at any moment.

    Where the study says how many checkpoints to keep, those of lower-numbered trials that are of no more use are
    deleted.

    Example:
        ```python
        folder = tuneyard.checkpoint_dir()
        if folder and (folder / "state.pt").exists():
            model, done = load(folder / "state.pt")
        ```
    """
    folder = os.environ.get("TUNEYARD_CHECKPOINT_DIR")
    if not folder:
        return None
    path, source = Path(folder), os.environ.get("TUNEYARD_CHECKPOINT_FROM")
    kept = os.environ.get("TUNEYARD_CHECKPOINTS_KEPT")
    if kept is not None:
        _delete_others(path.parent, _number("TUNEYARD_INDEX"), f"{kept} {path.name}")
    if source and Path(source).is_dir() and _is_empty(path):
        _copy(Path(source), path)
    path.mkdir(parents=True, exist_ok=True)
    return path


@cache
def _delete_others(study: Path, own: int, kept: str) -> None:
    """Delete the checkpoints of lower-numbered trials, and copies that were never finished, but not those to keep.

    Once a process: a program may ask for its folder at each step. What another process is about to delete or still
    writes is left to the next trial.
    """
    for folder in study.iterdir() if study.is_dir() else ():
        match = _CHECKPOINT.fullmatch(folder.name)
        if match is not None and int(match["index"]) < own and match["name"] not in kept.split():
            shutil.rmtree(folder, ignore_errors=True)


def _copy(source: Path, path: Path) -> None:
    """Copy a folder, whole or not at all; of several processes that do so at once one is the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    copy = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        shutil.copytree(source, copy, symlinks=True, dirs_exist_ok=True)
        try:
            copy.rename(path)
        except OSError:
            if _is_empty(path):
                raise  # nobody else was there first
    finally:
        with suppress(FileNotFoundError):
            shutil.rmtree(copy)


def _is_empty(folder: Path) -> bool:
    return not folder.is_dir() or next(folder.iterdir(), None) is None


def parameters(**defaults: bool | float | str) -> dict[str, Any]:
    """The trial's parameters, typed; those that it does not have take the default given here.

    The values are bool, int, float or str: what the manifest says, which no type checker knows.

    In a program that runs by hand these are the defaults alone, unless TUNEYARD_PARAMETERS holds a JSON object:

        TUNEYARD_PARAMETERS='{"lr": 0.1}' python train.py

    Args:
        **defaults: values for a program that runs by hand, and for conditional parameters that this trial lacks.

    Raises:
        ValueError: TUNEYARD_PARAMETERS is set to something else than a JSON object.
    """
    text = os.environ.get("TUNEYARD_PARAMETERS")
    if not text:
        return defaults
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise ValueError(  # noqa: TRY004  # the type is that of the text's content
            f"TUNEYARD_PARAMETERS is '{text[:80]}'; write a JSON object such as {{\"lr\": 0.01}}"
        )
    return defaults | given


def _number(variable: str) -> int:
    text = os.environ.get(variable, "0")
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{variable} is '{text}'; write a whole number") from None
