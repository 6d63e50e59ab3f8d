"""Start and stop a control plane of real components, with fake GPU nodes and, for root on Linux, real ones.

A cluster lives in one folder: keys and tokens that only its owner can read, logs, the kubeconfig, and one file a
process with its pid (see `devcluster.processes`). etcd listens on a socket inside the folder, the API server on a free
port of the loopback interface, or of the address that only the real nodes and this machine see; the others of the
control plane listen nowhere.
"""

import json
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import yaml

from devcluster import cgroups, components, machine, network, nodes, pki, tools
from devcluster.components import AUDIT, Control
from devcluster.nodes import Nodes
from devcluster.processes import ClusterError, die_with_parent, free_port, kill, live_pid, spawn, until

__all__ = [
    "Cluster",
    "ClusterError",
    "connect",
    "die_with_parent",
    "free_port",
    "running_cluster",
    "start",
    "status",
    "stop",
]
START_ORDER = ("etcd", "apiserver", "controller-manager", "scheduler", "kwok")
ALL = ("switch", *START_ORDER, "coredns")
START_TIMEOUT = 120.0


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

    def load_image(self, archive: Path) -> None:
        """Import the images of an OCI archive into all real nodes that run.

        Raises:
            ClusterError: There are no real nodes, or one of them refused it.
        """
        self._nodes().load_image(archive)

    def kill_node(self, name: str) -> None:
        """Kill everything of a real node at once, as when its power fails; returns when all of it is gone."""
        self._nodes().kill(name)

    def start_node(self, name: str) -> None:
        """Start a real node that was killed, and wait until it is ready.

        Raises:
            ClusterError: There is no such node, it runs, or it does not become ready.
        """
        began = datetime.now(UTC).isoformat()
        self._nodes().start(name)
        self.wait_for_node(name, since=began)

    def wait_for_node(self, name: str, *, since: str = "") -> None:
        """Until a real node is ready, with its GPUs.

        Args:
            name: The node.
            since: When it was started once more (ISO 8601, UTC): what it said before does not count.

        Raises:
            ClusterError: It has ended, or is not ready in time.
        """
        real = self._nodes()
        named = f"--field-selector=metadata.name={name}"

        def ready() -> bool:
            real.check(name)
            if since:
                leases = self.objects("leases", "-n", "kube-node-lease", named)
                if not any(lease["spec"]["renewTime"] > since for lease in leases):
                    return False
            [status] = [node["status"] for node in self.objects("nodes", named)] or [{}]
            conditions = {entry["type"]: entry["status"] for entry in status.get("conditions", [])}
            here = int(status.get("allocatable", {}).get("nvidia.com/gpu", 0))
            return conditions.get("Ready") == "True" and here == real.gpus

        try:
            until(ready, f"{name} is not ready", START_TIMEOUT)
        except ClusterError as error:
            said = real.kubelet_log(name)
            raise ClusterError(f"{error}\nIts kubelet said last:\n{said}" if said else str(error)) from None

    def _nodes(self) -> Nodes:
        found = nodes.of(self.kubeconfig.parent)
        if found is None:
            raise ClusterError("This cluster has no real nodes.")
        return found


@contextmanager
def running_cluster(*, nodes: int = 4, real: int = 0, gpus: int = 0) -> Iterator[Cluster]:
    """A cluster that ends with the block, or with this process if it dies first. Call it from the main thread.

    Args:
        nodes: How many fake nodes of 8 GPUs: gpu-0, gpu-1 and so on.
        real: How many real nodes: node-1, node-2 and so on. They take root and Linux.
        gpus: How many fake GPUs each real node has.

    Raises:
        ClusterError: A component did not start.
        ToolsError: The binaries are missing and could not be built.
    """
    with tempfile.TemporaryDirectory(prefix="tuneyard-") as scratch:
        launch = _Launch(Path(scratch, "cluster"), real=real, outlive_parent=False)
        try:
            yield launch.run(nodes, gpus)
        finally:
            launch.stop()


def start(directory: Path, *, nodes: int = 4, real: int = 0, gpus: int = 0) -> Cluster:
    """Start a cluster that goes on when the calling process has ended.

    Args:
        directory: The folder to create for everything that belongs to the cluster.
        nodes: How many fake nodes of 8 GPUs.
        real: How many real nodes; see `running_cluster`.
        gpus: How many fake GPUs each real node has.

    Raises:
        ClusterError: The folder is in use, or a component did not start; then nothing is left running.
        ToolsError: The binaries are missing and could not be built.
    """
    launch = _Launch(directory, real=real, outlive_parent=True)
    try:
        return launch.run(nodes, gpus)
    except BaseException:
        launch.stop()
        raise


def stop(directory: Path) -> None:
    """End a cluster's processes and remove everything of it; nothing happens where there is none.

    They are killed, etcd last: nothing of a throw-away cluster is worth a graceful end, and an API server that
    lost its etcd would take a minute over it.
    """
    real = nodes.of(directory)
    if real:
        for name in real.names:
            real.kill(name)
    for name in reversed(ALL):
        kill(directory / f"{name}.pid")
    if real:
        network.leave(real.network)
        cgroups.remove(real.network.interface)
    shutil.rmtree(directory, ignore_errors=True)


