"""Whole studies on this machine: what becomes of programs that succeed, fail, hang, or report nonsense."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from _services import RandomService, serving

from tuneyard_operator.local_runner import Ending
from tuneyard_operator.worlds import processes
from tuneyard_operator.worlds.local import Recorded, Told


async def test_a_study_runs_to_its_end(laptop, report_x):
    study = laptop.create(report_x)
    assert await laptop.run(study) is Ending.COMPLETE
    assert laptop.starts == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert laptop.phases(study) == ["Succeeded"] * 4
    status = laptop.status(study)
    assert status["phase"] == "Complete"
    assert status["progress"] == "4/4"
    values = [trial["spec"]["parameters"]["x"] for trial in laptop.trials(study)]
    assert status["best"]["value"] == max(values)
    assert status["best"]["parameters"] == {"x": max(values)}
    attempt = laptop.trials(study)[0]["status"]["attempts"][0]
    assert attempt["outcome"] == "Succeeded"
    assert attempt["started"] <= attempt["finished"]


async def test_never_more_run_than_parallel(laptop, report_x):
    script = f"i=$TUNEYARD_INDEX; ls alive.* | wc -l >>seen; touch alive.$i; sleep 0.2; rm alive.$i; {report_x}"
    study = laptop.create(script, trials={"max": 7, "parallel": 3})
    assert await laptop.run(study) is Ending.COMPLETE
    others = [int(line) for line in (laptop.folder / "seen").read_text().split()]
    assert max(others) <= 2


async def test_a_failing_program_is_tried_again_after_its_backoff(laptop, report_x):
    script = f'[ "$TUNEYARD_ATTEMPT" = 1 ] || {{ echo "no such file: data.csv" >&2; exit 3; }}; {report_x}'
    retry = {"limit": 1, "backoff": {"initial": "1s"}}
    study = laptop.create(script, trials={"max": 1}, retry=retry)
    begun = time.monotonic()
    assert await laptop.run(study) is Ending.COMPLETE
    assert time.monotonic() - begun >= 0.9
    assert laptop.starts == [(0, 0), (0, 1)]
    first, second = laptop.trials(study)[0]["status"]["attempts"]
    assert (first["outcome"], second["outcome"]) == ("ProgramFailed", "Succeeded")
    assert "exit code 3" in first["message"]
    assert "no such file: data.csv" in first["message"]


async def test_a_program_that_always_fails_fails_the_trial_with_the_end_of_its_log(laptop):
    script = 'echo "{\\"score\\": 1}" >"$TUNEYARD_TERMINATION_FILE"; echo "ValueError: bad shape"; exit 1'
    study = laptop.create(script, trials={"max": 1, "maxFailed": 0}, retry={"limit": 0})
    assert await laptop.run(study) is Ending.FAILED
    status = laptop.trials(study)[0]["status"]
    assert status["phase"] == "Failed"
    assert "ValueError: bad shape" in status["attempts"][0]["message"]


async def test_a_program_that_does_not_exist_has_exit_code_127(laptop):
    study = laptop.create("definitely-not-a-program", trials={"max": 1}, retry={"limit": 0})
    await laptop.run(study)
    message = laptop.trials(study)[0]["status"]["attempts"][0]["message"]
    assert "exit code 127" in message
    assert "definitely-not-a-program" in message


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ('{"score": "nan"}', "not a finite number"),
        ('{"score": "high"}', "report a number"),
        ('{"loss": 1}', "without metric score (it reported loss)"),
        ("", "without metric score (it reported none)"),
    ],
)
async def test_metrics_that_cannot_be_used_make_the_trial_infeasible(laptop, word, said):
    script = f"""printf '%s' '{word}' >"$TUNEYARD_TERMINATION_FILE" """
    study = laptop.create(script, trials={"max": 1})
    await laptop.run(study)
    status = laptop.trials(study)[0]["status"]
    assert status["phase"] == "Infeasible"
    assert said in status["message"]
    assert laptop.starts == [(0, 0)]


async def test_a_program_that_runs_too_long_is_ended(laptop):
    study = laptop.create("sleep 60", trials={"max": 1, "timeout": "1s"})
    begun = time.monotonic()
    await laptop.run(study)
    assert time.monotonic() - begun < 10
    status = laptop.trials(study)[0]["status"]
    assert (status["phase"], status["attempts"][0]["outcome"]) == ("Infeasible", "TimedOut")


async def test_a_program_that_ignores_the_request_to_end_is_killed(laptop, monkeypatch):
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.3)
    script = "trap '' TERM; sleep 60 & echo $! >sleeper; wait"
    study = laptop.create(script, trials={"max": 1, "timeout": "1s"})
    begun = time.monotonic()
    await laptop.run(study)
    assert time.monotonic() - begun < 10
    assert not _exists(int((laptop.folder / "sleeper").read_text()))


async def test_what_a_program_leaves_running_ends_with_it(laptop, report_x):
    study = laptop.create(f"sleep 60 & echo $! >left; {report_x}", trials={"max": 1})
    assert await laptop.run(study) is Ending.COMPLETE
    pid = int((laptop.folder / "left").read_text())
    deadline = time.monotonic() + 5
    while _exists(pid) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert not _exists(pid)


def _exists(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_reports_become_the_curve_and_the_result(laptop):
    script = (
        'for i in 0 1 2; do echo "{\\"step\\": $i, \\"metrics\\": {\\"score\\": 0.$i}}" >>"$TUNEYARD_REPORT_FILE"; done'
    )
    study = laptop.create(script, trials={"max": 1})
    assert await laptop.run(study) is Ending.COMPLETE
    status = laptop.trials(study)[0]["status"]
    assert status["value"] == 0.2
    assert status["curve"] == [{"step": i, "metrics": {"score": i / 10}} for i in range(3)]


async def test_the_metric_of_a_program_that_only_prints_is_read_from_its_log(laptop):
    objectives = [{"metric": "score", "goal": "maximize", "logPattern": "test accuracy: {value}"}]
    study = laptop.create("echo test accuracy: 0.5; echo 'test accuracy: ${x} %'", objectives=objectives)
    assert await laptop.run(study) is Ending.COMPLETE
    for trial in laptop.trials(study):
        assert trial["status"]["value"] == trial["spec"]["parameters"]["x"]


async def test_trials_that_still_run_are_stopped_when_the_target_is_reached(laptop, report_x):
    objectives = [{"metric": "score", "goal": "maximize", "target": 0.0}]
    script = f'[ "$TUNEYARD_INDEX" = 0 ] || sleep 60; {report_x}'
    study = laptop.create(script, objectives=objectives)
    assert await laptop.run(study) is Ending.COMPLETE
    assert laptop.status(study)["reason"] == "TargetReached"
    assert set(laptop.phases(study)[1:]) == {"Stopped"}


async def test_a_process_that_vanishes_is_tried_again_without_counting_as_a_failure(laptop, report_x):
    # kill -9 of the whole group takes the wrapper along, which would have written the exit code.
    script = f'[ "$TUNEYARD_ATTEMPT" = 1 ] || kill -9 0; {report_x}'
    study = laptop.create(script, trials={"max": 1}, retry={"limit": 0})
    assert await laptop.run(study) is Ending.COMPLETE
    attempts = laptop.trials(study)[0]["status"]["attempts"]
    assert [(a["outcome"], a["reason"]) for a in attempts] == [
        ("Infrastructure", "ProcessGone"),
        ("Succeeded", "Completed"),
    ]


# Ctrl-C, stop, delete ----------------------------------------------------------------------------------------


async def test_ctrl_c_waits_for_the_trials_that_run(laptop, report_x, until):
    wait = "while [ ! -e go ]; do sleep 0.02; done"
    study = laptop.create(f"{wait}; {report_x}", trials={"max": 6, "parallel": 2})
    run = asyncio.create_task(laptop.run(study))
    await until(lambda: len(laptop.starts) == 2)
    os.kill(os.getpid(), signal.SIGINT)
    await until(lambda: ("interrupted", 1, 2) in laptop.news)
    (laptop.folder / "go").touch()
    assert await run is Ending.INTERRUPTED
    assert laptop.starts == [(0, 0), (1, 0)]
    assert laptop.phases(study)[:2] == ["Succeeded"] * 2
    assert await laptop.run(study) is Ending.COMPLETE
    assert laptop.starts == [(index, 0) for index in range(6)]


async def test_ctrl_c_twice_stops_the_trials_which_run_again_next_time(laptop, report_x, until):
    study = laptop.create(f'[ "$TUNEYARD_ATTEMPT" = 1 ] || sleep 60; {report_x}', trials={"max": 2, "parallel": 2})
    run = asyncio.create_task(laptop.run(study))
    await until(lambda: len(laptop.starts) == 2)
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)
    assert await run is Ending.INTERRUPTED
    assert laptop.phases(study) == ["Pending"] * 2
    first = laptop.trials(study)[0]["status"]["attempts"][0]
    assert (first["outcome"], first["reason"]) == ("Infrastructure", "Interrupted")
    assert await laptop.run(study) is Ending.COMPLETE
    assert laptop.starts == [(0, 0), (0, 1), (1, 0), (1, 1)]


async def test_ctrl_c_three_times_kills_what_does_not_end(laptop, until):
    study = laptop.create("trap '' TERM; echo >ready; while :; do sleep 0.05; done", trials={"max": 1})
    run = asyncio.create_task(laptop.run(study))
    await until((laptop.folder / "ready").exists)
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.1)
    assert await asyncio.wait_for(run, 5) is Ending.INTERRUPTED
    assert laptop.trials(study)[0]["status"]["attempts"][0]["outcome"] == "Infrastructure"


async def test_a_study_that_somebody_suspends_ends_when_its_trials_have_and_goes_on_later(laptop, report_x, until):
    study = laptop.create(f"sleep 0.6; {report_x}", trials={"max": 4, "parallel": 1})
    run = asyncio.create_task(laptop.run(study))
    await until(lambda: len(laptop.starts) == 2)
    laptop.store.change_study(study["metadata"]["uid"], lambda item: item["spec"].update(suspend=True))
    assert await run is Ending.SUSPENDED
    assert laptop.status(study)["phase"] == "Suspended"
    assert len(laptop.starts) < 4
    laptop.store.change_study(study["metadata"]["uid"], lambda item: item["spec"].update(suspend=False))
    assert await laptop.run(study) is Ending.COMPLETE
    assert laptop.starts == [(index, 0) for index in range(4)]


async def test_a_complete_study_goes_on_when_max_is_raised(laptop, report_x):
    study = laptop.create(report_x, trials={"max": 2})
    assert await laptop.run(study) is Ending.COMPLETE
    laptop.store.change_study(study["metadata"]["uid"], lambda item: item["spec"]["trials"].update(max=3))
    assert await laptop.run(study) is Ending.COMPLETE
    assert laptop.starts == [(0, 0), (1, 0), (2, 0)]


async def test_a_run_ends_with_its_processes_when_the_study_is_deleted(laptop, until):
    study = laptop.create("echo $$$$ >pid; sleep 60", trials={"max": 1})
    run = asyncio.create_task(laptop.run(study))
    await until((laptop.folder / "pid").exists)
    laptop.store.delete_study(study["metadata"]["uid"])
    assert await asyncio.wait_for(run, 10) is Ending.DELETED
    assert not _exists(int((laptop.folder / "pid").read_text()))


async def test_a_folder_that_is_gone_blocks_the_study_instead_of_burning_trials(laptop):
    study = laptop.create("exit 0")
    laptop.store.change_study(
        study["metadata"]["uid"],
        lambda item: item["metadata"]["annotations"].update({"tuneyard.dev/folder": "/nowhere"}),
    )
    assert await laptop.run(study) is Ending.BLOCKED
    assert "/nowhere" in laptop.status(study)["message"]
    assert all("attempts" not in trial.get("status", {}) for trial in laptop.trials(study))


async def test_a_problem_with_the_spec_blocks_the_study_before_any_trial(laptop):
    study = laptop.create("echo ${y}")
    assert await laptop.run(study) is Ending.BLOCKED
    assert "${y} is no parameter" in laptop.status(study)["message"]
    assert laptop.trials(study) == []


async def test_news_tell_each_start_and_end(laptop, report_x):
    study = laptop.create(report_x, trials={"max": 2})
    await laptop.run(study)
    recorded = [item.trial["spec"]["index"] for item in laptop.news if isinstance(item, Recorded)]
    assert sorted(recorded) == [0, 1]
    assert any(isinstance(item, Told) and item.reason == "MaxTrialsReached" for item in laptop.news)


async def test_a_program_that_never_works_pauses_the_study_until_it_is_run_again(laptop, report_x):
    retry = {"limit": 3, "backoff": {"initial": "1m"}}
    script = f'[ -f mended ] || {{ echo "ImportError: no module named torch" >&2; exit 1; }}; {report_x}'
    study = laptop.create(script, trials={"max": 40, "parallel": 2, "pauseAfter": 4}, retry=retry)
    assert await laptop.run(study) is Ending.BLOCKED
    status = laptop.status(study)
    assert (status["phase"], status["reason"]) == ("Blocked", "NoTrialSucceeds")
    assert "ImportError: no module named torch" in status["message"]
    assert len(laptop.starts) < 10
    assert await laptop.run(study) is Ending.BLOCKED, "what failed in this run counts anew"
    (laptop.folder / "mended").touch()
    failed = [trial["metadata"]["name"] for trial in laptop.trials(study)]
    assert await laptop.run(study) is Ending.COMPLETE, "nobody waits for the backoff of a minute"
    assert {trial["status"]["phase"] for trial in laptop.trials(study)} == {"Succeeded"}
    assert len(laptop.trials(study)) > len(failed)


async def test_a_study_learns_from_an_earlier_one_and_goes_on_when_that_is_gone(laptop, report_x):
    first = laptop.create(report_x, name="first", trials={"max": 8, "parallel": 2})
    assert await laptop.run(first) is Ending.COMPLETE
    spec = {"strategy": {"name": "tpe"}, "warmStart": [{"study": "first"}], "trials": {"max": 3}}
    second = laptop.create(report_x, name="second", **spec)
    assert await laptop.run(second) is Ending.COMPLETE
    status = laptop.status(second)
    told = next(entry for entry in status["conditions"] if entry["type"] == "WarmStarted")
    assert (told["status"], told["message"]) == ("True", "8 of 8 earlier observations count")
    assert status["progress"] == "3/3"
    laptop.store.delete_study(first["metadata"]["uid"])
    laptop.store.change_study(second["metadata"]["uid"], lambda item: item["spec"]["trials"].update(max=4))
    assert await laptop.run(second) is Ending.COMPLETE
    told = next(entry for entry in laptop.status(second)["conditions"] if entry["type"] == "WarmStarted")
    assert (told["status"], told["reason"]) == ("False", "StudyGone")
    assert laptop.status(second)["progress"] == "4/4"


async def test_a_warm_start_from_nowhere_is_told(laptop, report_x):
    study = laptop.create(report_x, strategy={"name": "tpe"}, warmStart=[{"study": "firts"}])
    assert await laptop.run(study) is Ending.BLOCKED
    assert "there is no study 'firts' in this namespace" in laptop.status(study)["message"]


async def test_a_service_proposes_and_a_slow_one_does_not_keep_the_trials_from_ending(laptop, report_x):
    release, asked = threading.Event(), threading.Event()
    service = RandomService()

    def answer(path, body):
        if path == "/v1/ask" and body["records"]:
            asked.set()
            release.wait(20)
        return service(path, body)

    with serving(answer) as url:
        study = laptop.create(report_x, strategy={"service": {"url": url}}, trials={"max": 5, "parallel": 2})
        running = asyncio.create_task(laptop.run(study))
        while laptop.phases(study).count("Succeeded") < 4:
            assert not running.done()
            await asyncio.sleep(0.02)
        release.set()
        assert await running is Ending.COMPLETE
    assert asked.is_set()
    assert laptop.phases(study) == ["Succeeded"] * 5
    assert [path for path, _ in service.heard][:2] == ["/v1/check", "/v1/ask"]


async def test_a_service_that_is_not_there_is_waited_for_and_told(laptop, report_x):
    with serving(RandomService()) as url:
        pass
    study = laptop.create(report_x, strategy={"service": {"url": url}})
    running = asyncio.create_task(laptop.run(study))
    while (laptop.store.study("toy").get("status") or {}).get("reason") != "StrategyUnavailable":
        await asyncio.sleep(0.05)
    laptop.runner._interrupt()
    assert await running is Ending.INTERRUPTED
    assert laptop.trials(study) == []
