"""Strategies for simulated studies: one that costs nothing, the real ones, and how either fails now and then."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Protocol

from tuneyard_api.study import StudySpec
from tuneyard_operator.state import StudyState
from tuneyard_operator.strategy_client import Answer, InProcess, StrategyClient, StrategyError
from tuneyard_operator.worlds.simulation.apiserver import Object
from tuneyard_operator.worlds.simulation.plans import Plan
from tuneyard_operator.worlds.simulation.process import Process
from tuneyard_strategy.contract import StudyDefinition
from tuneyard_strategy.registry import create


class Strategies(Protocol):
    """What the studies of a schedule are searched by."""

    def client(self) -> StrategyClient:
        """A client without a memory, as an operator that starts has it."""

    def expected(self, plan: Plan, index: int) -> Object | None:
        """The configuration that a trial has to have, whenever it is asked for; None: the space has no more."""


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

    def expected(self, plan: Plan, index: int) -> Object | None:
        """See Strategies."""
        return configuration(plan.seed, index) if plan.size is None or index < plan.size else None

    async def ask(self, state: StudyState, indices: list[int]) -> Answer:
        """See StrategyClient."""
        size, seed = self._plans[state.name].size, state.spec.strategy.seed
        found = {index: configuration(seed, index) for index in indices if size is None or index < size}
        return Answer(found, exhausted=len(found) < len(indices))

    async def check(self, state: StudyState) -> list[str]:
        """See StrategyClient."""
        del state
        return []

    def forget(self, uid: str) -> None:
        """See StrategyClient."""


class RealStrategies:
    """The strategies that users have: what is expected comes from one that was never interrupted."""

    def __init__(self) -> None:
        self._expected: dict[str, list[Object]] = {}

    def client(self) -> StrategyClient:
        """See Strategies."""
        return InProcess()

    def expected(self, plan: Plan, index: int) -> Object | None:
        """See Strategies."""
        if plan.name not in self._expected:
            strategy = create(StudyDefinition.from_spec(StudySpec.model_validate(plan.spec)))
            self._expected[plan.name] = [found.parameters for found in strategy.suggest(range(100))]
        configurations = self._expected[plan.name]
        return configurations[index] if index < len(configurations) else None


class FaultyStrategies:
    """A strategy client that takes its time and now and then has no answer."""

    def __init__(self, process: Process, inner: StrategyClient) -> None:
        self._process = process
        self._inner = inner

    async def ask(self, state: StudyState, indices: list[int]) -> Answer:
        """See StrategyClient."""
        await self._maybe_fail(f"ask for {indices}")
        answer = await self._inner.ask(state, indices)
        await self._process.sleep(self._process.kernel.jitter(0.0, 0.05))
        return answer

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
