"""What training programs do: how long they run, and how they end, by the seed."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tuneyard_operator.sizing import PEAK, TOTAL
from tuneyard_scheduler import memory

BROKEN: Final = "broken"
"""An image of which every program fails within seconds."""
MENDED: Final = "mended"
"""One of which every program does well within seconds."""
_APPETITES: Final = (200, 200, 200, 200, 200, 1500, 3000, 9000)
Kind = Literal["good", "fails", "out_of_memory", "kernel_killed", "nan", "silent", "hangs"]


@dataclass(frozen=True, slots=True)
class Program:
    """What one attempt does if nobody stops it."""

    kind: Kind
    seconds: float
    limit: float
    """What its loss comes to if it goes on for ever."""
    epochs: int = 0
    """How often it reports its loss on the way."""

    @property
    def value(self) -> float:
        """The loss at its end."""
        return self.value_after(self.epochs)

    def value_after(self, epochs: int) -> float:
        """The loss after so many epochs; `limit` for a program without them."""
        return round(self.limit + 1 / epochs, 9) if epochs else self.limit

    def seconds_to(self, step: int) -> float:
        """When it reports a step, after its start."""
        return self.seconds * (step + 1) / (self.epochs + 0.5)

    def epochs_after(self, seconds: float) -> int:
        """How many steps it has reported so long after its start."""
        return min(self.epochs, int(seconds / self.seconds * (self.epochs + 0.5) + 1e-9))

    @property
    def exit_code(self) -> int:
        """The exit code of its container."""
        return {"fails": 1, "out_of_memory": 137, "kernel_killed": 137}.get(self.kind, 0)

    @property
    def last_word(self) -> str:
        """What it leaves as its termination message."""
        if self.kind in {"fails", "kernel_killed"}:
            return "Traceback (most recent call last)\nValueError: loss exploded"
        if self.kind == "nan":
            return '{"loss": NaN}'
        used = {PEAK: 1000 + 1000 * self.value, TOTAL: 80000}
        return json.dumps({"loss": self.value, **used}) if self.kind == "good" else ""


@dataclass(frozen=True, slots=True)
class Temper:
    """How the programs of a study behave."""

    seed: int
    weights: Mapping[Kind, float]
    mean_seconds: float
    names: list[Kind] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", list(self.weights))

    def program(
        self, index: int, attempt: int, parameters: Mapping[str, Any], container: Mapping[str, Any], epochs: int
    ) -> Program:
        """What this attempt does: the same in each run of the same seed, whatever else happens."""
        rng = random.Random(self.seed * 1_000_003 + index * 1_009 + attempt)  # noqa: S311
        kind = rng.choices(self.names, list(self.weights.values()))[0]
        if container["image"] == BROKEN:
            return Program("fails", rng.uniform(0.3, 3.0), value(parameters))
        if container["image"] == MENDED:
            return Program("good", rng.uniform(0.3, 3.0), value(parameters), epochs)
        if 0 < memory.of(container).limit < self.appetite(index) * memory.MIB:
            kind = "out_of_memory"
        reported = 0 if kind in {"silent", "nan", "hangs"} else epochs
        return Program(kind, 0.3 + rng.expovariate(1 / self.mean_seconds), value(parameters), reported)

    def appetite(self, index: int) -> int:
        """MiB of memory that the trial needs."""
        return random.Random(self.seed * 7_919 + index).choice(_APPETITES)  # noqa: S311


def value(parameters: Mapping[str, Any]) -> float:
    """The loss of a configuration; configurations have different ones."""
    return round((float(parameters["x"]) - 0.3) ** 2 + int(parameters["k"]) / 100, 9)
