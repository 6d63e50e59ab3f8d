"""The books of the nodes: what each has, what of it is taken, and who has the GPUs that a request needs free."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

from tuneyard_scheduler.devices import GpuRequest, Kind, Portion, Slot, amount, portion
from tuneyard_scheduler.free import FreeIndex
from tuneyard_scheduler.selection import ANY_NODE, NodeNeeds
from tuneyard_scheduler.views import Node, Taken

T = TypeVar("T")
_CLASSES: Final = 64
"""Selections of nodes that are kept in order at a time; the one that was asked for last goes last."""


class Offer(NamedTuple):
    """Nodes with GPUs of one kind, and what a request takes of these."""

    resource: str
    kind: Kind
    free: FreeIndex
    portion: Portion


@dataclass(slots=True)
class _Pool:
    """What is taken of a node's GPUs of one resource name."""

    units: int = 0
    parts: dict[str, list[float]] = field(default_factory=dict)
    """The shares that are taken of each GPU; one that is held and of which nothing is taken has a share of 0."""
    kept: int = 0
    kept_parts: Mapping[str, float] = field(default_factory=dict)
    closed: frozenset[str] = frozenset()
    """GPUs of which nobody gets a further part."""
    broken: frozenset[str] = frozenset()
    """GPUs that could not be divided. While there are any, no further one is."""

    @property
    def blank(self) -> bool:
        return not (self.units or self.parts or self.kept or self.kept_parts or self.closed or self.broken)

    def left(self, device: str) -> float:
        """What is free of a GPU."""
        return amount(1.0 - sum(self.parts.get(device, ())))

    @property
    def over(self) -> float:
        """How much more is taken of some GPUs than there is of them."""
        return amount(sum(max(0.0, -self.left(device)) for device in self.parts))

    def open(self) -> dict[str, float]:
        """What is left, and not kept, of the GPUs of which a part is taken."""
        shut, kept = self.closed | self.broken, self.kept_parts
        return {
            device: amount(self.left(device) - kept.get(device, 0.0)) for device in self.parts if device not in shut
        }


@dataclass(slots=True)
class _Entry:
    node: Node | None = None
    pools: dict[str, _Pool] = field(default_factory=dict)
    cpu: float = 0.0
    memory: float = 0.0
    filed: dict[str, dict[NodeNeeds, FreeIndex]] = field(default_factory=dict)
    """Where each of its resources is kept in order, by the selections that it is in."""

    def pool(self, resource: str) -> _Pool:
        return self.pools.setdefault(resource, _Pool())

    def left(self, resource: str) -> int:
        """GPUs of which nobody has anything; below zero where more is taken than there is."""
        node, pool = self.node, self.pools.get(resource)
        capacity = node.capacity.get(resource, 0) if node is not None else 0
        return capacity - pool.units - len(pool.parts) if pool is not None else capacity


