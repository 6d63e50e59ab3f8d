"""Nodes on which trials are lost are left alone for a while, and no trial waits for ever because of that."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneyard_scheduler.health import FIRST, LONGEST, MEMORY, PATIENCE, TRIAL_SECONDS, WINDOW, NodeHealth

T = 1_000_000.0


def after(*losses: tuple[float, str], now: float = T) -> NodeHealth:
    """The health of a cluster in which these attempts were lost on node n, seconds after T, and what time it is."""
    health = NodeHealth()
    for at, trial in losses:
        health.lost("n", trial, T + at)
    health.advance(now)
    return health


THREE = ((0, "a"), (1, "b"), (2, "c"))


@pytest.mark.parametrize(
    ("losses", "suspect"),
    [
        (((0, "a"), (1, "b")), False),
        (THREE, True),
        (((0, "a"), (1, "a"), (2, "a"), (3, "b")), False),
        (((0, "a"), (1, "b"), (WINDOW + 1, "c")), False),
        (((0, "a"), (1, "b"), (WINDOW - 1, "c")), True),
        ((*THREE[:2], THREE[1]), False),
    ],
)
def test_losses_of_three_trials_within_a_while_make_a_node_suspect(losses: Any, suspect: bool) -> None:
    last = losses[-1][0]
    assert ("n" in after(*losses, now=T + last).avoided) is suspect


def test_it_is_closed_then_avoided_then_tried_out() -> None:
    health = after(*THREE)
    for seconds, closed, avoided in [
        (0, True, True),
        (PATIENCE - 1, True, True),
        (PATIENCE, False, True),
        (FIRST - 1, False, True),
        (FIRST, False, False),
    ]:
        health.advance(T + 2 + seconds)
        assert ("n" in health.closed, "n" in health.avoided) == (closed, avoided), seconds


def test_one_attempt_tries_it_out_and_others_follow_if_it_lasts() -> None:
    health = after(*THREE, now=T + 2 + FIRST)
    health.placed("n", "d", T + 2 + FIRST)
    assert "n" in health.closed
    health.advance(T + 2 + FIRST + TRIAL_SECONDS)
    assert not health.avoided
    assert health.next_change() is None
    health.placed("n", "e", T + 500)
    assert not health.closed, "it is well: several at a time"


def test_an_end_of_its_own_shows_at_once_that_it_is_well() -> None:
    health = after(*THREE, now=T + 2 + FIRST)
    health.survived("n", T - 50, T + 60)
    health.placed("n", "d", T + 2 + FIRST)
    assert "n" in health.closed, "what began before the trouble proves nothing"
    health.survived("n", T + 3 + FIRST, T + 5 + FIRST)
    assert not health.closed


def test_on_parole_one_loss_is_enough_and_the_time_doubles() -> None:
    health, now = after(*THREE), T + 2
    for strike in range(1, 9):
        assert health.strikes("n") == strike
        length = min(LONGEST, FIRST * 2 ** (strike - 1))
        health.advance(now + length - 1)
        assert "n" in health.avoided
        health.advance(now + length)
        assert "n" not in health.avoided
        now += length + 5
        health.placed("n", "d", now - 3)
        health.lost("n", "d", now)
    assert LONGEST < FIRST * 2**8


def test_what_is_lost_by_the_same_trouble_does_not_count_twice() -> None:
    losses = [(seconds, f"t{seconds}") for seconds in range(int(PATIENCE))]
    assert after(*losses).strikes("n") == 1


def test_a_node_that_was_proven_well_needs_three_again_but_is_remembered() -> None:
    health = after(*THREE, now=T + 2 + FIRST)
    health.survived("n", T + 2 + FIRST, T + 200)
    health.lost("n", "d", T + 300)
    health.lost("n", "e", T + 301)
    assert not health.avoided
    health.lost("n", "f", T + 302)
    assert health.strikes("n") == 2


def test_old_trouble_is_forgotten() -> None:
    late = FIRST + MEMORY + 10
    assert after(*THREE, (late, "d"), now=T + late).strikes("n") == 0


def test_a_place_that_is_not_given_leaves_the_trying_to_others() -> None:
    health = after(*THREE, now=T + 2 + FIRST)
    health.placed("n", "d", T + 2 + FIRST)
    health.withdrawn("n", "e")
    assert "n" in health.closed
    health.withdrawn("n", "d")
    assert "n" not in health.closed


@given(st.lists(st.tuples(st.integers(0, 4000), st.sampled_from("abcde")), max_size=20), st.randoms())
def test_the_order_in_which_losses_become_known_does_not_matter(
    losses: list[tuple[int, str]], rng: random.Random
) -> None:
    mixed = losses * 2
    rng.shuffle(mixed)
    one, other = after(*losses, now=T + 4000), after(*mixed, now=T + 4000)
    assert (one.avoided, one.closed, one.strikes("n")) == (other.avoided, other.closed, other.strikes("n"))
    assert one.next_change() == other.next_change()


@given(st.lists(st.tuples(st.integers(0, 100), st.sampled_from("abcd"), st.booleans()), max_size=40))
def test_it_is_never_closed_for_longer_than_it_says(events: list[tuple[int, str, bool]]) -> None:
    health, now = NodeHealth(), T
    for pause, trial, is_loss in events:
        now += pause
        health.advance(now)
        if is_loss:
            health.lost("n", trial, now)
        elif "n" not in health.closed:
            health.placed("n", trial, now)
        if "n" in health.closed:
            assert now < health.reopens("n") <= now + max(PATIENCE, TRIAL_SECONDS)
            change = health.next_change()
            assert change is not None
            assert now < change


# In the cycle


def lost(bench: Any, *, node: str = "n1") -> None:
    """Three trials were lost on a node, and wait for another place."""
    for index in range(3):
        bench.trial(index, attempt=1, lost=((node, T),), avoid=(node,), since=T)


def test_everybody_avoids_a_bad_node(bench: Any) -> None:
    bench.node("n1", 8)
    bench.node("n2", 8)
    bench.study("ns/b", trials=2)
    bench.study()
    assert bench.cycle(T)[0][2] == "n1"
    lost(bench)
    assert {node for _, _, node in bench.cycle(T)} == {"n2"}


def test_where_no_other_node_fits_it_is_tried_after_a_while_by_one(bench: Any) -> None:
    bench.node("n1", 8)
    bench.study()
    lost(bench)
    assert bench.cycle(T) == []
    assert bench.reasons(T) == {"ns/a": "NodesAvoided"}
    assert bench.state.next_release() == T + PATIENCE
    assert len(bench.cycle(T + PATIENCE)) == 1
    assert bench.cycle(T + PATIENCE + 1) == []
    assert bench.state.next_release() is not None
    assert len(bench.cycle(T + PATIENCE + TRIAL_SECONDS)) == 2


def test_a_record_that_is_told_again_is_no_further_loss(bench: Any) -> None:
    bench.node("n1", 8)
    bench.study()
    for attempt in range(1, 6):
        bench.trial(0, attempt=attempt, lost=(("n1", T),) * attempt, since=T)
    assert len(bench.cycle(T)) == 1
