"""Tasks of bench-search by name and by group: those of `_tasks`, and published suites.

The suites' libraries are in an environment of their own, as peers are (`make peers`), and so is what evaluates: see
`peers/suites.py`. The functions of bbob are one or two of each of its five groups, chosen before anything had run. The
others serve to see whether what holds of those holds of these.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any, Protocol

import numpy as np
from _searchers import Lines, python
from _tasks import TASKS, Configuration

ROOM = "suites"
SUITES = {
    "hpolib": [f"hpolib-{data}" for data in ("naval", "parkinsons", "protein", "slice")],
    "bbob": [f"bbob-f{number}-{dimension}d" for number in (3, 6, 8, 13, 15, 21) for dimension in (5, 10)],
    "bbob-mixint": ["bbob-mixint-f8-10d", "bbob-mixint-f15-10d"],
    "bbob-noisy": ["bbob-noisy-f107-5d", "bbob-noisy-f124-5d"],
}
COMMON = {"own": list(TASKS)} | SUITES
"""What runs where no tasks are named."""
OTHERS = {
    "bbob-others": [
        f"bbob-f{number}-{dimension}d"
        for dimension in (10, 20)
        for number in range(1, 25)
        if f"bbob-f{number}-10d" not in SUITES["bbob"]
    ],
    "bbob-mixint-others": [f"bbob-mixint-f{number}-20d" for number in (1, 5, 6, 17, 21)],
}
GROUPS = COMMON | OTHERS
"""What stands for several tasks."""
NAMES = [task for tasks in GROUPS.values() for task in tasks]


class Searched(Protocol):
    """A task."""

    @property
    def parameters(self) -> list[dict[str, Any]]:
        """The space."""

    @property
    def minimum(self) -> float | None:
        """Of the loss; None where nobody knows."""

    def loss(self, configuration: Configuration) -> float:
        """Without noise."""

    def seen(self, configuration: Configuration, loss: float, chance: np.random.Generator) -> float:
        """What a strategy is told."""


class SuiteTask:
    """One that is evaluated elsewhere."""

    def __init__(self, name: str) -> None:
        self._name = name

    @cached_property
    def _facts(self) -> dict[str, Any]:
        return dict(ask({"task": self._name}))

    @property
    def parameters(self) -> list[dict[str, Any]]:
        """See Searched."""
        return list(self._facts["parameters"])

    @property
    def minimum(self) -> float:
        """See Searched."""
        return float(self._facts["minimum"])

    def loss(self, configuration: Configuration) -> float:
        """See Searched."""
        return float(ask({"task": self._name, "loss": configuration}))

    def seen(self, configuration: Configuration, _: float, chance: np.random.Generator) -> float:
        """See Searched."""
        return float(ask({"task": self._name, "seen": configuration, "draw": int(chance.integers(2**63))}))


@cache
def lines() -> Lines:
    """What evaluates; it ends with this process."""
    evaluating = Lines(ROOM, "suites.py")
    atexit.register(evaluating.close)
    return evaluating


def ask(message: dict[str, Any]) -> Any:
    """Its answer."""
    lines().say(message)
    return lines().hear()


@cache
def task_of(name: str) -> Searched:
    """The task of a name."""
    return TASKS[name] if name in TASKS else SuiteTask(name)


def chosen(names: Sequence[str]) -> list[str]:
    """The tasks of names, some of which may be of groups. One line names those whose suite is not installed."""
    tasks = list(dict.fromkeys(task for name in names for task in GROUPS.get(name, [name])))
    if python(ROOM).exists():
        return tasks
    missing = [task for task in tasks if task not in TASKS]
    if missing:
        sys.stderr.write(f"{', '.join(missing)}: left out, their suites are not installed (make peers)\n")
    return [task for task in tasks if task in TASKS]
