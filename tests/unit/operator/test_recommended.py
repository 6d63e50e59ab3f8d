"""The trial to use is asked for once, when all trials have ended, and told with the study's end."""

from __future__ import annotations

from typing import Any

import pytest
from operator_objects import NOW, Object
from operator_stage import Stage

from tuneyard_api.study_status import StudyStatus
from tuneyard_operator.actions import Recommend, WriteStudy
from tuneyard_operator.state import StudyState
from tuneyard_operator.strategy_client import StrategyError
from tuneyard_strategy.recommendation import Recommendation

ENDED = {"strategy": {"name": "bayesian"}, "trials": {"max": 10}}


class Asked(Stage):
    """A study whose trials have ended, and a strategy that recommends trial 1 of them."""

    def __init__(self, *, ended: int = 10, **spec: Any) -> None:
        super().__init__(**{**ENDED, **spec})
        self.times = 0
        self.answer: Recommendation | StrategyError = Recommendation(index=1, mean=0.25, deviation=0.5)
        self.strategies.recommend = self.recommend  # type: ignore[method-assign]
        for index in range(ended):
            self.put(index, "Succeeded", value=float(index), observation={"metrics": {"accuracy": float(index)}})

    async def recommend(self, state: StudyState) -> Recommendation:
        self.times += 1
        if isinstance(self.answer, StrategyError):
            raise self.answer
        return self.answer

    async def settle(self) -> Object:
        """All that follows; the last status that was written."""
        written: Object = {}
        while actions := self.engine.plan(self.state):
            for action in actions:
                if isinstance(action, WriteStudy):
                    written = action.status
                await self.engine.perform(self.state, action)
        StudyStatus.model_validate(written)
        return written


async def test_it_is_told_with_the_end_and_not_asked_for_again() -> None:
    stage = Asked()
    found = await stage.settle()
    assert found["phase"] == "Complete"
    assert found["best"]["index"] == 9
    wanted = {"trial": "s-1", "index": 1, "expected": 0.25, "deviation": 0.5, "parameters": {"lr": 0.1}}
    assert found["recommended"] == wanted
    assert stage.times == 1
    stage.world.time += 60
    await stage.settle()
    assert stage.times == 1


async def test_the_end_is_not_told_before() -> None:
    stage = Asked()
    assert [type(action) for action in stage.engine.plan(stage.state)] == [Recommend]
    assert stage.engine.plan(stage.state) == []


async def test_while_the_study_runs_nothing_is_asked() -> None:
    stage = Asked(ended=9).put(9, "Pending")
    assert not any(isinstance(action, Recommend) for action in stage.engine.plan(stage.state))


@pytest.mark.parametrize("name", ["auto", "tpe", "cmaes", "sobol"])
async def test_whoever_proposed_the_trials_one_is_recommended(name: str) -> None:
    assert (await Asked(strategy={"name": name}).settle())["recommended"]["index"] == 1


@pytest.mark.parametrize(
    "spec",
    [
        {"strategy": {"name": "bohb"}, "fidelity": {"parameter": "epochs", "min": 1, "max": 9}},
        {"strategy": {"name": None, "service": {"url": "http://opt.example"}}},
        {"objectives": [{"metric": "accuracy", "goal": "maximize"}, {"metric": "size", "goal": "minimize"}]},
    ],
)
async def test_where_no_model_fits_all_trials_nothing_is_recommended(spec: Object) -> None:
    stage = Asked(**spec)
    found = await stage.settle()
    assert (found["phase"], stage.times, "recommended" in found) == ("Complete", 0, False)


async def test_of_few_trials_none_is_recommended_nor_asked_for() -> None:
    stage = Asked(ended=9, trials={"max": 9})
    found = await stage.settle()
    assert (found["phase"], stage.times, "recommended" in found) == ("Complete", 0, False)


async def test_without_an_answer_the_study_ends_all_the_same() -> None:
    stage = Asked()
    stage.answer = StrategyError("down")
    found = await stage.settle()
    assert (found["phase"], stage.times, "recommended" in found) == ("Complete", 1, False)
    few = Asked()
    few.answer = Recommendation()
    assert "recommended" not in await few.settle()


async def test_a_process_that_begins_takes_it_from_the_status() -> None:
    first = Asked()
    written = await first.settle()
    second = Asked(ended=0)
    study = {**second.state.object, "status": written}
    second.state = second.engine.studies["u-s"] = StudyState(study, NOW)
    second.state.checked_generation = second.state.template_checked = 1
    for index in range(10):
        second.put(index, "Succeeded", value=float(index), observation={"metrics": {"accuracy": float(index)}})
    again = await second.settle()
    assert second.times == 0
    assert again.get("recommended", written["recommended"]) == written["recommended"]


async def test_a_study_that_goes_on_is_asked_about_again() -> None:
    stage = Asked()
    await stage.settle()
    stage.state.set_study(
        {
            **stage.state.object,
            "metadata": {**stage.state.object["metadata"], "generation": 2, "resourceVersion": "900"},
            "spec": {**stage.state.object["spec"], "trials": {"max": 11}},
        }
    )
    stage.state.checked_generation = stage.state.template_checked = 2
    assert "recommended" not in await stage.settle()
    stage.put(10, "Succeeded", value=19.0, observation={"metrics": {"accuracy": 19.0}})
    stage.answer = Recommendation(index=10, mean=8.0, deviation=0.5)
    assert (await stage.settle())["recommended"]["index"] == 10
    assert stage.times == 2
