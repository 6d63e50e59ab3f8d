"""asha, hyperband and bohb as strategies: which trials they make, on which rungs, and what their models are told."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tuneyard_strategy.comparable import Comparable
from tuneyard_strategy.contract import Strategy, StudyDefinition, Suggestion, TrialRecord
from tuneyard_strategy.history import Fate
from tuneyard_strategy.multifidelity import PromotingStrategy
from tuneyard_strategy.registry import create

X = {"name": "x", "double": {"min": 0, "max": 1}}
Y = {"name": "y", "double": {"min": 0, "max": 1}}


def define(strategy: str = "hyperband", top: int = 9, **more: Any) -> StudyDefinition:
    resume = more.pop("resume", False)
    document = {
        "parameters": [X, Y],
        "objectives": [{"metric": "loss", "goal": "minimize"}],
        "strategy": {"name": strategy, "seed": 3, **more.pop("settings", {})},
        "fidelity": {"parameter": "epochs", "min": 1, "max": top, "resume": resume},
        **more,
    }
    return StudyDefinition.model_validate(document)


def loss(parameters: Any) -> float:
    return float((parameters["x"] - 0.3) ** 2 + (parameters["y"] - 0.6) ** 2)


def record(of: Suggestion, state: str, **more: Any) -> TrialRecord:
    given = {"index": of.index, "parameters": of.parameters, "rung": of.rung, "state": state, **more}
    return TrialRecord.model_validate(given)


def run(
    definition: StudyDefinition, trials: int, parallel: int = 1, ends: Callable[[int], str] = lambda _: "succeeded"
) -> tuple[list[TrialRecord], Strategy]:
    """A study whose trials end in an order of their own."""
    strategy, order = create(definition), random.Random(7)
    known: dict[int, TrialRecord] = {}
    running: list[Suggestion] = []
    while len(known) < trials or running:
        while len(known) < trials and len(running) < parallel:
            new = strategy.suggest([len(known)])
            if not new:
                break
            running += new
            known[new[0].index] = record(new[0], "running")
            strategy.update([known[new[0].index]])
        if not running:
            break
        done = running.pop(order.randrange(len(running)))
        state = ends(done.index)
        metrics = {"loss": loss(done.parameters)} if state == "succeeded" else None
        known[done.index] = record(done, state, metrics=metrics)
        strategy.update([known[done.index]])
    return list(known.values()), strategy


def per_rung(records: list[TrialRecord]) -> Counter[tuple[int, int, int]]:
    rungs = [r.rung for r in records if r.rung is not None]
    return Counter((rung.bracket, rung.level, rung.fidelity) for rung in rungs)


FULL = {
    (0, 0, 1): 9, (0, 1, 3): 3, (0, 2, 9): 1,
    (1, 0, 3): 5, (1, 1, 9): 1,
    (2, 0, 9): 3,
}  # fmt: skip
"""Hyperband's brackets from 1 to 9."""


@pytest.mark.parametrize("strategy", ["hyperband", "bohb"])
@pytest.mark.parametrize("parallel", [1, 4])
def test_a_round_of_brackets_has_as_many_trials_a_rung_as_the_paper_says(strategy: str, parallel: int) -> None:
    records, _ = run(define(strategy), 44, parallel)
    found = per_rung(records)
    assert {key: found[key] for key in FULL} == FULL
    assert found[3, 0, 1] == 9, "and then again"


def test_the_best_of_a_rung_go_on_and_keep_their_configuration() -> None:
    records, _ = run(define(), 22, 3)
    by_index = {r.index: r for r in records}
    for bracket, level, _ in FULL:
        ranked = sorted(
            (loss(r.parameters), r.index)
            for r in records
            if r.rung is not None and (r.rung.bracket, r.rung.level) == (bracket, level)
        )
        above = [r for r in records if r.rung is not None and (r.rung.bracket, r.rung.level) == (bracket, level + 1)]
        gone_on = {r.rung.continues for r in above if r.rung is not None}
        assert gone_on == {index for _, index in ranked[: len(above)]}
        assert all(by_index[r.rung.continues].parameters == r.parameters for r in above if r.rung and r.rung.continues)


def test_the_next_bracket_begins_while_a_rung_is_waited_for() -> None:
    strategy = create(define())
    rungs = [each.rung for each in strategy.suggest(range(15))]
    assert Counter((rung.bracket, rung.level) for rung in rungs if rung) == {(0, 0): 9, (1, 0): 5, (2, 0): 1}