def status(directory: Path) -> dict[str, int | None]:
    """The pid of each component of the cluster in a folder; None where it does not run."""
    real = nodes.of(directory)
    begun = [name for name in ALL if (directory / f"{name}.pid").exists()]
    names = [*begun, *real.names] if real else START_ORDER
    return {name: live_pid(directory / f"{name}.pid") for name in names}


def connect(directory: Path) -> Cluster:
    """The cluster that `start` made in a folder."""
    return Cluster(directory / "kubeconfig", str(tools.path("kubectl")))


class _Launch:
    """One start of a cluster: its folder and the processes that it has begun."""

    def __init__(self, directory: Path, *, real: int, outlive_parent: bool) -> None:
        if real:
            machine.ensure(directory)
        tools.ensure(tools.CONTROL_PLANE, *([tools.NODE] if real else []))
        try:
            directory.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            raise ClusterError(f"There is a cluster in {directory} already; take it down first.") from None
        self.directory = directory
        self.real = real
        self.outlive_parent = outlive_parent
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.cluster = connect(directory)

    def run(self, fake: int, gpus: int) -> Cluster:
        address = "127.0.0.1"
        if self.real:
            joined = nodes.start_switch(self.directory, outlive_parent=self.outlive_parent)
            real = Nodes(self.directory, joined.number, self.real, gpus, self.outlive_parent)
            real.save()
            address = joined.host
        self.control = Control(
            directory=self.directory,
            address=address,
            port=free_port(),
            credentials=pki.create(self.directory / "pki", address=address),
            kubeconfig=self.cluster.kubeconfig,
            real=bool(self.real),
        )
        self._start_control_plane(fake)
        if self.real:
            self._start_nodes(real)
        return self.cluster

    def _start_control_plane(self, fake: int) -> None:
        control, keys = self.control, self.control.credentials
        self._write("kubeconfig", nodes.token_kubeconfig(control.server, keys.ca_certificate, keys.admin_token))
        self._write("scheduler.yaml", control.scheduler_configuration())
        self._write("audit.yaml", AUDIT)
        self._spawn("etcd", "server", control.etcd())
        self._spawn("apiserver", "kube-apiserver", control.apiserver())
        self._wait(lambda: self._answers("/readyz"), "the API server is not ready")
        self._spawn("controller-manager", "kube-controller-manager", control.controller_manager())
        self._spawn("scheduler", "kube-scheduler", control.scheduler())
        if fake or not self.real:
            self._spawn("kwok", "kwok", control.kwok())
            self._create([components.fake_node(index) for index in range(fake)])
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self._wait(lambda: self._answers(account), "the controller manager makes no service accounts")
        self._wait(lambda: self._ready_nodes() == fake, "kwok does not make the nodes ready")

    def _start_nodes(self, real: Nodes) -> None:
        control, port, user = self.control, free_port(), "system:coredns"
        self._create([*components.access_objects(user), *components.dns_objects(control.address, port)])
        identity = control.credentials.client("coredns", user)
        self._write("coredns.yaml", nodes.kubeconfig(control.server, control.credentials.ca_certificate, identity))
        corefile = self.directory / "Corefile"
        corefile.write_text(components.corefile(control.address, port, self.directory / "coredns.yaml"))
        self._spawn("coredns", "coredns", ["-conf", str(corefile)])
        real.prepare(control.credentials, control.server)
        for name in real.names:
            real.start(name)
        for name in real.names:
            self.cluster.wait_for_node(name)

    def stop(self) -> None:
        stop(self.directory)

    def _create(self, items: list[dict[str, Any]]) -> None:
        self.cluster.create({"apiVersion": "v1", "kind": "List", "items": items})

    def _spawn(self, name: str, binary: str, arguments: list[str]) -> None:
        command = [str(tools.path(binary)), *arguments]
        self.processes[name] = spawn(self.directory, name, command, outlive_parent=self.outlive_parent)

    def _wait(self, condition: Callable[[], bool], complaint: str) -> None:
        def check() -> bool:
            for name, process in self.processes.items():
                if process.poll() is not None:
                    log = (self.directory / f"{name}.log").read_text(errors="replace")
                    raise ClusterError(f"{name} ended with status {process.returncode} at its start:\n{log[-1500:]}")
            return condition()

        until(check, complaint, START_TIMEOUT)

    def _get(self, path: str) -> bytes | None:
        """What the API server answers, None where it does not."""
        control = self.control
        context = ssl.create_default_context(cafile=str(control.credentials.ca_certificate))
        connection = HTTPSConnection(control.address, control.port, context=context, timeout=10)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {control.credentials.admin_token}"})
            response = connection.getresponse()
            return response.read() if response.status == HTTPStatus.OK else None
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()

    def _answers(self, path: str) -> bool:
        return self._get(path) is not None

    def _ready_nodes(self) -> int:
        found = json.loads(self._get("/api/v1/nodes") or '{"items": []}')["items"]
        conditions = [condition for node in found for condition in node["status"].get("conditions", [])]
        return sum(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(dict(content), sort_keys=False))
