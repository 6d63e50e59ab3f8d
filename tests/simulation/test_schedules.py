"""Thousands of schedules with faults: all invariants hold after every step of each."""

import gc

import pytest
import sabotage

from tuneyard_operator.worlds.simulation import Faults, simulate

CHUNK = 50
SCHEDULES = 2000


@pytest.mark.parametrize("first", range(0, SCHEDULES, CHUNK))
def test_invariants_hold(first: int) -> None:
    run(range(first, first + CHUNK))


@pytest.mark.parametrize("first", range(0, 150, CHUNK))
def test_invariants_hold_where_everything_goes_wrong_at_once(first: int) -> None:
    run(range(first, first + CHUNK), faults=sabotage.ROUGH)


def test_invariants_hold_with_the_strategies_that_users_have() -> None:
    run(range(CHUNK), real_strategies=True)


def test_without_faults_all_studies_end_well() -> None:
    run(range(CHUNK), faults=Faults())


def run(seeds: range, **options) -> None:
    for seed in seeds:
        report = simulate(seed, **options)
        assert report.violation is None, f"{report} ({options})"
    gc.collect()