def test_failed_trials_leave_their_places_empty() -> None:
    records, _ = run(define(), 60, 4, lambda index: "failed" if index % 3 else "succeeded")
    assert not any(r.rung and r.rung.continues is not None and r.rung.continues % 3 for r in records)
    nothing, _ = run(define(), 30, 1, lambda _: "failed")
    assert all(r.rung is not None and r.rung.level == 0 for r in nothing)


def test_asha_that_resumes_promotes_the_best_third_as_soon_as_there_is_one() -> None:
    records, _ = run(define("asha", resume=True, settings={"sampler": "tpe"}), 40, 1)
    rungs = [r.rung for r in records]
    assert all(rung is not None for rung in rungs)
    first = [rung for rung in rungs[:4] if rung]
    assert [(rung.fidelity, rung.level) for rung in first] == [(1, 0), (1, 0), (1, 0), (3, 1)]
    assert first[3].continues == min(range(3), key=lambda index: loss(records[index].parameters))
    counts = per_rung(records)
    for level, fidelity in enumerate((1, 3)):
        below, above = counts[0, level, fidelity], counts[0, level + 1, fidelity * 3]
        assert below // 3 <= above < below / 1.5, "a better one that comes later goes on as well"
    continued = [rung.continues for rung in rungs if rung and rung.continues is not None]
    assert len(set(continued)) == len(continued), "nobody goes on twice"


def test_asha_that_stops_starts_each_trial_for_all_of_it() -> None:
    records, _ = run(define("asha"), 20, 4)
    assert all(r.rung is None for r in records)
    assert len({tuple(sorted(r.parameters.items())) for r in records}) == 20


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [("hyperband", {}), ("bohb", {}), ("bohb", {"sampler": "bayesian"}), ("asha", {})],
)
def test_a_restart_or_a_repeated_question_changes_nothing(strategy: str, settings: dict[str, str]) -> None:
    definition = define(strategy, resume=True, settings=settings)
    for trials in (5, 12, 21, 33):
        records, lasting = run(definition, trials, 4)
        started = create(definition)
        started.update(records)
        ahead = list(range(trials, trials + 4))
        answer = started.suggest(ahead)
        assert lasting.suggest(ahead) == answer
        assert lasting.suggest(ahead[::-1]) == answer[::-1]
        assert create_and_hear(definition, records[::-1]).suggest(ahead) == answer


def create_and_hear(definition: StudyDefinition, records: list[TrialRecord]) -> Strategy:
    strategy = create(definition)
    for each in records:
        strategy.update([each])
    return strategy


def test_a_small_space_is_promoted_to_the_end_and_waits_where_it_has_to() -> None:
    small = define(
        parameters=[{"name": "x", "int": {"min": 1, "max": 4}}, {**Y, "double": {"min": 0, "max": 1, "step": 1}}]
    )
    strategy = create(small)
    first = strategy.suggest(range(12))
    assert len(first) == 8
    assert strategy.waits, "some may be promoted"
    records, ended = run(small, 100, 3)
    assert per_rung(records)[0, 0, 1] == 8
    assert per_rung(records)[0, 2, 9] == 1
    assert not ended.suggest([len(records)])
    assert not ended.waits


def curve(*values: float) -> list[tuple[int, float]]:
    return list(zip((1, 3, 9), values, strict=False))


def told(definition: StudyDefinition, *records: TrialRecord) -> PromotingStrategy:
    strategy = create(definition)
    strategy.update(records)
    assert isinstance(strategy, PromotingStrategy)
    return strategy


def plain(index: int, state: str, values: list[tuple[int, float]], metric: float | None = None) -> TrialRecord:
    parameters = {"x": index / 10, "y": 0.5}
    metrics = {"loss": metric} if metric is not None else None
    return TrialRecord.model_validate(
        {"index": index, "parameters": parameters, "state": state, "curve": values, "metrics": metrics}
    )


