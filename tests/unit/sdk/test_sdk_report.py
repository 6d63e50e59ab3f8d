"""report() in a trial of this machine: the report file, the termination file, and what may go wrong on the way."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tuneyard
from tuneyard import _report, _warn

VARIABLES = ("REPORT_FILE", "REPORT_URL", "TOKEN_FILE", "TERMINATION_FILE")


@pytest.fixture
def trial_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A fresh SDK that writes to (report file, termination file)."""
    for name in VARIABLES:
        monkeypatch.delenv(f"TUNEYARD_{name}", raising=False)
    monkeypatch.setenv("TUNEYARD_REPORT_FILE", str(tmp_path / "reports.jsonl"))
    monkeypatch.setenv("TUNEYARD_TERMINATION_FILE", str(tmp_path / "last.json"))
    monkeypatch.setattr(_report, "_current", None)
    monkeypatch.setattr(_warn, "_warned", set())
    return tmp_path / "reports.jsonl", tmp_path / "last.json"


def run(code: str, tmp_path: Path, *, by_hand: bool = False) -> subprocess.CompletedProcess[str]:
    """A program of its own that reports into tmp_path."""
    files = {
        "TUNEYARD_REPORT_FILE": str(tmp_path / "reports.jsonl"),
        "TUNEYARD_TERMINATION_FILE": str(tmp_path / "last.json"),
    }
    rest = {name: value for name, value in os.environ.items() if not name.startswith("TUNEYARD_")}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=rest if by_hand else rest | files,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_report_is_one_json_line(trial_files: tuple[Path, Path]) -> None:
    before = time.time()
    tuneyard.report(step=3, accuracy=0.91, **{"val/loss": 2})

    (line,) = lines(trial_files[0])
    assert line.keys() == {"step", "metrics", "time"}
    assert line["step"] == 3
    assert line["metrics"] == {"accuracy": 0.91, "val/loss": 2.0}
    assert before - 0.01 <= line["time"] <= time.time() + 0.01


def test_steps_are_counted_where_none_is_given(trial_files: tuple[Path, Path]) -> None:
    tuneyard.report(a=1)
    tuneyard.report(a=1)
    tuneyard.report(step=10, a=1)
    tuneyard.report(a=1)

    assert [line["step"] for line in lines(trial_files[0])] == [0, 1, 10, 11]


@pytest.mark.parametrize("step", [5, np.int64(5), 5.0, np.float64(5)])
def test_whole_steps_of_every_type(trial_files: tuple[Path, Path], step: Any) -> None:
    tuneyard.report(step=step, a=1)

    (line,) = lines(trial_files[0])
    assert line["step"] == 5
    assert type(line["step"]) is int


@pytest.mark.parametrize("step", [-1, 2.5, "three", math.nan])
def test_a_bad_step_is_counted_and_said_once(
    trial_files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], step: Any
) -> None:
    tuneyard.report(step=step, a=1)
    tuneyard.report(step=step, a=2)

    assert [line["step"] for line in lines(trial_files[0])] == [0, 1]
    assert capsys.readouterr().err.count("is no whole number from 0 on") == 1


class Tensor:
    """Like a tensor with one element: all that it offers is float()."""

    def __float__(self) -> float:
        return 0.25


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (1, 1.0),
        (True, 1.0),
        (np.float32(0.5), 0.5),
        (np.array(0.75), 0.75),
        (Tensor(), 0.25),
        ("0.5", 0.5),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (np.float64(-math.inf), "-inf"),
        ("diverged", "diverged"),
        ("x" * 500, "x" * 64),
        (None, "None"),
        (np.array([1.0, 2.0]), "[1. 2.]"),
    ],
)
def test_values_become_numbers_or_short_texts(trial_files: tuple[Path, Path], value: Any, sent: float | str) -> None:
    tuneyard.report(a=value)

    (line,) = lines(trial_files[0])
    assert line["metrics"] == {"a": sent}
    assert type(line["metrics"]["a"]) is type(sent)


