"""Metrics: what was reported, what was left at the end, and whether it can be used."""

import itertools
import math
from typing import Any

import pytest

from tuneyard_api.study import Objective
from tuneyard_operator.metrics import MAX_METRICS, BadMetrics, Reports, from_log, from_termination_message, observe

GOAL = Objective(metric="accuracy", goal="maximize")
BOUND = Objective(metric="size", at_most=3.0)


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ([{"accuracy": 0.9}], {"accuracy": 0.9}),
        ([{"accuracy": 0.1, "loss": 2}, {"accuracy": 0.9}], {"accuracy": 0.9, "loss": 2.0}),
        ([{"accuracy": "0.9"}], {"accuracy": 0.9}),
        ([{"accuracy": "1e-3"}], {"accuracy": 0.001}),
        ([{"accuracy": 1, "note": "good", "loss": math.nan, "no name": 1}], {"accuracy": 1.0}),
    ],
)
def test_the_final_metrics(sources: list[dict[str, Any]], found: dict[str, float]) -> None:
    assert observe([GOAL], sources, None) == found


@pytest.mark.parametrize(
    ("sources", "problem", "said"),
    [
        ([{}], None, "without metric accuracy (it reported none); call tuneyard.report(accuracy=...)"),
        ([{"acc": 1, "loss": 2}], None, "(it reported acc, loss)"),
        ([{}], "metric accuracy is 'x'; report a number", "(metric accuracy is 'x'; report a number)"),
        ([{"accuracy": math.nan}], None, "metric accuracy is nan: not a finite number"),
        ([{"accuracy": 0.5}, {"accuracy": "-inf"}], None, "metric accuracy is -inf: not a finite number"),
        ([{"accuracy": "good"}], None, "metric accuracy is 'good'; report a number"),
        ([{"accuracy": True}], None, "metric accuracy is True; report a number"),
        ([{"accuracy": None}], None, "metric accuracy is None; report a number"),
        ([{"accuracy": 10**400}], None, "...; report a number"),
        ([{"accuracy": 0.5}], None, "without metric size"),
    ],
)
def test_why_metrics_cannot_be_used(sources: list[dict[str, Any]], problem: str | None, said: str) -> None:
    with pytest.raises(BadMetrics) as error:
        observe([GOAL, BOUND], sources, problem)
    assert said in str(error.value)
    assert len(str(error.value)) < 200


def test_no_more_metrics_are_kept_than_the_api_takes() -> None:
    many = {"accuracy": 1.0} | {f"m{number}": 1.0 for number in range(500)}
    assert len(observe([GOAL], [many], None)) == MAX_METRICS


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"accuracy": 0.9, "loss": 1}', {"accuracy": 0.9, "loss": 1}),
        ('\n {"accuracy": NaN}', {"accuracy": math.nan}),
        ("Traceback", {}),
        ('{"accuracy": 0.9', {}),
        ("[1]", {}),
        ("", {}),
        (None, {}),
    ],
)
def test_the_termination_message(text: str | None, found: dict[str, Any]) -> None:
    assert from_termination_message(text) == pytest.approx(found, nan_ok=True)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("acc: {value}", "acc: 0.5\nacc: 0.75\n", "0.75"),
        ("acc: {value}", "acc: 0.5\nacc: none\n", "0.5"),
        ("acc={value} %", "acc=91.5 % of all\nacc=92 of 100\n", "91.5"),
        ("acc: {value}", "acc:   -1.5e-3", "-1.5e-3"),
        ("acc: {value}", "acc: NaN", "NaN"),
        ("acc: {value}", "acc: 7", "7"),
        ("loss {value} accuracy", "loss 3 accuracy\n", "3"),
        ("acc: {value}", "nothing", None),
        ("acc: {value}", "", None),
        ("a.c: {value}", "abc: 1", None),
        ("1{value}x", "1" * 65536, None),  # at once: it runs in the event loop
    ],
)
def test_metrics_in_a_log(pattern: str, text: str, found: str | None) -> None:
    objectives = [Objective(metric="accuracy", goal="maximize", log_pattern=pattern), BOUND]
    assert from_log(text, objectives) == ({} if found is None else {"accuracy": found})


def test_a_curve_keeps_at_most_fifty_points_from_its_first_on() -> None:
    reports = Reports()
    for step in range(1234):
        reports.add(step, {"loss": 1234.0 - step})
        assert len(reports.curve()) <= 50
    steps = [point["step"] for point in reports.curve()]
    assert len(steps) >= 20
    assert steps[0] == 0
    assert len({after - before for before, after in itertools.pairwise(steps)}) == 1
    assert reports.last == {"loss": 1.0}
    assert reports.curve()[1]["metrics"] == {"loss": 1234.0 - steps[1]}


@pytest.mark.parametrize(
    ("metrics", "last", "problem"),
    [
        ({"loss": math.nan}, {"loss": math.nan}, None),
        ({"loss": "low", "accuracy": 1}, {"accuracy": 1.0}, "metric loss is 'low'; report a number"),
        ({"the loss": 1}, {}, "'the loss' is not a metric name"),
        ({"x" * 64: 1}, {}, "is not a metric name; use letters"),
        ({"loss": [1] * 100}, {}, "metric loss is [1, 1"),
        ([1], {}, "a report is not an object"),
        (None, {}, "a report is not an object"),
        ({f"m{number}": 1 for number in range(65)}, {}, "a report is not an object of at most 64 metrics"),
    ],
)
def test_what_of_a_report_is_kept(metrics: object, last: dict[str, float], problem: str | None) -> None:
    reports = Reports()
    reports.add(0, metrics)
    assert reports.last == pytest.approx(last, nan_ok=True)
    assert (problem in (reports.problem or "")) if problem else reports.problem is None
    assert [point["metrics"] for point in reports.curve()] == ([last] if last.get("accuracy") else [])


def test_new_names_in_each_report_do_not_grow_without_end() -> None:
    reports = Reports()
    for number in range(100):
        reports.add(number, {f"m{number}": 1.0})
    assert len(reports.last) == MAX_METRICS
    assert reports.problem == "more than 64 metrics were reported"


@pytest.mark.parametrize("step", [None, -1, True, 1.5, "3", 10**13])
def test_a_step_that_cannot_be_used_becomes_the_next_one(step: object) -> None:
    reports = Reports()
    reports.add(7, {"loss": 2})
    reports.add(step, {"loss": 1})
    assert reports.curve() == [{"step": 7, "metrics": {"loss": 2.0}}, {"step": 8, "metrics": {"loss": 1.0}}]


def test_a_post_that_comes_again_replaces_nothing_newer() -> None:
    reports = Reports()
    for step in (1, 2, 3, 1, 2):
        reports.add(step, {"loss": 1 / step})
    assert reports.last == {"loss": 1 / 3}
    assert [point["step"] for point in reports.curve()] == [1, 2, 3]


def test_metrics_of_one_step_may_come_in_several_reports() -> None:
    reports = Reports()
    reports.add(1, {"loss": 0.5})
    reports.add(1, {"accuracy": 0.9})
    assert reports.curve() == [{"step": 1, "metrics": {"loss": 0.5, "accuracy": 0.9}}]


def test_a_written_curve_is_taken_up_again() -> None:
    curve = [{"step": 3, "metrics": {"loss": 2.0}}, {"step": 6, "metrics": {"loss": 1.0}}]
    reports = Reports.resumed(curve)
    assert reports.curve() == curve
    assert reports.last == {"loss": 1.0}
    assert reports.told == reports.count == 2
