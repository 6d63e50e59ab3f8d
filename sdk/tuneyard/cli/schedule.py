"""`tuneyard schedule`: with which configurations a trial was trained, one after the other."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from tuneyard.cli import tables, words
from tuneyard.cli.places import read, there, trials_of
from tuneyard.cli.problem import Problem
from tuneyard.cli.show import dump

Object = dict[str, Any]


def schedule(options: Namespace) -> int:
    """Print the trials that one goes on from, the first one first, and itself."""
    name, slash, number = options.trial.partition("/")
    if slash and not number.isdigit():
        raise Problem(f"'{options.trial}' is no trial; write STUDY/INDEX, for example digits/7, or STUDY for the best")
    study, known = read(options, name, trials=True)
    trials = {trial["spec"]["index"]: trial for trial in known}
    fidelity = study["spec"].get("fidelity")
    if fidelity is None:
        look = there(options, f"best {name}")
        raise Problem(f"study {name} has no fidelity, so that no trial of it goes on from another; see {look}")
    best = (study.get("status") or {}).get("best") or {"index": None}
    index = int(number) if slash else best["index"]
    if index is None:
        raise Problem(f"no trial of study {name} has succeeded yet; see {trials_of(options, name)}", status=1)
    if index not in trials:
        raise Problem(f"study {name} has no trial {index}; see {trials_of(options, name)}")
    parts = _parts(trials, index, fidelity["max"])
    if options.output == "table":
        goal = next(objective["metric"] for objective in study["spec"]["objectives"] if objective.get("goal"))
        _table(parts, fidelity["parameter"], goal)
    else:
        dump(parts, options.output)
    return 0


def _parts(trials: dict[int, Object], last: int, most: int) -> list[Object]:
    """From where to where of the fidelity each trial went, and with what; one that was deleted ends the way back."""
    parts: list[Object] = []
    index: int | None = last
    while index is not None and index in trials:
        trial = trials[index]
        rung = trial["spec"].get("rung") or {"fidelity": most}
        if parts:
            parts[-1]["from"] = rung["fidelity"]
        value = (trial.get("status") or {}).get("value")
        parts.append({"trial": trial["metadata"]["name"], "from": 0, "to": rung["fidelity"], "value": value})
        parts[-1]["parameters"] = trial["spec"]["parameters"]
        index = rung.get("continues")
    return parts[::-1]


def _table(parts: list[Object], parameter: str, goal: str) -> None:
    rows = [
        [
            part["trial"],
            f"{part['from']} to {part['to']}",
            "" if part["value"] is None else words.number(part["value"]),
            words.configuration(part["parameters"]),
        ]
        for part in parts
    ]
    amounts = [tables.Heading(name, numeric=True, verbatim=True) for name in (parameter, goal)]
    tables.write([tables.Heading("Trial"), *amounts, tables.Heading("Parameters")], rows)
