"""Whose state a later trial may go on from: nobody ever does from one that was said to be of no more use."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tuneyard_strategy.contract import StudyDefinition, Suggestion, TrialRecord
from tuneyard_strategy.registry import create

POPULATION = 8


def define(strategy: str, **settings: Any) -> StudyDefinition:
    settings |= {"population": POPULATION} if strategy == "pbt" else {}
    return StudyDefinition.model_validate(
        {
            "parameters": [{"name": "x", "double": {"min": 0, "max": 1}}],
            "objectives": [{"metric": "loss", "goal": "minimize"}],
            "strategy": {"name": strategy, "seed": 3, **settings},
            "fidelity": {"parameter": "epochs", "min": 1, "max": 9, "resume": True},
        }
    )


class Volume:
    """A study whose trials end in an order of their own, some without a result; who starts deletes what is of no use.

    Args:
        definition: the study's.
        parallel: trials at a time.
        keep: the largest number of trials to continue whose state stays; None for all.
    """

    def __init__(self, definition: StudyDefinition, parallel: int, keep: int | None) -> None:
        self.strategy = create(definition)
        self.parallel, self.keep = parallel, keep
        self.records: dict[int, TrialRecord] = {}
        self.running: dict[int, Suggestion] = {}
        self.gone: set[int] = set()
        self.most = self.continued = self.anew = 0

    def run(self, trials: int) -> None:
        order = random.Random(trials)
        while True:
            while len(self.running) < self.parallel and len(self.records) < trials and self._start():
                pass
            if not self.running:
                return
            done = self.running.pop(order.choice(sorted(self.running)))
            failed = order.random() < 0.15
            loss = (done.parameters["x"] - 0.3) ** 2 + 0.1 * order.random()
            self._tell(done, "failed" if failed else "succeeded", None if failed else {"loss": loss})

    def _start(self) -> bool:
        new = self.strategy.suggest([len(self.records)])
        for each in new:
            self.running[each.index] = each
            self._tell(each, "running", None)
            if each.rung is not None and each.rung.continues is not None:
                self.continued += 1
                self.anew += each.rung.continues in self.gone
            self._delete()
        return bool(new)

    def _delete(self) -> None:
        sources = {each.rung.continues for each in self.running.values() if each.rung is not None}
        stay = {*self.strategy.continuable()[: self.keep], *self.running, *sources}
        ended = self.records.keys() - self.running.keys() - self.gone
        self.most = max(self.most, len(ended & stay))
        self.gone |= ended - stay

    def _tell(self, of: Suggestion, state: str, metrics: dict[str, float] | None) -> None:
        given = {"index": of.index, "parameters": of.parameters, "rung": of.rung, "state": state, "metrics": metrics}
        self.records[of.index] = TrialRecord.model_validate(given)
        self.strategy.update([self.records[of.index]])


@pytest.mark.parametrize("parallel", [1, 4, 16])
@pytest.mark.parametrize("strategy", ["asha", "hyperband", "bohb", "pbt"])
def test_nobody_goes_on_from_what_was_said_to_be_of_no_more_use(strategy: str, parallel: int) -> None:
    volume = Volume(
        define(strategy, **({} if strategy in {"hyperband", "pbt"} else {"sampler": "sobol"})), parallel, None
    )
    volume.run(120)
    assert volume.continued > 10
    assert volume.anew == 0
    assert len(volume.gone) > 10


@pytest.mark.parametrize("parallel", [1, 4, POPULATION])
def test_twice_its_size_is_enough_for_a_population(parallel: int) -> None:
    volume = Volume(define("pbt"), parallel, 2 * POPULATION)
    volume.run(500)
    assert volume.continued >= 8 * POPULATION
    assert volume.anew <= 0.02 * volume.continued, "where one member is many generations behind another"
    assert volume.most <= 2 * POPULATION + parallel


def test_those_near_the_top_of_their_rung_come_first() -> None:
    volume = Volume(define("asha", sampler="sobol"), 4, 12)
    volume.run(300)
    assert volume.continued > 80
    assert volume.anew <= 0.05 * volume.continued, "hardly anybody begins anew, though few states stay"
    assert volume.most <= 12 + 4


def test_strategies_without_rungs_name_nobody() -> None:
    definition = StudyDefinition.model_validate({"parameters": [{"name": "x", "double": {"min": 0, "max": 1}}]})
    strategy = create(definition)
    strategy.update([TrialRecord(index=0, parameters={"x": 0.5}, state="succeeded", metrics={"loss": 1.0})])
    assert strategy.continuable() == []
