"""Matrices are multiplied by one thread, in whatever process; programs that are started from it have all cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
TOLD = """
import json, os, tuneyard_strategy.registry
from threadpoolctl import threadpool_info
threads = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
print(json.dumps([threads, {name: value for name, value in os.environ.items() if name.endswith("NUM_THREADS")}]))
"""


@pytest.mark.parametrize("given", [{}, {"OPENBLAS_NUM_THREADS": "2"}])
def test_one_thread_unless_told_otherwise_and_the_environment_stays(given: dict[str, str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | given
    told = subprocess.run([sys.executable, "-c", TOLD], env=environment, capture_output=True, text=True, check=True)
    threads, variables = json.loads(told.stdout)
    assert threads, "numpy and scipy bring a library each"
    assert variables == given
    wanted = min(int(given.get("OPENBLAS_NUM_THREADS", "1")), os.cpu_count() or 1)
    assert set(threads) == {wanted}
