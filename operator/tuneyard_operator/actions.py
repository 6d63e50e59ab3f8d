"""What the planner decides. Every action may be done twice, or fail and be planned again.

An action on a trial names the version of the trial that it was planned for: it is not done to a later one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tuneyard_operator.attempts import End

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Create the attempt's Job (or process) at its placement; it is fine when it exists."""

    index: int
    version: int
    attempt: int


@dataclass(frozen=True, slots=True)
class StopAttempt:
    """End the attempt's Job (or process); it is fine when there is none."""

    index: int
    attempt: int


@dataclass(frozen=True, slots=True)
class WriteTrial:
    """Merge this into the trial's status, if its object is still the one planned for."""

    index: int
    version: int
    status: Object
    end: End | None = None


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Read the end of the attempt's log for metrics."""

    index: int
    version: int
    attempt: int


@dataclass(frozen=True, slots=True)
class InspectAttempt:
    """Nothing was seen of the attempt for long: look whether it exists."""

    index: int
    version: int
    attempt: int


@dataclass(frozen=True, slots=True)
class WriteStudy:
    """Replace the study's status."""

    status: Object
    before: Object
    """The one that this follows, which is built upon where the write fails."""


@dataclass(frozen=True, slots=True)
class Emit:
    """Tell people once: a Kubernetes Event, or a line in the terminal."""

    reason: str
    message: str
    warning: bool = False
    turn: str = ""
    """What the news follows: planned again after a failure or a crash, it is known to be the same news by that."""


@dataclass(frozen=True, slots=True)
class Recommend:
    """Ask the strategy which trial to use, now that the study has ended."""


TrialAction = StartAttempt | WriteTrial | ReadLog | InspectAttempt
Action = TrialAction | StopAttempt | Recommend | WriteStudy | Emit
