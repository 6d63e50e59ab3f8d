"""What runs in a pod that holds a GPU: `tell` says which one it was given, and ends; without it, wait to be ended.

Standard library only, and as small as can be: one such process runs for each GPU that is shared.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

TERMINATION_FILE: Final = Path("/dev/termination-log")
MOUNTS: Final = Path("/var/run/nvidia-container-devices")
"""Where NVIDIA's device plugin names GPUs by mounts, if it is told to (`deviceListStrategy: volume-mounts`)."""
_NO_NAMES: Final = frozenset({"", "all", "none", "void"})
_UUID: Final = re.compile(r"(?:GPU|MIG)-[\w./-]+")


class NoGpu(Exception):
    """It cannot be found out which GPU this is; the message is a sentence."""


def gpu(environment: Mapping[str, str], mounts: Path = MOUNTS) -> str:
    """The name of the one GPU that this container was given.

    Raises:
        NoGpu: there is none, or more than one, or nobody says which.
    """
    said = environment.get("NVIDIA_VISIBLE_DEVICES", "")
    names = [] if said in _NO_NAMES or said.startswith("/") else [name for name in said.split(",") if name]
    if not names and mounts.is_dir():
        names = sorted(entry.name for entry in mounts.iterdir())
    if not names:  # where GPUs come by CDI, the variable says "void"
        names = _asked_of_the_driver()
    if len(names) != 1:
        raise NoGpu(
            f"this container was given {len(names)} GPUs ({', '.join(names) or 'no name'}), not 1: "
            f"NVIDIA_VISIBLE_DEVICES is '{said}'. Does it need a runtime class (chart value gpuSharing.runtimeClass)?"
        )
    return names[0]


def _asked_of_the_driver() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    found = _UUID.findall(done.stdout)
    slices = [name for name in found if name.startswith("MIG-")]
    return slices or found


def main(arguments: list[str]) -> int:
    """Tell, or hold."""
    if arguments != ["tell"]:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit(0))
        while True:
            signal.pause()
    try:
        words, status = gpu(os.environ), 0
    except (NoGpu, OSError, subprocess.SubprocessError) as error:
        words, status = str(error), 1
    sys.stdout.write(words + "\n")
    TERMINATION_FILE.write_text(words)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
