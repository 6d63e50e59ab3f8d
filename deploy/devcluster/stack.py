"""Tuneyard's own processes on a cluster: operator, scheduler and strategy service, to be killed and started again."""

import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from devcluster.cluster import Cluster, ClusterError, die_with_parent, free_port

COMPONENTS = ("strategy", "scheduler", "operator")
_TUNEYARD = Path(sys.executable).with_name("tuneyard")


class Stack:
    """The three processes; each may be killed and started again at any time, on the same ports."""

    def __init__(self, cluster: Cluster, directory: Path, options: Mapping[str, Sequence[str]]) -> None:
        self.directory = directory
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.strategy_port, self.operator_port = free_port(), free_port()
        token = directory / "strategy-token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_urlsafe(32))
        kubeconfig = ["--kubeconfig", str(cluster.kubeconfig)]
        service = ["--strategy-url", f"http://127.0.0.1:{self.strategy_port}", "--strategy-token-file", str(token)]
        self._commands: dict[str, list[str]] = {
            "strategy": ["--listen", f"127.0.0.1:{self.strategy_port}", "--token-file", str(token)],
            "scheduler": kubeconfig,
            "operator": [*kubeconfig, *service, "--listen", f"127.0.0.1:{self.operator_port}"],
        }
        for name, more in options.items():
            self._commands[name] += more

    def start(self, name: str) -> None:
        """Start a component that does not run."""
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(_TUNEYARD), name, *self._commands[name]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one call that takes no lock
            )

    def kill(self, name: str) -> None:
        """End a component as a crash would: SIGKILL."""
        self._end(name, signal.SIGKILL)

    def stop(self) -> None:
        """End all of them."""
        for name in reversed(COMPONENTS):
            self._end(name, signal.SIGTERM)

    def _end(self, name: str, how: signal.Signals) -> None:
        process = self.processes.pop(name, None)
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Until the operator and the strategy service answer.

        Raises:
            ClusterError: one of them ended, or does not answer in time.
        """
        deadline = time.monotonic() + timeout
        for name, port in (("strategy", self.strategy_port), ("operator", self.operator_port)):
            while not _healthy(port):
                process = self.processes.get(name)
                if time.monotonic() > deadline or process is None or process.poll() is not None:
                    raise ClusterError(f"{name} is not ready:\n{self.log(name)[-2000:]}")
                time.sleep(0.1)

    def log(self, name: str) -> str:
        """What a component has said."""
        path = self.directory / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""


@contextmanager
def running_stack(cluster: Cluster, directory: Path, **options: Sequence[str]) -> Iterator[Stack]:
    """All three processes, until the block ends. `options` are further arguments by component."""
    stack = Stack(cluster, directory, options)
    try:
        for name in COMPONENTS:
            stack.start(name)
        stack.wait_ready()
        yield stack
    finally:
        stack.stop()


def _healthy(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False
