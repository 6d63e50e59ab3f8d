"""Values as people read them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from tuneyard_api.common import epoch_seconds


def number(value: float | None) -> str:
    """A metric."""
    return "" if value is None else f"{value:.5g}"


def value(given: object) -> str:
    """A parameter's value, short."""
    return f"{given:.4g}" if isinstance(given, float) else exact(given)


def exact(given: object) -> str:
    """A parameter's value as a trial gets it: 0.0031, 64, adam, true."""
    return given if isinstance(given, str) else json.dumps(given)


def configuration(parameters: Mapping[str, Any]) -> str:
    """A configuration in one line."""
    return " ".join(f"{name}={value(given)}" for name, given in parameters.items())


def recommended(status: Mapping[str, Any]) -> list[str]:
    """The recommended trial, where it is another than the best one: a line, or none."""
    best, other = status.get("best"), status.get("recommended")
    if not other or (best and best["index"] == other["index"]):
        return []
    expected = f"{number(other['expected'])} +- {other['deviation']:.2g} is expected"
    trial = f"trial {other['index']}, of which {expected}: {configuration(other['parameters'])}"
    return [f"Recommended if results are noisy: {trial}"]


def clock(seconds: float) -> str:
    """A length of time as 0:09, 12:40 or 3:05:00."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def age(timestamp: str) -> str:
    """The time since then as kubectl has it: 5s, 12m, 3h, 9d."""
    seconds = int(max(0.0, time.time() - epoch_seconds(timestamp)))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def until(timestamp: str) -> str:
    """The time until then: now, in 40s, in 12m."""
    seconds = int(epoch_seconds(timestamp) - time.time())
    if seconds <= 0:
        return "now"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"in {seconds // size}{unit}"
    return f"in {seconds}s"


def front(size: int) -> str:
    """What the size of a Pareto front says."""
    return "1 trial that no other one beats" if size == 1 else f"{size} trials that no other one beats"


def count(amount: int, noun: str) -> str:
    """`1 trial`, `4 trials`."""
    return f"{amount} {noun}{'' if amount == 1 else 's'}"
