"""Start and stop a control plane of real components with fake GPU nodes.

A cluster lives in one folder: keys and tokens that only its owner can read, logs, the kubeconfig, and one file a
process with its pid. That file stays locked for as long as the process lives, so that nothing is ever killed by
a number that has gone to somebody else. etcd listens on a socket inside the folder, the API server on a free
port of the loopback interface; the others listen nowhere.
"""

import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import yaml

from devcluster import pki, tools

KWOK = Path(__file__).resolve().parents[1] / "kwok"
START_ORDER = ("etcd", "apiserver", "controller-manager", "scheduler", "kwok")
START_TIMEOUT = 120.0
ISSUER = "https://kubernetes.default.svc.cluster.local"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
SYSTEM_NAMESPACE = "tuneyard-system"
AUDIT_LOG = "audit.log"
_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "userGroups": [f"system:serviceaccounts:{SYSTEM_NAMESPACE}"]},
        {"level": "None"},
    ],
}
"""What Tuneyard's own service accounts ask for, as the API server saw and answered it."""


class ClusterError(RuntimeError):
    """A cluster cannot be started; the message says which component and why."""


@dataclass(frozen=True)
class Cluster:
    """A cluster that can be talked to.

    Attributes:
        kubeconfig: Path of the administrator's kubeconfig.
        kubectl_path: The kubectl to use with it.
    """

    kubeconfig: Path
    kubectl_path: str

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as administrator.

        Args:
            *arguments: What to put after `kubectl`.
            stdin: Text for `-f -`.
            check: Whether a failure raises.

        Raises:
            ClusterError: kubectl failed and `check` is set; the message is kubectl's own.
        """
        command = [self.kubectl_path, "--kubeconfig", str(self.kubeconfig), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise ClusterError(f"`kubectl {' '.join(arguments)}` failed: {done.stderr.strip()}")
        return done

    def objects(self, *arguments: str) -> list[dict[str, Any]]:
        """What `kubectl get ARGUMENTS -o json` lists."""
        listed = json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)
        return [listed] if "items" not in listed else list(listed["items"])

    def create(self, manifest: Mapping[str, Any]) -> None:
        """Create an object, given as a dictionary."""
        self.kubectl("create", "-f", "-", stdin=json.dumps(manifest))


@contextmanager
def running_cluster(*, nodes: int = 4) -> Iterator[Cluster]:
    """A cluster that ends with the block, or with this process if it dies first. Call it from the main thread.

    Args:
        nodes: How many fake nodes of 8 GPUs.

    Raises:
        ClusterError: A component did not start.
        ToolsError: The binaries are missing and could not be built.
    """
    with tempfile.TemporaryDirectory(prefix="tuneyard-") as scratch:
        launch = _Launch(Path(scratch, "cluster"), outlive_parent=False)
        try:
            yield launch.run(nodes)
        finally:
            launch.stop()


def start(directory: Path, *, nodes: int = 4) -> Cluster:
    """Start a cluster that goes on when the calling process has ended.

    Args:
        directory: The folder to create for everything that belongs to the cluster.
        nodes: How many fake nodes of 8 GPUs.

    Raises:
        ClusterError: The folder is in use, or a component did not start; then nothing is left running.
        ToolsError: The binaries are missing and could not be built.
    """
    launch = _Launch(directory, outlive_parent=True)
    try:
        return launch.run(nodes)
    except BaseException:
        launch.stop()
        raise


def stop(directory: Path) -> None:
    """End a cluster's processes and remove its folder; nothing happens where there is none.

    They are killed, etcd last: nothing of a throw-away cluster is worth a graceful end, and an API server that
    lost its etcd would take a minute over it.
    """
    for name in reversed(START_ORDER):
        _kill(directory / f"{name}.pid")
    shutil.rmtree(directory, ignore_errors=True)


def status(directory: Path) -> dict[str, int | None]:
    """The pid of each component of the cluster in a folder; None where it does not run."""
    return {name: _live_pid(directory / f"{name}.pid") for name in START_ORDER}


def connect(directory: Path) -> Cluster:
    """The cluster that `start` made in a folder."""
    return Cluster(directory / "kubeconfig", str(tools.path("kubectl")))


class _Launch:
    """One start of a cluster: its folder, its binaries and the processes that it has begun."""

    def __init__(self, directory: Path, *, outlive_parent: bool) -> None:
        tools.ensure()
        try:
            directory.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            raise ClusterError(f"There is a cluster in {directory} already; take it down first.") from None
        self.directory = directory
        self.outlive_parent = outlive_parent
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.port = free_port()
        self.credentials = pki.create(directory / "pki")
        self.cluster = connect(directory)

    def run(self, nodes: int) -> Cluster:
        self._write_configuration()
        self._spawn("etcd", "server", self._etcd())
        self._spawn("apiserver", "kube-apiserver", self._apiserver())
        self._wait(lambda: self._answers("/readyz"), "the API server is not ready")
        self._spawn("controller-manager", "kube-controller-manager", self._controller_manager())
        self._spawn("scheduler", "kube-scheduler", ["--config", f"{self.directory}/scheduler.yaml", "--secure-port=0"])
        self._spawn("kwok", "kwok", self._kwok())
        self.cluster.create({"apiVersion": "v1", "kind": "List", "items": [_node(i) for i in range(nodes)]})
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self._wait(lambda: self._answers(account), "the controller manager makes no service accounts")
        self._wait(lambda: self._ready_nodes() == nodes, "kwok does not make the nodes ready")
        return self.cluster

    def stop(self) -> None:
        stop(self.directory)
        for process in self.processes.values():
            process.wait()

    def _spawn(self, name: str, binary: str, arguments: Sequence[str]) -> None:
        with (self.directory / f"{name}.log").open("wb") as log, (self.directory / f"{name}.pid").open("w") as pid_file:
            fcntl.flock(pid_file, fcntl.LOCK_EX)  # inherited: held until the process ends
            process = subprocess.Popen(
                [str(tools.path(binary)), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                pass_fds=[pid_file.fileno()],
                start_new_session=True,  # a Ctrl-C is for the parent alone
                preexec_fn=None if self.outlive_parent else die_with_parent,  # noqa: PLW1509 - one call that takes no lock
            )
            pid_file.write(str(process.pid))
        self.processes[name] = process

    def _wait(self, condition: Callable[[], bool], complaint: str) -> None:
        def check() -> bool:
            for name, process in self.processes.items():
                if process.poll() is not None:
                    log = (self.directory / f"{name}.log").read_text(errors="replace")
                    raise ClusterError(f"{name} ended with status {process.returncode} at its start:\n{log[-1500:]}")
            return condition()

        _until(check, complaint, START_TIMEOUT)

    def _get(self, path: str) -> bytes | None:
        """What the API server answers, None where it does not."""
        context = ssl.create_default_context(cafile=str(self.credentials.ca_certificate))
        connection = HTTPSConnection("127.0.0.1", self.port, context=context, timeout=10)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.credentials.admin_token}"})
            response = connection.getresponse()
            return response.read() if response.status == HTTPStatus.OK else None
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()

    def _answers(self, path: str) -> bool:
        return self._get(path) is not None

    def _ready_nodes(self) -> int:
        nodes = json.loads(self._get("/api/v1/nodes") or '{"items": []}')["items"]
        conditions = [condition for node in nodes for condition in node["status"].get("conditions", [])]
        return sum(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)

    def _etcd(self) -> list[str]:
        client, peer = f"unix://{self.directory}/etcd.sock", f"unix://{self.directory}/peer.sock"
        return [
            f"--data-dir={self.directory}/etcd",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--quota-backend-bytes=8589934592",
            "--log-level=warn",
        ]

    def _apiserver(self) -> list[str]:
        keys = self.credentials
        return [
            f"--etcd-servers=unix://{self.directory}/etcd.sock",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--tls-cert-file={keys.server_certificate}",
            f"--tls-private-key-file={keys.server_key}",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-jwks-uri=https://127.0.0.1:{self.port}/openid/v1/jwks",
            f"--service-account-key-file={keys.account_public_key}",
            f"--service-account-signing-key-file={keys.account_key}",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--token-auth-file={keys.tokens}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            f"--audit-policy-file={self.directory}/audit.yaml",
            f"--audit-log-path={self.directory}/{AUDIT_LOG}",
            "--audit-log-maxsize=100",
            "--audit-log-maxbackup=1",
        ]

    def _controller_manager(self) -> list[str]:
        """Limits raised: at the stock 20 requests a second the Job controller manages 3 Jobs a second."""
        return [
            f"--kubeconfig={self.cluster.kubeconfig}",
            f"--service-account-private-key-file={self.credentials.account_key}",
            f"--root-ca-file={self.credentials.ca_certificate}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
            "--concurrent-job-syncs=20",
            "--node-monitor-grace-period=5h",  # a busy machine renews leases late: fake nodes fail only on purpose
        ]

    def _kwok(self) -> list[str]:
        files = [f"--config={KWOK / name}" for name in ("config.yaml", "stages.yaml")]
        return [f"--kubeconfig={self.cluster.kubeconfig}", *files]

    def _write_configuration(self) -> None:
        server = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority": str(self.credentials.ca_certificate),
        }
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "devcluster", "cluster": server}],
            "users": [{"name": "admin", "user": {"token": self.credentials.admin_token}}],
            "contexts": [{"name": "devcluster", "context": {"cluster": "devcluster", "user": "admin"}}],
            "current-context": "devcluster",
        }
        scheduler = {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "clientConnection": {"kubeconfig": str(self.cluster.kubeconfig), "qps": 1000, "burst": 2000},
            "leaderElection": {"leaderElect": False},
        }
        files = {"kubeconfig": kubeconfig, "scheduler.yaml": scheduler, "audit.yaml": _AUDIT}
        for name, content in files.items():
            path = self.directory / name
            path.touch(mode=0o600)
            path.write_text(yaml.safe_dump(content, sort_keys=False))


def _node(index: int) -> dict[str, Any]:
    name = f"gpu-{index}"
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
        "nvidia.com/gpu.memory": "81559",
    }
    metadata = {"name": name, "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": labels}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata}


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _live_pid(pid_file: Path) -> int | None:
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


def _kill(pid_file: Path) -> None:
    pid = _live_pid(pid_file)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        _until(lambda: _live_pid(pid_file) is None, f"process {pid} of {pid_file} did not end", 10)


def _until(condition: Callable[[], bool], complaint: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"{complaint} after {timeout:.0f} s")
        time.sleep(0.05)


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Have the kernel kill this new process when the thread that began it ends: a `preexec_fn` for Popen."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
