"""What the scheduler's tests begin with."""

import pytest
from scheduler_bench import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()
