"""What the scheduler's tests begin with."""

import pytest
from api_server_in_memory import FakeKube
from scheduler_bench import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()
