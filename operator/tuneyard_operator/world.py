"""The port through which the engine acts: Kubernetes, this machine and the simulation each implement it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:  # a command that only looks at what is stored need not wait for the strategies' numpy
    from tuneyard_operator.actions import Emit
    from tuneyard_operator.attempts import AttemptSeen
    from tuneyard_operator.state import StudyState
    from tuneyard_operator.trial_state import TrialState

Object = dict[str, Any]
NO_RUNGS: Final[Mapping[int, Object]] = MappingProxyType({})


class WorldError(Exception):
    """The world could not do it now; the same action may succeed later. The message is a sentence."""


class Conflict(WorldError):
    """The object is no longer the one planned for: read it again."""


class Rejected(WorldError):
    """The world refuses this for good (a template that the API server does not take, say): a person must change it."""


class World(Protocol):
    """What can be done. Every call may be repeated, and may fail after it took effect.

    All raise WorldError (or one of its kinds).
    """

    def now(self) -> float:
        """The time, in epoch seconds."""

    async def check_template(self, state: StudyState) -> str | None:
        """What is wrong with the study's template, as a sentence; None when it can be run."""

    async def create_trials(
        self, state: StudyState, configurations: dict[int, Object], rungs: Mapping[int, Object] = NO_RUNGS
    ) -> list[Object]:
        """Create a Trial per index, some on a rung; where the study already has one, that one is returned."""

    async def get_trial(self, state: StudyState, name: str) -> Object | None:
        """The Trial as it now is; None when it is gone."""

    async def trials_of(self, state: StudyState, name: str) -> list[Object] | None:
        """The Trials of another study of the same namespace; None where there is no such study."""

    async def patch_trial(self, state: StudyState, trial: TrialState, status: Object) -> Object:
        """Merge into the Trial's status if its resourceVersion is still trial.version; Conflict otherwise."""

    async def start_attempt(self, state: StudyState, trial: TrialState) -> None:
        """Start the current attempt at its placement; success where it was started before."""

    async def stop_attempt(self, state: StudyState, index: int, attempt: int) -> None:
        """End the attempt; success where there is none."""

    async def inspect_attempt(self, state: StudyState, trial: TrialState) -> AttemptSeen | None:
        """What there is of the current attempt; an ended one where there is nothing left of it; None to wait."""

    async def read_log(self, state: StudyState, index: int, attempt: int) -> str:
        """The end of the attempt's log (at most some 64 KiB)."""

    async def write_study(self, state: StudyState, status: Object) -> None:
        """Replace the Study's status."""

    async def emit(self, state: StudyState, news: Emit) -> None:
        """Tell people, once: the same news may come again after a failure or a crash."""
