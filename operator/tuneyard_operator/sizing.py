"""How much of a GPU a study's trials need, by the peaks that its first ones reached on a whole one.

Memory may depend on the parameters, so that the largest peak counts, and a margin is added to it. What was too little
for a trial is a peak as well: it would have been larger.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from tuneyard_api.study import GpuSpec
from tuneyard_api.trial import Outcome, Phase
from tuneyard_operator.attempts import GPU_OUT_OF_MEMORY
from tuneyard_operator.needs import STEP_MIB, round_share
from tuneyard_operator.trial_state import TrialState

Object = dict[str, Any]

PEAK: Final = "tuneyard/gpu_peak_mib"
TOTAL: Final = "tuneyard/gpu_total_mib"
"""The metrics by which a trial tells the most GPU memory that it used, and how much its GPU has."""
ENOUGH: Final = 3
"""From so many trials on the others get what these needed."""
MARGIN: Final = 1.2
NEARLY_WHOLE: Final = 0.95
"""A trial that needs so much of a GPU gets all of it."""


@dataclass(slots=True)
class Peaks:
    """What trials needed of a GPU; it only ever grows."""

    trials: set[int] = field(default_factory=set)
    """Those that told their peak."""
    mib: float = 0.0
    share: float = 0.0
    """The largest peaks: in MiB, and as a part of the GPU, where its size was told."""
    told: int = 0
    """Trials that an earlier process had counted."""

    @classmethod
    def resumed(cls, sizing: Mapping[str, Any] | None) -> Self:
        """What an earlier process wrote into the study's status."""
        known = sizing or {}
        return cls(set(), known.get("peak", 0.0), known.get("peakFraction", 0.0), known.get("trials", 0))

    def learn(self, trial: TrialState) -> None:
        """What a trial shows, be it once or again."""
        if trial.phase is Phase.SUCCEEDED:
            self.add(trial.index, trial.metrics)
        for attempt in trial.attempts[-1:]:
            self.add_too_little(attempt)

    def add(self, index: int, metrics: Mapping[str, float]) -> None:
        """A trial came to its end, with these metrics."""
        peak, total = metrics.get(PEAK, 0.0), metrics.get(TOTAL, 0.0)
        if peak <= 0:
            return
        self.trials.add(index)
        self.mib = max(self.mib, peak)
        if total > 0:
            self.share = max(self.share, min(1.0, peak / total))

    def add_too_little(self, attempt: Mapping[str, Any]) -> None:
        """An attempt has ended; it may have had too small a part of a GPU."""
        if attempt["outcome"] != Outcome.OUT_OF_MEMORY or attempt.get("reason") != GPU_OUT_OF_MEMORY:
            return
        if 0 < attempt.get("gpus", 0) < 1:
            self.share = max(self.share, attempt["gpus"])
            self.mib = max(self.mib, attempt.get("gpuMemory", 0))

    @property
    def count(self) -> int:
        """How many trials told their peak."""
        return max(self.told, len(self.trials))

    def status(self, gpu: GpuSpec | None) -> Object | None:
        """What is known, and what each trial is given from now on, for the study's status; None if it does not ask."""
        if gpu is None or not gpu.auto:
            return None
        known: Object = {"trials": self.count}
        if self.mib:
            known["peak"] = math.ceil(self.mib)
        if self.share:
            known["peakFraction"] = round(self.share, 4)
        return known | (self._given(by_memory=gpu.memory is not None) if self.count >= ENOUGH else {})

    def _given(self, *, by_memory: bool) -> Object:
        share = self.share * MARGIN
        if share >= NEARLY_WHOLE:
            return {"fraction": 1.0}
        if by_memory:
            return {"memory": math.ceil(self.mib * MARGIN / STEP_MIB) * STEP_MIB}
        return {"fraction": round_share(share)} if share else {}
