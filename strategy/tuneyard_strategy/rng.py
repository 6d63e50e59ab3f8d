"""Random numbers that depend on nothing but (seed, stream, position): the same in any process, on any machine.

Philox is counter-based: the number at any position is computed straight away, so that a strategy that restarts, or that
is asked again for trial 4,711, draws what it drew before. The raw 64-bit output of numpy's Philox is fixed by numpy's
compatibility policy.
"""

from __future__ import annotations

import threading
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

WORDS = 4
"""64-bit numbers that one step of the counter gives."""


class Stream(IntEnum):
    """What the numbers are for; streams of one seed are independent of each other."""

    CANDIDATES = 1
    ORDER = 2
    SCRAMBLING = 3
    INITIAL = 4
    PROBE = 5
    MODEL = 6
    WORLDS = 7
    FILLING = 8
    RESTARTS = 9
    UNMODELLED = 10
    EXPLOITATION = 11
    EXPLORATION = 12


def generator(seed: int, stream: Stream, index: int = 0) -> np.random.Generator:
    """A numpy generator of its own for (seed, stream, index), for libraries that want one."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, stream, index))))


def uniforms(seed: int, stream: Stream, *, index: int = 0, start: int, rows: int, width: int) -> NDArray[np.float64]:
    """Rows start, start + 1, ... of an endless table of uniform numbers in [0, 1).

    A row's numbers do not depend on the block that it is drawn in.

    Args:
        seed: of the study.
        stream: what the numbers are for.
        index: for example of the trial; each has a table of its own.
        start: the first row.
        rows: how many rows.
        width: numbers in a row.

    Returns:
        An array of shape (rows, width).
    """
    steps = -(-width // WORDS)
    raw = _philox(seed, stream, start * steps, index).random_raw(rows * steps * WORDS)
    table = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return table.reshape(rows, steps * WORDS)[:, :width]


_own = threading.local()


def _philox(seed: int, stream: Stream, position: int, index: int) -> np.random.Philox:
    """The thread's Philox, put at a position: a new one reads the system's entropy first, even though it has a key."""
    philox: np.random.Philox | None = getattr(_own, "philox", None)
    if philox is None:
        philox = _own.philox = np.random.Philox(key=0)
    philox.state = {
        "bit_generator": "Philox",
        "state": {
            "counter": np.array([position, 0, 0, index], dtype=np.uint64),
            "key": np.array([seed, stream], dtype=np.uint64),
        },
        "buffer": np.zeros(WORDS, dtype=np.uint64),
        "buffer_pos": WORDS,  # nothing is left of it
        "has_uint32": 0,
        "uinteger": 0,
    }
    return philox
