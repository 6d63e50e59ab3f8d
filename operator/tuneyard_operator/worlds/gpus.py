"""The GPUs of this machine, as nvidia-smi lists them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from typing import Final, NamedTuple

RESOURCE: Final = "nvidia.com/gpu"
_ASK: Final = ("--query-gpu=index,name,uuid,memory.total", "--format=csv,noheader,nounits")
_ASK_SECONDS: Final = 30


class Gpu(NamedTuple):
    """A GPU; the model is written like the label nvidia.com/gpu.product."""

    number: str
    model: str
    uuid: str
    memory: int | None = None
    """MiB, where the driver says it."""


def find(visible: str | None) -> list[Gpu]:
    """The NVIDIA GPUs that programs may use; none where there is no working driver.

    Args:
        visible: CUDA_VISIBLE_DEVICES as it is set, which may leave only some of them.
    """
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    try:
        asked = subprocess.run([command, *_ASK], capture_output=True, text=True, timeout=_ASK_SECONDS, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    return visible_of(listed(asked.stdout), visible)


def listed(text: str) -> list[Gpu]:
    """The GPUs in the output of nvidia-smi: number, model, UUID and MiB of memory in each line."""
    rows = (tuple(field.strip() for field in line.split(",")) for line in text.splitlines())
    return [
        Gpu(row[0], row[1].replace(" ", "-"), row[2], int(row[3]) if row[3].isdigit() else None)
        for row in rows
        if len(row) == len(Gpu._fields) and row[0].isdigit() and row[2].startswith("GPU-")
    ]


def visible_of(gpus: Sequence[Gpu], visible: str | None) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES names, by number or by the beginning of their UUID; all where it is not set."""
    if visible is None:
        return list(gpus)
    names = [name.strip() for name in visible.split(",")]
    return [gpu for name in names if name for gpu in gpus if name == gpu.number or gpu.uuid.startswith(name)]