class Inventory:
    """All nodes. What is taken of a node is kept even while the node itself is not known."""

    __slots__ = ("_classes", "_entries", "_remembered", "aside", "capacity", "touched")

    def __init__(self) -> None:
        self.capacity = 0.0
        """GPUs of all known nodes, of whatever make."""
        self.touched: set[Slot] = set()
        """The divided GPUs of which something changed since they were last looked at."""
        self._entries: dict[str, _Entry] = {}
        self._classes: dict[NodeNeeds, dict[tuple[str, Kind], FreeIndex]] = {}
        self._remembered: dict[Hashable, Any] = {}
        self.aside: str | None = None
        """A node of which nobody is given anything now: it is kept for somebody."""

    def set(self, node: Node) -> bool:
        """Make the node known as it is now; False when that is nothing new."""
        entry = self._entries.setdefault(node.name, _Entry())
        if entry.node == node:
            return False
        self._unfile(entry)
        self._remembered.clear()
        self.capacity = amount(self.capacity + _gpus(node) - _gpus(entry.node))
        entry.node = node
        for needs in self._classes:
            self._join(entry, node, needs)
        return True

    def remove(self, name: str) -> bool:
        """Forget the node; False when it was not known."""
        entry = self._entries.get(name)
        if entry is None or entry.node is None:
            return False
        self._unfile(entry)
        self._remembered.clear()
        self.capacity = amount(self.capacity - _gpus(entry.node))
        entry.node = None
        self._drop_blank(name, entry)
        return True

    def take(self, name: str, taken: Taken, sign: int = 1) -> None:
        """Book what somebody takes of a node; with sign -1, that it is given back."""
        entry = self._entries.setdefault(name, _Entry())
        if taken.cpu or taken.memory:
            entry.cpu = amount(entry.cpu + sign * taken.cpu)
            entry.memory += sign * taken.memory
        for resource, units in taken.units.items():
            entry.pool(resource).units += sign * units
        for part in taken.parts:
            shares = entry.pool(part.resource).parts.setdefault(part.device, [])
            shares.append(part.share) if sign > 0 else shares.remove(part.share)
            if not shares:
                del entry.pools[part.resource].parts[part.device]
            self.touched.add(Slot(name, part.resource, part.device))
        for resource in taken.resources:
            self._file(entry, resource)
        if sign < 0:
            self._drop_blank(name, entry)

    def keep(
        self,
        name: str,
        resource: str,
        gpus: float,
        closed: Iterable[str] = (),
        parts: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Give this many of the node's free GPUs to nobody, so much of some GPUs, and no further part of closed ones.

        They are on their way to somebody who needs more.
        """
        entry = self._entries.setdefault(name, _Entry())
        pool = entry.pool(resource)
        pool.kept, pool.kept_parts, pool.closed = math.ceil(gpus), parts, frozenset(closed)
        self._file(entry, resource)
        self._drop_blank(name, entry)

    def close(self, slot: Slot, broken: bool = True) -> None:
        """Give no (further) part of this GPU, and divide no other one of its node; or do so again."""
        entry = self._entries.setdefault(slot.node, _Entry())
        pool = entry.pool(slot.resource)
        pool.broken = pool.broken | {slot.device} if broken else pool.broken - {slot.device}
        self._file(entry, slot.resource)
        self._drop_blank(slot.node, entry)

    # Questions

    def shared(self, slot: Slot) -> bool:
        """Whether somebody has a part of this GPU; one that is only held has nobody yet, or nobody any more."""
        entry = self._entries.get(slot.node)
        pool = entry.pools.get(slot.resource) if entry is not None else None
        return pool is not None and any(pool.parts.get(slot.device, ()))

    def used(self, name: str, resource: str) -> float:
        """How many GPUs of the node are taken, parts of them included."""
        entry = self._entries.get(name)
        pool = entry.pools.get(resource) if entry is not None else None
        return amount(pool.units + sum(sum(shares) for shares in pool.parts.values())) if pool is not None else 0

    def left(self, name: str, resource: str) -> int:
        """GPUs of the node of which nobody has anything; below zero where more is taken than it has."""
        entry = self._entries.get(name)
        return entry.left(resource) if entry is not None and entry.node is not None else 0

    def part_left(self, name: str, resource: str, device: str) -> float:
        """What is free of one GPU; below zero where more is taken than there is."""
        entry = self._entries.get(name)
        pool = entry.pools.get(resource) if entry is not None else None
        return pool.left(device) if pool is not None else 1.0

    def node(self, name: str) -> Node | None:
        """What is known of a node."""
        entry = self._entries.get(name)
        return entry.node if entry is not None else None

    def nodes(self) -> Iterator[Node]:
        """The known nodes."""
        return (entry.node for entry in self._entries.values() if entry.node is not None)

    def fits(self, name: str, cpu: float, memory: float) -> bool:
        """Whether the node is not set aside, and has left what is asked for: CPU (cores), memory (bytes)."""
        cores, size = self.spare(name)
        return name != self.aside and (not cpu or cpu <= cores) and (not memory or memory <= size)

    def spare(self, name: str) -> tuple[float, float]:
        """CPU (cores) and memory (bytes) that are left of the node; no end of them where it does not say."""
        entry = self._entries.get(name)
        node = entry.node if entry is not None else None
        if entry is None or node is None:
            return 0.0, 0.0
        cores = math.inf if node.cpu is None else amount(node.cpu - entry.cpu)
        return cores, math.inf if node.memory is None else node.memory - entry.memory

    def offers(self, request: GpuRequest, needs: NodeNeeds = ANY_NODE) -> list[Offer]:
        """The kinds of GPUs that can serve the request, on nodes that take new pods and that its template accepts."""

        def find() -> list[Offer]:
            offers = [
                Offer(resource, kind, free, found)
                for (resource, kind), free in self._selected(needs).items()
                if len(free) and (found := portion(request, kind)) is not None
            ]
            return offers if offers or not request.or_whole else self.offers(request.whole(), needs)

        return self.until_nodes_change((request, needs, "offers"), find)

    def least(self, request: GpuRequest, needs: NodeNeeds = ANY_NODE) -> float:
        """How many GPUs the request takes, where it takes the least; what it asks for, where no node can serve it."""

        def find() -> float:
            return min((offer.portion.gpus for offer in self.offers(request, needs)), default=request.gpus)

        return self.until_nodes_change((request, needs, "least"), find)

    def until_nodes_change(self, key: Hashable, find: Callable[[], T]) -> T:
        """What `find` says, which depends on nothing but the nodes and the key."""
        if key not in self._remembered:
            self._remembered[key] = find()
        found: T = self._remembered[key]
        return found

    def devices(self, name: str, resource: str, units: int) -> tuple[str, ...]:
        """Names of so many GPUs of a node of which nobody has anything: its own, or else the smallest numbers."""
        entry = self._entries[name]
        node, pool = entry.node, entry.pools.get(resource)
        taken: Iterable[str] = pool.parts if pool is not None else ()
        known = node.devices.get(resource) if node is not None else None
        names = (device for device in (known or map(str, count())) if device not in taken)
        return tuple(device for device, _ in zip(names, range(units), strict=False))

    # Book-keeping

    def _selected(self, needs: NodeNeeds) -> dict[tuple[str, Kind], FreeIndex]:
        """The indexes of the nodes that a template accepts; made when they are first asked for, then kept in order."""
        found = self._classes.pop(needs, None)
        if found is None:
            if len(self._classes) >= _CLASSES:
                oldest = next(iter(self._classes))
                del self._classes[oldest]
                self._remembered.clear()  # offers of nodes that are kept in order no more
                for entry in self._entries.values():
                    for filed in entry.filed.values():
                        filed.pop(oldest, None)
            found = self._classes[needs] = {}
            for entry in self._entries.values():
                if entry.node is not None:
                    self._join(entry, entry.node, needs)
        self._classes[needs] = found
        return found

    def _join(self, entry: _Entry, node: Node, needs: NodeNeeds) -> None:
        if node.ready and node.schedulable and needs.accepts(node.name, node.labels, node.taints):
            for resource in (each for each, units in node.capacity.items() if units):
                index = self._classes[needs].setdefault((resource, node.kind(resource)), FreeIndex())
                entry.filed.setdefault(resource, {})[needs] = index
                self._file(entry, resource, (index,))

    def _file(self, entry: _Entry, resource: str, indexes: Iterable[FreeIndex] | None = None) -> None:
        node, filed = entry.node, entry.filed.get(resource)
        if node is None or not filed:
            return
        free, parts, divides = self._free(entry, node, resource)
        for index in filed.values() if indexes is None else indexes:
            index.set(node.name, free, parts, divides=divides)

    def _free(self, entry: _Entry, node: Node, resource: str) -> tuple[int, dict[str, float] | None, bool]:
        """Whole GPUs that are free, what is left of divided ones, and whether others may be divided."""
        free, pool = entry.left(resource), entry.pools.get(resource)
        if pool is None:
            return free, None, True
        # Where more is taken than there is, one who is known to share a GPU may have gone, and a stranger be on it.
        parts = pool.open() if pool.parts and free >= 0 else None
        form = node.claims.get(resource)
        if form is not None and form.pin is None and (over := pool.over):
            # Whoever chooses among these GPUs did so otherwise than we thought. Until all pods that are on their way
            # are there, what is free of one GPU may be meant for a pod that is booked on another.
            free, parts = free - math.ceil(over), None
        return free - pool.kept, parts, not pool.broken

    def _unfile(self, entry: _Entry) -> None:
        if entry.node is None:
            return
        for index in (each for filed in entry.filed.values() for each in filed.values()):
            index.remove(entry.node.name)
        entry.filed.clear()

    def _drop_blank(self, name: str, entry: _Entry) -> None:
        for resource in [resource for resource, pool in entry.pools.items() if pool.blank]:
            del entry.pools[resource]
        if entry.node is None and not entry.pools and not entry.cpu and not entry.memory:
            self._entries.pop(name, None)


def _gpus(node: Node | None) -> float:
    return sum(units * node.kind(resource).size for resource, units in node.capacity.items()) if node is not None else 0
