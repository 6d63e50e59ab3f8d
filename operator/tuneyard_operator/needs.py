"""What a trial needs beyond what its study asks for: found out by running out of memory, and kept on its record."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

from tuneyard_api.study import StudySpec
from tuneyard_operator.attempts import GPU_OUT_OF_MEMORY
from tuneyard_scheduler import memory, quantity

Object = dict[str, Any]

AUTO_GROWTH: Final = 1.5
"""How a GPU share that was found out grows where the study does not say."""
_MOST_TIMES: Final = 4.0
"""Memory grows up to so many times the template's where the study names no bound."""
STEP_MIB: Final = 256
_STEP_SHARE: Final = 0.05
"""GPU needs are rounded up to these, so that those of many trials are few."""


class Growth(NamedTuple):
    """What a trial needs from now on; None: no more than before, for this reason."""

    needs: Object | None
    why_not: str = ""


def after_out_of_memory(spec: StudySpec, reason: str, needs: Object, placement: Object) -> Growth:
    """What a trial needs after an attempt that ran out of memory.

    Args:
        spec: the study's.
        reason: GpuOutOfMemory or HostOutOfMemory.
        needs: what it needed before, as in the trial's status.
        placement: what the attempt had, as in the trial's status.
    """
    if reason == GPU_OUT_OF_MEMORY:
        return _more_of_the_gpu(spec, needs, placement)
    return _more_memory(spec, needs)


def _more_memory(spec: StudySpec, needs: Object) -> Growth:
    factor = spec.retry.memory_growth
    if factor is None:
        return Growth(None, "retry.memoryGrowth would let it try again with more")
    said = memory.of(spec.template["spec"]["containers"][0]).most / memory.MIB
    if not said:
        return Growth(None, "its container has no memory limit that could grow; write resources.limits.memory")
    bound = spec.retry.max_memory
    most = quantity.parse(bound) / memory.MIB if bound else _MOST_TIMES * said
    had = max(said, needs.get("memory", 0))
    if had >= most:
        return Growth(None, f"it had {had:.0f} MiB, and retry.maxMemory allows {most:.0f} MiB")
    return Growth({**needs, "memory": math.ceil(min(most, had * factor))})


def _more_of_the_gpu(spec: StudySpec, needs: Object, placement: Object) -> Growth:
    gpu = spec.gpu
    factor = spec.retry.memory_growth or (AUTO_GROWTH if gpu is not None and gpu.auto else None)
    if gpu is None or gpu.count is not None:
        return Growth(None, "it had whole GPUs")
    if factor is None:
        return Growth(None, "retry.memoryGrowth would let it try again with more")
    share = max(float(placement.get("gpus") or 0.0), needs.get("gpuFraction", 0.0))
    if share >= 1:
        return Growth(None, "it had a whole GPU")
    size = max(placement.get("memory") or 0, needs.get("gpuMemory", 0))
    if share * factor > 1 - _STEP_SHARE:
        return Growth({**needs, "gpuFraction": 1.0, "gpuMemory": None})
    if gpu.memory is not None and size:
        return Growth({**needs, "gpuMemory": math.ceil(size * factor / STEP_MIB) * STEP_MIB})
    return Growth({**needs, "gpuFraction": round_share(share * factor)})


def round_share(share: float) -> float:
    """A share of a GPU as it is asked for: a multiple of a twentieth, rounded up, at most a whole one."""
    return min(1.0, round(math.ceil(share / _STEP_SHARE - 1e-9) * _STEP_SHARE, 4))
