"""A process is started once, is found again by its folder, and its end is never lost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tuneyard_operator.worlds.processes import Look, Process, tail

ENV = {"PATH": os.environ["PATH"]}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "7" / "0"


def start(process: Process, script: str) -> None:
    process.start(["/bin/sh", "-c", script], ENV, process.folder.parents[1])


def wait(process: Process, *states: str) -> Look:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        look = process.look(time.time())
        if look.state in states:
            return look
        time.sleep(0.005)
    raise AssertionError(f"still {look}")


def finish(process: Process) -> None:
    deadline = time.monotonic() + 10
    while not process.over and time.monotonic() < deadline:
        time.sleep(0.005)


def test_the_exit_code_and_the_times_are_kept(folder):
    process = Process(folder)
    assert process.look(time.time()) == Look("absent")
    before = time.time()
    start(process, "echo out; echo err >&2; sleep 0.1; exit 7")
    running = wait(process, "running")
    look = wait(process, "ended")
    finish(process)
    assert look.exit_code == 7
    assert running.started == look.started
    assert before - 1 <= look.started < look.finished <= time.time() + 1
    assert (folder / "log").read_text() == "out\nerr\n"
    assert process.last_word(failed=True) == "out\nerr\n"
    assert Process(folder).look(time.time()) == look


def test_a_second_start_in_a_folder_runs_nothing(folder, tmp_path):
    first, second = Process(folder), Process(folder)
    start(first, "echo x >>runs; sleep 0.3")
    start(second, "echo x >>runs; sleep 0.3")
    wait(first, "ended")
    wait(second, "ended")
    finish(first)
    finish(second)
    third = Process(folder)
    start(third, "echo x >>runs")
    assert wait(third, "ended").exit_code == 0
    finish(third)
    assert (tmp_path / "runs").read_text() == "x\n"


def test_only_one_of_many_starts_at_once_runs(folder, tmp_path):
    processes = [Process(folder) for _ in range(8)]
    for process in processes:
        start(process, "echo x >>runs")
    for process in processes:
        assert wait(process, "ended").exit_code == 0
        finish(process)
    assert (tmp_path / "runs").read_text() == "x\n"


def test_a_process_that_somebody_else_started_is_found_and_stopped(folder):
    code = f"""
import sys; from pathlib import Path; from tuneyard_operator.worlds.processes import Process
Process(Path({str(folder)!r})).start(["/bin/sh", "-c", "sleep 60"], {{"PATH": "/usr/bin:/bin"}}, Path("/"))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    process = Process(folder)
    assert wait(process, "running").state == "running"
    assert process.alive()
    process.stop(time.time())
    assert process.stopping
    look = wait(process, "ended")
    assert look.exit_code == 128 + 15


def test_a_process_number_that_is_used_by_another_program_is_not_ours(folder):
    folder.mkdir(parents=True)
    (folder / "pid").write_text(f"{os.getpid()}\n")
    process = Process(folder)
    assert not process.alive()
    assert process.look(time.time()).state == "gone"
    process.stop(time.time())
    process.kill()  # this test would not survive it


def test_a_claim_that_was_never_finished_is_gone_after_a_while(folder):
    folder.mkdir(parents=True)
    (folder / "pid").write_text("")
    process = Process(folder)
    assert process.look(time.time()).state == "absent"
    assert process.look(time.time() + 60).state == "gone"


def test_a_process_that_was_killed_with_its_wrapper_is_gone(folder):
    process = Process(folder)
    start(process, "echo working; sleep 60")
    wait(process, "running")
    while not tail(folder / "log", 100):
        time.sleep(0.005)
    process.kill()
    look = wait(process, "gone")
    assert look.finished == pytest.approx((folder / "log").stat().st_mtime)
    assert process.over


def test_stopping_lets_the_program_end_in_its_own_way(folder):
    process = Process(folder)
    start(process, "trap 'echo saved; exit 4' TERM; echo ready; while :; do sleep 0.02; done")
    while tail(folder / "log", 100) != "ready\n":
        time.sleep(0.005)
    process.look(time.time())
    process.stop(time.time())
    assert wait(process, "ended").exit_code == 4
    finish(process)
    assert tail(folder / "log", 100).endswith("saved\n")


def test_reports_come_once_and_whole(folder):
    folder.mkdir(parents=True)
    reports, process = folder / "reports.jsonl", Process(folder)
    assert process.new_reports() == []
    reports.write_text('{"step": 0}\n{"step": 1}\n{"st')
    assert process.new_reports() == [{"step": 0}, {"step": 1}]
    assert process.new_reports() == []
    with reports.open("a") as file:
        file.write('ep": 2}\nno json\n[1]\n')
    assert process.new_reports() == [{"step": 2}, {}, {}]


def test_the_tail_of_a_file_is_its_end(tmp_path):
    path = Path(tmp_path / "log")
    assert tail(path, 10) == ""
    path.write_bytes(b"0123456789\xff\n")
    assert tail(path, 4) == "89�\n"
