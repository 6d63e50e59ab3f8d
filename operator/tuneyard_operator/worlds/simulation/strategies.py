"""Strategies for simulated studies: one that costs nothing, the real ones, and how either fails now and then."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from tuneyard_api.study import StudySpec
from tuneyard_operator.state import StudyState
from tuneyard_operator.strategy_client import Answer, InProcess, StrategyClient, StrategyError
from tuneyard_operator.worlds.simulation.apiserver import Object
from tuneyard_operator.worlds.simulation.plans import Plan
from tuneyard_operator.worlds.simulation.process import Process
from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.recommendation import Recommendation
from tuneyard_strategy.registry import STRATEGIES, create
from tuneyard_strategy.space import Space
from tuneyard_strategy.stopping import Judge, Verdict

OnJudged = Callable[[StudyState, Sequence[TrialRecord], Sequence[Verdict]], None]


class Strategies(Protocol):
    """What the studies of a schedule are searched by."""

    def client(self) -> StrategyClient:
        """A client without a memory, as an operator that starts has it."""

    def mistake(self, plan: Plan, index: int, parameters: Object, others: Iterable[Object]) -> str | None:
        """What is wrong with the configuration of a trial, given those of the study's others; None when nothing is."""


def configuration(seed: int, index: int) -> Object:
    """A configuration that depends on the study's seed and the index alone, as strategies promise."""
    rng = random.Random(seed * 100_003 + index)  # noqa: S311
    return {"x": round(rng.random(), 6), "k": rng.randrange(10)}


class SeededStrategies:
    """Implements Strategies, and StrategyClient, at no cost."""

    def __init__(self, plans: Mapping[str, Plan]) -> None:
        self._plans = plans

    def client(self) -> StrategyClient:
        """See Strategies."""
        return self

    def mistake(self, plan: Plan, index: int, parameters: Object, others: Iterable[Object]) -> str | None:
        """See Strategies."""
        del others
        expected = configuration(plan.seed, index) if plan.size is None or index < plan.size else None
        return _differs(parameters, expected)

    async def ask(self, state: StudyState, indices: list[int]) -> Answer:
        """See StrategyClient."""
        size, seed = self._plans[state.name].size, state.spec.strategy.seed
        found = {index: configuration(seed, index) for index in indices if size is None or index < size}
        return Answer(found, exhausted=len(found) < len(indices))

    async def recommend(self, state: StudyState) -> Recommendation:
        """See StrategyClient."""
        del state
        return Recommendation()

    async def judge(self, state: StudyState, running: list[TrialRecord]) -> list[Verdict]:
        """See StrategyClient: these are the real rules."""
        judge = Judge(StudyDefinition.from_spec(state.spec))
        judge.update(state.history)
        return judge.judge(running)

    async def check(self, state: StudyState) -> list[str]:
        """See StrategyClient."""
        del state
        return []

    def forget(self, uid: str) -> None:
        """See StrategyClient."""


class RealStrategies:
    """The strategies that users have: what is expected comes from one that was never interrupted.

    What a strategy that learns proposes depends on when it is asked: it only has to be new, and of the space.
    """

    def __init__(self) -> None:
        self._expected: dict[str, list[Object]] = {}
        self._spaces: dict[str, Space] = {}

    def client(self) -> StrategyClient:
        """See Strategies."""
        return InProcess()

    def mistake(self, plan: Plan, index: int, parameters: Object, others: Iterable[Object]) -> str | None:
        """See Strategies."""
        if STRATEGIES[plan.spec["strategy"]["name"]].learns:
            return self._not_new(plan, parameters, others)
        if plan.name not in self._expected:
            found = create(StudyDefinition.from_spec(StudySpec.model_validate(plan.spec))).suggest(range(100))
            self._expected[plan.name] = [each.parameters for each in found]
        configurations = self._expected[plan.name]
        return _differs(parameters, configurations[index] if index < len(configurations) else None)

    def _not_new(self, plan: Plan, parameters: Object, others: Iterable[Object]) -> str | None:
        if plan.name not in self._spaces:
            spec = StudySpec.model_validate(plan.spec)
            self._spaces[plan.name] = Space.from_spec(spec.parameters, spec.constraints)
        problems = self._spaces[plan.name].problems(parameters)
        if problems:
            return f"is outside the space: {problems}"
        return "has the configuration of another trial" if parameters in others else None


def _differs(parameters: Object, expected: Object | None) -> str | None:
    if expected is None:
        return "is beyond the space"
    return None if parameters == expected else "has another configuration than seed and index give"


class FaultyStrategies:
    """A strategy client that takes its time and now and then has no answer."""

    def __init__(self, process: Process, inner: StrategyClient, on_judged: OnJudged) -> None:
        self._process = process
        self._inner = inner
        self._on_judged = on_judged

    async def ask(self, state: StudyState, indices: list[int]) -> Answer:
        """See StrategyClient."""
        await self._maybe_fail(f"ask for {indices}")
        answer = await self._inner.ask(state, indices)
        await self._process.sleep(self._process.kernel.jitter(0.0, 0.05))
        return answer

    async def recommend(self, state: StudyState) -> Recommendation:
        """See StrategyClient."""
        await self._maybe_fail(f"recommend {state.name}")
        return await self._inner.recommend(state)

    async def judge(self, state: StudyState, running: list[TrialRecord]) -> list[Verdict]:
        """See StrategyClient."""
        await self._maybe_fail(f"judge {[trial.index for trial in running]}")
        verdicts = await self._inner.judge(state, running)
        self._on_judged(state, running, verdicts)
        await self._process.sleep(self._process.kernel.jitter(0.0, 0.05))
        return verdicts

    async def check(self, state: StudyState) -> list[str]:
        """See StrategyClient."""
        await self._maybe_fail(f"check {state.name}")
        return await self._inner.check(state)

    def forget(self, uid: str) -> None:
        """See StrategyClient."""
        self._inner.forget(uid)

    async def _maybe_fail(self, what: str) -> None:
        kernel = self._process.kernel
        await self._process.sleep(kernel.jitter(0.0, 0.02))
        if kernel.chance(self._process.faults.strategy_error):
            self._process.fault("strategy_error", f"has no answer to {what}")
            raise StrategyError("the strategy service does not answer")
