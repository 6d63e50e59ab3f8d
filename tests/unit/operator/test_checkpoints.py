"""Whose checkpoints a trial is told to leave alone."""

from __future__ import annotations

from typing import Any

import pytest
from operator_objects import Yard

from tuneyard_operator import checkpoints

GOAL_AND_BOUND = [{"metric": "accuracy", "goal": "maximize"}, {"metric": "size", "atMost": 2}]
FIDELITY = {"parameter": "epochs", "min": 1, "max": 9, "resume": True}


def kept(yard: Yard, index: int) -> set[int] | None:
    """The trials whose checkpoints this one is told to leave; None where it is not to delete any."""
    told = checkpoints.environment("/states", yard.state, yard.state.trials[index]).get("TUNEYARD_CHECKPOINTS_KEPT")
    return None if told is None else {int(name.partition("-")[0]) for name in told.split()}


def ended(keep: int | None, *scores: float) -> Yard:
    """A study with trials that ended with these scores, and one more that has a place."""
    spec: dict[str, Any] = {"claim": "states"} | ({} if keep is None else {"keep": keep})
    yard = Yard(checkpoints=spec, fidelity=FIDELITY)
    for index, score in enumerate(scores):
        yard.ended(index, value=score)
    return yard.placed(len(scores))


def told(yard: Yard, *continuable: int) -> None:
    """The strategy says now who may go on."""
    yard.state.continuable, yard.state.continuable_as_of = continuable, len(yard.state.history)


@pytest.fixture
def yard() -> Yard:
    """A study of which the best trial is 1, then 4, 3, 2 and 0."""
    return ended(2, 0.1, 0.5, 0.2, 0.3, 0.4)


def test_nothing_is_deleted_unless_the_study_says_how_many_stay_and_it_is_known_who_may_go_on(yard: Yard) -> None:
    assert kept(yard, 5) is None, "the strategy was not asked since the operator began"
    told(yard)
    assert kept(yard, 5) is not None
    all_of_them = ended(None, 0.1, 0.5)
    told(all_of_them, 0, 1)
    assert kept(all_of_them, 2) is None


def test_so_many_that_may_go_on_and_so_many_of_the_best(yard: Yard) -> None:
    told(yard, 0, 2, 3)
    assert kept(yard, 5) == {0, 2, 1, 4}
    told(yard, 4)
    assert kept(yard, 5) == {4, 1}
    told(yard)
    assert kept(yard, 5) == {1, 4}


def test_the_best_is_that_of_the_status() -> None:
    yard = Yard(checkpoints={"claim": "states", "keep": 1}, fidelity=FIDELITY, objectives=GOAL_AND_BOUND)
    yard.ended(0, value=0.9, size=3).ended(1, value=0.5, size=1).ended(2, value=0.4, size=1).placed(3)
    told(yard)
    assert yard.state.best is yard.state.trials[1]
    assert kept(yard, 3) == {1}


def test_those_that_have_not_ended_and_those_that_they_continue_stay(yard: Yard) -> None:
    told(yard)
    yard.pending(6).placed(7)
    yard.state.trials[6].rung = {"fidelity": 3, "level": 1, "bracket": 0, "continues": 0}
    yard.state.trials[7].rung = {"fidelity": 3, "level": 1, "bracket": 0, "continues": 99}
    assert kept(yard, 7) == {0, 1, 4, 5, 6}, "of what trial 7 continues nothing is known any more"
    assert kept(yard, 5) == {0, 1, 4}, "trials of higher numbers are none of its business"


def test_what_ended_since_the_strategy_said_who_may_go_on_stays(yard: Yard) -> None:
    told(yard.placed(6))
    yard.ended(5, value=0.0)
    assert kept(yard, 6) == {1, 4, 5}
    told(yard)
    assert kept(yard, 6) == {1, 4}


def test_a_trial_that_is_gone_is_not_kept(yard: Yard) -> None:
    told(yard, 0, 2)
    yard.state.remove_trial(yard.objects[0])
    assert kept(yard, 5) == {1, 2, 4}


def test_of_several_objectives_the_front_stays() -> None:
    goals = [{"metric": "loss", "goal": "minimize"}, {"metric": "size", "goal": "minimize"}]
    yard = Yard(checkpoints={"claim": "states", "keep": 1}, objectives=goals)
    for index, (loss, size) in enumerate([(1.0, 3.0), (2.0, 2.0), (3.0, 3.0), (3.0, 1.0)]):
        metrics = {"loss": loss, "size": size}
        yard.set(index, {"phase": "Succeeded", "observation": {"metrics": metrics}})
    told(yard.placed(4))
    assert kept(yard, 4) == {0, 1, 3}
