"""An attempt as a process of this machine, known by its folder, whoever started it.

| File | What |
|---|---|
| `pid` | the process's number; made when it starts, which can happen once in a folder |
| `log` | what the program wrote to its standard output and error |
| `reports.jsonl`, `termination.json` | what the SDK wrote (docs/design.md) |
| `exit` | the program's exit code; made when it ends |
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

LOG: Final = "log"
REPORTS: Final = "reports.jsonl"
TERMINATION: Final = "termination.json"
GRACE_SECONDS: Final = 10.0
"""Between the signal that asks a program to end and the one that ends it."""
_LOOK_SECONDS: Final = 1.0
_START_SECONDS: Final = 5.0
_MAX_READ: Final = 1024 * 1024
_MAX_WORD: Final = 64 * 1024
_TAIL_BYTES: Final = 2048

# $0 is the folder. The first line claims it: whoever comes second finds `pid` there and leaves, so that a start may be
# repeated. The trap keeps this shell alive on SIGTERM, for the exit code; the program gets the signal by itself, since
# it is sent to the whole group. The last line ends what the program left running.
_WRAPPER: Final = """\
set -C
{ echo $$ >"$0/pid"; } 2>/dev/null || exit 0
set +C
trap : TERM
"$@" >"$0/log" 2>&1 </dev/null
echo $? >"$0/exit"
kill -KILL 0
"""


class Look(NamedTuple):
    """What is to be seen of a process. Times are epoch seconds."""

    state: Literal["absent", "running", "ended", "gone"]
    """gone: it has ended, and nothing says how."""
    started: float | None = None
    finished: float | None = None
    exit_code: int | None = None


class Process:
    """One attempt's process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._exit = str(folder / "exit")
        self._child: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._started = 0.0
        self._look_at = 0.0
        self._kill_at: float | None = None
        self._read = 0

    @property
    def environment(self) -> dict[str, str]:
        """What tells its SDK where to write."""
        return {
            "TUNEYARD_REPORT_FILE": str(self.folder / REPORTS),
            "TUNEYARD_TERMINATION_FILE": str(self.folder / TERMINATION),
        }

    def start(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path, keep_open: Sequence[int] = ()) -> None:
        """Run a program in a session of its own; nothing happens where that was done before.

        Args:
            argv: the program's path and its arguments.
            env: its whole environment.
            cwd: the folder that it runs in.
            keep_open: file descriptors that stay open in it, and with them the locks that they hold.

        Raises:
            OSError: it cannot be started.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["/bin/sh", "-c", _WRAPPER, str(self.folder), *argv]
        self._child = subprocess.Popen(  # noqa: S603 - the user's own program
            command, cwd=cwd, env=env, pass_fds=keep_open,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def look(self, now: float) -> Look:
        """What is to be seen of it. A process that is not a child of ours is looked for once a second."""
        if self._pid is None and not self._find(now):
            return self._not_begun(now)
        if self._child is None and now < self._look_at:
            return self._ended() or Look("running", self._started)
        self._look_at = now + _LOOK_SECONDS
        if self.alive():
            return Look("running", self._started)
        return self._ended() or Look("gone", self._started, self._last_sign())

    def _find(self, now: float) -> bool:
        """Read who it is; False while nobody has claimed the folder."""
        path = self.folder / "pid"
        try:
            text, self._started = path.read_text(), path.stat().st_mtime
        except FileNotFoundError:
            return False
        if text.endswith("\n"):
            self._pid = int(text)
        elif now >= self._started + _START_SECONDS:
            self._pid = 0  # nobody: the machine went down between the two steps of one `echo`
        if self._child is not None and self._pid is not None and self._child.pid != self._pid:
            self._child.wait()  # it came second, and leaves at once
            self._child = None
        return self._pid is not None

    def _not_begun(self, now: float) -> Look:
        if self._child is not None and self._child.poll() is not None and not self._find(now):
            return Look("gone", None, now)
        return Look("absent")

    def _ended(self) -> Look | None:
        try:
            with open(self._exit) as file:  # noqa: PTH123 - many times a second
                text, finished = file.read(), os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return None
        return Look("ended", self._started, finished, int(text)) if text.endswith("\n") else None

    def _last_sign(self) -> float:
        """When it was last seen to do something: for one that went down with the machine, say."""
        times = [self._started]
        for name in (LOG, REPORTS):
            with contextlib.suppress(FileNotFoundError):
                times.append((self.folder / name).stat().st_mtime)
        return max(times)

    def alive(self) -> bool:
        """Whether the process exists."""
        if self._child is not None and self._pid in {None, self._child.pid}:
            return self._child.poll() is None
        if self._pid is None and not self._find(time.time()):
            return False
        return self._is_theirs()

    def _is_theirs(self) -> bool:
        """Whether the process of that number is still ours: numbers are used again."""
        import psutil  # noqa: PLC0415 - only for processes that another Tuneyard started

        try:
            return bool(psutil.Process(self._pid).cmdline()[3:4] == [str(self.folder)]) if self._pid else False
        except psutil.Error:
            return False

    # Ending ----------------------------------------------------------------------------------------------------

    def stop(self, now: float) -> None:
        """Ask it to end. It is killed by `press` if it does not do so in time."""
        if self._kill_at is None and self.alive():
            self._kill_at = now + GRACE_SECONDS
            self._signal(signal.SIGTERM)

    def press(self, now: float) -> None:
        """Kill it if it was asked to end long enough ago."""
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = now + GRACE_SECONDS
            self.kill()

    @property
    def over(self) -> bool:
        """Whether nothing more comes of it, and nobody has to wait for it."""
        return self._child is None or self._child.poll() is not None

    @property
    def stopping(self) -> bool:
        """Whether it was asked to end."""
        return self._kill_at is not None

    def kill(self) -> None:
        """End it now."""
        if self.alive():
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        pid = self._pid or (self._child.pid if self._child is not None else 0)
        if pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number)

    # What it wrote ---------------------------------------------------------------------------------------------

    def new_reports(self) -> list[dict[str, Any]]:
        """The reports that were added since the last call (a few thousand at most); none when there are no more."""
        try:
            with (self.folder / REPORTS).open("rb") as file:
                if os.fstat(file.fileno()).st_size <= self._read:
                    return []
                file.seek(self._read)
                text = file.read(_MAX_READ)
        except FileNotFoundError:
            return []
        whole = text.rfind(b"\n") + 1 or (len(text) if len(text) == _MAX_READ else 0)
        self._read += whole
        return _reports(text[:whole].decode(errors="replace").split("\n")[:-1])

    def last_word(self, *, failed: bool) -> str | None:
        """The program's last metrics; where it failed, the end of its log, which says why."""
        if failed:
            return tail(self.folder / LOG, _TAIL_BYTES)
        return tail(self.folder / TERMINATION, _MAX_WORD) or None


def _reports(lines: list[str]) -> list[dict[str, Any]]:
    """The report in each line; an empty one where there is none, which is then said of the trial."""
    try:
        found = json.loads(f"[{','.join(lines)}]")  # all at once: programs may report hundreds of times a second
    except ValueError:
        found = []
    if len(found) != len(lines):
        found = [_value(line) for line in lines]
    return [report if isinstance(report, dict) else {} for report in found]


def _value(line: str) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None


def tail(path: Path, size: int) -> str:
    """The end of a file, at most that many bytes; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read(size).decode(errors="replace")
    except FileNotFoundError:
        return ""
