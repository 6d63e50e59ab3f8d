"""What tells a program how much of a GPU is its own, where nothing but the program itself keeps to it.

| Variable | Who keeps to it |
|---|---|
| `TUNEYARD_GPU_FRACTION`, `TUNEYARD_GPU_MEMORY_MIB` | the program: torch.cuda.set_per_process_memory_fraction, say |
| `XLA_PYTHON_CLIENT_MEM_FRACTION` | JAX, which else takes three quarters; its newer name must not be set beside it |
| `TF_FORCE_GPU_ALLOW_GROWTH` | TensorFlow, which else takes all; no variable limits it |
| `CUPY_GPU_MEMORY_LIMIT` | CuPy |
| `CUDA_MPS_ACTIVE_THREAD_PERCENTAGE`, `CUDA_MPS_PINNED_DEVICE_MEM_LIMIT` | CUDA itself, under an MPS daemon |

Sources: https://docs.jax.dev/en/latest/gpu_memory_allocation.html, https://www.tensorflow.org/guide/gpu,
https://docs.cupy.dev/en/stable/reference/environment.html,
https://docs.nvidia.com/deploy/mps/latest/appendix-environment-variables.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_KEPT_BY_OTHERS: Final = frozenset({"mig", "hami"})
"""Backends behind which a program sees no more memory than its own: a fraction would be one of that."""
_CONTEXT: Final = 0.9
"""Of its share, what a framework's pool may take; the rest is for CUDA's context and libraries, which come on top."""


def gpu_environment(placement: Mapping[str, Any]) -> dict[str, str]:
    """The variables for an attempt with this place, as in its trial's status; none where its GPUs are whole."""
    gpus, memory = float(placement.get("gpus") or 0), placement.get("memory")
    if not 0 < gpus < 1:
        return {}
    told = {"TUNEYARD_GPU_FRACTION": f"{gpus:g}"}
    if memory:
        told["TUNEYARD_GPU_MEMORY_MIB"] = str(memory)
    if placement.get("backend") in _KEPT_BY_OTHERS:
        return told
    pool = f"{gpus * _CONTEXT:.4f}"
    told |= {
        "XLA_PYTHON_CLIENT_MEM_FRACTION": pool,
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "CUPY_GPU_MEMORY_LIMIT": f"{100 * float(pool):g}%",
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": f"{max(1, round(100 * gpus))}",
    }
    if memory:
        told["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] = f"0={memory}M"
    return told
