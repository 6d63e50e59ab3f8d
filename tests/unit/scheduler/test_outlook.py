"""What those who wait may expect."""

from __future__ import annotations

from typing import Any

import pytest

from tuneyard_api.trial import Phase
from tuneyard_scheduler import translate
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.durations import Run
from tuneyard_scheduler.outlook import noticeably, outlook
from tuneyard_scheduler.views import Outlook, TrialView, Waiting

NOW = 10_000.0


def runs(bench: Any, key: str, *ago: float, gpus: int = 1, node: str = "n1", first: int = 0) -> None:
    """Trials that began so many seconds ago."""
    for index, seconds in enumerate(ago, first):
        since = NOW - seconds
        bench.placed(index, node, gpus, key=key, since=since, started=since)
        bench.pod(f"{key}-{index}", node if gpus else None, gpus, of=(key, index, 0))


def took(bench: Any, key: str, seconds: float) -> None:
    bench.state.set_trial(TrialView(key, 900, Phase.SUCCEEDED, run=Run(1.0, seconds)))


def look(bench: Any) -> dict[str, tuple[int | None, float | None]]:
    """Position, and seconds from now to the expected start."""
    decisions = schedule(bench.state, NOW)
    assert decisions.placements == []
    found = outlook(bench.state, decisions.waiting, NOW)
    return {key: (o.position, None if o.start is None else o.start - NOW) for key, o in found.items()}


@pytest.fixture
def busy(bench: Any) -> Any:
    """A node whose four GPUs fall free in 40, 60, 80 and 90 seconds."""
    bench.node("n1", 4)
    bench.study("ns/old", 1)
    took(bench, "ns/old", 100.0)
    runs(bench, "ns/old", 10, 20, 40, 60)
    return bench


def test_the_line_of_a_queue(busy: Any) -> None:
    for number in range(3):
        busy.study(f"ns/{number}", 1, created=float(number), trials=5)
    assert look(busy) == {"ns/0": (1, 40), "ns/1": (2, 60), "ns/2": (3, 80)}


def test_trials_of_different_queues_may_end_at_the_same_moment(busy: Any) -> None:
    busy.queue("q")
    busy.study("ns/other", 1, queue="q")
    took(busy, "ns/other", 100.0)
    runs(busy, "ns/other", 10, first=10)
    busy.study("ns/0", 1, trials=1)
    assert look(busy)["ns/0"] == (1, 40)


def test_each_queue_has_a_line(busy: Any) -> None:
    busy.queue("q")
    busy.study("ns/0", 1, created=1.0, trials=1)
    busy.study("ns/1", 1, created=2.0, trials=1, queue="q")
    assert {key: position for key, (position, _) in look(busy).items()} == {"ns/0": 1, "ns/1": 1}


def test_where_nothing_is_known_nothing_is_said(bench: Any) -> None:
    bench.node("n1", 2)
    bench.study("ns/old", 1)
    runs(bench, "ns/old", 10, 20)
    bench.study("ns/new", 1, trials=1)
    assert look(bench) == {"ns/new": (1, None)}


def test_a_big_one_has_the_time_of_its_reservation(busy: Any) -> None:
    busy.study("ns/big", 3, trials=1)
    assert look(busy) == {"ns/big": (1, 80)}


def test_within_a_limit(busy: Any) -> None:
    busy.node("n2", 4)
    busy.queue("q", limit=3)
    busy.study("ns/of", 1, queue="q")
    took(busy, "ns/of", 1000.0)
    runs(busy, "ns/of", 100, 200, 300, node="n2")
    busy.study("ns/in", 2, queue="q", trials=1)
    assert look(busy) == {"ns/in": (1, 800)}, "two of the queue's have to end"
    busy.study("ns/in", 4, queue="q")
    assert look(busy) == {"ns/in": (1, None)}, "the limit is below what it needs"


@pytest.mark.parametrize(("gpus", "start"), [(1, 70), (0, 50)])
def test_as_many_as_it_may_have(bench: Any, gpus: int, start: float) -> None:
    bench.node("n1", 4)
    bench.study("ns/a", gpus, parallel=2)
    took(bench, "ns/a", 100.0)
    runs(bench, "ns/a", 10, 30, gpus=gpus)
    bench.trial(5)
    assert look(bench) == {"ns/a": (None, start)}


def test_backoff_and_others(bench: Any) -> None:
    bench.study("ns/failed", 1)
    bench.trial(0, "ns/failed", not_before=NOW + 30)
    bench.study("ns/held", 1, suspended=True, trials=1)
    bench.study("ns/nowhere", 1, trials=1)
    assert look(bench) == {"ns/failed": (None, 30), "ns/held": (None, None), "ns/nowhere": (None, None)}


@pytest.mark.parametrize(
    ("before", "after", "want"),
    [
        (Outlook(1, None), Outlook(1, None), False),
        (Outlook(2, None), Outlook(1, None), True),
        (Outlook(1, None), Outlook(1, NOW), True),
        (Outlook(1, NOW + 1000), Outlook(1, NOW + 1100), False),
        (Outlook(1, NOW + 1000), Outlook(1, NOW + 1300), True),
        (Outlook(1, NOW + 10), Outlook(1, NOW + 35), False),
    ],
)
def test_what_is_news(before: Outlook, after: Outlook, want: bool) -> None:
    assert noticeably(before, after, NOW) is want


def test_the_patch() -> None:
    waiting = Waiting("ns/a", 3, "NoNodeFits", "m" * 2000)
    patch = translate.waits(waiting, Outlook(2, 0.0), "7")
    assert patch == {
        "metadata": {"resourceVersion": "7"},
        "status": {
            "reason": "NoNodeFits",
            "message": "m" * 1024,
            "waiting": {"position": 2, "expectedStart": "1970-01-01T00:00:00Z"},
        },
    }
