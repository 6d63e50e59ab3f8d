"""Checks of `initial`, the configurations to try first: names, values and the conditions under which a name exists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tuneyard_api.domain import admits, describe, is_active
from tuneyard_api.sentences import did_you_mean
from tuneyard_api.space import Parameter, ParameterValue
from tuneyard_api.study import StudySpec


def initial_problems(spec: StudySpec) -> Iterator[str]:
    """One sentence for each value in initial that cannot be used, and for each that is missing."""
    complete = spec.strategy.name == "manual"
    for index, configuration in enumerate(spec.initial):
        for problem in configuration_problems(spec.parameters, configuration, complete=complete):
            yield f"spec.initial[{index}]{problem}"


def configuration_problems(
    parameters: Sequence[Parameter], configuration: Mapping[str, ParameterValue], *, complete: bool
) -> Iterator[str]:
    """One text for each value that cannot be used or is missing, beginning with its path within the configuration."""
    names = [parameter.name for parameter in parameters]
    for name in configuration:
        if name not in names:
            yield f".{name}: there is no such parameter{did_you_mean(name, names) or '; leave it out'}"
    for parameter in parameters:
        name, active = parameter.name, is_active(parameter, configuration)
        if name not in configuration:
            if complete and active:
                yield f": {name} is missing; with strategy manual each configuration must be complete"
        elif not admits(parameter, configuration[name]):
            yield f".{name}: {configuration[name]!r} is not a value of the parameter; write {describe(parameter)}"
        elif not active:
            yield f".{name}: it exists only {_condition(parameter)}; write that beside it, or leave it out"


def _condition(parameter: Parameter) -> str:
    """The conditions of a parameter in words."""
    parts = [f"where {name} is {' or '.join(map(repr, values))}" for name, values in (parameter.when or {}).items()]
    return " and ".join(parts)
