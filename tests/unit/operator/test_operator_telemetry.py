"""What Prometheus is told of studies, as it would be scraped."""

from typing import Any

import pytest
from operator_stage import Stage
from prometheus_client import REGISTRY, CollectorRegistry

from tuneyard_operator import telemetry
from tuneyard_operator.attempts import AttemptSeen
from tuneyard_operator.strategy_client import StrategyError
from tuneyard_operator.telemetry import MeasuredStrategies, StateCollector


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_trials_by_phase_and_attempts_by_outcome() -> None:
    stage = Stage()
    registry = CollectorRegistry()
    registry.register(StateCollector(stage.engine))

    def shown(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    one = {"namespace": "ns", "study": "s"}
    stage.put(0).put(1, "Pending").put(2, "Pending", attempt=2)
    assert shown("tuneyard_trials", phase="Placed", **one) == 1
    assert shown("tuneyard_trials", phase="Pending", **one) == 2
    assert shown("tuneyard_trials", phase="Failed", **one) == 0
    assert shown("tuneyard_trial_retries", **one) == 2
    assert shown("tuneyard_studies", phase="Pending") == 1
    assert shown("tuneyard_attempts_total", outcome="ProgramFailed") == 0
    over = AttemptSeen(0, "ended", exit_code=1, started=stage.world.time - 1, finished=stage.world.time)
    stage.state.set_attempt(0, over, stage.world.time)
    await stage.do()
    assert shown("tuneyard_attempts_total", outcome="ProgramFailed") == 1
    assert shown("tuneyard_trials", phase="Placed", **one) == 0
    stage.engine.remove_study("u-s")
    assert shown("tuneyard_trials", phase="Pending", **one) is None
    assert shown("tuneyard_attempts_total", outcome="ProgramFailed") == 1, "a counter never goes back"


async def test_asks_are_timed_and_those_without_an_answer_counted() -> None:
    stage = Stage()
    measured = MeasuredStrategies(stage.strategies)
    labels = {"strategy": "random"}
    asked, failed = value("tuneyard_ask_seconds_count", **labels), value("tuneyard_ask_failures_total", **labels)
    assert (await measured.ask(stage.state, [0])).configurations
    assert value("tuneyard_ask_seconds_count", **labels) == asked + 1

    class Down:
        judge = check = forget = recommend = None

        async def ask(self, *_: Any) -> Any:
            raise StrategyError("down")

    with pytest.raises(StrategyError):
        await MeasuredStrategies(Down()).ask(stage.state, [0])  # type: ignore[arg-type]
    assert value("tuneyard_ask_failures_total", **labels) == failed + 1
    assert value("tuneyard_ask_seconds_count", **labels) == asked + 1


def test_all_names_are_shown() -> None:
    registry = CollectorRegistry()
    registry.register(StateCollector(Stage().engine))
    families = [*registry.collect(), *REGISTRY.collect()]
    assert {f.name + ("_total" if f.type == "counter" else "") for f in families} >= telemetry.NAMES
