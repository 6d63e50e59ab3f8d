"""Sets that give their smallest member."""

import random

from tuneyard_scheduler.ordered import MinSet


def test_against_a_sorted_list() -> None:
    rng, made, members = random.Random(5), MinSet[int](), set[int]()
    for _ in range(3000):
        item = rng.randrange(60)
        if rng.random() < 0.5:
            made.add(item)
            members.add(item)
        else:
            made.discard(item)
            members.discard(item)
        ordered = sorted(members)
        skip = set(ordered[: rng.randrange(3)])
        assert made.smallest(skip) == next((each for each in ordered if each not in skip), None)
        assert list(made.ascending()) == ordered
        assert len(made) == len(members)


def test_what_was_discarded_does_not_pile_up() -> None:
    made = MinSet[int]()
    for item in range(10_000):
        made.add(item)
        made.discard(item)
    made.add(10_000)
    assert len(made._heap) < 200
    assert list(made.ascending()) == [10_000]
