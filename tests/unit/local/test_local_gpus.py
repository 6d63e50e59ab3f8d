"""GPUs, cores and memory of this machine are lent, whole and by parts, for as long as a trial's processes live."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from tuneyard_operator.local_runner import Ending
from tuneyard_operator.worlds import gpus
from tuneyard_operator.worlds.gpus import Gpu, listed, visible_of
from tuneyard_operator.worlds.leases import Holding, Leases

LISTING = """\
0, NVIDIA A100-SXM4-80GB, GPU-aaaa, 81920
1, NVIDIA H200, GPU-bbbb, [N/A]
"""
GPUS = [Gpu("0", "NVIDIA-A100-SXM4-80GB", "GPU-aaaa", 81920), Gpu("1", "NVIDIA-H200", "GPU-bbbb")]
ALIKE = [Gpu(number, "NVIDIA-L4", f"GPU-{number}", 24576) for number in "01"]


class TestFinding:
    def test_the_listing_of_nvidia_smi_is_read(self):
        assert listed(LISTING) == GPUS
        assert listed("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.") == []

    def test_a_pretended_nvidia_smi_is_asked(self, tmp_path, monkeypatch):
        fake = tmp_path / "nvidia-smi"
        fake.write_text(f'#!/bin/sh\necho "$@" >"{tmp_path}/asked"\ncat <<END\n{LISTING}END\n')
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        assert gpus.find("1") == GPUS[1:]
        assert "memory.total" in (tmp_path / "asked").read_text()

    def test_without_a_driver_there_are_none(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        assert gpus.find(None) == []

    @pytest.mark.parametrize(
        ("visible", "want"),
        [(None, GPUS), ("1", GPUS[1:]), ("1,0", GPUS[::-1]), ("GPU-aa", GPUS[:1]), ("", []), ("-1", []), ("7", [])],
    )
    def test_only_visible_gpus_are_lent(self, visible, want):
        assert visible_of(GPUS, visible) == want


HOLD = """\
import sys, time
from pathlib import Path
from tuneyard_operator.worlds.leases import Holding, Leases
leases = Leases(Path(sys.argv[1]))
with leases.alone():
    lease = leases.take(Holding("other", 0, 0, {"0": 0.5}))
