"""The configurations that a study begins with: checked, and completed where they leave parameters out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from tuneyard_api.domain import is_active
from tuneyard_api.space import ParameterValue
from tuneyard_strategy.rng import Stream, uniforms
from tuneyard_strategy.space import Configuration, Space

Given = Mapping[str, ParameterValue]
"""Values by parameter, as the user wrote them."""
TRIES = 4096
"""Random points among which the values left out are looked for."""


def initial_problems(space: Space, initial: Sequence[Given], *, complete: bool) -> list[str]:
    """What is wrong with the initial configurations, one sentence each.

    Args:
        space: the search space.
        initial: the configurations.
        complete: whether none may leave a parameter out.
    """
    problems: list[str] = []
    first_with: dict[Hashable, int] = {}
    for number, given in enumerate(initial):
        problems += (f"initial[{number}]{problem}" for problem in space.problems(given, complete=complete))
        first = first_with.setdefault(space.key(given), number)
        if first != number and _is_whole(space, given):
            problems.append(f"initial[{number}]: it is the same as initial[{first}]; write each configuration once")
    return problems


def completed(space: Space, initial: Sequence[Given], seed: int) -> tuple[list[Configuration], list[str]]:
    """The initial configurations with random values for the parameters that they leave out.

    Args:
        space: the search space.
        initial: configurations without problems.
        seed: of the study.

    Returns:
        The configurations, all different, and one sentence for each that cannot be completed.
    """
    whole = [number for number, given in enumerate(initial) if _is_whole(space, given)]
    table = space.table_of([initial[number] for number in whole])
    found: dict[int, Configuration] = dict(zip(whole, space.configurations(table), strict=True))
    taken = {space.key(configuration) for configuration in found.values()}
    problems = []
    for number in sorted(set(range(len(initial))) - found.keys()):
        configuration = _fill(space, initial[number], taken, seed, number)
        if configuration is None:
            problems.append(
                f"initial[{number}]: no values were found for the parameters left out that meet the constraints and "
                f"make a new configuration; write all of them, or leave the entry out"
            )
        else:
            taken.add(space.key(configuration))
            found[number] = configuration
    return [found[number] for number in sorted(found)], problems


def _is_whole(space: Space, given: Given) -> bool:
    return all(parameter.name in given or not is_active(parameter, given) for parameter in space.parameters)


def _fill(space: Space, given: Given, taken: set[Hashable], seed: int, number: int) -> Configuration | None:
    points = uniforms(seed, Stream.INITIAL, index=number, start=0, rows=TRIES, width=len(space.names))
    table = space.table(points, fixed=given)
    for row in np.flatnonzero(space.meets(table)):
        configuration = space.configurations(table.take(np.array([row])))[0]
        if space.key(configuration) not in taken:
            return configuration
    return None
