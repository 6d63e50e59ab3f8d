"""Real nodes: containerd, kubelet and kube-proxy, each node in namespaces of its own (root on Linux only).

A node is one process, the first of its process namespace (`devcluster.node`), and has a mount, a network and a host
name of its own too. So killing that one process is the loss of the node: containers, mounts, interfaces and rules of
kube-proxy end with it. Only control groups and files stay, for `stop` to remove or for a restart to find.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import yaml

import images
from devcluster import cgroups, machine, network, tools
from devcluster.network import Network
from devcluster.pki import Credentials
from devcluster.processes import ClusterError, live_pid, only_child, reap, spawn, until

DNS: Final = "10.96.0.10"
CONTAINERD_SOCKET: Final = "/run/containerd/containerd.sock"
GPU_LABELS: Final = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.memory": "81559"}
_STATE: Final = "nodes.json"


@dataclass(frozen=True)
class Nodes:
    """The real nodes of the cluster in a folder: node-1, node-2 and so on."""

    directory: Path
    number: int
    count: int
    gpus: int
    outlive_parent: bool

    @property
    def network(self) -> Network:
        """The addresses."""
        return Network(self.number)

    @property
    def names(self) -> list[str]:
        """The names of the nodes."""
        return [f"node-{index}" for index in range(1, self.count + 1)]

    def save(self) -> None:
        """Leave word in the folder, for `of`."""
        (self.directory / _STATE).write_text(json.dumps(asdict(self) | {"directory": str(self.directory)}))

    def start(self, name: str) -> None:
        """Start a node that does not run; it is ready some seconds later.

        Raises:
            ClusterError: There is no such node, or it runs.
        """
        index = self._index(name)
        if live_pid(self._pid_file(name)) is not None:
            raise ClusterError(f"{name} runs already.")
        switch = live_pid(self.directory / "switch.pid")
        if switch is None:
            raise ClusterError(f"{name} cannot be started: the cluster is down.")
        cgroups.create(self._group(name))
        unshare = ["unshare", "--mount-proc", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
        init = [sys.executable, "-m", "devcluster.node", str(self._folder(name) / "node.json")]
        package = str(Path(__file__).resolve().parents[1])
        command = [*unshare, "env", f"PYTHONPATH={package}", *init]
        pid = spawn(self.directory, name, command, outlive_parent=self.outlive_parent).pid
        await_namespace(pid)
        network.plug(self.network, switch, pid, index, self.count)

    def check(self, name: str) -> None:
        """See that a node has not ended.

        Raises:
            ClusterError: It has; the message says what it said last.
        """
        if live_pid(self._pid_file(name)) is None:
            said = (self.directory / f"{name}.log").read_text(errors="replace")
            raise ClusterError(f"{name} has ended; its logs are in {self._folder(name)}:\n{said[-1500:]}")

    def kubelet_log(self, name: str) -> str:
        """What a node's kubelet said last."""
        log = self._folder(name) / "kubelet.log"
        return log.read_text(errors="replace")[-1500:] if log.exists() else ""

    def kill(self, name: str) -> None:
        """Kill everything of a node at once, as when its power fails; returns when all is gone."""
        self._index(name)
        pid_file = self._pid_file(name)
        pid = live_pid(pid_file)
        if pid is None:
            return
        os.kill(
            only_child(pid), signal.SIGKILL
        )  # `unshare` waits for it, and the kernel for all processes of its namespace
        until(lambda: live_pid(pid_file) is None, f"{name} did not end", 20)
        reap(pid)
        cgroups.remove(self._group(name))

    def load_image(self, archive: Path) -> None:
        """Import the images of an OCI archive into all nodes that run.

        Raises:
            ClusterError: containerd refused it.
        """
        for name in self.names:
            pid = live_pid(self._pid_file(name))
            if pid is not None:
                socket = f"/proc/{only_child(pid)}/root{CONTAINERD_SOCKET}"
                command = [str(tools.path("ctr")), "--address", socket, *_IMPORT, str(archive)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    last = done.stderr.strip().rpartition("\n")[2]  # what is before it are warnings
                    raise ClusterError(f"{name} does not take {archive}: {last}")

    def prepare(self, credentials: Credentials, server: str) -> None:
        """Write the files of all nodes, before their first start.

        Args:
            credentials: The cluster's, which certify the nodes.
            server: URL of the API server.
        """
        (self.directory / "resolv.conf").touch()
        try:
            images.pause(self.directory / "pause.tar")
        except images.ImageError as error:
            raise ClusterError(str(error)) from None
        for index, name in enumerate(self.names, 1):
            folder = self._folder(name)
            (folder / "cni").mkdir(parents=True, mode=0o700)
            user, pods = f"system:node:{name}", self.network.pods(index)
            identity = credentials.client(name, user, "system:nodes")
            proxy = credentials.client(f"{name}-proxy", "system:kube-proxy")
            address = self.network.node(index)
            serving = credentials.server(f"{name}-server", user, hosts=[name], addresses=[address])
            ca = credentials.ca_certificate
            files = {
                "kubelet.kubeconfig": kubeconfig(server, ca, identity),
                "proxy.kubeconfig": kubeconfig(server, ca, proxy),
                "kubelet.yaml": kubelet_configuration(ca, serving, f"/{self._group(name)}", self.directory),
                "cni/10-pods.conflist": cni_configuration(pods),
                "node.json": self._programs(name, address),
            }
            for file, content in files.items():
                (folder / file).touch(mode=0o600)
                dump = yaml.safe_dump if file.endswith(("config", "yaml")) else json.dumps
                (folder / file).write_text(dump(content))
            (folder / "containerd.toml").write_text(containerd_configuration(folder))

    def _programs(self, name: str, address: str) -> dict[str, Any]:
        folder = self._folder(name)
        labels = ",".join(f"{key}={value}" for key, value in GPU_LABELS.items()) if self.gpus else ""
        programs = {
            "containerd": [str(tools.path("containerd")), "--config", f"{folder}/containerd.toml"],
            "kubelet": [
                str(tools.path("kubelet")),
                f"--config={folder}/kubelet.yaml",
                f"--kubeconfig={folder}/kubelet.kubeconfig",
                f"--hostname-override={name}",
                f"--node-ip={address}",
                f"--node-labels={labels}",
            ],
            "kube-proxy": [
                str(tools.path("kube-proxy")),
                f"--kubeconfig={folder}/proxy.kubeconfig",
                f"--hostname-override={name}",
                f"--bind-address={address}",
                f"--cluster-cidr={self.network.cluster_cidr}",
                "--proxy-mode=nftables",
                "--conntrack-max-per-core=0",  # the machine's own settings are good enough
                "--conntrack-tcp-timeout-established=0",
                "--conntrack-tcp-timeout-close-wait=0",
            ],
        }
        if self.gpus:
            programs["fakegpu"] = [str(tools.path("fakegpu")), f"-gpus={self.gpus}", f"-node={name}"]
        pause = [str(tools.path("ctr")), *_IMPORT, str(self.directory / "pause.tar")]
        return {
            "name": name,
            "directory": str(folder),
            "containerd_socket": CONTAINERD_SOCKET,
            "import_pause": pause,
            "programs": programs,
        }

    def _index(self, name: str) -> int:
        if name not in self.names:
            raise ClusterError(f"There is no real node {name}; there are {', '.join(self.names) or 'none'}.")
        return self.names.index(name) + 1

    def _folder(self, name: str) -> Path:
        return self.directory / "nodes" / name

    def _pid_file(self, name: str) -> Path:
        return self.directory / f"{name}.pid"

    def _group(self, name: str) -> str:
        return f"{self.network.interface}/{name}"


_IMPORT: Final = ("--namespace=k8s.io", "images", "import")


def of(directory: Path) -> Nodes | None:
    """The real nodes of the cluster in a folder, None where it has none."""
    try:
        state = json.loads((directory / _STATE).read_text())
    except FileNotFoundError:
        return None
    return Nodes(**state | {"directory": Path(state["directory"])})


def start_switch(directory: Path, *, outlive_parent: bool) -> Network:
    """Lay the network of a cluster that is to have real nodes."""
    command = ["unshare", "--net", "sleep", "infinity"]
    pid = spawn(directory, "switch", command, outlive_parent=outlive_parent).pid
    await_namespace(pid)
    return network.join(pid)


def await_namespace(pid: int) -> None:
    """Until a process that is to leave this network namespace has done so."""
    own = Path("/proc/self/ns/net").readlink()

    def left() -> bool:
        try:
            return Path(f"/proc/{pid}/ns/net").readlink() != own
        except OSError:
            raise ClusterError("`unshare` ended at once: a new namespace is not allowed here.") from None

    until(left, "no new network namespace", 10)


def kubeconfig(server: str, ca: Path, identity: tuple[Path, Path]) -> dict[str, Any]:
    """A kubeconfig for who holds a client certificate and its key."""
    certificate, key = map(str, identity)
    return _kubeconfig(server, ca, {"client-certificate": certificate, "client-key": key})


def token_kubeconfig(server: str, ca: Path, token: str) -> dict[str, Any]:
    """A kubeconfig for who holds a token."""
    return _kubeconfig(server, ca, {"token": token})


def _kubeconfig(server: str, ca: Path, user: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "devcluster", "cluster": {"server": server, "certificate-authority": str(ca)}}],
        "users": [{"name": "admin", "user": dict(user)}],
        "contexts": [{"name": "devcluster", "context": {"cluster": "devcluster", "user": "admin"}}],
        "current-context": "devcluster",
    }


