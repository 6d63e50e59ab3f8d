"""How much GPU memory this process has used at most: asked of the framework that is loaded, else of NVML.

Nothing is imported but pynvml (of nvidia-ml-py), and that only where no framework's own counter is to be had. A
framework that is not loaded has used nothing. What the counters leave out, the driver's context, is added.
"""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import suppress
from typing import Any, NamedTuple

from tuneyard._report import GPU_PEAK as PEAK

TOTAL = "tuneyard/gpu_total_mib"
WHOLE = "whole"
"""What TUNEYARD_MEASURE_GPU says where the trial has a whole GPU."""
CONTEXT_MIB = 512
"""What a CUDA context takes beside what the frameworks count: 250 to 500 MiB, by GPU and libraries."""
_MIB = 2**20


class Usage(NamedTuple):
    """MiB of GPU memory: the most that was used, and all that the GPU has (0: not known)."""

    peak: float
    total: float = 0.0

    def metrics(self) -> dict[str, float]:
        """The usage as metrics of a report."""
        found = {PEAK: round(self.peak), TOTAL: round(self.total)}
        return {name: float(value) for name, value in found.items() if value > 0}


def usage() -> Usage | None:
    """The most GPU memory that was used until now; None where there is nobody to ask."""
    for ask in (_torch, _jax, _tensorflow, _nvml):
        with suppress(Exception):  # of whatever version a library is: a training does not fail for a measurement
            found = ask()
            if found is not None and found.peak > 0:
                return found
    return None


def _torch() -> Usage | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    device = torch.cuda.current_device()
    total = torch.cuda.get_device_properties(device).total_memory / _MIB
    return Usage(torch.cuda.max_memory_reserved(device) / _MIB + CONTEXT_MIB, total)


def _jax() -> Usage | None:
    jax = sys.modules.get("jax")
    # Asking for the devices would set them up: only a process that has done so has used any.
    bridge = sys.modules.get("jax._src.xla_bridge")
    if jax is None or bridge is None or not bridge._backends:
        return None
    device = jax.local_devices()[0]
    stats: dict[str, Any] | None = device.memory_stats() if device.platform != "cpu" else None
    return Usage(stats["peak_bytes_in_use"] / _MIB + CONTEXT_MIB, _nvml_total()) if stats else None


def _tensorflow() -> Usage | None:
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or not tensorflow.config.list_logical_devices("GPU"):
        return None
    peak = tensorflow.config.experimental.get_memory_info("GPU:0")["peak"]
    return Usage(peak / _MIB + CONTEXT_MIB, _nvml_total())


def _nvml() -> Usage | None:
    """What this process has of the GPU now.

    In a container NVML does not know it by its number: then all that is used of the GPU is its own, if it has it all.
    JAX and TensorFlow take far more than they need, so that nothing is to be learnt from this about them.
    """
    if "jax" in sys.modules or "tensorflow" in sys.modules:
        return None
    nvml, handle = _device()
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    own = [p.usedGpuMemory for p in nvml.nvmlDeviceGetComputeRunningProcesses(handle) if p.pid == os.getpid()]
    used = own[0] if own and own[0] else memory.used if os.environ.get("TUNEYARD_MEASURE_GPU") == WHOLE else 0
    return Usage(used / _MIB, memory.total / _MIB)


def _nvml_total() -> float:
    with suppress(Exception):
        nvml, handle = _device()
        return float(nvml.nvmlDeviceGetMemoryInfo(handle).total / _MIB)
    return 0.0


def _device() -> tuple[Any, Any]:
    """NVML, and its handle of the first GPU that this process may use."""
    nvml = importlib.import_module("pynvml")
    nvml.nvmlInit()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or os.environ.get("NVIDIA_VISIBLE_DEVICES") or "0"
    first = visible.split(",")[0].strip()
    if first.startswith(("GPU-", "MIG-")):
        return nvml, nvml.nvmlDeviceGetHandleByUUID(first)
    return nvml, nvml.nvmlDeviceGetHandleByIndex(int(first) if first.isdigit() else 0)
