"""Tuneyard's own processes on a cluster: operator, scheduler and strategy service, to be killed and started again."""

import os
import secrets
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from devcluster.cluster import Cluster, ClusterError, die_with_parent, free_port

TUNEYARD = Path(sys.executable).with_name("tuneyard")


class Stack:
    """The processes; each may be killed and started again at any time, on the same ports.

    Args:
        cluster: what they work on.
        directory: where their logs go.
        options: further arguments by component.
        standby: whether operator and scheduler run twice, electing a leader each; the second ones are called
            operator-2 and scheduler-2.
    """

    def __init__(
        self, cluster: Cluster, directory: Path, options: Mapping[str, Sequence[str]], *, standby: bool = False
    ) -> None:
        self.directory = directory
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.strategy_port = free_port()
        self.report_ports: dict[str, int] = {}
        self.probe_ports: dict[str, int] = {}
        token = directory / "strategy-token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_urlsafe(32))
        listen = ["--listen", f"127.0.0.1:{self.strategy_port}", "--token-file", str(token)]
        self._commands = {"strategy": ["strategy", *listen, *options.get("strategy", ())]}
        service = ["--strategy-url", f"http://127.0.0.1:{self.strategy_port}", "--strategy-token-file", str(token)]
        for number in (1, 2) if standby else (1,):
            for component, own in (("scheduler", []), ("operator", service)):
                name = component if number == 1 else f"{component}-{number}"
                port = self.probe_ports[name] = free_port()
                command = [component, "--kubeconfig", str(cluster.kubeconfig), "--serve", f"127.0.0.1:{port}", *own]
                if component == "operator":
                    self.report_ports[name] = free_port()
                    command += ["--listen", f"127.0.0.1:{self.report_ports[name]}"]
                if standby:
                    command += ["--lease", f"tuneyard-{component}"]
                self._commands[name] = [*command, *options.get(component, ())]

    @property
    def names(self) -> list[str]:
        """All processes, in the order in which they are started."""
        return list(self._commands)

    def start(self, name: str) -> None:
        """Start a component that does not run."""
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(TUNEYARD), *self._commands[name]],
                env={**os.environ, "POD_NAME": name},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one call that takes no lock
            )

    def kill(self, name: str) -> None:
        """End a component as a crash would: SIGKILL."""
        self._end(name, signal.SIGKILL)

    def end(self, name: str) -> None:
        """End a component as Kubernetes would: SIGTERM."""
        self._end(name, signal.SIGTERM)

    def stop(self) -> None:
        """End all of them."""
        for name in reversed(self.names):
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
        """Until all answer.

        Raises:
            ClusterError: one of them ended, or does not answer in time.
        """
        deadline = time.monotonic() + timeout
        urls = {"strategy": f"http://127.0.0.1:{self.strategy_port}"}
        urls |= {name: f"https://127.0.0.1:{port}" for name, port in self.probe_ports.items()}
        for name, url in urls.items():
            while not _healthy(url):
                process = self.processes.get(name)
                if time.monotonic() > deadline or process is None or process.poll() is not None:
                    raise ClusterError(f"{name} is not ready:\n{self.log(name)[-2000:]}")
                time.sleep(0.1)

    def log(self, name: str) -> str:
        """What a component has said."""
        path = self.directory / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""


@contextmanager
def running_stack(
    cluster: Cluster, directory: Path, *, standby: bool = False, **options: Sequence[str]
) -> Iterator[Stack]:
    """All processes, until the block ends; see `Stack`."""
    stack = Stack(cluster, directory, options, standby=standby)
    try:
        for name in stack.names:
            stack.start(name)
        stack.wait_ready()
        yield stack
    finally:
        stack.stop()


def _healthy(url: str) -> bool:
    unverified = ssl._create_unverified_context()  # noqa: S323 - the certificate is signed by nobody
    try:
        with urlopen(f"{url}/healthz", timeout=2, context=unverified) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False
