"""Warm start: what a study's strategy learns from before the first trial, and what people are told of that.

Of an earlier study those trials count that had ended when this one was created. That set does not change while the
earlier study exists, so that a restart finds the same; when it is deleted, its trials count no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tuneyard_api.common import epoch_seconds
from tuneyard_api.study import StudySpec
from tuneyard_api.trial import Phase
from tuneyard_strategy.contract import EarlierTrial
from tuneyard_strategy.earlier import fitted
from tuneyard_strategy.errors import DefinitionError
from tuneyard_strategy.space import Space

Object = dict[str, Any]

_TOLD_REASONS = 5


@dataclass(frozen=True)
class WarmStart:
    """What there is to learn from."""

    earlier: tuple[EarlierTrial, ...] = ()
    """The observations that fit the study's space."""
    reason: str = ""
    """For the condition WarmStarted: one word."""
    message: str = ""
    """A sentence; empty where the study has no warm start."""


def names(spec: StudySpec) -> list[str]:
    """The earlier studies that a study names."""
    return [source.study for source in spec.warm_start if source.study is not None]


def missing(spec: StudySpec, found: dict[str, list[Object] | None]) -> Iterator[str]:
    """One sentence for each earlier study that does not exist: before the first trial that is likely a wrong name."""
    for number, source in enumerate(spec.warm_start):
        if source.study is not None and found[source.study] is None:
            said = f"there is no study '{source.study}' in this namespace; correct the name, or leave the entry out"
            yield f"warmStart[{number}].study: {said}"


def warm_start(spec: StudySpec, created: float, found: dict[str, list[Object] | None]) -> WarmStart:
    """What a study learns from.

    Args:
        spec: the study's.
        created: when it was created, epoch seconds.
        found: the trials of each earlier study that it names; None where there is no such study.
    """
    earlier: list[EarlierTrial] = []
    gone = []
    for source in spec.warm_start:
        trials = found[source.study] if source.study is not None else []
        if trials is None:
            gone.append(f"study {source.study} is gone, and counts no more")
        else:
            earlier += _ended(trials, created)
        earlier += [EarlierTrial(parameters=o.parameters, metrics=o.metrics) for o in source.observations or ()]
    try:
        space = Space.from_spec(spec.parameters, spec.constraints)
    except DefinitionError:
        return WarmStart((), "InvalidSpec", "the study's space has to be mended first")
    fit = fitted(space, spec.objectives, earlier)
    said = [f"{len(fit.trials)} of {len(earlier)} earlier observations count", *_dropped(fit.dropped), *gone]
    reason = "StudyGone" if gone else "Observed" if fit.trials else "NothingFits" if earlier else "NothingFound"
    return WarmStart(tuple(fit.trials), reason, "; ".join(said))


def _ended(trials: Iterable[Object], created: float) -> Iterator[EarlierTrial]:
    """The trials with a result, or that failed, by a time; in the order of their indices.

    Of those that ran for a part of a fidelity only, those that had the most: the others are not comparable.
    """
    trials = sorted(trials, key=lambda item: int(item["spec"]["index"]))
    most = max((_rung(trial) for trial in trials), default=0)
    for trial in trials:
        status = trial.get("status") or {}
        phase, at = status.get("phase"), status.get("completionTime")
        if at is None or epoch_seconds(at) > created:
            continue
        if phase == Phase.SUCCEEDED and _rung(trial) in {0, most}:
            metrics = (status.get("observation") or {}).get("metrics")
            yield EarlierTrial(parameters=trial["spec"]["parameters"], metrics=metrics)
        elif phase in {Phase.FAILED, Phase.INFEASIBLE}:
            yield EarlierTrial(parameters=trial["spec"]["parameters"])


def _rung(trial: Object) -> int:
    """For how much of the fidelity it ran; 0 for one without a rung, which had all of it."""
    return int((trial["spec"].get("rung") or {}).get("fidelity", 0))


def _dropped(reasons: Counter[str]) -> Iterator[str]:
    if reasons:
        told = [f"{count} ({reason})" for reason, count in reasons.most_common(_TOLD_REASONS)]
        yield "left out: " + ", ".join(told)
