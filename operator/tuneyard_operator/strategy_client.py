"""Asking a strategy: the port, and the way to it without a network."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from tuneyard_operator import checkpoints
from tuneyard_operator.state import StudyState
from tuneyard_strategy.advisor import Advisor, AskRequest, AskResponse, JudgeRequest, Question
from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.errors import DefinitionError, NeedHistory, NoFeasiblePoint
from tuneyard_strategy.recommendation import Recommendation, RecommendRequest, recommend
from tuneyard_strategy.registry import STRATEGIES
from tuneyard_strategy.stopping import Verdict

Q = TypeVar("Q", bound=Question)
R = TypeVar("R")
Post = Callable[[str, dict[str, Any]], Awaitable[tuple[int, dict[str, Any]]]]
"""Posts a body to a path; the answer's status and body."""


class StrategyError(Exception):
    """No answer now; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Configurations by index, maybe not for all; exhausted: there are no more than these."""

    configurations: dict[int, dict[str, Any]]
    exhausted: bool
    rungs: dict[int, dict[str, Any]] = field(default_factory=dict)
    """For how much of the fidelity those run that do not run for all of it."""
    degraded: str | None = None
    """Why another model proposes than the strategy's own, if one does."""
    note: str | None = None
    """What people should know of it: that a service of the user's own did not answer, for example."""
    continuable: list[int] | None = None
    """Which ended trials a later one may go on from, where that was asked for."""


class StrategyClient(Protocol):
    """What the engine needs of a strategy service."""

    async def ask(self, state: StudyState, indices: list[int]) -> Answer:
        """Configurations for these trials.

        Raises:
            StrategyError: there is no answer now.
        """

    async def recommend(self, state: StudyState) -> Recommendation:
        """The trial to use, by the strategy's model.

        Raises:
            StrategyError: there is no answer now.
        """

    async def judge(self, state: StudyState, running: list[TrialRecord]) -> list[Verdict]:
        """Which of these running trials are to be stopped.

        Raises:
            StrategyError: there is no answer now.
        """

    async def check(self, state: StudyState) -> list[str]:
        """What is wrong with the study's space and strategy that no schema can see."""

    def forget(self, uid: str) -> None:
        """The study is gone."""


def learns(state: StudyState) -> bool:
    """Whether the study's strategy makes use of results (then few trials are created ahead)."""
    strategy = state.spec.strategy
    return strategy.service is not None or STRATEGIES[strategy.name].learns


def defined(state: StudyState) -> StudyDefinition:
    """The study as its strategy is told of it."""
    return StudyDefinition.from_spec(state.spec, state.warm_start.earlier)


def recommend_request(state: StudyState) -> RecommendRequest:
    """The question which trial to use."""
    return RecommendRequest(definition=defined(state), records=state.history)


class Ledger:
    """What a strategy service has been told, by study: it needs only what came since.

    Args:
        define: what a study is to be told as.
    """

    def __init__(self, define: Callable[[StudyState], StudyDefinition] = defined) -> None:
        self._define = define
        self._told: dict[str, tuple[StudyDefinition, int]] = {}

    def request(self, state: StudyState, indices: list[int], *, all_of_it: bool = False) -> AskRequest:
        """An ask with the history since the last one; with all of it when the study's definition has changed."""
        return AskRequest(
            indices=indices, continuable=checkpoints.keep(state), **self._news(state, all_of_it=all_of_it)
        )

    def judge_request(self, state: StudyState, running: list[TrialRecord], *, all_of_it: bool = False) -> JudgeRequest:
        """The same for a judgement."""
        return JudgeRequest(trials=running, **self._news(state, all_of_it=all_of_it))

    def _news(self, state: StudyState, *, all_of_it: bool) -> dict[str, Any]:
        definition = self._define(state)
        known, since = self._told.get(state.uid, (None, 0))
        if known != definition or all_of_it:
            since = 0
        return {
            "study": state.uid,
            "definition": definition if since == 0 else None,
            "revision": len(state.history),
            "since": since,
            "records": state.history[since:],
        }

    def answered(self, state: StudyState, request: Question) -> None:
        """The service has taken in what the request told it."""
        known, _ = self._told.get(state.uid, (None, 0))
        definition = request.definition or known
        if definition is not None:  # else the study was forgotten while the question was under way
            self._told[state.uid] = (definition, request.revision)

    def forget(self, uid: str) -> None:
        """The study is gone."""
        self._told.pop(uid, None)


async def post_with_history(post: Post, path: str, make: Callable[..., Q]) -> tuple[Q, int, dict[str, Any]]:
    """Post a question; again with the whole history where the service lacks it (409).

    Args:
        post: how.
        path: where to.
        make: a method of a Ledger: makes the question of what came since the last one, or with all_of_it of everything.

    Returns:
        The question that was answered, and the answer's status and body.
    """
    question = make()
    status, body = await post(path, question.to_json())
    if status == 409:
        question = make(all_of_it=True)
        status, body = await post(path, question.to_json())
    return question, status, body


def answer(response: AskResponse) -> Answer:
    """The service's answer as the engine takes it."""
    found = {suggestion.index: suggestion.parameters for suggestion in response.configurations}
    rungs = {each.index: each.rung.to_json() for each in response.configurations if each.rung is not None}
    return Answer(found, response.exhausted, rungs, response.degraded, continuable=response.continuable)


class InProcess:
    """Strategies in this very process: the laptop, the simulation, and small clusters.

    Args:
        advisor: who answers.
        define: what a study is to be told as.
    """

    def __init__(
        self, advisor: Advisor | None = None, define: Callable[[StudyState], StudyDefinition] = defined
    ) -> None:
        self._advisor = advisor or Advisor()
        self._ledger = Ledger(define)

    async def ask(self, state: StudyState, indices: list[int]) -> Answer:
        """See StrategyClient."""
        return answer(self._answered(state, partial(self._ledger.request, state, indices), self._advisor.ask))

    async def recommend(self, state: StudyState) -> Recommendation:
        """See StrategyClient."""
        return recommend(recommend_request(state))

    async def judge(self, state: StudyState, running: list[TrialRecord]) -> list[Verdict]:
        """See StrategyClient."""
        make = partial(self._ledger.judge_request, state, running)
        return self._answered(state, make, self._advisor.judge).verdicts

    def _answered(self, state: StudyState, make: Callable[..., Q], advise: Callable[[Q], R]) -> R:
        question = make()
        try:
            try:
                response = advise(question)
            except NeedHistory:
                question = make(all_of_it=True)
                response = advise(question)
        except (DefinitionError, NoFeasiblePoint) as error:
            raise StrategyError(str(error)) from error
        self._ledger.answered(state, question)
        return response

    async def check(self, state: StudyState) -> list[str]:
        """See StrategyClient."""
        return self._advisor.check(StudyDefinition.from_spec(state.spec))

    def forget(self, uid: str) -> None:
        """See StrategyClient."""
        self._ledger.forget(uid)
        self._advisor.forget(uid)