def kubelet_configuration(ca: Path, serving: tuple[Path, Path], cgroup: str, directory: Path) -> dict[str, Any]:
    """How a kubelet runs: only the API server may ask it for anything, and a full disk evicts nothing."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "tlsCertFile": str(serving[0]),
        "tlsPrivateKeyFile": str(serving[1]),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(ca)},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "nodeStatusUpdateFrequency": "2s",  # new GPUs are seen soon; nothing is written unless something changed
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,  # images that were loaded by hand come from nowhere else
        "makeIPTablesUtilChains": False,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(directory / "resolv.conf"),
    }


def cni_configuration(pods: str) -> dict[str, Any]:
    """How pods are joined to their node: routed, without a bridge, whose packets would pass by kube-proxy's rules."""
    addresses = {"type": "host-local", "ranges": [[{"subnet": pods}]], "routes": [{"dst": "0.0.0.0/0"}]}
    plugin = {"type": "ptp", "ipMasq": False, "ipam": addresses | {"dataDir": "/run/cni-addresses"}}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [plugin]}


def containerd_configuration(folder: Path) -> str:
    """How a containerd runs.

    Without oom_score_adj, which takes a capability that root lacks in some containers, and without AppArmor, whose
    profiles would stay in the kernel.
    """
    return f"""\
version = 3
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{images.PAUSE}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  disable_apparmor = true
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  SystemdCgroup = false
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{machine.cni()}"]
  conf_dir = "{folder}/cni"
"""
