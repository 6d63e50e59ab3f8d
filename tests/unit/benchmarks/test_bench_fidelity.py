from __future__ import annotations

import numpy as np
import pytest
from _curves import EPOCHS, CurveTask
from fidelity import foreknown, run


@pytest.fixture
def falling() -> CurveTask:
    """Loss falls by x each epoch, from 81; an epoch takes x + 1 seconds."""
    task = CurveTask("falling", {"x": [0.0, 2.0]}, (), lambda x: np.empty(0), lambda given: given["x"] + 1)
    task.__dict__["_table"] = EPOCHS - np.outer([0.0, 2.0], np.arange(1, EPOCHS + 1))
    return task


def test_what_is_foreknown_is_the_median_of_the_configurations_that_get_there(falling: CurveTask) -> None:
    epochs, seconds = foreknown(falling, 0.0)  # x from 1 to 2 gets there, in 81 / x epochs: of the median 1.5, 54
    assert 16 * epochs == pytest.approx(16 * 54, rel=0.05)
    assert seconds == pytest.approx(54 * 2.5, rel=0.05)


def test_no_search_is_there_before_its_fastest_trial_is(falling: CurveTask) -> None:
    there = next(epochs for epochs, _, loss in run("random", falling, 1, 4) if loss <= 0.0)
    assert there > EPOCHS / 2
