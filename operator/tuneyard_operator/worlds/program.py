"""From a study's template to a program of this machine: what a pod's first container becomes without a cluster."""

from __future__ import annotations

import copy
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from tuneyard_api.study import StudySpec
from tuneyard_operator import render

Object = dict[str, Any]

_REFERENCE: Final = re.compile(r"\$(?:\$|\(([^)]*)\))")
_AT: Final = "spec.template.spec"


class Program(NamedTuple):
    """What to run."""

    argv: list[str]
    env: dict[str, str]


def base_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What every program inherits: this process's own environment, without what an outer trial was told.

    `python` is the one that runs Tuneyard, and its output can be followed in the log line by line.
    """
    base = {name: value for name, value in environ.items() if not name.startswith("TUNEYARD_")}
    base["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", os.defpath)])
    return {"PYTHONUNBUFFERED": "1", **base}


def program(
    spec: StudySpec,
    study: str,
    index: int,
    attempt: int,
    parameters: Object,
    cwd: Path,
    more: Mapping[str, str] | None = None,
) -> Program:
    """An attempt's program, with the parameters filled in as in a pod.

    Args:
        spec: the study's.
        study: its name.
        index: the trial.
        attempt: its attempt.
        parameters: its configuration.
        cwd: the folder that it will run in.
        more: variables that it gets as well; what the template says of them stays.
    """
    container = copy.deepcopy(_containers(spec)[0])
    told = render.environment(study, index, attempt, parameters) | dict(more or {})
    render.fill_container(container, parameters, told)
    env = base_environment(os.environ)
    declared = _declared(container["env"], env)
    argv = [expand(part, declared) for part in [*(container.get("command") or []), *(container.get("args") or [])]]
    env |= declared
    return Program([_found(argv[0], env, cwd) or str(cwd / argv[0]), *argv[1:]], env)


def _declared(entries: list[Object], inherited: Mapping[str, str]) -> dict[str, str]:
    """The container's own variables; later ones may refer to earlier ones."""
    declared: dict[str, str] = {}
    for entry in entries:
        name = entry["name"]
        if "valueFrom" in entry:
            declared[name] = inherited.get(name, "")
        else:
            declared[name] = expand(str(entry.get("value") or ""), declared)
    return declared


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Kubernetes' $(NAME): a variable that does not exist stays as it is, and $$ is a literal $."""

    def value(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return "$"
        return variables.get(match.group(1), match.group(0))

    return _REFERENCE.sub(value, text)


def _found(command: str, env: Mapping[str, str], cwd: Path) -> str | None:
    """The path of a command; a relative one with a slash counts from the program's folder."""
    where = str(cwd / command) if "/" in command else command
    return shutil.which(where, path=env.get("PATH"))


def _containers(spec: StudySpec) -> list[Object]:
    found: list[Object] = spec.template["spec"]["containers"]
    return found


def problems(spec: StudySpec, cwd: Path) -> Iterator[str]:
    """A sentence for each thing in the template that stands in the way of running it here."""
    container, at = _containers(spec)[0], f"{_AT}.containers[0]"
    if spec.template["spec"].get("initContainers"):
        yield (
            f"{_AT}.initContainers: only the first container runs on a laptop; let its program do this work, or do it "
            "by hand before"
        )
    yield from (f"spec.{sentence}" for sentence in render.unknown_references(spec))
    env = base_environment(os.environ)
    for entry in container.get("env") or []:
        if "valueFrom" in entry and entry["name"] not in env:
            name = entry["name"]
            yield f"{at}.env: {name} comes out of a cluster (valueFrom); give it here first: export {name}=..."
    command = container.get("command")
    if not command:
        yield f"{at}.command: is missing, and a laptop has no image that says it; write for example [python, train.py]"
    elif "$" not in str(command[0]) and _found(str(command[0]), env, cwd) is None:
        yield f"{at}.command: there is no program {command[0]} on the PATH or in {cwd}; install it, or correct the name"


def notes(spec: StudySpec) -> Iterator[str]:
    """A sentence for each thing in the template that is left out here, and that a program may miss."""
    containers = _containers(spec)
    if len(containers) > 1:
        others = ", ".join(str(container["name"]) for container in containers[1:])
        yield f"only the first container, {containers[0]['name']}, runs on a laptop; left out: {others}"
    if containers[0].get("envFrom"):
        yield "envFrom reads from a cluster and is left out; set those variables in this shell instead"
