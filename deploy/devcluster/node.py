"""The first process of a real node: `python -m devcluster.node FILE`, in namespaces of its own.

It makes this process's view of the file system a node's own, starts the node's programs and reaps what ends. If one of
them ends the node ends, and with this process all of its containers: it is number 1 of its process namespace.
Standard library only.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

PATIENCE: Final = 30.0
TUNABLES: Final = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""What a kubelet sets for the whole machine: it is shown files that say so already, and leaves the machine alone."""


def main(arguments: list[str]) -> int:
    """Run a node as a file describes it; returns when one of its programs has ended."""
    node = json.loads(Path(arguments[0]).read_text())
    directory = Path(node["directory"])
    socket.sethostname(node["name"])
    _mount(directory)
    _wait(_wired, "the network")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    programs = dict(node["programs"])
    running = {_start(directory, "containerd", programs.pop("containerd")): "containerd"}
    _wait(lambda: _listens(node["containerd_socket"]), "containerd")
    subprocess.run(node["import_pause"], check=True, stdout=subprocess.DEVNULL)
    running |= {_start(directory, name, command): name for name, command in programs.items()}
    while True:
        pid, status = os.wait()
        if pid in running:
            sys.stderr.write(f"{running[pid]} ended with status {os.waitstatus_to_exitcode(status)}\n")
            return 1


def _mount(directory: Path) -> None:
    """Put the node's own folders where its programs insist to find them."""
    _run("mount", "--make-rshared", "/")
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for name in ("lib", "log"):
        (directory / name).mkdir(exist_ok=True)
        _run("mount", "--bind", str(directory / name), f"/var/{name}")
    Path("/var/lib/kubelet/device-plugins/kubelet.sock").unlink(missing_ok=True)  # of an earlier life
    for name, value in TUNABLES.items():
        shown, real = Path("/run/tunables", name), Path("/proc/sys", name)
        if real.exists():
            shown.parent.mkdir(parents=True, exist_ok=True)
            shown.write_text(value)
            _run("mount", "--bind", str(shown), str(real))


def _wired() -> bool:
    """Whether there is a default route, the last thing that is set up from outside."""
    rows = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    return any(row[1] == "00000000" for row in rows)


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def _start(directory: Path, name: str, command: list[str]) -> int:
    with (directory / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log).pid


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"{what} is not there after {PATIENCE:.0f} s")
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
