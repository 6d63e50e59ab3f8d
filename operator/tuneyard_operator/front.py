"""The Pareto front of a study with several objectives, kept up to date trial by trial."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuneyard_api.study import Objective
from tuneyard_operator.trial_state import TrialState
from tuneyard_strategy.history import LARGEST
from tuneyard_strategy.pareto import spread

SHOWN = 20
"""Trials of the front that a study's status names; it has the size of the whole front, too."""


class Front:
    """Trials that no other one beats: none is as good in every objective and better in one. Of equal ones, the first.

    It is a function of the set of trials that were added, whatever their order. Adding one costs O(front).
    """

    def __init__(self, goals: Sequence[Objective]) -> None:
        self._metrics = [goal.metric for goal in goals]
        self._aims = [goal for goal in goals if goal.target is not None]
        self._signs = np.array([goal.sign for goal in goals])
        self._losses = np.empty((0, len(goals)))
        self._trials: list[TrialState] = []
        self._shown: list[TrialState] | None = None
        self.reached: TrialState | None = None
        """The first trial that is as good as all targets."""

    def __len__(self) -> int:
        return len(self._trials)

    def __contains__(self, trial: TrialState) -> bool:
        return trial is self.reached or any(member is trial for member in self._trials)

    def add(self, trial: TrialState) -> None:
        """Take in a trial; one that lacks a metric is passed over."""
        if any(metric not in trial.metrics for metric in self._metrics):
            return
        if self._reaches_all(trial) and (self.reached is None or trial.index < self.reached.index):
            self.reached = trial
        loss = self._signs * np.clip([trial.metrics[metric] for metric in self._metrics], -LARGEST, LARGEST)
        as_good = np.flatnonzero((self._losses <= loss).all(axis=1))
        if any((self._losses[i] != loss).any() or self._trials[i].index < trial.index for i in as_good):
            return
        kept = np.flatnonzero((self._losses < loss).any(axis=1))
        self._losses = np.vstack([self._losses[kept], loss])
        self._trials = [*(self._trials[i] for i in kept), trial]
        self._shown = None

    def reaching(self) -> str | None:
        """A sentence about the first trial that reached all targets."""
        if self.reached is None:
            return None
        values = ", ".join(f"{a.metric} {self.reached.metrics[a.metric]:g} (target {a.target:g})" for a in self._aims)
        return f"trial {self.reached.index} reached {values}"

    def _reaches_all(self, trial: TrialState) -> bool:
        return bool(self._aims) and all(aim.is_reached_by(trial.metrics[aim.metric]) for aim in self._aims)

    def shown(self) -> list[TrialState]:
        """The trials to show: at most SHOWN, which together dominate the most; in the order of the first goal."""
        if self._shown is None:
            by_index = np.argsort([trial.index for trial in self._trials])
            chosen = by_index[spread(self._losses[by_index], SHOWN)] if self._trials else by_index
            rows = chosen[np.lexsort(self._losses[chosen].T[::-1])]
            self._shown = [self._trials[row] for row in rows]
        return self._shown
