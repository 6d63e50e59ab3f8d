"""What trials hold of this machine, each by a file that says it and that its processes keep locked.

The lock is handed to the trial's processes: the kernel gives it back when the last of them has ended, whatever became
of Tuneyard; then nothing is held, and whoever comes next removes the file. Who wants to hold something keeps all others
from doing so, looks what is held, and takes it: several studies at the same time never take more than there is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, Self

_GUARD: Final = "guard"


class Holding(NamedTuple):
    """What an attempt holds."""

    study: str
    """The uid of its study."""
    trial: int
    attempt: int
    gpus: Mapping[str, float]
    """What part of each GPU, by the GPU's number."""
    cores: float = 0.0
    memory: float = 0.0
    """Bytes."""

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.study}.{self.trial}.{self.attempt}"

    @classmethod
    def read(cls, text: str) -> Self:
        """From a file's text."""
        return cls(**json.loads(text))


class Lease(NamedTuple):
    """Something is held for as long as a process has these files open."""

    descriptors: list[int]

    def close(self) -> None:
        """Let go of it: from now on only the trial's processes hold it, if there are any."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()


class Leases:
    """A folder of such files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, Holding] = {}

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until nobody else is in here, and keep everybody out; the rest is done in here."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._folder / _GUARD, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def held(self) -> list[Holding]:
        """All that is held now, of whatever study."""
        names = sorted(entry.name for entry in os.scandir(self._folder) if entry.name != _GUARD)
        self._known = {name: holding for name in names if (holding := self._look(name)) is not None}
        return list(self._known.values())

    def take(self, holding: Holding) -> Lease:
        """Hold this, which has to be free; nothing is done where this very attempt holds it already."""
        descriptor = os.open(self._folder / holding.name, os.O_RDWR | os.O_CREAT, 0o644)
        if not _lock(descriptor):
            os.close(descriptor)
            return Lease([])
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holding._asdict()).encode(), 0)
        self._known.pop(holding.name, None)
        return Lease([descriptor])

    def _look(self, name: str) -> Holding | None:
        """What a file says, if somebody holds it; else it is removed."""
        path = self._folder / name
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if _lock(descriptor):
                path.unlink()
                return None
            return self._known.get(name) or Holding.read(os.pread(descriptor, 65536, 0).decode())
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
