"""The books of the nodes: what each has, what of it is taken, and which is the fullest that still fits."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from tuneyard_scheduler.ordered import MinSet
from tuneyard_scheduler.views import Node

Class = tuple[str, str | None]
"""Nodes that serve a request alike: the resource name and the GPU model (None: of whatever model)."""


class FreeIndex:
    """The nodes of one class by how many GPUs they have free.

    The fullest node that fits is found by looking at as many buckets as a node has GPUs, whatever the number of nodes.
    Equally full nodes are taken by name, so that the same state gives the same answer.
    """

    __slots__ = ("_at", "_buckets")

    def __init__(self) -> None:
        self._buckets: list[MinSet[str]] = []
        self._at: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, name: object) -> bool:
        return name in self._at

    def set(self, name: str, free: int) -> None:
        """File the node under this many free GPUs (below zero, when more is taken than it has, counts as zero)."""
        free = max(free, 0)
        before = self._at.get(name)
        if before == free:
            return
        if before is not None:
            self._buckets[before].discard(name)
        while len(self._buckets) <= free:
            self._buckets.append(MinSet())
        self._buckets[free].add(name)
        self._at[name] = free

    def remove(self, name: str) -> None:
        """Forget the node."""
        before = self._at.pop(name, None)
        if before is not None:
            self._buckets[before].discard(name)

    def fullest(self, count: int, skip: Container[str] = ()) -> str | None:
        """The node with the fewest free GPUs that are still `count`; None when no node has as many."""
        for bucket in self._buckets[count:]:
            name = bucket.smallest(skip)
            if name is not None:
                return name
        return None

    def emptiest(self, count: int) -> list[str]:
        """So many nodes, those with the most free GPUs first; equally free ones by name."""
        return list(islice((name for bucket in reversed(self._buckets) for name in bucket.ascending()), count))

    def most_free(self) -> int:
        """How many GPUs the emptiest node has free."""
        return next((free for free in range(len(self._buckets) - 1, 0, -1) if self._buckets[free]), 0)


@dataclass(slots=True)
class _Entry:
    node: Node | None = None
    used: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)


class Inventory:
    """All nodes. What is taken of a node is kept even while the node itself is not known."""

    __slots__ = ("_aside", "_classes", "_entries", "capacity")

    def __init__(self) -> None:
        self.capacity = 0
        """GPUs of all known nodes, of whatever make."""
        self._entries: dict[str, _Entry] = {}
        self._classes: dict[Class, FreeIndex] = {}
        self._aside: str | None = None

    def set(self, node: Node) -> bool:
        """Make the node known as it is now; False when that is nothing new."""
        entry = self._entries.setdefault(node.name, _Entry())
        if entry.node == node:
            return False
        self._unfile(node.name, entry.node)
        self.capacity += sum(node.capacity.values()) - _gpus(entry.node)
        entry.node = node
        for resource in node.capacity:
            self._file(node.name, entry, resource)
        return True

    def remove(self, name: str) -> bool:
        """Forget the node; False when it was not known."""
        entry = self._entries.get(name)
        if entry is None or entry.node is None:
            return False
        self._unfile(name, entry.node)
        self.capacity -= _gpus(entry.node)
        entry.node = None
        self._drop_blank(name, entry)
        return True

    def take(self, name: str, resources: Mapping[str, int], sign: int = 1) -> None:
        """Book GPUs on a node; with sign -1, give them back."""
        entry = self._entries.setdefault(name, _Entry())
        for resource, count in resources.items():
            left = entry.used.get(resource, 0) + sign * count
            if left:
                entry.used[resource] = left
            else:
                entry.used.pop(resource, None)
            self._file(name, entry, resource)
        self._drop_blank(name, entry)

    def keep(self, name: str, resource: str, gpus: float) -> None:
        """Give this many of the node's free GPUs to nobody: they are on their way to somebody who needs more."""
        entry = self._entries.setdefault(name, _Entry())
        if gpus:
            entry.kept[resource] = math.ceil(gpus)
        else:
            entry.kept.pop(resource, None)
        self._file(name, entry, resource)
        self._drop_blank(name, entry)

    def set_aside(self, name: str | None) -> None:
        """Leave this node, and no other, out of those that are free: nobody is given anything of it meanwhile."""
        before, self._aside = self._aside, name
        for each in {before, name} - {None}:
            entry = self._entries.get(str(each))
            if entry is not None and entry.node is not None:
                self._unfile(entry.node.name, entry.node)
                for resource in entry.node.capacity:
                    self._file(entry.node.name, entry, resource)

    def used(self, name: str, resource: str) -> int:
        """How many GPUs of the node are taken."""
        entry = self._entries.get(name)
        return entry.used.get(resource, 0) if entry else 0

    def left(self, name: str, resource: str) -> int:
        """GPUs of the node that nobody holds; below zero where more is taken than it has."""
        entry = self._entries.get(name)
        if entry is None or entry.node is None:
            return 0
        return entry.node.capacity.get(resource, 0) - entry.used.get(resource, 0)

    def nodes(self) -> Iterator[Node]:
        """The known nodes."""
        return (entry.node for entry in self._entries.values() if entry.node is not None)

    def free(self, resource: str, model: str | None = None) -> FreeIndex:
        """The nodes that take new pods and have this resource (of this model), by free GPUs."""
        return self._classes.get((resource, model)) or FreeIndex()

    def _drop_blank(self, name: str, entry: _Entry) -> None:
        if entry.node is None and not entry.used and not entry.kept:
            self._entries.pop(name, None)

    def _file(self, name: str, entry: _Entry, resource: str) -> None:
        node = entry.node
        closed = node is None or name == self._aside or not (node.ready and node.schedulable)
        if node is None or closed or not node.capacity.get(resource):
            return
        free = node.capacity[resource] - entry.used.get(resource, 0) - entry.kept.get(resource, 0)
        for key in _classes(node, resource):
            self._classes.setdefault(key, FreeIndex()).set(name, free)

    def _unfile(self, name: str, node: Node | None) -> None:
        for resource in node.capacity if node is not None else ():
            for key in _classes(node, resource):
                if key in self._classes:
                    self._classes[key].remove(name)


def _gpus(node: Node | None) -> int:
    return sum(node.capacity.values()) if node is not None else 0


def _classes(node: Node | None, resource: str) -> tuple[Class, ...]:
    model = node.models.get(resource) if node is not None else None
    return ((resource, None),) if model is None else ((resource, None), (resource, model))
