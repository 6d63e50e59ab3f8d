"""What a program is told of its part of a GPU: no driver keeps it to its part of the memory, so it has to itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tuneyard_scheduler.backends import Object
from tuneyard_scheduler.devices import amount

_POOL: Final = 0.9
"""Of its part, what a framework's pool may take; the rest is for CUDA's context and libraries, which come on top."""


def environment(gpus: float, memory: int | None = None, *, of_visible: float | None = None) -> dict[str, str]:
    """The environment of a program that has a part of a GPU, for whichever backend gives it.

    Args:
        gpus: How much of a GPU it has.
        memory: MiB of GPU memory that come with that, where it is known.
        of_visible: The part of the memory that the program sees that is its own; None where it sees no other
            (a MIG slice, or a driver that shows the part as if it were the GPU).

    JAX takes three quarters of the memory that it sees, and TensorFlow all of it, unless they are told:
    https://docs.jax.dev/en/latest/gpu_memory_allocation.html and https://www.tensorflow.org/guide/gpu. So are CuPy
    (https://docs.cupy.dev/en/stable/reference/environment.html), and CUDA itself where an MPS daemon runs
    (https://docs.nvidia.com/deploy/mps/latest/appendix-environment-variables.html). PyTorch has no such variable:
    `tuneyard.limit_gpu_memory()` tells it.
    """
    told = {"TUNEYARD_GPU_FRACTION": f"{gpus:g}"}
    if memory is not None:
        told["TUNEYARD_GPU_MEMORY_MIB"] = str(memory)
    if of_visible is not None and of_visible < 1:
        pool = amount(of_visible * _POOL)
        told |= {
            "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{pool:g}",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
            "CUPY_GPU_MEMORY_LIMIT": f"{100 * pool:g}%",
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": f"{max(1, round(100 * of_visible))}",
        }
        if memory is not None:
            told["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] = f"0={memory}M"
    return told


def tell(placement: Mapping[str, Any], container: Object, *, of_visible: float | None = None) -> None:
    """Put that into a container; what its author set for a framework stays, what is ours does not."""
    told = environment(float(placement["gpus"]), placement.get("memory"), of_visible=of_visible)
    env = [entry for entry in container.get("env") or () if not entry["name"].startswith("TUNEYARD_GPU_")]
    given = {entry["name"] for entry in env}
    container["env"] = [*({"name": name, "value": value} for name, value in told.items() if name not in given), *env]
