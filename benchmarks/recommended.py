"""What the recommended trial is worth, beside the best observed one, where results are noisy and where they are exact.

Regret is how far the trial is from the optimum, noise taken off, as a part of that of random search's best observed
one; the mean over tasks and seeds. One trial at a time, or more (--modes). Peers have a best observed trial only.
Ended studies are kept, so that a benchmark that was stopped goes on.
"""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path

import numpy as np
from _cells import WORKERS, Cell, Ended, kept, study, version
from _figures import save, show
from _searchers import ROOMS, present, searcher, sources
from _significance import normalised
from _suites import NAMES, task_of

from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.recommendation import RecommendRequest, recommend

KEPT = Path.home() / ".cache" / "tuneyard" / "recommended"
BUDGETS = (25, 50, 100)
NOISY = ["hartmann6-noisy", "blend-noisy", "bbob-noisy-f107-5d", "bbob-noisy-f124-5d"]
EXACT = [
    "branin", "hartmann6", "rosenbrock5", "ackley10", "blend", "branches", "svm", "sgd", "hpolib-naval",
    "hpolib-protein", "bbob-f3-5d", "bbob-f6-5d", "bbob-f8-10d", "bbob-f13-5d", "bbob-f15-10d", "bbob-f21-5d",
    "bbob-mixint-f8-10d", "bbob-mixint-f15-10d",
]  # fmt: skip
STRATEGIES = ("random", "tpe", "cmaes", "bayesian", "optuna-tpe")


def trials(cell: Cell) -> list[Ended]:
    """Those of a study; kept."""

    def run() -> list[Ended]:
        task = task_of(cell.task)
        asked = searcher(cell.strategy, task.parameters, cell.seed)
        found = list(islice(study(task, asked, WORKERS[cell.mode], cell.seed), BUDGETS[-1]))
        asked.close()
        return found

    folder = KEPT / f"{cell.strategy}-{version(tuple(sources(cell.strategy)))}"
    return [Ended(*each) for each in kept(folder / f"{cell.task}.{cell.mode}.{cell.seed}.json", run)]


def losses(cell: Cell, ended: list[Ended]) -> tuple[float, float]:
    """Of the best observed trial and of the recommended one, which is the former where there is none."""
    observed = min(ended, key=lambda each: (each.seen, each.index))
    definition = StudyDefinition.model_validate(
        {
            "parameters": task_of(cell.task).parameters,
            "objectives": [{"metric": "loss", "goal": "minimize"}],
            "strategy": {"name": cell.strategy if cell.strategy not in ROOMS else "random", "seed": cell.seed},
        }
    )
    records = [
        TrialRecord(index=index, parameters=configuration, state="succeeded", metrics={"loss": seen})
        for index, configuration, seen, _ in ended
    ]
    index = recommend(RecommendRequest(definition=definition, records=records)).index
    return observed.loss, next((each.loss for each in ended if each.index == index), observed.loss)


def regrets(task: str, mode: str, strategies: list[str], seeds: range) -> np.ndarray:
    """Shape (strategies, budgets, 2, seeds): of the best observed and of the recommended trial."""
    found = np.empty((len(strategies), len(BUDGETS), 2, len(seeds)))
    lowest = np.inf
    for row, strategy in enumerate(strategies):
        for place, seed in enumerate(seeds):
            sys.stderr.write(f"\r{mode} {seed} {task} {strategy}".ljust(60))
            cell = Cell(task, mode, strategy, seed)
            ended = trials(cell)
            lowest = min(lowest, *(each.loss for each in ended))
            for column, budget in enumerate(BUDGETS):
                found[row, column, :, place] = losses(cell, ended[:budget])
    minimum = task_of(task).minimum
    return np.asarray(found - (lowest if minimum is None else minimum))


def table(regret: list[np.ndarray], strategies: list[str]) -> tuple[list[list[object]], dict[str, float]]:
    """Rows and figures of the mean over tasks and seeds; regrets are by task."""
    rows_apart = np.array(regret).transpose(1, 3, 0, 4, 2)  # (strategies, 2, tasks, seeds, budgets)
    relative = normalised(rows_apart.reshape(-1, *rows_apart.shape[2:])).reshape(rows_apart.shape)
    mean = relative.mean(axis=(2, 3))
    rows: list[list[object]] = []
    figures: dict[str, float] = {}
    for row, strategy in enumerate(strategies):
        for which, what in enumerate(("best", "recommended")):
            if what == "recommended" and strategy in ROOMS:
                continue
            values = mean[row, which].tolist()
            rows.append([strategy, what, *values])
            name = f"{strategy}_{what}".replace("-", "_")
            figures |= {f"{name}_{budget}": round(value, 3) for budget, value in zip(BUDGETS, values, strict=True)}
    return rows, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noisy", nargs="*", default=NOISY, choices=NAMES, metavar="TASK")
    parser.add_argument("--exact", nargs="*", default=EXACT, choices=NAMES, metavar="TASK")
    parser.add_argument("--modes", nargs="*", default=["sequential"])
    parser.add_argument("--strategies", nargs="*", default=STRATEGIES)
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument("--first", type=int, default=1000, help="the first seed")
    options = parser.parse_args()
    strategies = list(dict.fromkeys(["random", *present(options.strategies)]))
    seeds = range(options.first, options.first + options.seeds)
    figures: dict[str, float | int] = {"first_seed": options.first, "seeds": options.seeds}
    for kind, tasks in {"noisy": options.noisy, "exact": options.exact}.items():
        for mode in options.modes:
            rows, found = table([regrets(task, mode, strategies, seeds) for task in tasks], strategies)
            sys.stderr.write("\r".ljust(60) + "\r")
            show(f"{kind} results, {mode}: regret after so many trials", ["", "trial", *map(str, BUDGETS)], rows)
            figures |= {f"{kind}_{mode}_{name}": value for name, value in found.items()}
    save("recommended", figures)


if __name__ == "__main__":
    main()
