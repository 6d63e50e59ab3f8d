"""How good the configurations are that each strategy finds, beside random search, Sobol points and Optuna.

Regret is how far the best configuration so far is from the optimum, noise taken off; the figures are each strategy's
mean regret as a part of random search's, over the same seeds. `async` has 16 trials at a time, which take between one
and four units of simulated time. Ended runs are kept in ~/.cache/tuneyard/search, so that a benchmark that was stopped
goes on; --fresh begins anew, as a changed strategy needs.
"""

import argparse
import heapq
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _figures import save, show
from _searchers import peers, searcher
from _tasks import TASKS, Task

KEPT = Path.home() / ".cache" / "tuneyard" / "search"
BUDGETS = (25, 50, 100)
WORKERS = {"sequential": 1, "async": 16}


@dataclass(frozen=True)
class Run:
    """One study."""

    task: str
    mode: str
    strategy: str
    seed: int

    @property
    def path(self) -> Path:
        """Where its losses are kept."""
        return KEPT / f"{self.task}.{self.mode}.{self.strategy}.{self.seed}.json"


def losses(run: Run) -> list[float]:
    """The loss, without noise, of the configuration that looked best after each trial; kept for the next time."""
    if not run.path.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        found = list(search(TASKS[run.task], run))
        part = run.path.with_suffix(".part")
        part.write_text(json.dumps(found))
        part.rename(run.path)
    kept: list[float] = json.loads(run.path.read_text())
    return kept


def search(task: Task, run: Run) -> Iterator[float]:
    """Run a study in simulated time."""
    chance = np.random.default_rng((run.seed, 7))
    asked = searcher(run.strategy, task.parameters, run.seed)
    running: list[tuple[float, int, float]] = []
    clock, index, best = 0.0, 0, (np.inf, np.inf)
    while index < BUDGETS[-1] or running:
        while index < BUDGETS[-1] and len(running) < WORKERS[run.mode]:
            heapq.heappush(running, (clock + chance.uniform(1, 4), index, task.loss(asked.ask(index))))
            index += 1
        clock, ended, loss = heapq.heappop(running)
        seen = loss + task.noise * chance.standard_normal()
        asked.tell(ended, seen)
        best = min(best, (seen, loss))
        yield best[1]
    asked.close()


def regrets(tasks: list[str], mode: str, strategies: list[str], seeds: range) -> dict[str, dict[str, np.ndarray]]:
    """Regret at each budget by task and strategy, shape (len(seeds), budgets)."""
    tables: dict[str, dict[str, np.ndarray]] = {}
    for task in tasks:
        runs = {}
        for strategy in strategies:
            sys.stderr.write(f"\r{mode} {task} {strategy}".ljust(60))
            runs[strategy] = np.array([losses(Run(task, mode, strategy, seed)) for seed in seeds])
        known = TASKS[task].minimum
        floor = min(run.min() for run in runs.values()) if known is None else known
        tables[task] = {s: np.maximum(run[:, [b - 1 for b in BUDGETS]] - floor, 0) for s, run in runs.items()}
    sys.stderr.write("\r".ljust(60) + "\r")
    return tables


def relative(tables: dict[str, dict[str, np.ndarray]], strategy: str) -> np.ndarray:
    """Mean regret as a part of random search's, shape (tasks, budgets)."""
    return np.array([t[strategy].mean(axis=0) / np.maximum(t["random"].mean(axis=0), 1e-12) for t in tables.values()])


def ranks(tables: dict[str, dict[str, np.ndarray]], strategies: list[str]) -> np.ndarray:
    """Mean rank over tasks and seeds, 1 is the best, shape (strategies, budgets)."""
    regret = np.array([[t[s] for t in tables.values()] for s in strategies])
    return np.array([1 + (regret < own).sum(0) + ((regret == own).sum(0) - 1) / 2 for own in regret]).mean(axis=(1, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--modes", nargs="*", default=list(WORKERS))
    parser.add_argument("--strategies", nargs="*", default=["sobol", "tpe", "bayesian", *peers()])
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first", type=int, default=1000, help="the first seed; those below serve to try things out")
    parser.add_argument("--fresh", action="store_true", help="forget what was kept of these strategies")
    options = parser.parse_args()
    if options.fresh:
        for path in KEPT.glob("*.json"):
            if path.name.split(".")[2] in options.strategies:
                path.unlink()
    strategies, figures = ["random", *(s for s in options.strategies if s != "random")], {}
    seeds = range(options.first, options.first + options.seeds)
    for mode in options.modes:
        tables = regrets(options.tasks, mode, strategies, seeds)
        by_task = {s: relative(tables, s) for s in strategies}
        rank = ranks(tables, strategies)
        header = ["task", *strategies]
        last = len(BUDGETS) - 1
        show(
            f"{mode}: regret after {BUDGETS[-1]} trials as a part of random search's, {options.seeds} seeds",
            header,
            [[task, *(float(by_task[s][row, last]) for s in strategies)] for row, task in enumerate(options.tasks)],
        )
        rows: list[list[object]] = []
        for column, budget in enumerate(BUDGETS):
            rows.append([f"regret at {budget}", *(float(by_task[s][:, column].mean()) for s in strategies)])
            rows.append([f"mean rank at {budget}", *(float(r) for r in rank[:, column])])
            for number, s in enumerate(strategies):
                figures[f"{mode}_{s}_{budget}_regret"] = round(float(by_task[s][:, column].mean()), 4)
                figures[f"{mode}_{s}_{budget}_rank"] = round(float(rank[number, column]), 2)
        show(f"{mode}: all tasks", ["", *strategies], rows)
    save("search", {"first_seed": options.first, "seeds": options.seeds, "tasks": len(options.tasks), **figures})


if __name__ == "__main__":
    main()
