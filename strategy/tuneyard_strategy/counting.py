"""How many configurations a space with conditional parameters has, without listing them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAX_STATES = 2**14
"""Beyond so many different sets of absent parameters at a time, the count becomes an upper bound."""


@dataclass(frozen=True)
class Condition:
    """A parameter exists only where its parent has one of these values."""

    parent: int
    """The position of the parent, above the parameter's own."""
    codes: frozenset[int]
    """The values, as codes."""


def count(sizes: Sequence[int | None], conditions: Sequence[Sequence[Condition]]) -> int | None:
    """Count the configurations.

    Parameters that no condition ties together multiply. Within a group that is tied together, one pass from parents to
    children keeps, for each set of parameters already known to be absent, the number of configurations so far.

    Args:
        sizes: how many values each parameter has; None for infinitely many.
        conditions: the conditions of each parameter; parents stand above children.

    Returns:
        The number, or None if it is infinite.
    """
    total = 1
    for group in _groups(conditions):
        number = _count_group(group, sizes, conditions)
        if number is None:
            return None
        total *= number
    return total


def _groups(conditions: Sequence[Sequence[Condition]]) -> list[list[int]]:
    """Positions that conditions tie together, each list with parents before children."""
    group_of = list(range(len(conditions)))
    for child, own in enumerate(conditions):
        for condition in own:
            old, new = group_of[child], group_of[condition.parent]
            group_of = [new if group == old else group for group in group_of]
    members: dict[int, list[int]] = defaultdict(list)
    for position, group in enumerate(group_of):
        members[group].append(position)
    return [_children_early(group, conditions) for group in members.values()]


def _children_early(group: list[int], conditions: Sequence[Sequence[Condition]]) -> list[int]:
    """The group with each child directly after its last parent: the sooner it is counted, the fewer sets to keep."""
    order: list[int] = []
    waiting = list(group)
    while waiting:
        ready = [p for p in waiting if conditions[p] and all(c.parent in order for c in conditions[p])]
        following = ready[0] if ready else next(p for p in waiting if all(c.parent in order for c in conditions[p]))
        order.append(following)
        waiting.remove(following)
    return order


def _count_group(
    group: Sequence[int], sizes: Sequence[int | None], conditions: Sequence[Sequence[Condition]]
) -> int | None:
    counts: Mapping[frozenset[int], int] = {frozenset(): 1}
    for position in group:
        size = sizes[position]
        children = {child: c.codes for child in group for c in conditions[child] if c.parent == position}
        grown: dict[frozenset[int], int] = defaultdict(int)
        for absent, number in counts.items():
            if position in absent:
                grown[(absent - {position}).union(children)] += number
            elif size is None:
                return None
            else:
                for killed, values in _classes(size, children).items():
                    grown[absent | killed] += number * values
        counts = grown if len(grown) <= MAX_STATES else {frozenset(): sum(grown.values())}
    return sum(counts.values())


def _classes(size: int, children: Mapping[int, frozenset[int]]) -> Mapping[frozenset[int], int]:
    """How many values of a parent leave out each set of children."""
    classes: dict[frozenset[int], int] = defaultdict(int)
    mentioned = frozenset[int]().union(*children.values())
    for code in mentioned:
        classes[frozenset(child for child, codes in children.items() if code not in codes)] += 1
    if size > len(mentioned):
        classes[frozenset(children)] += size - len(mentioned)
    return classes