def test_values_are_extrapolated_by_what_the_others_gained() -> None:
    """From 1 to 3 all gained 0.2, in the median; from 3 to 9 those three that came so far gained 0.1."""
    strategy = told(
        define("asha"),
        *(plain(i, "succeeded", curve(0.9, 0.7, 0.6 - i / 100), 0.6 - i / 100) for i in range(3)),
        plain(3, "stopped", curve(0.95, 0.75), 0.75),
        plain(4, "stopped", curve(1.4), 1.4),
        plain(5, "running", []),
        plain(6, "failed", curve(0.1)),
        plain(7, "running", curve(0.8)),
    )
    comparable = strategy.comparable()
    rows = comparable.rows(Fate.MEASURED)
    assert rows.tolist() == [0, 1, 2, 3, 4, 7]
    gain = 0.2 + 0.11
    expected = [0.6, 0.59, 0.58, 0.75 - 0.11, 1.4 - gain, 0.8 - gain]
    assert comparable.values(rows) == pytest.approx(expected)
    assert comparable.rows(Fate.PENDING).tolist() == [5]
    assert comparable.rows(Fate.FAILED).tolist() == [6]


def test_a_configuration_counts_once_with_what_it_came_to_on_its_highest_rung() -> None:
    definition = define("asha", resume=True)
    records, strategy = run(definition, 30, 1)
    assert isinstance(strategy, PromotingStrategy)
    rows = strategy.comparable().rows(Fate.MEASURED)
    new = [r.index for r in records if r.rung is not None and r.rung.continues is None]
    assert rows.tolist() == new


def test_bohb_models_the_largest_fidelity_of_which_it_knows_enough() -> None:
    records, strategy = run(define("bohb"), 13, 1)
    assert isinstance(strategy, PromotingStrategy)
    comparable = strategy.comparable()
    assert len(comparable.rows(Fate.MEASURED)) == 9, "all of the first rung: of the next there are but three"
    records, strategy = run(define("bohb"), 40, 1)
    rows = strategy.comparable().rows(Fate.MEASURED)  # type: ignore[attr-defined]
    assert len(rows) == len({tuple(r.parameters.items()) for r in records if r.rung and r.rung.fidelity == 9})


def test_nothing_that_is_known_is_nothing_to_compare() -> None:
    strategy = told(define("asha"), plain(0, "running", []))
    assert isinstance(strategy.comparable(), Comparable)
    assert len(strategy.comparable().rows(Fate.MEASURED)) == 0
    assert strategy.comparable().rows(Fate.PENDING).tolist() == [0]


@pytest.mark.parametrize("resume", [False, True])
def test_a_ladder_that_is_told_bit_by_bit_has_what_one_has_that_is_told_all_at_once(*, resume: bool) -> None:
    definition = define("asha", resume=resume)
    records, strategy = run(definition, 40, 3)
    assert isinstance(strategy, PromotingStrategy)
    at_once = create_and_hear(definition, records)
    assert isinstance(at_once, PromotingStrategy)
    (rows, values), (same_rows, same_values) = (each.ladder.table() for each in (strategy, at_once))
    assert len(rows) > 10
    np.testing.assert_array_equal(rows, same_rows)
    np.testing.assert_array_equal(values, same_values)
    np.testing.assert_array_equal(strategy.ladder.hidden(rows), at_once.ladder.hidden(rows))


def test_a_trial_that_a_ladder_was_not_told_of_is_not_hidden() -> None:
    known = [plain(index, "stopped", curve(0.9 - index / 20)) for index in (0, 1, 2, 4, 5, 6, 7)]
    strategy = told(define("asha"), *known)
    rows, _ = strategy.ladder.table()
    assert rows.tolist() == strategy.ladder.hidden(rows).tolist() == [0, 1, 2, 4, 5, 6, 7]


@pytest.mark.parametrize(("strategy", "sampler"), [("asha", "tpe"), ("asha", "bayesian"), ("bohb", "bayesian")])
def test_a_model_finds_better_configurations_than_the_sequence(strategy: str, sampler: str) -> None:
    def late(settings: dict[str, str]) -> float:
        records, _ = run(define(strategy, resume=True, settings=settings), 45, 2)
        return float(np.median([loss(r.parameters) for r in records[25:]]))

    assert late({"sampler": sampler}) < late({"sampler": "sobol"}) / 2


@pytest.mark.parametrize("strategy", ["asha", "bohb"])
def test_a_gaussian_process_proposes_unless_told_otherwise(strategy: str) -> None:
    plain, _ = run(define(strategy), 45, 4)
    assert plain == run(define(strategy, settings={"sampler": "bayesian"}), 45, 4)[0]
    assert plain != run(define(strategy, settings={"sampler": "tpe"}), 45, 4)[0]


def test_bohb_without_a_model_is_hyperband() -> None:
    by_sequence, _ = run(define("bohb", settings={"sampler": "sobol"}), 45, 4)
    hyperband, _ = run(define("hyperband"), 45, 4)
    assert by_sequence == hyperband
