"""What regrets say about strategies: beside random search, by rank, and whether a difference may be chance.

Regrets have the shape (strategies, tasks, seeds, budgets). The first strategy is random search; NaN is where one was
not run for so many trials.
"""

from __future__ import annotations

import numpy as np

LEAST = 1e-12
"""What random search's mean regret is taken for where it has found the optimum with every seed."""


def normalised(regret: np.ndarray) -> np.ndarray:
    """As a part of random search's mean over seeds, task by task and budget by budget; shape kept."""
    return np.asarray(regret / np.maximum(regret[0].mean(axis=1), LEAST)[:, None])


def ranks(regret: np.ndarray) -> np.ndarray:
    """Mean rank over tasks and seeds, 1 is the best and ties share theirs, shape (strategies, budgets)."""
    better = (regret[None] < regret[:, None]).sum(axis=1)
    same = (regret[None] == regret[:, None]).sum(axis=1)
    rank = np.where(np.isnan(regret), np.nan, 1 + better + (same - 1) / 2)
    return np.asarray(rank.mean(axis=(1, 2)))


def chances(relative: np.ndarray, own: int, others: list[int]) -> np.ndarray:
    """Holm-corrected p of the paired, two-sided Wilcoxon signed-rank test, shape (others, budgets); NaN where not run.

    Pairs are the task and seed; a difference of 0 counts half for either side. What is corrected for is the whole
    table: all others at all budgets.
    """
    pairs = relative.reshape(len(relative), -1, relative.shape[-1])
    return holm(np.array([[_wilcoxon(a, b) for a, b in zip(pairs[own].T, pairs[o].T, strict=True)] for o in others]))


def won(relative: np.ndarray, own: int, other: int, budget: int) -> str:
    """How often a strategy is ahead of another, level and behind, over tasks and seeds."""
    difference = relative[own, ..., budget] - relative[other, ..., budget]
    return f"{(difference < 0).sum()}-{(difference == 0).sum()}-{(difference > 0).sum()}"


def holm(chance: np.ndarray) -> np.ndarray:
    """Holm's step-down correction (1979) of p values; shape and NaN kept."""
    known = chance[~np.isnan(chance)]
    order = np.argsort(known, kind="stable")
    steps = np.maximum.accumulate((len(known) - np.arange(len(known))) * known[order])
    corrected = np.full(chance.shape, np.nan)
    sorted_back = np.empty(len(known))
    sorted_back[order] = np.minimum(steps, 1.0)
    corrected[~np.isnan(chance)] = sorted_back
    return corrected


def _wilcoxon(own: np.ndarray, other: np.ndarray) -> float:
    from scipy.stats import wilcoxon  # noqa: PLC0415

    if np.isnan([own, other]).any():
        return float("nan")
    if (own == other).all():
        return 1.0
    return float(wilcoxon(own, other, zero_method="zsplit").pvalue)
