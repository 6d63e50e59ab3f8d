"""GPU memory is asked of whatever framework is loaded, and a report tells it where the study wants to know."""

import json
import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tuneyard import _gpu
from tuneyard._report import Reporter

MIB = 2**20


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "jax", "jax._src.xla_bridge", "tensorflow"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", None)  # importing it fails
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "TUNEYARD_MEASURE_GPU"):
        monkeypatch.delenv(name, raising=False)


def torch(reserved: float = 3000, *, used: bool = True) -> SimpleNamespace:
    cuda = SimpleNamespace(
        is_initialized=lambda: used,
        current_device=lambda: 0,
        max_memory_reserved=lambda device: reserved * MIB,
        get_device_properties=lambda device: SimpleNamespace(total_memory=80000 * MIB),
    )
    return SimpleNamespace(cuda=cuda)


def nvml(pid: int, own: float | None, used: float = 9000) -> SimpleNamespace:
    process = SimpleNamespace(pid=pid, usedGpuMemory=own * MIB if own else None)
    return SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: f"#{index}",
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=used * MIB, total=40000 * MIB, handle=handle),
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [process],
    )


def test_a_program_without_a_gpu_tells_nothing() -> None:
    assert _gpu.usage() is None


def test_torchs_counter_and_the_context_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch())
    assert _gpu.usage() == (3000 + _gpu.CONTEXT_MIB, 80000)
    found = _gpu.usage()
    assert found is not None
    assert found.metrics() == {"tuneyard/gpu_peak_mib": 3512.0, "tuneyard/gpu_total_mib": 80000.0}


def test_torch_that_has_not_touched_the_gpu_is_not_made_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch(used=False))
    assert _gpu.usage() is None


def test_jaxs_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(platform="gpu", memory_stats=lambda: {"peak_bytes_in_use": 2000 * MIB})
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(local_devices=lambda: [device]))
    assert _gpu.usage() is None, "nobody has set up its devices"
    monkeypatch.setitem(sys.modules, "jax._src.xla_bridge", SimpleNamespace(_backends={"cuda": 1}))
    monkeypatch.setitem(sys.modules, "pynvml", nvml(1, None))
    assert _gpu.usage() == (2000 + _gpu.CONTEXT_MIB, 40000)


def test_tensorflows_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    experimental = SimpleNamespace(get_memory_info=lambda name: {"peak": 1000 * MIB, "name": name})
    config = SimpleNamespace(list_logical_devices=lambda kind: [kind], experimental=experimental)
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(config=config))
    assert _gpu.usage() == (1000 + _gpu.CONTEXT_MIB, 0)


@pytest.mark.parametrize(
    ("ours", "own", "measured", "peak"),
    [
        (True, 700, "part", 700),
        (True, None, "part", None),
        (False, 700, "part", None),
        (False, 700, "whole", 9000),
    ],
)
def test_nvml_for_everything_else(
    monkeypatch: pytest.MonkeyPatch, ours: bool, own: float | None, measured: str, peak: float | None
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(os.getpid() if ours else 1, own))
    monkeypatch.setenv("TUNEYARD_MEASURE_GPU", measured)
    found = _gpu.usage()
    assert (found.peak if found else None) == peak


def test_nvml_is_not_asked_about_frameworks_that_take_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(1, None))
    monkeypatch.setenv("TUNEYARD_MEASURE_GPU", "whole")
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace())
    assert _gpu.usage() is None


def test_a_framework_that_fails_does_not_fail_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())
    assert _gpu.usage() is None


def lines(path: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_report_tells_it_and_so_does_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("TUNEYARD_MEASURE_GPU", "whole")
    monkeypatch.setitem(sys.modules, "torch", torch(1000))
    file, last = tmp_path / "reports", tmp_path / "last"
    reporter = Reporter(report_file=str(file), termination_file=str(last))
    reporter.report(0, {"loss": 1.0})
    monkeypatch.setitem(sys.modules, "torch", torch(5000))
    reporter.report(1, {"loss": 0.5})
    reporter.close()
    peaks = [line["metrics"].get(_gpu.PEAK) for line in lines(file)]
    assert peaks == [1512.0, None, 5512.0]
    assert [line["step"] for line in lines(file)] == [0, 1, 1]
    assert json.loads(last.read_text()) == {_gpu.PEAK: 5512.0, _gpu.TOTAL: 80000.0, "loss": 0.5}


def test_what_the_program_says_itself_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("TUNEYARD_MEASURE_GPU", "whole")
    monkeypatch.setitem(sys.modules, "torch", torch(1000))
    reporter = Reporter(report_file=str(tmp_path / "reports"))
    reporter.report(None, {"loss": 1.0, _gpu.PEAK: 7.0})
    reporter.close()
    assert lines(tmp_path / "reports")[-1]["metrics"][_gpu.PEAK] == 7.0


def test_who_is_not_asked_tells_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch(1000))
    reporter = Reporter(report_file=str(tmp_path / "reports"))
    reporter.report(None, {"loss": 1.0})
    reporter.close()
    assert [line["metrics"] for line in lines(tmp_path / "reports")] == [{"loss": 1.0}]
