"""How much of the front each strategy finds where there are several objectives, beside random search and Optuna.

The measure is hypervolume: of the trials that look best after so many (no other one beats them), noise taken off. What
is missing of the true front's is shown as a part of what random search misses. One trial at a time; a task and seed at
a time, the same for all. Ended studies are kept, so that a benchmark that was stopped goes on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import _fronts
import numpy as np
from _cells import kept, version
from _figures import save, show
from _fronts import FRONTS, FrontTask
from _searchers import SCRIPTS, Ours, Peer, Searcher, present, requirements
from _searchers import sources as own_sources
from _significance import normalised, ranks

from tuneyard_strategy.pareto import hypervolume, nondominated

KEPT = Path.home() / ".cache" / "tuneyard" / "pareto"
BUDGETS = (50, 100)
OURS = ("random", "tpe", "bayesian")
SAMPLERS = {
    "optuna-nsga2": ("optuna", "optuna", "nsga2"),
    "optuna-tpe": ("optuna", "optuna", "tpe"),
    "optuna-gp": ("optuna-gp", "optuna", "gp"),
}
"""Peers: their environment, script and method."""


def begin(name: str, task: FrontTask, seed: int) -> Searcher:
    """The search of a name."""
    count = len(task.reference)
    if name not in SAMPLERS:
        return Ours(name, task.parameters, seed, [f"loss{number}" for number in range(count)])
    room, script, method = SAMPLERS[name]
    return Peer((room, script, f"{method}:{count}"), task.parameters, seed)


def missing(task: FrontTask, asked: Searcher, seed: int, budgets: list[int]) -> list[float]:
    """How much of the true front's hypervolume is missing after so many trials; as a part of it."""
    chance, reference = np.random.default_rng((seed, 11)), np.array(task.reference)
    true, seen = np.empty((2, budgets[-1], len(reference)))
    for index in range(budgets[-1]):
        true[index] = task.losses(asked.ask(index))
        seen[index] = true[index] + task.noise * chance.standard_normal(len(reference))
        asked.tell(index, seen[index].tolist())
    asked.close()
    fronts = (true[:budget][nondominated(seen[:budget])] for budget in budgets)
    return [1 - hypervolume(front, reference) / task.volume for front in fronts]


def sources(name: str) -> tuple[Path, ...]:
    """The files that decide what a search comes to."""
    here = (Path(__file__), Path(_fronts.__file__))
    if name not in SAMPLERS:
        return (*here, *own_sources(name))
    room, script, _ = SAMPLERS[name]
    return (*here, SCRIPTS / "lines.py", SCRIPTS / f"{script}_peer.py", requirements(room))


def cell(name: str, task: FrontTask, seed: int, budgets: list[int]) -> tuple[list[float], float]:
    """What is missing after so many trials of a study, and the mean CPU seconds of an ask; kept."""

    def run() -> tuple[list[float], float]:
        asked = begin(name, task, seed)
        return missing(task, asked, seed, budgets), sum(asked.seconds) / budgets[-1]

    path = KEPT / f"{name}-{version(sources(name))}" / f"{task.name}.{seed}.{'-'.join(map(str, budgets))}.json"
    gaps, seconds = kept(path, run)
    return gaps, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=list(FRONTS))
    parser.add_argument("--strategies", nargs="*", default=[*OURS, *SAMPLERS])
    parser.add_argument("--trials", type=int, default=BUDGETS[-1], help="the largest budget")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first", type=int, default=1000, help="the first seed; those below serve to try things out")
    options = parser.parse_args()
    there = present(options.strategies, {name: room for name, (room, _, _) in SAMPLERS.items()})
    strategies = list(dict.fromkeys(["random", *there]))
    budgets = [budget for budget in BUDGETS if budget <= options.trials]
    gap = np.empty((len(strategies), len(options.tasks), options.seeds, len(budgets)))
    seconds = np.zeros(len(strategies))
    for number, column, row in np.ndindex(options.seeds, len(options.tasks), len(strategies)):
        name, task, seed = strategies[row], FRONTS[options.tasks[column]], options.first + number
        sys.stderr.write(f"\r{seed} {task.name} {name}".ljust(60))
        gap[row, column, number], taken = cell(name, task, seed, budgets)
        seconds[row] += taken / gap[row, ..., 0].size
    sys.stderr.write("\r".ljust(60) + "\r")
    figures: dict[str, float | int | str] = {"first_seed": options.first, "seeds": options.seeds}
    relative, rank = normalised(gap).mean(axis=(1, 2)), ranks(gap)
    for column, budget in enumerate(budgets):
        rows: list[list[object]] = []
        for number, name in enumerate(strategies):
            found = (1 - gap[number, ..., column].mean(axis=1)).tolist()
            rows.append([name, *found, relative[number, column], rank[number, column], seconds[number]])
            own = name.replace("-", "_")
            for task, volume in zip(options.tasks, found, strict=True):
                figures[f"{task.replace('-', '_')}_{budget}_{own}_hypervolume"] = round(volume, 4)
            figures[f"missing_{budget}_{own}"] = round(float(relative[number, column]), 4)
            figures[f"rank_{budget}_{own}"] = round(float(rank[number, column]), 2)
            figures[f"{own}_mean_ask_seconds"] = round(float(seconds[number]), 4)
        show(
            f"{budget} trials, {options.seeds} seeds: volume, the true front's is 1; missing, random search's is 1",
            ["", *options.tasks, "missing", "mean rank", "s an ask"],
            rows,
        )
    save("pareto", figures)


if __name__ == "__main__":
    main()
