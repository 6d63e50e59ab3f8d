"""Several objectives at once: the points that no other one beats, and the space that they dominate.

| Symbol | Shape | What |
|---|---|---|
| n, k, b | | points, objectives, boxes |
| losses | (n, k) | values of the objectives; smaller is better |
| reference | (k,) | what is worse than this in an objective does not matter |

A point dominates another one that is nowhere better and somewhere worse. The hypervolume of points is the volume of all
that they dominate, up to the reference (Zitzler and Thiele 1999).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tuneyard_strategy.distributions import Floats
from tuneyard_strategy.space import Mask

MARGIN = 0.1
"""By which part of the front's range the reference is worse than the worst of the front (Ishibuchi et al. 2018)."""
TRADE = 0.1
"""Of three objectives and more, a point does not widen the front that is better in one by less than this part of what
it is worse in another."""
MOST_SPREAD = 512
"""Of a larger front, every so-and-so-many-th point in the order of the first objective is looked at."""
_BLOCK = 128
_GRAINS = 2048
"""Points that volumes are estimated with."""

Rows = NDArray[np.intp]


def nondominated(losses: Floats) -> Mask:
    """Which points no other one dominates, shape (n,). Equal points do not dominate each other."""
    order = _ordered(losses)
    found = np.empty(len(losses), dtype=np.bool_)
    found[order] = _first_front(losses[order])
    return found


def best(losses: Floats, count: int) -> Rows:
    """The best points, at most `count`: the front, the front of the others, and so on.

    Of the first front that does not fit in whole, those that together dominate the most.
    """
    chosen: list[Rows] = []
    left, room = _ordered(losses), count
    while len(left) and room > 0:
        on_front = _first_front(losses[left])
        front = left[on_front]
        if len(front) > room:
            front = front[spread(losses[front], room)]
        chosen.append(front)
        left, room = left[~on_front], room - len(front)
    return np.concatenate([left[:0], *chosen])


def _ordered(losses: Floats) -> Rows:
    """An order in which none is dominated by a later one: by the first objective, then by the second, ..."""
    return np.lexsort(losses.T[::-1])


def _first_front(losses: Floats) -> Mask:
    """As `nondominated`, of points in order."""
    n, k = losses.shape
    found = np.zeros(n, dtype=np.bool_)
    if k == 2:
        lowest = np.minimum.accumulate(losses[:, 1])
        fresh = np.append(True, (losses[1:] != losses[:-1]).any(axis=1))[:n]
        steps = fresh & (losses[:, 1] < np.append(np.inf, lowest[:-1])[:n])
        found[:] = steps[np.maximum.accumulate(np.where(fresh, np.arange(n), 0))]  # as the first of its equals
        return found
    left = np.arange(n)
    while len(left):
        block, left = left[:_BLOCK], left[_BLOCK:]
        block = block[~_dominated(losses[block], losses[block])]
        found[block] = True
        left = left[~_dominated(losses[left], losses[block])]
    return found


def _dominated(losses: Floats, others: Floats) -> Mask:
    """Which points one of the others dominates, shape (n,)."""
    no_worse = np.ones((len(losses), len(others)), dtype=np.bool_)
    equal = no_worse.copy()
    for mine, theirs in zip(losses.T, others.T, strict=True):
        no_worse &= mine[:, None] >= theirs
        equal &= mine[:, None] == theirs
    dominated: Mask = np.logical_or.reduce(no_worse & ~equal, axis=1)
    return dominated


def spread(losses: Floats, count: int) -> Rows:
    """Points of a front, in the order of how much each adds to the hypervolume of those before it, shape (count,).

    Greedy subset selection (Guerreiro et al. 2016). Volumes are numbers of grains, always the same ones, so that
    they are the same on every machine.
    """
    order, most = _ordered(losses), max(MOST_SPREAD, count)
    if len(order) > most > 0:
        order = order[np.linspace(0, len(order) - 1, most).astype(np.intp)]
    low, high = losses[order].min(axis=0), losses[order].max(axis=0)
    unit = (losses[order] - low) / np.where(high > low, high - low, 1.0)
    covers = (unit[:, None] <= _grains(losses.shape[1]) * (1.0 + MARGIN)).all(axis=2).astype(np.float32)
    uncovered = np.ones(_GRAINS, dtype=np.float32)
    chosen = np.zeros(min(count, len(order)), dtype=np.intp)
    free = np.zeros(len(order), dtype=np.float32)
    for position in range(len(chosen)):
        chosen[position] = np.argmax(covers @ uncovered + free)
        uncovered *= 1.0 - covers[chosen[position]]
        free[chosen[position]] = -np.inf
    return order[chosen]


def _grains(k: int) -> Floats:
    """Points that fill the unit cube evenly: the additive recurrence of Roberts (2018)."""
    root = 2.0
    for _ in range(50):
        root = (1.0 + root) ** (1.0 / (k + 1))
    steps = np.array([round(2.0**40 * root ** -(j + 1)) for j in range(k)], dtype=np.int64)
    return (np.arange(1, _GRAINS + 1)[:, None] * steps % 2**40) / 2.0**40


def reference_point(losses: Floats) -> Floats:
    """A reference a little worse than the worst of the front in each objective, shape (k,).

    Where the front has no extent in an objective, that of all points counts. Losses are of about unit variance. With
    three objectives and more, many bad points are on the front for next to nothing that they are better in; where they
    widened it, hardly anything but its corners would promise much. So the front is here the one of losses of which
    each has a part of all others added (alpha-dominance: Ikeda, Kita and Kobayashi 2001).
    """
    traded = losses if losses.shape[1] == 2 else losses + TRADE * (losses.sum(axis=1, keepdims=True) - losses)
    front = losses[nondominated(traded)]
    extent = np.ptp(front, axis=0)
    extent = np.where(extent > 0, extent, np.ptp(losses, axis=0))
    reference: Floats = front.max(axis=0) + MARGIN * np.where(extent > 0, extent, 1.0)
    return reference


def boxes(front: Floats, reference: Floats) -> tuple[Floats, Floats]:
    """What is better than the reference and not dominated, cut into disjoint boxes.

    Each point in turn takes what it dominates out of the boxes so far; what is left of one is up to k boxes.

    Returns:
        Lower and upper corners, shapes (b, k); lower ones may be minus infinity.
    """
    k = len(reference)
    lower, upper = np.full((1, k), -np.inf), reference[None].copy()
    for point in front[_ordered(front)]:
        cut = (upper > point).all(axis=1)
        lowers, uppers = [lower[~cut]], [upper[~cut]]
        low, high = lower[cut], upper[cut]
        for j in range(k):
            better = low[:, j] < point[j]
            part = high[better]
            part[:, j] = point[j]
            lowers.append(low[better])
            uppers.append(part)
            low = low.copy()
            low[:, j] = np.maximum(low[:, j], point[j])
        lower, upper = np.vstack(lowers), np.vstack(uppers)
    return lower, upper


def hypervolume(losses: Floats, reference: Floats) -> float:
    """The volume that points dominate, exactly."""
    inside = losses[(losses < reference).all(axis=1)]
    if len(inside) == 0:
        return 0.0
    front = np.unique(inside[nondominated(inside)], axis=0)
    ideal = front.min(axis=0)
    lower, upper = boxes(front, reference)
    rest = np.maximum(upper - np.maximum(lower, ideal), 0.0).prod(axis=1).sum()
    return float((reference - ideal).prod() - rest)
