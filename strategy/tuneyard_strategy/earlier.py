"""Earlier observations as a study's strategy takes them: those that fit its space, and why the others do not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneyard_api.domain import admits, is_active
from tuneyard_api.space import ParameterValue
from tuneyard_api.study import Objective
from tuneyard_strategy.contract import MAX_EARLIER, EarlierTrial
from tuneyard_strategy.space import Space


@dataclass(frozen=True)
class Fitted:
    """The observations that fit."""

    trials: list[EarlierTrial]
    """As configurations of the space, each complete; at most MAX_EARLIER."""
    dropped: Counter[str]
    """How many others there are, by the reason."""


def fitted(space: Space, objectives: Sequence[Objective], earlier: Sequence[EarlierTrial]) -> Fitted:
    """Take from earlier observations what a study can learn from.

    Parameters that the space has no more are left out of a configuration, and constraints are not asked: what breaks a
    new one still says what the objective is like there. A configuration that lacks a parameter, or has a value outside
    its range or between its steps, says nothing certain about any of this space, and is dropped. So is one whose
    metrics do not tell the objective and all bounded metrics, unless it failed.
    """
    trials, dropped = [], Counter[str]()
    for trial in earlier:
        found = _configuration(space, space.typed(trial.parameters))
        missing = next((o.metric for o in objectives if o.metric not in (trial.metrics or {})), None)
        if isinstance(found, str):
            dropped[found] += 1
        elif trial.metrics is not None and missing is not None:
            dropped[f"no metric {missing}"] += 1
        else:
            trials.append(EarlierTrial(parameters=found, metrics=trial.metrics))
    kept = _chosen(trials, objectives)
    if len(kept) < len(trials):
        dropped[f"more than {MAX_EARLIER}"] = len(trials) - len(kept)
    return Fitted(kept, dropped)


def _configuration(space: Space, given: Mapping[str, ParameterValue]) -> dict[str, ParameterValue] | str:
    """The configuration of the space that an earlier one is, or why it is none."""
    found: dict[str, ParameterValue] = {}
    for parameter in space.parameters:
        name = parameter.name
        if not is_active(parameter, found):
            continue
        if name not in given:
            return f"no value for {name}"
        if not admits(parameter, given[name]):
            return f"another range of {name}"
        found[name] = given[name]
    return found


def _chosen(trials: list[EarlierTrial], objectives: Sequence[Objective]) -> list[EarlierTrial]:
    """Where there are too many: the best half, and as many spread over the others; in their order."""
    goal = next((o for o in objectives if o.goal is not None), None)
    if len(trials) <= MAX_EARLIER or goal is None:
        return trials[:MAX_EARLIER]
    values = [goal.sign * trial.metrics[goal.metric] if trial.metrics else math.inf for trial in trials]
    order = sorted(range(len(trials)), key=values.__getitem__)
    half = MAX_EARLIER // 2
    rest = order[half:]
    spread = [rest[number * len(rest) // (MAX_EARLIER - half)] for number in range(MAX_EARLIER - half)]
    return [trials[number] for number in sorted(order[:half] + spread)]
