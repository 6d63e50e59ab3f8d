"""The folder in which a laptop keeps its studies.

`tuneyard.db` holds the objects; `studies/UID/INDEX/ATTEMPT/` what an attempt wrote; `leases/` what trials hold of this
machine.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Self

from tuneyard_operator.world import WorldError

_LOOK_SECONDS: Final = 0.1


class Busy(WorldError):
    """Another process runs the study; `pid` is its number where that is known."""

    def __init__(self, pid: int | None) -> None:
        super().__init__("another process runs this study")
        self.pid = pid


class Home:
    """Its paths. The root is made absolute, since processes are known by their folders."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root.expanduser()))

    @classmethod
    def default(cls, environ: Mapping[str, str]) -> Self:
        """$TUNEYARD_HOME, or `tuneyard` in the user's data folder (XDG base directory specification)."""
        if environ.get("TUNEYARD_HOME"):
            return cls(Path(environ["TUNEYARD_HOME"]))
        data = environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        return cls(Path(data) / "tuneyard")

    @property
    def leases(self) -> Path:
        """Where it is on record what trials hold of the machine."""
        return self.root / "leases"

    @property
    def error_log(self) -> Path:
        """Where unexpected errors are written."""
        return self.root / "errors.log"

    def study(self, uid: str) -> Path:
        """A study's folder."""
        return self.root / "studies" / uid

    def attempt(self, uid: str, index: int, attempt: int) -> Path:
        """An attempt's folder."""
        return self.study(uid) / str(index) / str(attempt)

    def checkpoints(self, uid: str) -> Path:
        """Where a study's trials keep their state."""
        return self.study(uid) / "checkpoints"

    def attempts(self, uid: str) -> Iterator[tuple[int, int, Path]]:
        """Every attempt of a study that has a folder: trial, attempt, folder; in order."""
        for index in _numbers(self.study(uid)):
            for attempt in _numbers(self.study(uid) / str(index)):
                yield index, attempt, self.attempt(uid, index, attempt)

    def lock(self, uid: str) -> StudyLock:
        """Become the only process that runs a study, until the lock is closed or the process ends.

        Raises:
            Busy: another one runs it.
        """
        return StudyLock(self.study(uid) / "lock")

    def runner(self, uid: str) -> int | None:
        """The process that runs a study now; None where there is none."""
        if not self.study(uid).is_dir():
            return None
        try:
            self.lock(uid).close()
        except Busy as busy:
            return busy.pid or 0
        return None


class StudyLock:
    """A lock on a file, in which the owner writes who it is."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise WorldError(f"{path} cannot be used: {error.strerror}") from error
        # Somebody who only looks whether a study is run holds the lock for an instant.
        give_up = time.monotonic() + _LOOK_SECONDS
        while not self._taken():
            if time.monotonic() >= give_up:
                owner = os.pread(self._descriptor, 20, 0).strip()
                os.close(self._descriptor)
                raise Busy(int(owner) if owner.isdigit() else None)
            time.sleep(_LOOK_SECONDS / 10)
        os.pwrite(self._descriptor, f"{os.getpid():<19}\n".encode(), 0)

    def _taken(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Let others run the study."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _numbers(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit())
