"""What of the trials' curves matters to those who judge them, and which trials are to be judged now."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tuneyard_api.study import StudySpec
from tuneyard_strategy.contract import Curve, StudyDefinition
from tuneyard_strategy.stopping import decision_points

if TYPE_CHECKING:
    from tuneyard_operator.trial_state import TrialState


class Watch:
    """How a study's curves are read: in units of its fidelity, and only what its rules look at.

    Args:
        spec: of a study with rules that stop trials.
    """

    def __init__(self, spec: StudySpec) -> None:
        definition = StudyDefinition.from_spec(spec)
        self._metric = next(o.metric for o in spec.objectives if o.goal)
        self._first = spec.fidelity.first_step if spec.fidelity else 0
        self._points = decision_points(definition)
        self._warmup = spec.early_stopping.warmup if spec.early_stopping else None

    @classmethod
    def of(cls, spec: StudySpec) -> Watch | None:
        """The watch of a study; None where nothing stops its trials."""
        watch = cls(spec)
        return watch if watch._points or watch._warmup is not None else None

    @property
    def marks(self) -> tuple[int, ...]:
        """Steps that a thinned curve has to keep: the first report at or beyond each."""
        return tuple(point - 1 + self._first for point in self._points)

    def curve(self, points: Iterable[Mapping[str, Any]]) -> Curve:
        """The objective's curve, from the points of a Trial's; without a median rule, its rungs and its end."""
        by_step = {p["step"]: p["metrics"][self._metric] for p in points if self._metric in p["metrics"]}
        whole = [(step + 1 - self._first, value) for step, value in sorted(by_step.items()) if step + 1 > self._first]
        if self._warmup is not None:
            return whole
        kept, rung = [], 0
        for at, entry in enumerate(whole):
            reached = bisect_right(self._points, entry[0])
            if reached > rung or at == len(whole) - 1:
                kept.append(entry)
            rung = max(rung, reached)
        return kept

    def owes(self, trial: TrialState) -> bool:
        """Whether the trial reached a rung at which there is no record of its being let go on."""
        reached = bisect_right(self._points, self._done(trial))
        return reached > 0 and self._points[reached - 1] > trial.judged

    def is_due(self, trial: TrialState) -> bool:
        """Whether the trial is to be judged, now that it has reported."""
        if trial.verdict is not None or not trial.active:
            return False
        done = self._done(trial)
        return self.owes(trial) or (self._warmup is not None and done >= self._warmup and done > trial.heard)

    def heard(self, trial: TrialState) -> None:
        """The trial is judged as it is now."""
        trial.heard = self._done(trial)

    def _done(self, trial: TrialState) -> int:
        step = trial.reports.step_of(self._metric)
        return 0 if step is None else step + 1 - self._first
