"""`tuneyard importances`: which parameters matter, of a study on this machine or in a cluster."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from typing import Any, Final

from tuneyard.cli import tables, words
from tuneyard.cli.places import read
from tuneyard.cli.problem import Problem
from tuneyard_api.study import StudySpec
from tuneyard_operator.trial_state import TrialState, record
from tuneyard_strategy.contract import StudyDefinition
from tuneyard_strategy.errors import StrategyError
from tuneyard_strategy.explanation import ExplainRequest, Explanation, explain

Object = dict[str, Any]

_DOUBTFUL: Final = 0.3
"""A model that explains less than this is said to be doubtful."""


def importances(options: Namespace) -> int:
    """Print how much each parameter matters; or what is to be expected of each trial."""
    study, trials = read(options, options.study, trials=True)
    definition = StudyDefinition.from_spec(StudySpec.model_validate(study["spec"]))
    records = [record(TrialState.from_object(trial)) for trial in trials]
    try:
        found = explain(ExplainRequest(definition=definition, records=records, metric=options.metric))
    except StrategyError as error:
        raise Problem(f"study {options.study}: {error}", status=1) from error
    if options.output == "json":
        print(json.dumps(found.to_json(), indent=2))
        return 0
    if found.explained < _DOUBTFUL:
        said = f"the model explains only {_percent(found.explained)} of the differences between trials"
        sys.stderr.write(f"note: {said}; more trials may tell more\n")
    if options.trials:
        _print_trials(found, trials)
    else:
        _print_importances(found)
    return 0


def _print_importances(found: Explanation) -> None:
    headings = [tables.Heading("Parameter"), tables.Heading("Importance", True), tables.Heading("Alone", True)]
    tables.write(headings, [[each.name, f"{each.total:.2f}", f"{each.main:.2f}"] for each in found.importances])
    about = f"of {found.metric}, by {words.count(found.observations, 'trial')}"
    print(f"\n{about}; the model explains {_percent(found.explained)} of their differences")


def _print_trials(found: Explanation, trials: list[Object]) -> None:
    seen = {
        trial["spec"]["index"]: ((trial.get("status") or {}).get("observation") or {}).get("metrics", {})
        for trial in trials
    }
    headings = [tables.Heading("Trial"), *(tables.Heading(name, True) for name in ("Observed", "Expected", "+-"))]
    rows = [
        [
            str(each.index),
            words.number(seen[each.index].get(found.metric)),
            words.number(each.mean),
            f"{each.deviation:.2g}",
        ]
        for each in found.predictions
    ]
    tables.write(headings, rows)


def _percent(part: float) -> str:
    return f"{max(0.0, part):.0%}"
