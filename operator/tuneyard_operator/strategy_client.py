"""Asking a strategy: the port, and the way to it without a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from tuneyard_operator.state import StudyState
from tuneyard_strategy.advisor import Advisor, AskRequest, AskResponse, NeedHistory
from tuneyard_strategy.contract import NoFeasiblePoint, StudyDefinition, learns


class StrategyError(Exception):
    """No answer now; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Configurations by index; exhausted: there are no more than these."""

    configurations: dict[int, dict[str, Any]]
    exhausted: bool


class StrategyClient(Protocol):
    """What the engine needs of a strategy service."""

    async def ask(self, state: StudyState, indices: list[int]) -> Answer:
        """Configurations for these trials.

        Raises:
            StrategyError: there is no answer now.
        """

    async def check(self, state: StudyState) -> list[str]:
        """What is wrong with the study's space and strategy that no schema can see."""

    def learns(self, state: StudyState) -> bool:
        """Whether the strategy makes use of results (then few trials are created ahead)."""

    def forget(self, uid: str) -> None:
        """The study is gone."""


def definition(state: StudyState) -> StudyDefinition:
    """The part of a study that the strategy is told once."""
    spec = state.spec
    return StudyDefinition(
        parameters=spec.parameters,
        constraints=spec.constraints,
        objectives=spec.objectives,
        strategy=spec.strategy,
        initial=spec.initial,
        max_trials=spec.trials.max,
    )


def request(state: StudyState, indices: list[int], since: int) -> AskRequest:
    """An ask that tells the history from `since` on; the definition goes along with the whole history."""
    return AskRequest(
        study=state.uid,
        definition=definition(state) if since == 0 else None,
        revision=len(state.history),
        since=since,
        records=state.history[since:],
        indices=indices,
    )


def answer(response: AskResponse) -> Answer:
    """The service's answer as the engine takes it."""
    found = {suggestion.index: suggestion.parameters for suggestion in response.configurations}
    return Answer(found, response.exhausted)


class InProcess:
    """Strategies in this very process: the laptop, the simulation, and small clusters."""

    def __init__(self, advisor: Advisor | None = None) -> None:
        self._advisor = advisor or Advisor()
        self._told: dict[str, int] = {}

    async def ask(self, state: StudyState, indices: list[int]) -> Answer:
        """See StrategyClient."""
        since = self._told.get(state.uid, 0)
        try:
            try:
                response = self._advisor.ask(request(state, indices, since))
            except NeedHistory:
                response = self._advisor.ask(request(state, indices, 0))
        except NoFeasiblePoint as error:
            raise StrategyError(str(error)) from error
        self._told[state.uid] = len(state.history)
        return answer(response)

    async def check(self, state: StudyState) -> list[str]:
        """See StrategyClient."""
        return self._advisor.check(definition(state))

    def learns(self, state: StudyState) -> bool:
        """See StrategyClient."""
        return learns(state.spec.strategy.name)

    def forget(self, uid: str) -> None:
        """See StrategyClient."""
        self._told.pop(uid, None)
