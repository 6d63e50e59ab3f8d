"""The GPUs of this machine, each lent to one trial at a time.

A GPU is taken by locking a file, and the lock is handed to the trial's processes: the kernel gives it back when the
last of them has ended, whatever became of Tuneyard, and two studies at the same time never get the same GPU.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

RESOURCE: Final = "nvidia.com/gpu"
_LINE: Final = re.compile(r"GPU (\d+): (.+?) \(UUID: (GPU-[^)]+)\)")
_ASK_SECONDS: Final = 30


class Gpu(NamedTuple):
    """A GPU as nvidia-smi lists it; the model is written like the label nvidia.com/gpu.product."""

    number: str
    model: str
    uuid: str


def find(visible: str | None) -> list[Gpu]:
    """The NVIDIA GPUs that programs may use; none where there is no working driver.

    Args:
        visible: CUDA_VISIBLE_DEVICES as it is set, which may leave only some of them.
    """
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    try:
        asked = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=_ASK_SECONDS, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    return visible_of(listed(asked.stdout), visible)


def listed(text: str) -> list[Gpu]:
    """The GPUs in the output of `nvidia-smi -L`."""
    return [Gpu(number, model.replace(" ", "-"), uuid) for number, model, uuid in _LINE.findall(text)]


def visible_of(gpus: Sequence[Gpu], visible: str | None) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES names, by number or by the beginning of their UUID; all where it is not set."""
    if visible is None:
        return list(gpus)
    names = [name.strip() for name in visible.split(",")]
    return [gpu for name in names if name for gpu in gpus if name == gpu.number or gpu.uuid.startswith(name)]


class Lease(NamedTuple):
    """GPUs taken for a trial."""

    gpus: list[Gpu]
    descriptors: list[int]
    """Open files that hold them for as long as a process has them open."""
    environment: dict[str, str]
    """What tells a program which GPUs are its own."""

    def close(self) -> None:
        """Let go of them: from now on only the trial's processes hold them."""
        for descriptor in self.descriptors:
            os.close(descriptor)


class Gpus:
    """Some GPUs, and the folder of their locks."""

    def __init__(self, gpus: Sequence[Gpu], folder: Path) -> None:
        self.all = list(gpus)
        self._folder = folder
        if self.all:
            folder.mkdir(parents=True, exist_ok=True)

    def free(self) -> int:
        """How many nobody uses now."""
        with contextlib.ExitStack() as stack:
            return sum(stack.enter_context(self._lock(gpu)) is not None for gpu in self.all)

    def take(self, count: int) -> Lease | None:
        """Take so many; None while there are not so many free."""
        taken: dict[Gpu, int] = {}
        with contextlib.ExitStack() as stack:
            for gpu in self.all:
                descriptor = stack.enter_context(self._lock(gpu)) if len(taken) < count else None
                if descriptor is not None:
                    taken[gpu] = descriptor
            if len(taken) < count:
                return None
            environment = {
                "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the order in which nvidia-smi counts
                "CUDA_VISIBLE_DEVICES": ",".join(gpu.number for gpu in taken),
            }
            return Lease(list(taken), [os.dup(descriptor) for descriptor in taken.values()], environment)

    @contextlib.contextmanager
    def _lock(self, gpu: Gpu) -> Iterator[int | None]:
        descriptor = os.open(self._folder / gpu.uuid, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                yield descriptor
        finally:
            os.close(descriptor)
