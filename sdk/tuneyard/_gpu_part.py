"""A program's part of a GPU: the driver does not keep it to its part of the memory, so the framework has to."""

from __future__ import annotations

import os
import sys
from typing import Any

from tuneyard._warn import warn_once


def limit_gpu_memory() -> tuple[str, ...]:
    """Keep this process to its part of the GPU's memory: call it once, after the framework is imported.

    Where a trial has a part of a GPU, whoever takes more memory than that takes it from those beside it. PyTorch and
    TensorFlow are told, if they are imported already; an allocation beyond the part then fails as on a smaller GPU.
    JAX is told by the environment, with nothing to call. Where the trial has whole GPUs, or none, nothing happens.

    Returns:
        The frameworks that were told: of "torch" and "tensorflow".
    """
    fraction, memory = _number("TUNEYARD_GPU_FRACTION"), _number("TUNEYARD_GPU_MEMORY_MIB")
    if fraction is None and memory is None:
        return ()
    told = []
    if "torch" in sys.modules and _limit_torch(sys.modules["torch"], fraction, memory):
        told.append("torch")
    if "tensorflow" in sys.modules and memory is not None and _limit_tensorflow(sys.modules["tensorflow"], memory):
        told.append("tensorflow")
    return tuple(told)


def _number(name: str) -> float | None:
    text = os.environ.get(name)
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if number <= 0:
        warn_once("gpu part", f"{name} is '{text}', which is no number above 0: it is ignored")
        return None
    return number


def _limit_torch(torch: Any, fraction: float | None, memory: float | None) -> bool:
    """Of the memory that it sees: a MIG slice shows less than the GPU has."""
    if not torch.cuda.is_available():
        return False
    if memory is not None:
        fraction = memory * 2**20 / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, fraction or 1.0), 0)
    return True


def _limit_tensorflow(tensorflow: Any, memory: float) -> bool:
    config = tensorflow.config
    gpus = config.list_physical_devices("GPU")
    if not gpus:
        return False
    try:
        config.set_logical_device_configuration(gpus[0], [config.LogicalDeviceConfiguration(memory_limit=int(memory))])
    except RuntimeError:  # TensorFlow's way to say that it uses the GPU already
        warn_once(
            "tensorflow", "TensorFlow uses the GPU already: call tuneyard.limit_gpu_memory() before its first operation"
        )
        return False
    return True
