"""Processes that belong to a folder: each has a file with its pid, locked for as long as it lives.

So nothing is ever killed by a number that has gone to somebody else, and whoever knows the folder can end them.
"""

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_children: dict[int, subprocess.Popen[bytes]] = {}
"""What this very process has begun, to be reaped once it has ended."""


class ClusterError(RuntimeError):
    """A cluster cannot be started, or does not do what it was asked; the message says which component and why."""


def spawn(directory: Path, name: str, command: Sequence[str], *, outlive_parent: bool) -> subprocess.Popen[bytes]:
    """Start a process whose log and pid file are NAME.log and NAME.pid of a folder.

    Args:
        directory: The folder, also the process's working directory.
        name: What to call it.
        command: The program and its arguments.
        outlive_parent: Whether it goes on when the calling thread ends; else the kernel kills it then.
    """
    with (directory / f"{name}.log").open("ab") as log, (directory / f"{name}.pid").open("w") as pid_file:
        fcntl.flock(pid_file, fcntl.LOCK_EX)  # inherited: held until the process ends
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory,
            pass_fds=[pid_file.fileno()],
            start_new_session=True,  # a Ctrl-C is for the parent alone
            preexec_fn=None if outlive_parent else die_with_parent,  # noqa: PLW1509 - one call that takes no lock
        )
        pid_file.write(str(process.pid))
    _children[process.pid] = process
    return process


def live_pid(pid_file: Path) -> int | None:
    """The pid in a file while its process lives: it then holds the file's lock."""
    try:
        with pid_file.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read())
    except FileNotFoundError:
        pass
    return None


def kill(pid_file: Path) -> None:
    """Kill the process that a file names, if it lives, and wait until it is gone."""
    pid = live_pid(pid_file)
    if pid is None:
        return
    os.kill(pid, signal.SIGKILL)
    until(lambda: live_pid(pid_file) is None, f"process {pid} of {pid_file} did not end", 10)
    reap(pid)


def only_child(pid: int) -> int:
    """The pid of a process's first child; its own where it has none."""
    try:
        children: list[psutil.Process] = psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return pid
    return int(children[0].pid) if children else pid


def reap(pid: int) -> None:
    """Take note of the end of a process that `spawn` began here."""
    child = _children.pop(pid, None)
    if child is not None:
        child.wait()


def until(condition: Callable[[], bool], complaint: str, timeout: float) -> None:
    """Wait for a condition.

    Raises:
        ClusterError: It does not hold within `timeout` seconds; the message is the complaint.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"{complaint} after {timeout:.0f} s")
        time.sleep(0.05)


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def die_with_parent() -> None:
    """Have the kernel kill this new process when the thread that began it ends: a `preexec_fn` for Popen."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
