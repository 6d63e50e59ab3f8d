"""The simulation can be trusted: it notices what is wrong, and shows it again."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import sabotage

from tuneyard_operator.worlds.simulation import Faults, simulate
from tuneyard_operator.worlds.simulation.__main__ import main
from tuneyard_strategy.population import PbtStrategy

SEEDS = 150
"""Schedules within which each sabotage has to be noticed."""
BROKEN = ("has another configuration than seed and index give", "is beyond the space")
"""What `configurations_by_count` leads to."""


@pytest.mark.parametrize("name", sabotage.SABOTAGES)
def test_a_safeguard_that_is_off_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = sabotage.SABOTAGES[name]
    tamper = case.make(monkeypatch)
    reports = (simulate(seed, faults=case.faults, tamper=tamper) for seed in range(SEEDS))
    assert any(report.violation for report in reports)


@pytest.mark.parametrize(
    ("check", "instead", "broken"),
    [
        ("_is_sound", lambda *_: True, "continues {"),
        ("_trains", lambda self, trial: trial not in self._records, "trains a member that has"),
    ],
    ids=["failed", "running"],
)
def test_a_population_that_is_trained_wrongly_is_noticed(
    check: str, instead: Callable[..., bool], broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PbtStrategy, check, instead)
    reports = (simulate(seed, real_strategies=True) for seed in range(50))
    assert broken in next(str(report.violation) for report in reports if report.violation)


@pytest.mark.parametrize("seed", range(10))
def test_the_same_seed_gives_the_same_trace(seed: int) -> None:
    once, again, other = simulate(seed), simulate(seed), simulate(seed + 1)
    assert once.digest == again.digest
    assert once == again
    assert once.digest != other.digest


def test_the_trace_does_not_depend_on_the_process() -> None:
    command = [sys.executable, "-m", "tuneyard_operator.worlds.simulation", "7"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "4711"})
    assert simulate(7).digest in said.stdout


@pytest.mark.parametrize("seed", range(20))
def test_faults_change_no_configuration(seed: int) -> None:
    rough, smooth = simulate(seed), simulate(seed, faults=Faults())
    common = rough.configurations.keys() & smooth.configurations.keys()
    assert common
    assert all(rough.configurations[trial] == smooth.configurations[trial] for trial in common)


def test_all_kinds_of_faults_happen() -> None:
    seen = {kind for seed in range(50) for kind, times in simulate(seed, faults=sabotage.ROUGH).faults.items() if times}
    rates = {"node_join"}  # not counted: a node more is no fault
    assert seen >= set(Faults.__dataclass_fields__) - rates - {"crash_at_call"}


def test_nodes_are_added_for_trials_that_wait_for_one() -> None:
    assert any(simulate(seed, faults=Faults()).faults.get("node_added") for seed in range(30))


def test_a_report_shows_seed_step_cause_and_the_last_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage.SABOTAGES["configurations_by_count"].make(monkeypatch)
    report = next(report for report in map(simulate, range(20)) if report.violation)
    text = str(report)
    assert text.startswith(f"seed {report.seed}, step {report.steps}: ")
    assert any(broken in text for broken in BROKEN)
    assert f"simulation {report.seed} --trace" in text
    assert report.trace[-1] in text


def test_the_command_line_runs_a_schedule_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["3", "--trace"]) == 0
    said = capsys.readouterr().out
    assert "operator: starts" in said
    assert "seed 3: all invariants held" in said


def test_the_command_line_stops_at_a_violation(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage.SABOTAGES["configurations_by_count"].make(monkeypatch)
    assert main(["0", "--count", "20"]) == 1
    said = capsys.readouterr().out
    assert any(broken in said for broken in BROKEN)
