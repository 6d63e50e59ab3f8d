"""GPUs are lent one trial each, by locks that live as long as the trial's processes."""

from __future__ import annotations

import asyncio

import pytest

from tuneyard_operator.local_runner import Ending
from tuneyard_operator.worlds.gpus import Gpu, Gpus, listed, visible_of

LISTING = """\
GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-aaaa)
  MIG 1g.10gb     Device  0: (UUID: MIG-1111)
GPU 1: NVIDIA H200 (UUID: GPU-bbbb)
"""
GPUS = [Gpu("0", "NVIDIA-A100-SXM4-80GB", "GPU-aaaa"), Gpu("1", "NVIDIA-H200", "GPU-bbbb")]


def test_the_listing_of_nvidia_smi_is_read():
    assert listed(LISTING) == GPUS
    assert listed("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.") == []


@pytest.mark.parametrize(
    ("visible", "want"),
    [(None, GPUS), ("1", GPUS[1:]), ("1,0", GPUS[::-1]), ("GPU-aa", GPUS[:1]), ("", []), ("-1", []), ("7", [])],
)
def test_only_visible_gpus_are_lent(visible, want):
    assert visible_of(GPUS, visible) == want


def test_a_gpu_is_lent_once(tmp_path):
    one, other = Gpus(GPUS, tmp_path), Gpus(GPUS, tmp_path)
    assert (one.free(), other.free()) == (2, 2)
    lease = one.take(1)
    assert lease.gpus == GPUS[:1]
    assert lease.environment["CUDA_VISIBLE_DEVICES"] == "0"
    assert other.free() == 1
    assert other.take(2) is None
    assert other.free() == 1, "what was taken in vain is given back"
    second = other.take(1)
    assert second.gpus == GPUS[1:]
    lease.close()
    second.close()
    assert one.free() == 2


def test_no_gpu_at_all_hides_them(tmp_path):
    assert Gpus([], tmp_path).take(0).environment["CUDA_VISIBLE_DEVICES"] == ""


async def test_trials_that_run_at_once_have_different_gpus(laptop, report_x):
    script = f'echo "$CUDA_VISIBLE_DEVICES" >>gpus; sleep 0.3; {report_x}'
    study = laptop.create(script, trials={"max": 4, "parallel": 4}, gpu={"count": 1})
    gpus = Gpus(GPUS, laptop.home.gpus)
    run = asyncio.create_task(laptop.run(study, gpus))
    busy = 0
    while not run.done():
        busy = max(busy, 2 - Gpus(GPUS, laptop.home.gpus).free())
        await asyncio.sleep(0.02)
    assert await run is Ending.COMPLETE
    used = (laptop.folder / "gpus").read_text().split()
    assert sorted(used) == ["0", "0", "1", "1"]
    assert set(used[:2]) == {"0", "1"}
    assert busy == 2
    assert gpus.free() == 2
    assert laptop.trials(study)[0]["status"]["attempts"][0]["gpus"] == 1


async def test_two_studies_share_the_gpus(laptop, report_x):
    script = f'at="busy-$CUDA_VISIBLE_DEVICES"; mkdir $at || echo twice >clash; sleep 0.2; rmdir $at; {report_x}'
    studies = [
        laptop.create(script, name=name, trials={"max": 3, "parallel": 2}, gpu={"count": 1}) for name in ("one", "two")
    ]
    runners = [laptop.prepare(study, Gpus(GPUS, laptop.home.gpus)) for study in studies]
    # One after the other: each run has a signal handler of its own, and there is one loop.
    turns = 0
    while any(runner._end() is None for runner in runners):
        for runner in runners:
            await runner._turn()
        await asyncio.sleep(0.02)
        turns += 1
        assert turns < 1000
    assert [laptop.phases(study) for study in studies] == [["Succeeded"] * 3] * 2
    assert not (laptop.folder / "clash").exists()


async def test_with_cpu_the_gpus_are_hidden_and_not_waited_for(laptop, report_x):
    study = laptop.create(f'echo "[$CUDA_VISIBLE_DEVICES]" >>gpus; {report_x}', trials={"max": 1}, gpu={"count": 8})
    assert await laptop.run(study, Gpus([], laptop.home.gpus)) is Ending.COMPLETE
    assert (laptop.folder / "gpus").read_text() == "[]\n"
