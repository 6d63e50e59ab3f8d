from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tuneyard_strategy.rng import Stream, generator, uniforms


def rows(start: int, count: int, *, seed: int = 7, width: int = 5, index: int = 0) -> np.ndarray:
    return uniforms(seed, Stream.CANDIDATES, index=index, start=start, rows=count, width=width)


def test_these_are_the_numbers_on_every_machine() -> None:
    assert rows(0, 2, width=3).tolist() == [
        [0.8824668302545412, 0.3690383346754841, 0.5170696944527113],
        [0.718174498323604, 0.7172490982624806, 0.38267909074795337],
    ]


@pytest.mark.parametrize("width", [1, 4, 5, 100])
def test_a_row_does_not_depend_on_its_block(width: int) -> None:
    together = rows(0, 40, width=width)
    assert together.shape == (40, width)
    np.testing.assert_array_equal(np.vstack([rows(i, 1, width=width) for i in range(40)]), together)
    np.testing.assert_array_equal(rows(17, 9, width=width), together[17:26])


def test_the_numbers_are_uniform() -> None:
    drawn = rows(0, 20_000)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    np.testing.assert_allclose(drawn.mean(axis=0), 0.5, atol=0.01)
    np.testing.assert_allclose(np.cov(drawn.T), np.eye(5) / 12, atol=0.003)


def test_seed_index_and_stream_each_give_other_numbers() -> None:
    tables = [
        rows(0, 8),
        rows(0, 8, seed=8),
        rows(0, 8, index=1),
        uniforms(7, Stream.ORDER, start=0, rows=8, width=5),
        uniforms(2**53 - 1, Stream.ORDER, start=0, rows=8, width=5),
    ]
    assert len({float(x) for table in tables for x in table.ravel()}) == 5 * 8 * 5


def test_a_generator_is_keyed_alike() -> None:
    draws = [generator(*key).random() for key in ((1, Stream.ORDER), (1, Stream.ORDER, 1), (2, Stream.ORDER))]
    assert len(set(draws)) == 3
    assert generator(1, Stream.ORDER).random() == draws[0]


def test_threads_do_not_disturb_each_other() -> None:
    expected = [rows(start, 3, index=start) for start in range(200)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda start: rows(start, 3, index=start), range(200)))
    np.testing.assert_array_equal(found, expected)
