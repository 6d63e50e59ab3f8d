"""The memory of a trial's container: what its template says, and what it becomes when the trial needs more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from tuneyard_scheduler import quantity

MIB: Final = 2**20


class Memory(NamedTuple):
    """Bytes of memory that a container asks for and may use at most; 0: it does not say."""

    request: float = 0.0
    limit: float = 0.0

    @property
    def most(self) -> float:
        """What it may count on: its limit, or what it asks for where it has none."""
        return self.limit or self.request

    def grown(self, need: int | None) -> Memory:
        """The same for a trial that needs so many MiB: the request grows as the limit does."""
        if need is None or not self.most or need * MIB <= self.most:
            return self
        factor = need * MIB / self.most
        return Memory(self.request * factor, need * MIB if self.limit else 0.0)


UNSAID: Final = Memory()


def of(container: Mapping[str, Any]) -> Memory:
    """What a container's resources say.

    Raises:
        ValueError: that is no quantity.
    """
    resources = container.get("resources") or {}
    limit = quantity.parse((resources.get("limits") or {}).get("memory", 0))
    # Without a request of its own, a container asks for its limit.
    return Memory(quantity.parse((resources.get("requests") or {}).get("memory", 0)) or limit, limit)


def render(need: int | None, container: dict[str, Any]) -> None:
    """Give a container so many MiB, in place, where its template says less; one that says nothing has no limit."""
    before = of(container)
    after = before.grown(need)
    if after == before:
        return
    resources = container["resources"]
    if after.limit:
        resources["limits"] = {**resources["limits"], "memory": _text(after.limit)}
    if (resources.get("requests") or {}).get("memory"):
        resources["requests"] = {**resources["requests"], "memory": _text(after.request)}


def _text(size: float) -> str:
    return f"{math.ceil(size / MIB)}Mi"
