"""Studies in simulated time, one a cell of a benchmark's table: task, mode, strategy and seed.

Ended ones are kept in ~/.cache/tuneyard/search, so that a benchmark that was stopped goes on. The folder of a strategy
is named after the code that it is, so that another version of it begins anew. A task that changes takes another name.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _searchers import Searcher, searcher, sources
from _suites import Searched, task_of
from _tasks import Configuration

KEPT = Path.home() / ".cache" / "tuneyard" / "search"
WORKERS = {"sequential": 1, "parallel4": 4, "parallel16": 16}
"""Trials at a time by mode; each takes between one and four units of simulated time."""
Begin = Callable[[str, list[dict[str, Any]], int], Searcher]


@dataclass(frozen=True)
class Cell:
    """One study."""

    task: str
    mode: str
    strategy: str
    seed: int


@cache
def version(files: tuple[Path, ...]) -> str:
    """Names the content of files."""
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:12]


def losses(
    cell: Cell, trials: int, begin: Begin = searcher, files: Callable[[str], list[Path]] = sources
) -> list[float]:
    """The loss, without noise, of the configuration that looked best after each of so many trials; kept."""
    folder = KEPT / f"{cell.strategy}-{version(tuple(files(cell.strategy)))}"
    path = folder / f"{cell.task}.{cell.mode}.{cell.seed}.json"
    found: list[float] = json.loads(path.read_text()) if path.exists() else []
    if len(found) < trials:
        task = task_of(cell.task)
        asked = begin(cell.strategy, task.parameters, cell.seed)
        found = list(islice(search(task, asked, WORKERS[cell.mode], cell.seed), trials))
        asked.close()
        _keep(path, found)
    return found[:trials]


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """What is made, as JSON has it: from the file where it is kept, and kept there where it is not yet."""
    if not path.exists():
        _keep(path, make())
    return json.loads(path.read_text())


def _keep(path: Path, made: Any) -> None:
    """Whole or not at all, wherever it is stopped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(made))
    part.rename(path)


class Ended(NamedTuple):
    """A trial of a study: what a strategy was told of it, and its loss without noise."""

    index: int
    configuration: Configuration
    seen: float
    loss: float


def study(task: Searched, asked: Searcher, workers: int, seed: int) -> Iterator[Ended]:
    """The trials of a study without an end, as they end. The first n are the same however long it goes on."""
    chance = np.random.default_rng((seed, 7))
    running: list[tuple[float, int, Configuration, float]] = []
    clock, index = 0.0, 0
    while True:
        while len(running) < workers:
            takes, configuration = chance.uniform(1, 4), asked.ask(index)
            heapq.heappush(running, (clock + takes, index, configuration, task.loss(configuration)))
            index += 1
        clock, ended, configuration, loss = heapq.heappop(running)
        seen = task.seen(configuration, loss, chance)
        asked.tell(ended, seen)
        yield Ended(ended, configuration, seen, loss)


def search(task: Searched, asked: Searcher, workers: int, seed: int) -> Iterator[float]:
    """After each trial of a study, the loss of the one that looked best."""
    best = (np.inf, np.inf)
    for ended in study(task, asked, workers, seed):
        best = min(best, (ended.seen, ended.loss))
        yield best[1]


def regrets(
    tasks: list[str],
    mode: str,
    strategies: list[str],
    seeds: range,
    budgets: list[int],
    most: Mapping[str, int],
    **how: Any,
) -> np.ndarray:
    """How far the best is from the optimum, shape (strategies, tasks, seeds, budgets).

    Where nobody knows the optimum it is the best that any of the strategies has found, with any seed. NaN at budgets
    beyond the most trials that a strategy is given, in any mode ("skopt") or in one ("parallel16/skopt").
    """
    found = np.full((len(strategies), len(tasks), len(seeds), budgets[-1]), np.nan)
    for place, seed in enumerate(seeds):
        for column, task in enumerate(tasks):
            for row, strategy in enumerate(strategies):
                sys.stderr.write(f"\r{mode} {seed} {task} {strategy}".ljust(60))
                trials = min(most.get(f"{mode}/{strategy}", most.get(strategy, budgets[-1])), budgets[-1])
                found[row, column, place, :trials] = losses(Cell(task, mode, strategy, seed), trials, **how)
    sys.stderr.write("\r".ljust(60) + "\r")
    known = (task_of(task).minimum for task in tasks)
    floors = [np.nanmin(found[:, i]) if minimum is None else minimum for i, minimum in enumerate(known)]
    gaps: np.ndarray = found[..., [budget - 1 for budget in budgets]] - np.array(floors)[:, None, None]
    return np.maximum(gaps, 0.0)
