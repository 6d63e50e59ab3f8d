"""A study's life as a user has it: killed, gone on with, stopped, changed, deleted, watched."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

WAIT_FOR_GO = "while [ ! -e go ]; do sleep 0.02; done; "
REPORT_X = 'echo "{\\"score\\": ${x}}" >"$TUNEYARD_TERMINATION_FILE"'


def alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def trials(cli):
    return yaml.safe_load(cli("get", "trials", "toy", "-o", "yaml")[1])["items"]


def test_killed_again_and_again_it_goes_on_and_runs_no_trial_twice(cli, until):
    path = cli.write(f"sleep 0.4; {REPORT_X}", trials={"max": 8, "parallel": 2})
    for begun in (1, 3, 6):
        process = cli.start("run", path)
        until(lambda begun=begun: len(cli.starts) >= begun)
        process.kill()
        process.wait()
    status, out, _ = cli("run", path)
    assert status == 0
    assert "all 8 trials have ended" in out
    assert cli.starts == [f"{index} 0" for index in range(8)]
    assert [trial["status"]["phase"] for trial in trials(cli)] == ["Succeeded"] * 8


def test_ctrl_c_says_what_it_waits_for_and_the_same_command_goes_on(cli, until):
    path = cli.write(f"{WAIT_FOR_GO}{REPORT_X}", trials={"max": 3, "parallel": 2})
    process = cli.start("run", path)
    until(lambda: len(cli.starts) == 2)
    process.send_signal(signal.SIGINT)
    said = "2 trials are still running: waiting for them; press Ctrl-C again to stop them now"
    assert any(said in line for line in iter(process.stdout.readline, ""))
    (cli.folder / "go").touch()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Study toy was interrupted after 2/3 trials; the same command goes on with it" in out
    assert "Interrupted" in cli("get", "studies")[1]
    assert cli("run", path)[0] == 0
    assert cli.starts == ["0 0", "1 0", "2 0"]


def test_sigterm_leaves_the_trials_running_for_the_next_run(cli, until):
    path = cli.write(f"{WAIT_FOR_GO}{REPORT_X}", trials={"max": 2, "parallel": 2})
    process = cli.start("run", path)
    until(lambda: len(cli.starts) == 2)
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "its running trials go on" in out
    (cli.folder / "go").touch()
    assert cli("run", path)[0] == 0
    assert cli.starts == ["0 0", "1 0"]


def test_one_run_at_a_time(cli, until):
    path = cli.write(f"{WAIT_FOR_GO}{REPORT_X}", trials={"max": 1})
    process = cli.start("run", path)
    until(lambda: cli.starts)
    status, _, err = cli("run", path)
    assert status == 2
    assert f"study toy is being run already by process {process.pid}" in err
    until(lambda: "Running" in cli("get", "studies")[1])
    (cli.folder / "go").touch()
    process.communicate(timeout=60)
    assert cli.starts == ["0 0"]


def test_stop_lets_the_trials_end_and_run_goes_on(cli, until):
    path = cli.write(f"{WAIT_FOR_GO}{REPORT_X}", trials={"max": 4, "parallel": 1})
    process = cli.start("run", path)
    until(lambda: cli.starts)
    status, out, _ = cli("stop", "toy")
    assert status == 0
    assert "study toy is suspended; 1 trial still running will go on to the end" in out
    until(lambda: "Suspended" in cli("get", "studies")[1])
    (cli.folder / "go").touch()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Study toy is suspended after 1/4 trials" in out
    assert "Suspended" in cli("get", "studies")[1]
    path = cli.write(REPORT_X, trials={"max": 4, "parallel": 1})
    assert cli("run", path)[0] == 0
    assert cli.starts == ["0 0", "1 0", "2 0", "3 0"]


def test_a_complete_study_tells_its_result_and_can_be_extended(cli):
    path = cli.write(trials={"max": 2})
    assert cli("run", path)[0] == 0
    status, out, _ = cli("run", path)
    assert status == 0
    assert "Study toy is complete" in out
    assert f"To extend it, raise trials.max in {path} and run it again; to begin anew: tuneyard delete toy" in out
    assert len(cli.starts) == 2
    assert "there is nothing to stop" in cli("stop", "toy")[1]
    assert cli("run", cli.write(trials={"max": 3}))[0] == 0
    assert cli.starts == ["0 0", "1 0", "2 0"]


def test_what_cannot_change_any_more_is_refused(cli):
    assert cli("run", cli.write(trials={"max": 1}))[0] == 0
    changed = cli.write(trials={"max": 2}, parameters=[{"name": "x", "double": {"min": 0, "max": 2}}])
    status, _, err = cli("run", changed)
    assert status == 2
    assert "spec.parameters: parameters cannot change once the study has started" in err
    assert "tuneyard delete toy" in err
    assert cli.starts == ["0 0"]
    assert cli("delete", "toy")[0] == 0
    assert cli("run", changed)[0] == 0


def test_a_failed_study_has_exit_code_1(cli):
    path = cli.write("exit 1", trials={"max": 3, "maxFailed": 0}, retry={"limit": 0})
    status, out, _ = cli("run", path)
    assert status == 1
    assert "Study toy has failed" in out
    assert "No trial succeeded; see why: tuneyard get trials toy -o wide" in out
    status, out, _ = cli("run", path)
    assert status == 1
    assert "To go on, mend what fails and raise trials.maxFailed" in out


def test_delete_removes_everything_although_it_runs(cli, until):
    path = cli.write("echo $$$$ >pid; sleep 60", trials={"max": 1})
    process = cli.start("run", path)
    until(lambda: (cli.folder / "pid").exists() and (cli.folder / "pid").read_text().strip())
    status, out, err = cli("delete", "toy")
    assert status == 0, err
    assert "study toy is deleted, with 1 trial" in out
    out, _ = process.communicate(timeout=60)
    assert "Study toy was deleted" in out
    assert process.returncode == 1
    assert not alive(int((cli.folder / "pid").read_text()))
    assert list((cli.home / "studies").iterdir()) == []
    assert cli("get", "trials")[1] == ""


def test_delete_ends_programs_that_nobody_looks_after(cli, until):
    path = cli.write("echo $$$$ >pid; sleep 60", trials={"max": 1})
    process = cli.start("run", path)
    until(lambda: (cli.folder / "pid").exists() and (cli.folder / "pid").read_text().strip())
    process.kill()
    process.wait()
    pid = int((cli.folder / "pid").read_text())
    assert alive(pid)
    assert "with 1 trial and 1 running program" in cli("delete", "toy")[1]
    assert not alive(pid)
    assert list((cli.home / "studies").iterdir()) == []


def test_logs_follow_a_program_to_its_end(cli, until):
    path = cli.write(f"echo first; {WAIT_FOR_GO}echo last; {REPORT_X}", trials={"max": 1})
    run = cli.start("run", path)
    until(lambda: cli.starts)
    follow = cli.start("logs", "toy/0", "--follow")
    assert follow.stdout is not None
    assert follow.stdout.readline() == "first\n"
    time.sleep(0.3)
    assert follow.poll() is None
    (cli.folder / "go").touch()
    out, _ = follow.communicate(timeout=60)
    assert (out, follow.returncode) == ("last\n", 0)
    run.communicate(timeout=60)


def test_a_terminal_shows_a_table_and_gets_its_cursor_back(cli):
    path = cli.write(f"sleep 0.3; {REPORT_X}", trials={"max": 4, "parallel": 2})
    main, side = pty.openpty()
    command = [sys.executable, "-m", "tuneyard.cli", "run", str(path)]
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(command, stdout=side, stderr=side, stdin=side, env=env, close_fds=True)
    os.close(side)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal is gone with its last process
        while part := os.read(main, 65536):
            shown += part
    os.close(main)
    assert process.wait(timeout=60) == 0
    text = shown.decode()
    for part in ("random, 2 trials at a time", "4/4", "Best", "Parameters", "running", "done", "Study toy is complete"):
        assert part in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is shown again"
    assert "Traceback" not in text


@pytest.mark.parametrize("size", ["memory", "fraction"])
def test_how_much_of_a_gpu_a_trial_needs_is_found_out(cli, monkeypatch, size):
    """The GPU is a pretended one: its driver says that it is there, and the program that it has used 3 of 10 GB."""
    smi = cli.folder / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho 0, NVIDIA L4, GPU-aaaa, 10000\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{smi.parent}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    report = (
        'sleep 0.3; echo "${TUNEYARD_GPU_FRACTION:-whole}" >>parts; '
        'echo \'{"score": 1, "tuneyard/gpu_peak_mib": 3000, "tuneyard/gpu_total_mib": 10000}\' '
        '>"$TUNEYARD_TERMINATION_FILE"'
    )
    assert cli("run", cli.write(report, trials={"max": 8, "parallel": 2}, gpu={size: "auto"}))[0] == 0
    parts = (cli.folder / "parts").read_text().split()
    assert parts[:3] == ["whole"] * 3
    assert all(0.36 <= float(part) <= 0.4 for part in parts[-2:]), "a fifth more than the largest peak, rounded up"
