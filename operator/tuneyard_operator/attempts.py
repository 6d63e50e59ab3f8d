"""What is seen of an attempt (a pod, or a process), and what its end means: the failure table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from tuneyard_api.trial import Outcome


@dataclass(frozen=True, slots=True)
class AttemptSeen:
    """The present state of an attempt, the same in every world. Times are epoch seconds."""

    attempt: int
    state: Literal["waiting", "running", "ended"]
    node: str | None = None
    started: float | None = None
    finished: float | None = None
    exit_code: int | None = None
    reason: str | None = None
    """While waiting: why (ImagePullBackOff, Unschedulable ...). At the end: OOMKilled, Evicted ..."""
    message: str | None = None
    termination: str | None = None
    """What the program left as its last word: metrics as JSON, or the end of its log when it failed."""
    generation: int | None = None
    """The study's generation that it was started from."""
    disrupted: bool = False
    """It did not end by its own doing: its pod is gone, was evicted, preempted or drained."""

    @property
    def waits_for(self) -> str:
        """Why it waits, as a sentence."""
        what = BLOCKING_REASONS.get(self.reason or "", "the pod waits")
        return f"{what} ({self.reason}): {self.message or 'no message'}"


class End(NamedTuple):
    """How an attempt ended."""

    outcome: Outcome
    reason: str
    message: str


BLOCKING_REASONS: Final = {
    "CreateContainerConfigError": "the container cannot be configured",
    "CreateContainerError": "the container cannot be created",
    "ErrImageNeverPull": "the image is not on the node and may not be pulled",
    "ErrImagePull": "the image cannot be pulled",
    "ImageInspectError": "the image cannot be read",
    "ImagePullBackOff": "the image cannot be pulled",
    "InvalidImageName": "the image's name is not valid",
    "PodsNotCreated": "no pod can be created",
    "Unschedulable": "no node takes the pod",
}
"""Waiting reasons that time alone rarely mends: the study is blocked instead of burning trials."""

_INFRASTRUCTURE: Final = frozenset(
    {"Evicted", "NodeAffinity", "NodeLost", "NodeShutdown", "Preempted", "Preempting", "Shutdown", "Terminated"}
    | {"TerminationByKubelet", "UnexpectedAdmissionError", "OutOfcpu", "OutOfmemory", "OutOfpods"}
)
GPU_OUT_OF_MEMORY: Final = "GpuOutOfMemory"
HOST_OUT_OF_MEMORY: Final = "HostOutOfMemory"
QUOTED: Final = 500
"""How many characters of a program's log a message has."""
_OF_A_GPU: Final = re.compile(
    r"""
      \b(?:CUDA|HIP|XPU|cuda\s?runtime)\b[^\n]{0,40}\bout\ of\ memory     # PyTorch; ROCm; CUDA's own runtime
    | \btorch\.(?:cuda\.)?OutOfMemoryError\b
    | \b(?:cu|hip)(?:da)?ErrorOutOfMemory\b | \bcudaErrorMemoryAllocation\b | \bCUDA_ERROR_OUT_OF_MEMORY\b
    | \bCU(?:BLAS|DNN|SOLVER|SPARSE|FFT|RAND)_STATUS_ALLOC_FAILED\b
    | \bRESOURCE_EXHAUSTED:[^\n]{0,80}(?:out\ of\ memory|failed\ to\ allocate|allocat)   # JAX (XLA)
    | \bOOM\ when\ allocating\ tensor\b(?![^\n]{0,400}device:CPU)              # TensorFlow
    | \bcupy\S{0,40}\.OutOfMemoryError\b | \bstd::bad_alloc:[^\n]{0,80}(?:CUDA|cuda|RMM) # CuPy; RAPIDS
    """,
    re.VERBOSE | re.IGNORECASE,
)
_OF_THE_HOST: Final = re.compile(
    r"""
      \bstd::bad_alloc\b | \b(?:_Array)?MemoryError\b | \b(?:Cannot|can't)\ allocate\ memory\b | \bENOMEM\b
    | \bout\ of\ memory\b | \bOutOfMemoryError\b | \bOOM\ when\ allocating\ tensor\b
    | \bDefaultCPUAllocator:\ (?:not\ enough|can't\ allocate)\ memory
    | \bDataLoader\ worker\b[^\n]{0,80}\bkilled\ by\ signal:\ Killed\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What programs say that ran out of memory, as their frameworks put it; the GPU's words are looked for first."""


class Shortage(NamedTuple):
    """What an attempt ran out of."""

    reason: str
    """GpuOutOfMemory or HostOutOfMemory."""
    words: str
    """What it said, to the end of the line."""


def out_of_memory(seen: AttemptSeen) -> Shortage | None:
    """What an attempt that failed ran out of; None where it failed by something else."""
    said = seen.termination or ""
    if seen.reason == "OOMKilled":
        return Shortage(HOST_OUT_OF_MEMORY, _last_lines(said))
    for reason, words in ((GPU_OUT_OF_MEMORY, _OF_A_GPU), (HOST_OUT_OF_MEMORY, _OF_THE_HOST)):
        if found := words.search(said):
            begin = said.rfind("\n", 0, found.start()) + 1
            return Shortage(reason, _quoted(said[begin:].splitlines()[0]))
    return None


def classify(seen: AttemptSeen) -> End:
    """The meaning of an attempt's end, by the failure table in docs/design.md; success still has to show metrics."""
    where = f" on node {seen.node}" if seen.node else ""
    if seen.exit_code == 0:
        return End(Outcome.SUCCEEDED, "Completed", "")
    if seen.disrupted or seen.reason in _INFRASTRUCTURE:
        return End(Outcome.INFRASTRUCTURE, seen.reason or "PodGone", seen.message or f"the pod was lost{where}")
    shortage = out_of_memory(seen)
    if shortage is not None:
        whose = "GPU memory" if shortage.reason == GPU_OUT_OF_MEMORY else "memory"
        return End(Outcome.OUT_OF_MEMORY, shortage.reason, f"the program ran out of {whose}{where}{shortage.words}")
    if seen.exit_code is None:
        return End(Outcome.INFRASTRUCTURE, seen.reason or "PodFailed", seen.message or f"the pod failed{where}")
    hint = " (SIGKILL: the kernel kills so when memory runs out)" if seen.exit_code in {137, -9} else ""
    return End(
        Outcome.PROGRAM_FAILED,
        "ProgramFailed",
        f"the program ended with exit code {seen.exit_code}{hint}{_last_lines(seen.termination or '')}",
    )


def _last_lines(text: str) -> str:
    """The end of a failed program's log, cut to what a status should hold."""
    *before, last = [line.strip() for line in text.strip().splitlines()[-3:]] or [""]
    context = " | ".join([*before, ""])
    return _quoted(context[max(len(context) + len(last) - QUOTED, 0) :] + last)


def _quoted(words: str) -> str:
    """Words with a colon before them; of too many the beginning, which names the error, and the end."""
    words = words.strip()
    if len(words) > QUOTED:
        words = f"{words[: QUOTED // 2]} … {words[3 - QUOTED // 2 :]}"
    return f": {words}" if words else ""
