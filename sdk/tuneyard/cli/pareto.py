"""`tuneyard pareto`: the trials of a study with several objectives that no other one beats."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from tuneyard.cli import tables, words
from tuneyard.cli.places import read, there, trials_of
from tuneyard.cli.problem import Problem
from tuneyard.cli.show import dump

Object = dict[str, Any]


def pareto(options: Namespace) -> int:
    """Print the Pareto front."""
    study, _ = read(options, options.study)
    goals = [objective for objective in study["spec"]["objectives"] if objective.get("goal")]
    if len(goals) == 1:
        look = there(options, f"best {options.study}")
        raise Problem(f"study {options.study} has one objective, {goals[0]['metric']}, and so a best trial; see {look}")
    front = (study.get("status") or {}).get("front")
    if front is None:
        look = trials_of(options, options.study)
        raise Problem(f"no trial of study {options.study} has succeeded yet; see {look}", status=1)
    if options.output == "table":
        _table(front, goals)
    else:
        dump(front, options.output)
    return 0


def _table(front: Object, goals: list[Object]) -> None:
    others = [name for name in front["trials"][0]["metrics"] if name not in {goal["metric"] for goal in goals}]
    names = [*(goal["metric"] for goal in goals), *others]
    headings = [f"{goal['metric']} ({goal['goal'][:3]})" for goal in goals] + others
    rows = [
        [
            trial["trial"],
            *(words.number(trial["metrics"][name]) for name in names),
            words.configuration(trial["parameters"]),
        ]
        for trial in front["trials"]
    ]
    columns = [tables.Heading(heading, numeric=True, verbatim=True) for heading in headings]
    tables.write([tables.Heading("Trial"), *columns, tables.Heading("Parameters")], rows)
    if front["size"] > len(front["trials"]):
        print(f"and {front['size'] - len(front['trials'])} more on the front; these dominate the most together")
