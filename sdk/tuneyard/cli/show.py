"""`tuneyard get` and `tuneyard best`."""

from __future__ import annotations

import json
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import yaml

from tuneyard.cli import tables, words
from tuneyard.cli.places import again, find_study, opened, read, there, trials_of
from tuneyard.cli.problem import Problem
from tuneyard_api.kinds import STUDY, TRIAL, Column
from tuneyard_operator.worlds.home import Home

Object = dict[str, Any]


def get(options: Namespace) -> int:
    """List studies or trials."""
    with opened(options) as (home, store):
        if options.kind in {"studies", "study"}:
            items = [find_study(store, options.study)] if options.study else store.studies()
            columns = list(STUDY.columns)
        else:
            studies = [find_study(store, options.study)] if options.study else store.studies()
            items = [trial for study in studies for trial in store.trials(study["metadata"]["uid"])]
            here = (column for column in TRIAL.columns if column.name != "Node")  # all of them run on this machine
            columns = [*here, Column("Parameters", ".spec.parameters", "object", "The configuration.")]
        if options.output in {"yaml", "json"}:
            single = options.study and options.kind in {"studies", "study"}
            dump(items[0] if single else {"apiVersion": "v1", "kind": "List", "items": items}, options.output)
        elif items:
            shown = [as_seen(item, home) for item in items]
            _print_table(shown, [column for column in columns if options.output == "wide" or not column.wide])
        else:
            sys.stderr.write(f"there are no {options.kind} yet; start a study: {again(options, 'run FILE')}\n")
    return 0


def as_seen(item: Object, home: Home) -> Object:
    """A study that nobody runs is not running, although it was when that was written last."""
    phase = (item.get("status") or {}).get("phase")
    goes_on = item["kind"] == "Study" and phase in {None, "Pending", "Running"}
    if goes_on and home.runner(item["metadata"]["uid"]) is None:
        return {**item, "status": {**(item.get("status") or {}), "phase": "Interrupted", "replicas": None, "eta": None}}
    return item


def _print_table(items: Sequence[Object], columns: Sequence[Column]) -> None:
    headings = [tables.Heading(column.name, column.type in {"number", "integer"}) for column in columns]
    rows = [[str(item["metadata"]["name"]), *(_cell(each, _at(item, each.path)) for each in columns)] for item in items]
    tables.write([tables.Heading("Name"), *headings], rows)


def _at(item: Object, path: str) -> Any:
    """The value at a JSONPath such as .status.best.value; None where there is none."""
    found: Any = item
    for key in path.lstrip(".").split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _cell(column: Column, value: Any) -> str:
    if value is None:
        return ""
    if column.type == "date":
        return words.age(value)
    if isinstance(value, dict):
        return words.configuration(value)
    return words.number(value) if column.type == "number" else str(value)


def best(options: Namespace) -> int:
    """Print the best configuration."""
    study, _ = read(options, options.study)
    found = (study.get("status") or {}).get("best")
    goals = [objective["metric"] for objective in study["spec"]["objectives"] if objective.get("goal")]
    if len(goals) > 1:
        look = there(options, f"pareto {options.study}")
        raise Problem(
            f"study {options.study} has {len(goals)} objectives ({', '.join(goals)}), and no trial that is best in all "
            f"of them; see those that no other one beats: {look}"
        )
    if found is None:
        look = trials_of(options, options.study)
        raise Problem(f"no trial of study {options.study} has succeeded yet; see {look}", status=1)
    if options.recommended:
        found = _recommended(study, options.study)
    _BEST[options.output](found, study)
    return 0


def _recommended(study: Object, name: str) -> Object:
    """The recommended trial in the form of the best one: its value is the expected one."""
    found = study["status"].get("recommended")
    if found is None:
        said = (
            "it has not ended, has too few results (10 are needed, or two for each parameter), trials of different "
            "fidelity (asha, hyperband, bohb, pbt), or a service of its own as strategy"
        )
        raise Problem(f"no trial of study {name} is recommended: {said}", status=1)
    return {**found, "value": found["expected"], "metrics": {}}


def _best_table(found: Object, study: Object) -> None:
    goal = next(objective for objective in study["spec"]["objectives"] if objective.get("goal"))
    rows = [("Trial", str(found["trial"])), (f"{goal['metric']} ({goal['goal']})", words.number(found["value"]))]
    rows += [(name, words.number(value)) for name, value in found["metrics"].items() if name != goal["metric"]]
    parameters = [(name, words.exact(value)) for name, value in found["parameters"].items()]
    width = max(len(name) for name, _ in [*rows, *parameters])
    for name, value in rows:
        print(f"{name:<{width}}   {value}")
    print()
    for name, value in parameters:
        print(f"{name:<{width}}   {value}")
    for line in words.recommended(study["status"]) if found is study["status"]["best"] else ():
        print(f"\n{line}")


def _best_env(found: Object, _: Object) -> None:
    for name, value in found["parameters"].items():
        print(f"TUNEYARD_PARAM_{name}={shlex.quote(words.exact(value))}")


def _best_object(output: str) -> Callable[[Object, Object], None]:
    def write(found: Object, _: Object) -> None:
        dump({name: found[name] for name in ("trial", "value", "metrics", "parameters")}, output)

    return write


_BEST: Final[Mapping[str, Callable[[Object, Object], None]]] = {
    "table": _best_table,
    "env": _best_env,
    "yaml": _best_object("yaml"),
    "json": _best_object("json"),
}


def dump(value: Object | list[Object], output: str) -> None:
    """Print an object as json or yaml."""
    if output == "json":
        print(json.dumps(value, indent=2))
    else:
        yaml.safe_dump(value, sys.stdout, sort_keys=False, allow_unicode=True)
