"""How good the configurations are that each strategy finds, beside random search, Sobol points and other optimisers.

Regret is how far the best configuration so far is from the optimum, noise taken off; the figures are each strategy's
mean regret as a part of random search's, over the same tasks and seeds, and its mean rank. Differences to `--against`
are tested by Wilcoxon's signed-rank test with Holm's correction. A budget is of trials that have ended, with 1, 4 or 16
at a time, which take between one and four units of simulated time.

Ended studies are kept, so that a benchmark that was stopped goes on: see `_cells`.
"""

import argparse
import sys
from typing import Any

import numpy as np
from _cells import WORKERS, regrets
from _figures import save, show
from _searchers import METHODS, present
from _significance import chances, normalised, ranks, won
from _suites import COMMON, GROUPS, NAMES, chosen

BUDGETS = (25, 50, 100, 200, 500, 1_000, 6_000)


def key(*parts: object) -> str:
    return "_".join(str(part) for part in parts if part).replace("-", "_")


def figures(mode: str, strategies: list[str], budgets: list[int], regret: np.ndarray, own: str) -> dict[str, float]:
    """Print the tables of a mode, or of all together; what is in them, flat."""
    relative, rank = normalised(regret), ranks(regret)
    mean, others = relative.mean(axis=(1, 2)), [s for s in strategies if s != own]
    chance = chances(relative, strategies.index(own), [strategies.index(s) for s in others])
    found, name = {}, mode or "all modes"
    rows: list[list[object]] = []
    for column, budget in enumerate(budgets):
        rows.append([f"regret at {budget}", *mean[:, column].tolist()])
        rows.append([f"mean rank at {budget}", *rank[:, column].tolist()])
        for number, strategy in enumerate(strategies):
            found[key(mode, "regret", budget, strategy)] = round(float(mean[number, column]), 4)
            found[key(mode, "rank", budget, strategy)] = round(float(rank[number, column]), 2)
    show(f"{name}: all tasks, random search's regret is 1", ["", *strategies], rows)
    rows = []
    for other, p in zip(others, chance, strict=True):
        row: list[object] = [other]
        for column, budget in enumerate(budgets):
            found[key(mode, "wilcoxon_holm_p", budget, other)] = round(float(p[column]), 5)
            score = won(relative, strategies.index(own), strategies.index(other), column)
            row.append("" if np.isnan(p[column]) else f"{score}  p {p[column]:.2g}")
        rows.append(row)
    title = f"{name}: {own} ahead - level - behind, by task and seed; p of Wilcoxon's test with Holm's correction"
    show(title, ["against", *map(str, budgets)], rows)
    return {name: value for name, value in found.items() if not np.isnan(value)}


def by_task(mode: str, tasks: list[str], strategies: list[str], budgets: list[int], regret: np.ndarray) -> None:
    for column, budget in enumerate(budgets):
        mean = normalised(regret)[..., column].mean(axis=2)
        shown = [number for number in range(len(strategies)) if not np.isnan(mean[number]).any()]
        show(
            f"{mode}: regret after {budget} trials as a part of random search's, by task",
            ["task", *(strategies[number] for number in shown)],
            [[task, *mean[shown, row].tolist()] for row, task in enumerate(tasks)],
        )


def limits(pairs: list[str]) -> dict[str, int]:
    """From NAME=TRIALS or MODE/NAME=TRIALS."""
    return {name: int(trials) for name, _, trials in (pair.partition("=") for pair in pairs)}


def options(text: str | None, results: str, strategies: list[str], trials: int) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tasks",
        nargs="*",
        default=list(COMMON),
        choices=[*GROUPS, *NAMES],
        metavar="TASK",
        help=f"{', '.join(NAMES)}; or groups of them: {', '.join(GROUPS)}",
    )
    parser.add_argument("--modes", nargs="*", default=list(WORKERS))
    parser.add_argument("--strategies", nargs="*", default=strategies)
    parser.add_argument("--against", default="bayesian", help="the strategy that others are tested against")
    parser.add_argument("--trials", type=int, default=trials, help="the largest budget")
    parser.add_argument(
        "--most", nargs="*", default=[], metavar="NAME=TRIALS", help="or MODE/NAME=TRIALS: a smaller one"
    )
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first", type=int, default=1000, help="the first seed; those below serve to try things out")
    parser.add_argument("--results", default=results, metavar="NAME", help="the file within results")
    return parser.parse_args()


def measure(given: argparse.Namespace, **how: Any) -> dict[str, float | int | str]:
    """Run the studies that are not kept, print the tables, and return what is in them."""
    strategies = list(dict.fromkeys(["random", *present(given.strategies), given.against]))
    tasks, seeds = chosen(given.tasks), range(given.first, given.first + given.seeds)
    if not tasks:
        sys.exit("no task is left")
    budgets = [budget for budget in BUDGETS if budget <= given.trials]
    most, parts, found = limits(given.most), [], {}
    for mode in given.modes:
        parts.append(regrets(tasks, mode, strategies, seeds, budgets, most, **how))
        by_task(mode, tasks, strategies, budgets, parts[-1])
        found |= figures(mode, strategies, budgets, parts[-1], given.against)
    together = figures("", strategies, budgets, np.concatenate(parts, axis=1), given.against)
    what = {"seeds": given.seeds, "tasks": " ".join(tasks), "modes": " ".join(given.modes)}
    return {"first_seed": given.first, **what, **together, **found}


def main() -> None:
    given = options(__doc__, "search", strategies=["sobol", "tpe", "bayesian", *METHODS], trials=200)
    save(given.results, measure(given))


if __name__ == "__main__":
    main()
