"""Ways through a space: candidates drawn point by point, and the list of all of them where it is short."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator

import numpy as np
from numpy.typing import NDArray

from tuneyard_strategy.errors import StrategyError
from tuneyard_strategy.rng import Stream, uniforms
from tuneyard_strategy.space import Configuration, Space, Table

FIRST_BLOCK, LARGEST_BLOCK = 64, 4096
"""Points drawn at a time: few at first, for a quick answer; more where most are refused. Powers of two, for Sobol."""
MAX_REFUSED = 2**18
"""Points in a row that are infeasible or known, after which a scan ends."""
MAX_LISTED = 2**17
"""Configurations in a list of all of them: more than a study can have trials."""
MAX_ENUMERATED = 2**20
"""Size of a space, constraints aside, up to which its feasible configurations are counted out."""

Draw = Callable[[int, int], NDArray[np.float64]]
"""Points first, first + 1, ... of a sequence in the unit cube, given (first, rows): shape (rows, d)."""


def scan(space: Space, draw: Draw, taken: set[Hashable], patience: int = MAX_REFUSED) -> Iterator[Configuration]:
    """The feasible configurations of a sequence of points that are not taken yet.

    Args:
        space: the search space.
        draw: the sequence; points are asked for once and in order.
        taken: keys of configurations in use; read again for every candidate.
        patience: how many points in a row may be infeasible or taken before the scan ends.
    """
    first, rows, refused = 0, FIRST_BLOCK, 0
    while refused < patience:
        table = space.feasible_table(draw(first, rows))
        first += rows
        accepted = 0
        for configuration in space.configurations(table):
            if space.key(configuration) not in taken:
                accepted += 1
                yield configuration
        refused = 0 if accepted else refused + rows
        if accepted < rows // 2:
            rows = min(2 * rows, LARGEST_BLOCK)


def short_list(space: Space) -> Table | None:
    """All feasible configurations in grid order, if there are at most MAX_LISTED and they are quickly found."""
    if space.cardinality is None or space.cardinality > MAX_ENUMERATED:
        return None
    blocks, total = [space.table(np.empty((0, len(space.names))))], 0
    try:
        for block in space.blocks():
            blocks.append(block)
            total += block.rows
            if total > MAX_LISTED:
                return None
    except StrategyError:
        return None
    return Table(np.vstack([block.cells for block in blocks]), np.vstack([block.active for block in blocks]))


def shuffled(space: Space, listed: Table, seed: int) -> Iterator[Configuration]:
    """A list of configurations in random order, as if drawn one by one from their distribution and not put back.

    Each configuration of weight w gets a time E / w, with E exponential, and they come in the order of their times
    (Efraimidis and Spirakis 2006). Those of weight 0 never come.
    """
    log_weights = np.zeros(listed.rows)
    for dimension, codes, active in zip(space.dimensions, listed.cells.T.astype(np.intp), listed.active.T, strict=True):
        if active.any():
            log_weights[active] += dimension.log_weights()[codes[active]]
    draws = uniforms(seed, Stream.ORDER, start=0, rows=listed.rows, width=1)[:, 0]
    with np.errstate(divide="ignore"):
        times = np.log(-np.log1p(-draws)) - log_weights
    order = np.argsort(times, kind="stable")
    order = order[log_weights[order] > -np.inf]
    for start in range(0, len(order), LARGEST_BLOCK):
        yield from space.configurations(listed.take(order[start : start + LARGEST_BLOCK]))


def why_infeasible(space: Space, seed: int) -> str:
    """One sentence that says which constraints are to blame when no configuration was found."""
    points = uniforms(seed, Stream.PROBE, start=0, rows=LARGEST_BLOCK, width=len(space.names))
    table = space.table(points)
    never = [
        f"constraints[{number}] '{constraint.text}'"
        for number, constraint in enumerate(space.constraints)
        if not space.meets(table, [constraint]).any()
    ]
    if not never:
        return "no configuration was found that meets all constraints together: loosen one, or widen the bounds"
    return f"no configuration was found that meets {' or '.join(never)}: loosen it, or widen the bounds"