def test_bad_names_are_left_out_and_said_once(
    trial_files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    good = "a" * 63
    tuneyard.report(**{"1st": 1, "top 5": 1, "": 1, "a" * 64: 1, "x\n": 1, good: 1, "_v/top-5.b": 1})
    tuneyard.report(**{"2nd": 1})

    (line,) = lines(trial_files[0])
    assert line["metrics"].keys() == {good, "_v/top-5.b"}
    assert capsys.readouterr().err.count("tuneyard: metric '1st' is left out: write up to 63 letters") == 1


def test_a_report_has_at_most_64_metrics(trial_files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    tuneyard.report(**{f"m{number}": number for number in range(70)})

    (line,) = lines(trial_files[0])
    assert list(line["metrics"]) == [f"m{number}" for number in range(64)]
    assert "a report has 70 metrics; those after the first 64 are left out" in capsys.readouterr().err


def test_nothing_reported_is_no_line(trial_files: tuple[Path, Path]) -> None:
    tuneyard.report(step=1)

    assert not trial_files[0].exists()


def test_the_termination_file_has_the_last_value_of_each_metric(trial_files: tuple[Path, Path]) -> None:
    tuneyard.report(accuracy=0.123456789, loss=1.5)
    tuneyard.report(accuracy=0.9)
    tuneyard.report(loss=math.nan)

    assert json.loads(trial_files[1].read_text()) == {"accuracy": 0.9, "loss": "nan"}


def test_a_second_program_of_the_trial_adds_to_the_termination_file(trial_files: tuple[Path, Path]) -> None:
    trial_files[1].write_text('{"loss": 0.1, "accuracy": 0.5}')

    tuneyard.report(accuracy=0.9)

    assert json.loads(trial_files[1].read_text()) == {"accuracy": 0.9, "loss": 0.1}


@pytest.mark.parametrize("content", ["Segmentation fault", "[1]", "x" * 10_000, '{"a": 1} more'])
def test_another_text_in_the_termination_file_gives_way(trial_files: tuple[Path, Path], content: str) -> None:
    trial_files[1].write_text(content)

    tuneyard.report(accuracy=0.9)

    assert json.loads(trial_files[1].read_text()) == {"accuracy": 0.9}
    assert trial_files[1].stat().st_size <= 4096


def test_the_termination_file_never_exceeds_what_the_kubelet_reads(
    trial_files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for start in range(0, 200, 50):
        tuneyard.report(start, **{f"a_rather_long_name_{number}": number / 7 for number in range(start, start + 50)})
    tuneyard.report(accuracy=0.9)

    kept = json.loads(trial_files[1].read_text())
    assert trial_files[1].stat().st_size <= 4096
    assert len(trial_files[1].read_text().rstrip()) > 4000
    assert kept["accuracy"] == 0.9
    assert kept.keys() >= {f"a_rather_long_name_{number}" for number in range(150, 200)}
    assert capsys.readouterr().err.count("the oldest are left out") == 1


def test_threads_write_whole_lines(trial_files: tuple[Path, Path]) -> None:
    def work(name: str) -> None:
        for _ in range(200):
            tuneyard.report(**{name: 1})

    threads = [threading.Thread(target=work, args=(f"thread{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [line["step"] for line in lines(trial_files[0])] == list(range(800))
    assert len(json.loads(trial_files[1].read_text())) == 4


@pytest.mark.timeout(30)
def test_a_signal_handler_may_report_while_a_report_is_under_way(
    trial_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    append = _report._append

    def interrupted(path: str, line: str) -> None:
        monkeypatch.setattr(_report, "_append", append)
        signal.raise_signal(signal.SIGUSR1)
        append(path, line)

    monkeypatch.setattr(_report, "_append", interrupted)
    previous = signal.signal(signal.SIGUSR1, lambda *_: tuneyard.report(from_handler=1))
    try:
        tuneyard.report(a=1)
    finally:
        signal.signal(signal.SIGUSR1, previous)

    assert [list(line["metrics"]) for line in lines(trial_files[0])] == [["from_handler"], ["a"]]


@pytest.mark.parametrize("name", ["REPORT_FILE", "TERMINATION_FILE"])
def test_a_file_that_cannot_be_written_stops_neither_the_training_nor_the_other_file(
    trial_files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    monkeypatch.setenv(f"TUNEYARD_{name}", str(tmp_path / "absent" / "file"))

    tuneyard.report(a=1)
    tuneyard.report(a=2)

    other = trial_files[1] if name == "REPORT_FILE" else trial_files[0]
    assert '"a": 2.0' in other.read_text()
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert "No such file or directory" in errors[0]
    assert "the training goes on" in errors[0]


def test_an_unexpected_error_never_reaches_the_training(
    trial_files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    class Nasty:
        def __float__(self) -> float:
            raise RuntimeError("no number")

        def __str__(self) -> str:
            raise RuntimeError("no text either")

    tuneyard.report(a=Nasty())

    assert "tuneyard: a report failed (RuntimeError: no text either)" in capsys.readouterr().err


def test_a_report_leaves_the_global_random_numbers_alone(trial_files: tuple[Path, Path]) -> None:
    random.seed(1)
    state = random.getstate()

    tuneyard.report(a=1)

    assert random.getstate() == state


def test_a_report_is_cheap(trial_files: tuple[Path, Path]) -> None:
    tuneyard.report(a=1)
    start = time.process_time()
    for step in range(500):
        tuneyard.report(step=step, a=0.1, b=0.2)

    assert (time.process_time() - start) / 500 < 0.001  # about 20 microseconds on an idle machine


def test_by_hand_a_report_is_a_line_for_people(tmp_path: Path) -> None:
    done = run("import tuneyard; tuneyard.report(step=3, accuracy=0.91, loss=1/3, note='bad')", tmp_path, by_hand=True)

    assert done.stdout == "step=3 accuracy=0.91 loss=0.333333 note=bad\n"
    assert not list(tmp_path.iterdir())


def test_in_a_trial_nothing_is_printed(tmp_path: Path) -> None:
    done = run("import tuneyard; tuneyard.report(accuracy=0.91)", tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(7)", "raise SystemExit(7)"])
def test_every_report_survives_every_end(tmp_path: Path, end: str) -> None:
    done = run(
        f"""
        import os, signal, tuneyard
        for epoch in range(20):
            tuneyard.report(step=epoch, accuracy=epoch / 20)
        {end}
        """,
        tmp_path,
    )

    assert done.returncode in {7, -signal.SIGKILL}
    assert [line["step"] for line in lines(tmp_path / "reports.jsonl")] == list(range(20))
    assert json.loads((tmp_path / "last.json").read_text()) == {"accuracy": 0.95}


def test_sigterm_keeps_its_default(tmp_path: Path) -> None:
    done = run("import os, signal, tuneyard; tuneyard.report(a=1); os.kill(os.getpid(), signal.SIGTERM)", tmp_path)

    assert done.returncode == -signal.SIGTERM


def test_a_forked_child_reports_while_another_thread_of_the_parent_is_reporting(tmp_path: Path) -> None:
    done = run(
        """
        import os, sys, threading, tuneyard, tuneyard._report
        tuneyard.report(parent=1)
        held, go = threading.Event(), threading.Event()
        def hold():
            with tuneyard._report._lock:
                held.set(); go.wait()
        thread = threading.Thread(target=hold); thread.start(); held.wait()
        child = os.fork()
        if child == 0:
            tuneyard.report(child=1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        go.set(); thread.join()
        sys.exit(status)
        """,
        tmp_path,
    )

    assert done.returncode == 0, done.stderr
    assert [line["metrics"] for line in lines(tmp_path / "reports.jsonl")] == [{"parent": 1.0}, {"child": 1.0}]
    assert json.loads((tmp_path / "last.json").read_text()) == {"child": 1.0, "parent": 1.0}


def test_importing_the_sdk_needs_the_standard_library_only(tmp_path: Path) -> None:
    done = run(
        """
        import sys
        before = set(sys.modules)
        import tuneyard, tuneyard._post
        new = {name.partition(".")[0] for name in set(sys.modules) - before}
        print(sorted(new - set(sys.stdlib_module_names)))
        """,
        tmp_path,
    )

    assert done.stdout == "['tuneyard']\n"