print("holds", flush=True)
time.sleep(60)
"""


class TestLeases:
    def test_what_is_held_is_seen_until_it_is_let_go(self, tmp_path):
        one, other = Leases(tmp_path), Leases(tmp_path)
        holding = Holding("uid", 3, 1, {"0": 0.25}, 2.0, 1e9)
        with one.alone():
            lease = one.take(holding)
        with other.alone():
            assert other.held() == [holding]
            assert other.take(holding).descriptors == [], "the attempt holds it already"
            assert other.held() == [holding]
        lease.close()
        with other.alone():
            assert other.held() == []
        assert [path.name for path in tmp_path.iterdir()] == ["guard"]

    def test_the_kernel_gives_everything_back_of_a_process_that_is_killed(self, tmp_path):
        with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"holds\n"
            with Leases(tmp_path).alone():
                assert Leases(tmp_path).held() == [Holding("other", 0, 0, {"0": 0.5})]
            process.send_signal(signal.SIGKILL)
            process.wait()
        with Leases(tmp_path).alone():
            assert Leases(tmp_path).held() == []

    @pytest.mark.parametrize(
        ("wanted", "fits"),
        [
            ({"gpus": {"0": 0.5}}, True),
            ({"gpus": {"0": 0.6}}, False),
            ({"gpus": {"1": 1.0}}, True),
            ({"gpus": {"0": 0.5, "1": 1.0}}, True),
            ({"gpus": {}, "cores": 2.0}, True),
            ({"gpus": {}, "cores": 2.1}, False),
            ({"gpus": {}, "memory": 8e9}, False),
            ({"gpus": {}}, True),
        ],
    )
    def test_what_fits_beside_the_others(self, laptop, wanted, fits):
        held = [Holding("a", 0, 0, {"0": 0.3}, 1.0, 4e9), Holding("b", 0, 0, {"0": 0.2}, 1.0)]
        machine = laptop.machine(ALIKE, cores=4.0)
        assert machine.fits(Holding("c", 0, 0, **wanted), held) is fits
        assert machine.fits(Holding("b", 0, 0, {"0": 0.7}), held), "what an attempt holds is no obstacle to itself"


def most(lines: list[str]) -> float:
    """The most that was held at a time, of lines +x and -x."""
    now = top = 0.0
    for line in lines:
        now += float(line)
        top = max(top, now)
    assert abs(now) < 1e-9
    return top


async def test_trials_that_run_at_once_have_different_gpus(laptop, report_x):
    script = f'echo "$CUDA_VISIBLE_DEVICES" >>gpus; sleep 0.3; {report_x}'
    study = laptop.create(script, trials={"max": 4, "parallel": 4}, gpu={"count": 1})
    assert await laptop.run(study, laptop.machine(GPUS)) is Ending.COMPLETE
    used = (laptop.folder / "gpus").read_text().split()
    assert sorted(used) == ["0", "0", "1", "1"]
    assert set(used[:2]) == {"0", "1"}
    with Leases(laptop.home.leases).alone():
        assert Leases(laptop.home.leases).held() == []
    assert laptop.trials(study)[0]["status"]["attempts"][0]["gpus"] == 1


@pytest.mark.parametrize(
    ("gpu", "share", "at_once"),
    [({"fraction": 0.4}, "0.4", 4), ({"memory": "8Gi"}, "0.3334", 4), ({"memory": "12Gi", "sharing": "mig"}, "0.5", 4)],
)
async def test_a_gpu_is_shared_by_parts(laptop, report_x, gpu, share, at_once):
    script = (
        'at="$CUDA_VISIBLE_DEVICES"; echo "+$TUNEYARD_GPU_FRACTION" >>on-$at; echo +1 >>all; '
        'echo "$TUNEYARD_GPU_MEMORY_MIB $XLA_PYTHON_CLIENT_MEM_FRACTION" >limits; sleep 0.4; '
        f'echo "-$TUNEYARD_GPU_FRACTION" >>on-$at; echo -1 >>all; {report_x}'
    )
    study = laptop.create(script, trials={"max": 8, "parallel": 8}, gpu=gpu)
    assert await laptop.run(study, laptop.machine(ALIKE)) is Ending.COMPLETE
    lines = {number: (laptop.folder / f"on-{number}").read_text().split() for number in "01"}
    assert {abs(float(line)) for each in lines.values() for line in each} == {float(share)}
    assert all(most(each) <= 1 for each in lines.values())
    assert most((laptop.folder / "all").read_text().split()) <= at_once
    mib, pool = (laptop.folder / "limits").read_text().split()
    assert int(mib) == {"0.4": 9830, "0.3334": 8192, "0.5": 12288}[share]
    assert float(pool) == round(float(share) * 0.9, 4)


async def test_a_part_in_memory_is_of_a_gpu_that_is_large_enough(laptop, report_x):
    unlike = [Gpu("0", "NVIDIA-T4", "GPU-t", 16384), Gpu("1", "NVIDIA-A100", "GPU-a", 81920)]
    script = f'echo "$CUDA_VISIBLE_DEVICES $TUNEYARD_GPU_FRACTION" >>gpus; {report_x}'
    study = laptop.create(script, trials={"max": 2, "parallel": 2}, gpu={"memory": "20Gi"})
    assert await laptop.run(study, laptop.machine(unlike)) is Ending.COMPLETE
    assert (laptop.folder / "gpus").read_text().splitlines() == ["1 0.25", "1 0.25"]


async def test_studies_share_the_gpus_whole_and_by_parts(laptop, report_x):
    """Each program says what it has for as long as it runs."""
    script = (
        'for at in $(echo $CUDA_VISIBLE_DEVICES | tr , " "); do echo "+${TUNEYARD_GPU_FRACTION:-1}" >>on-$at; done; '
        "sleep 0.2; "
        'for at in $(echo $CUDA_VISIBLE_DEVICES | tr , " "); do echo "-${TUNEYARD_GPU_FRACTION:-1}" >>on-$at; done; '
        f"{report_x}"
    )
    asked = {"one": {"count": 1}, "two": {"count": 2}, "half": {"fraction": 0.5}, "third": {"memory": "8Gi"}}
    studies = [laptop.create(script, name=n, trials={"max": 3, "parallel": 3}, gpu=gpu) for n, gpu in asked.items()]
    runners = [laptop.prepare(study, laptop.machine(ALIKE)) for study in studies]
    # One after the other: each run has a signal handler of its own, and there is one loop.
    turns = 0
    while any(runner._end() is None for runner in runners):
        for runner in runners:
            await runner._turn()
        await asyncio.sleep(0.02)
        turns += 1
        assert turns < 2000
    assert [laptop.phases(study) for study in studies] == [["Succeeded"] * 3] * 4
    assert all(most((laptop.folder / f"on-{number}").read_text().split()) <= 1 for number in "01")


async def test_with_cpu_the_gpus_are_hidden_and_not_waited_for(laptop, report_x):
    study = laptop.create(f'echo "[$CUDA_VISIBLE_DEVICES]" >>gpus; {report_x}', trials={"max": 1}, gpu={"count": 8})
    assert await laptop.run(study, laptop.machine([])) is Ending.COMPLETE
    assert (laptop.folder / "gpus").read_text() == "[]\n"


def asking(laptop, script: str, requests: dict, **spec):
    study = laptop.create(script, **spec)
    container = study["spec"]["template"]["spec"]["containers"][0]
    container["resources"] = {"requests": requests}

    def change(item):
        item["spec"] = study["spec"]

    return laptop.store.change_study(study["metadata"]["uid"], change)


@pytest.mark.parametrize(
    ("requests", "at_once"),
    [({"cpu": "3"}, 2), ({"cpu": "500m", "memory": "3Gi"}, 2), ({"cpu": "64"}, 1), ({}, 6)],
)
async def test_cores_and_memory_bound_how_many_run_at_once(laptop, report_x, requests, at_once):
    script = f"echo +1 >>all; sleep 0.4; echo -1 >>all; {report_x}"
    study = asking(laptop, script, requests, trials={"max": 6, "parallel": 6})
    assert await laptop.run(study, laptop.machine(cores=8.0)) is Ending.COMPLETE
    assert most((laptop.folder / "all").read_text().split()) <= at_once


def said(runner) -> str:
    """Why the next trial waits."""
    waiting = runner._scheduler.waiting
    return waiting.message if waiting is not None else ""


async def test_why_a_trial_waits_for_cores_is_said(laptop, report_x, until):
    study = asking(laptop, f"sleep 0.6; {report_x}", {"cpu": "3", "memory": "1Gi"}, trials={"max": 4, "parallel": 4})
    runner = laptop.prepare(study)
    run = asyncio.create_task(runner.run())
    await until(lambda: "cores" in said(runner))
    why = said(runner)
    assert why == "each trial asks for 3 of 8 cores (2 free) and 1 of 8 GiB (6 free) of this machine"
    assert await run is Ending.COMPLETE


async def test_trials_of_gpus_wait_for_cores_too(laptop, report_x):
    script = f"echo +1 >>all; sleep 0.3; echo -1 >>all; {report_x}"
    study = asking(laptop, script, {"cpu": "5"}, trials={"max": 3, "parallel": 3}, gpu={"fraction": 0.25})
    assert await laptop.run(study, laptop.machine(ALIKE)) is Ending.COMPLETE
    assert most((laptop.folder / "all").read_text().split()) == 1


@pytest.fixture
def stranger(laptop):
    """Another Tuneyard's trial that has most of the machine, until it is killed."""
    laptop.home.leases.mkdir(parents=True)
    program = HOLD.replace('{"0": 0.5}', '{"0": 1.0}, 6.0')
    with subprocess.Popen([sys.executable, "-c", program, laptop.home.leases], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"holds\n"
        yield process
        process.kill()


async def test_what_others_hold_is_left_to_them(laptop, report_x, until, stranger):
    study = asking(laptop, report_x, {"cpu": "3"}, trials={"max": 1})
    runner = laptop.prepare(study)
    run = asyncio.create_task(runner.run())
    await until(lambda: said(runner))
    assert laptop.starts == []
    stranger.kill()
    assert await run is Ending.COMPLETE


async def test_a_trial_on_a_part_measures_its_own_use_only(laptop):
    """Whole GPUs until it is known how much a trial needs of one; then a part for each."""
    told = 'echo "${TUNEYARD_GPU_FRACTION:-1} $TUNEYARD_MEASURE_GPU" >>told'
    report = 'echo "{\\"score\\": ${x}, \\"tuneyard/gpu_peak_mib\\": 5000}" >"$TUNEYARD_TERMINATION_FILE"'
    study = laptop.create(f"{told}; sleep 0.4; {report}", gpu={"memory": "auto"}, trials={"max": 10, "parallel": 1})
    assert await laptop.run(study, laptop.machine(ALIKE)) is Ending.COMPLETE
    lines = (laptop.folder / "told").read_text().splitlines()
    assert {line.split()[1] for line in lines if line.startswith("1 ")} == {"whole"}
    assert {line.split()[1] for line in lines if line.startswith("0.")} == {"part"}
