"""Rungs and brackets: the levels of fidelity at which trials are compared, and how many reach each."""

from __future__ import annotations

from typing import NamedTuple

from tuneyard_api.fidelity import FidelitySpec


def rungs(spec: FidelitySpec) -> tuple[int, ...]:
    """The fidelities at which asha compares trials: min, min x factor, ... and, the last, max.

    Li et al. 2020 (A System for Massively Parallel Hyperparameter Tuning, https://arxiv.org/abs/1810.05934).
    """
    found = [spec.min]
    while found[-1] * spec.factor < spec.max:
        found.append(found[-1] * spec.factor)
    return (*found, spec.max)


class Level(NamedTuple):
    """A rung of a bracket."""

    trials: int
    fidelity: int


def brackets(spec: FidelitySpec) -> tuple[tuple[Level, ...], ...]:
    """Hyperband's brackets, the one with the most trials first.

    Algorithm 1 of Li et al. 2018 (Hyperband, JMLR 18-185): with R the most fidelity and eta the factor, s goes from
    s_max = floor(log_eta(R / min)) to 0; a bracket begins with n = ceil((s_max + 1) / (s + 1) x eta^s) trials of
    R / eta^s each, and its i-th rung has floor(n / eta^i) trials of eta^i as much. Fidelities are cut to whole numbers.
    """
    eta, most = spec.factor, 0
    while spec.min * eta ** (most + 1) <= spec.max:
        most += 1
    found = []
    for s in range(most, -1, -1):
        first = -(-(most + 1) * eta**s // (s + 1))
        found.append(tuple(Level(first // eta**i, spec.max * eta**i // eta**s) for i in range(s + 1)))
    return tuple(found)


def kept(trials: int, factor: int) -> int:
    """How many of so many trials on a rung go on: the best one in `factor`, and one at least."""
    return max(1, trials // factor)
