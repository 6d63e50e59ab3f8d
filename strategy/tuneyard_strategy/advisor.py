"""The advisor: answers for many studies, and remembers what it has been told to spare the telling.

The caller keeps each study's *history*: a log of trial records that only grows, where a trial appears when it is
created and again when it ends. With a question it sends the part of the log that the advisor has not seen. What the
advisor holds is a cache: an advisor that knows nothing asks for everything (NeedHistory) and then answers the same.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import Field, model_validator

from tuneyard_api.common import Model
from tuneyard_api.fidelity import Rung
from tuneyard_api.space import Configuration as Given
from tuneyard_strategy.contract import MAX_INDEX, Strategy, StudyDefinition, Suggestion, TrialRecord
from tuneyard_strategy.errors import DefinitionError, NeedHistory, NoFeasiblePoint
from tuneyard_strategy.explanation import ExplainRequest, Explanation, explain
from tuneyard_strategy.recommendation import Recommendation, RecommendRequest, recommend
from tuneyard_strategy.registry import create
from tuneyard_strategy.stopping import Judge, Verdict

PATIENCE = 1.0
"""Seconds after which an ask of a live study is answered with what has been found; the rest is left to the next one."""


class Question(Model):
    """What every question about a study begins with: what has happened since the last one."""

    study: str = Field(min_length=1, max_length=253, description="What tells studies apart, for example the UID.")
    definition: StudyDefinition | None = Field(
        default=None, description="The study. Needed once, and again when it has changed; then with the whole history."
    )
    revision: int = Field(default=0, ge=0, description="How many records the history has by now.")
    since: int = Field(
        default=0, ge=0, description="How many of them the advisor has been told before; 0 begins from the start."
    )
    records: list[TrialRecord] = Field(default_factory=list, description="The history from `since` to `revision`.")

    @model_validator(mode="after")
    def _records_fill_the_gap(self) -> Self:
        if len(self.records) != self.revision - self.since:
            raise ValueError(
                f"records has {len(self.records)} entries; send exactly those from since ({self.since}) to revision "
                f"({self.revision})"
            )
        return self


class AskRequest(Question):
    """A question: which configurations do these trials get?

    A history that is too long for one request may go over in several, all but the last without indices.
    """

    indices: list[Annotated[int, Field(ge=0, le=MAX_INDEX)]] = Field(
        max_length=1000, description="The trials to find configurations for."
    )
    continuable: int | None = Field(
        default=None, ge=1, le=1000, description="How many trials to name that a later one may go on from, if any."
    )


class JudgeRequest(Question):
    """A question: are these running trials to be stopped?"""

    trials: list[TrialRecord] = Field(
        max_length=10_000, description="Those that run and came to a point of decision, with their curves up to now."
    )


class JudgeResponse(Model):
    """The answer."""

    verdicts: list[Verdict] = Field(description="For each trial on which there is something to say, in their order.")


class Proposal(Model):
    """The configuration of a trial."""

    index: int = Field(description="The trial.")
    parameters: Given = Field(description="Its configuration.")
    rung: Rung | None = Field(
        default=None, description="For how much of the fidelity it is to run; left out: for all of it."
    )


class AskResponse(Model):
    """The answer: a configuration for each index, or for fewer where the space is exhausted or the time is up.

    Ask again for the others: when a configuration is found changes nothing about it.
    """

    configurations: list[Proposal] = Field(description="In the order of the indices asked for.")
    exhausted: bool = Field(
        description="Whether an index got none, because there are no further configurations. One that got none "
        "although the space is not exhausted is to be asked for again when the next trial has ended."
    )
    message: str | None = Field(default=None, description="If exhausted, why: one sentence.")
    degraded: str | None = Field(
        default=None, description="If another model proposes than the strategy's own, because that takes too long: why."
    )
    continuable: list[int] | None = Field(
        default=None,
        description="The ended trials that a later one may go on from, the likeliest first, and no more than were "
        "asked for. Left out: not known.",
    )


@dataclass
class _Study:
    definition: StudyDefinition
    strategy: Strategy
    judge: Judge
    revision: int = 0

    def hear(self, question: Question) -> None:
        """Take in what has happened."""
        news = question.records[self.revision - question.since :]
        self.strategy.update(news)
        self.judge.update(news)
        self.revision = question.revision


class Advisor:
    """Answers questions about studies. Not thread-safe: one question at a time.

    Example:
        >>> advisor = Advisor()
        >>> answer = advisor.ask(AskRequest(study="digits", definition=definition, indices=[0, 1, 2]))
        >>> answer.configurations[0].parameters
        {'lr': 0.0316, 'layers': 2}

    Args:
        capacity: of how many studies to keep what was told; beyond it the one not asked for longest is forgotten.
        patience: seconds after which an ask is answered with what has been found, one configuration at least.
        clock: gives seconds.
    """

    def __init__(
        self, capacity: int = 256, patience: float = math.inf, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._capacity = capacity
        self._patience = patience
        self._clock = clock
        self._studies: OrderedDict[str, _Study] = OrderedDict()
        self._wanted: tuple[Strategy, list[int]] | None = None
        """What was asked for last and is not found yet."""

    def ask(self, request: AskRequest) -> AskResponse:
        """Configurations for trials.

        Raises:
            NeedHistory: ask again with definition and all records.
            DefinitionError: the study cannot be searched.
            NoFeasiblePoint: no configuration meets the constraints.
        """
        study = self._study(request)
        study.hear(request)
        suggestions, left = self._suggest(study.strategy, request.indices)
        self._wanted = (study.strategy, left) if left else None
        exhausted = len(suggestions) + len(left) < len(request.indices) and not study.strategy.waits
        return AskResponse(
            configurations=[
                Proposal(index=each.index, parameters=each.parameters, rung=each.rung) for each in suggestions
            ],
            exhausted=exhausted,
            message=study.strategy.exhausted if exhausted else None,
            degraded=study.strategy.degraded,
            continuable=None if request.continuable is None else study.strategy.continuable()[: request.continuable],
        )

    def prepare(self) -> bool:
        """Find one configuration that was asked for when time was up, for when it is asked for again.

        It is kept as long as nothing is heard that could change it. False where there is nothing to do.
        """
        if self._wanted is None:
            return False
        strategy, (index, *left) = self._wanted
        self._wanted = (strategy, left) if left else None
        strategy.suggest([index])
        return True

    def _suggest(self, strategy: Strategy, indices: list[int]) -> tuple[list[Suggestion], list[int]]:
        """Suggestions, and the indices for which there was no time: at least one is answered."""
        if not strategy.learns:
            return strategy.suggest(indices), []
        until = self._clock() + self._patience
        found: dict[int, Suggestion] = {}
        left = sorted(set(indices))
        while left and (not found or self._clock() < until):
            suggested = strategy.suggest(left[:1])
            if not suggested:
                return [found[index] for index in indices if index in found], []  # nor is there any for the others
            found[left.pop(0)] = suggested[0]
        return [found[index] for index in indices if index in found], left

    def judge(self, request: JudgeRequest) -> JudgeResponse:
        """Which running trials are to be stopped.

        Raises:
            NeedHistory: ask again with definition and all records.
            DefinitionError: the study cannot be searched.
        """
        study = self._study(request)
        study.hear(request)
        return JudgeResponse(verdicts=study.judge.judge(request.trials))

    def check(self, definition: StudyDefinition) -> list[str]:
        """What is wrong with a definition beyond what the API server sees: one sentence each, none if all is well.

        Constraints that do not parse, initial configurations outside the space, and constraints that nothing meets.
        """
        try:
            strategy = create(definition)
            strategy.suggest([0])
        except DefinitionError as error:
            return error.problems
        except NoFeasiblePoint as error:
            return [f"constraints: {error}"]
        return []

    def explain(self, request: ExplainRequest) -> Explanation:
        """What a study's trials say; nothing is remembered of it.

        Raises:
            StrategyError: see explanation.explain.
        """
        return explain(request)

    def recommend(self, request: RecommendRequest) -> Recommendation:
        """The trial to use in the end; nothing is remembered of the study."""
        return recommend(request)

    def forget(self, study: str) -> None:
        """Drop what is held of a study; it may be asked about again, with its whole history."""
        self._studies.pop(study, None)

    def _study(self, request: Question) -> _Study:
        """The study that the question builds on, or a new one where the question begins from the start.

        A history that is sent from the start replaces what is held: the caller may have written its log anew.
        """
        known = self._studies.get(request.study)
        changed = known is not None and request.definition is not None and request.definition != known.definition
        if request.since == 0 and (known is None or changed or known.revision > 0):
            definition = request.definition or (known.definition if known is not None else None)
            if definition is None:
                raise NeedHistory(0)
            known = _Study(definition, create(definition), Judge(definition))
            self._studies[request.study] = known
            if len(self._studies) > self._capacity:
                self._studies.popitem(last=False)
        elif known is None or changed or known.revision > request.revision:
            raise NeedHistory(0)
        elif known.revision < request.since:
            raise NeedHistory(known.revision)
        self._studies.move_to_end(request.study)
        return known
