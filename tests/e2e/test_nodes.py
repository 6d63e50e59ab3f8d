"""The real nodes themselves: containers run on them, find each other, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import images
from devcluster import cluster as devcluster
from devcluster import machine, nodes
from devcluster.cluster import Cluster, running_cluster

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(machine.obstacle() is not None, reason=f"no real nodes here: {machine.obstacle()}")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with a shell."""
    archive = tmp_path_factory.mktemp("image") / "tiny.tar"
    images.tiny(archive)
    return archive


@pytest.fixture(scope="module")
def bed(image: Path) -> Iterator[Cluster]:
    """Two real nodes of two GPUs each."""
    with running_cluster(nodes=0, real=2, gpus=2) as started:
        started.load_image(image)
        yield started


def run(on: Cluster, name: str, script: str, *, node: str = "node-1", labels: Any = None, gpus: int = 0) -> None:
    """Create a pod that runs a script of busybox's programs."""
    limits = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    container = {"name": "main", "image": images.TINY, "args": ["-c", script], "resources": {"limits": limits}}
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "nodeSelector": {"kubernetes.io/hostname": node},
        "containers": [container],
    }
    on.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels or {}}, "spec": spec})


def ended(on: Cluster, name: str) -> dict[str, Any]:
    """How a pod's container ended, once it has succeeded."""
    done = on.kubectl("wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s", check=False)
    [pod] = on.objects("pod", name)
    assert done.returncode == 0, f"{pod['status']}\n{on.kubectl('logs', name, check=False)}"
    return dict(pod["status"]["containerStatuses"][0]["state"]["terminated"])


def log(on: Cluster, name: str) -> str:
    ended(on, name)
    return on.kubectl("logs", name).stdout


def test_a_container_s_log_and_last_words_are_read(bed: Cluster) -> None:
    run(bed, "speaker", "echo hello; echo '{\"loss\": 1}' > /dev/termination-log")
    assert ended(bed, "speaker")["message"] == '{"loss": 1}\n'
    assert bed.kubectl("logs", "speaker").stdout == "hello\n"


def test_a_service_is_found_by_name_from_both_nodes(bed: Cluster) -> None:
    run(bed, "web", "mkdir /www; echo welcome > /www/index.html; httpd -f -p 8080 -h /www", labels={"app": "web"})
    ports = [{"port": 80, "targetPort": 8080}]
    service = {"selector": {"app": "web"}, "ports": ports}
    bed.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": service})
    bed.kubectl("wait", "pod/web", "--for=condition=Ready", "--timeout=120s")
    # the static busybox's wget cannot resolve names without a C library's plugins; its nslookup can
    address = "nslookup web.default.svc.cluster.local | awk '/^Name/ {seen = 1} seen && /^Address/ {print $2}'"
    ask = f"until printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 $({address}) 80 | grep welcome; do sleep 0.2; done"
    for node in ("node-1", "node-2"):
        run(bed, f"guest-of-{node}", ask, node=node)
        assert log(bed, f"guest-of-{node}") == "welcome\n"


def test_a_container_sees_the_fake_gpus_that_it_was_given(bed: Cluster) -> None:
    run(bed, "one", "echo $NVIDIA_VISIBLE_DEVICES", gpus=1, node="node-2")
    run(bed, "none", "echo $NVIDIA_VISIBLE_DEVICES", node="node-2")
    assert log(bed, "one") in {"GPU-fake-node-2-0\n", "GPU-fake-node-2-1\n"}
    assert log(bed, "none") == "\n"


def test_a_running_container_can_be_entered(bed: Cluster) -> None:
    run(bed, "open", "sleep 600")
    bed.kubectl("wait", "pod/open", "--for=condition=Ready", "--timeout=120s")
    assert bed.kubectl("exec", "open", "--", "hostname").stdout == "open\n"
    bed.kubectl("delete", "pod", "open")


def test_a_kubelet_answers_no_stranger(bed: Cluster) -> None:
    [address] = [
        entry["address"]
        for entry in bed.objects("node", "node-1")[0]["status"]["addresses"]
        if entry["type"] == "InternalIP"
    ]
    command = ["curl", "--insecure", "--silent", f"https://{address}:10250/pods"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "Unauthorized"


def test_a_node_that_was_lost_comes_back(bed: Cluster) -> None:
    directory = bed.kubeconfig.parent
    run(bed, "victim", "sleep 600", node="node-2")
    bed.kubectl("wait", "pod/victim", "--for=condition=Ready", "--timeout=120s")
    processes = in_namespaces(namespaces(directory, "node-2"))
    assert len(processes) >= 5, "containerd, kubelet, kube-proxy, the shim and what it runs"
    bed.kill_node("node-2")
    assert devcluster.status(directory)["node-2"] is None
    assert not [pid for pid in processes if Path("/proc", pid).exists()]
    bed.start_node("node-2")
    bed.kubectl("delete", "pod", "victim", "--force")
    run(bed, "successor", "echo back", node="node-2")
    assert log(bed, "successor") == "back\n"


def namespaces(directory: Path, *names: str) -> set[str]:
    """The namespaces of a cluster's processes that this process is not in."""
    pids = [devcluster.status(directory)[name] for name in names]
    kinds = ("net", "mnt", "pid_for_children")
    return {link(pid, kind) for pid in pids for kind in kinds} - {link("self", kind) for kind in kinds}


def in_namespaces(spaces: set[str]) -> list[str]:
    """The pids of what lives in some namespaces."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = {link(process.name, kind) for kind in ("net", "mnt", "pid")}
        except OSError:  # it has just ended
            continue
        if links & spaces:
            found.append(process.name)
    return found


def link(pid: int | str | None, kind: str) -> str:
    return str(Path(f"/proc/{pid}/ns/{kind}").readlink())


def traces(directory: Path, interface: str) -> list[str]:
    """What this machine shows of a cluster; nothing, when it is gone."""
    looks = (["ip", "link"], ["ip", "route"], ["ip", "netns"], ["ps", "-eo", "args"], ["nft", "list", "ruleset"])
    said = [subprocess.run(look, capture_output=True, text=True, check=True).stdout for look in looks]
    said += [Path("/proc/mounts").read_text()]
    lines = [line for text in said for line in text.splitlines()]
    groups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{interface}")]
    return [line for line in lines if interface in line or str(directory) in line] + groups


def living(directory: Path, interface: str) -> list[str]:
    """Its traces without control groups that nothing is in."""
    return [line for line in traces(directory, interface) if not line.startswith("/sys/fs/cgroup")]


LIFE = """
    import sys, time
    from pathlib import Path
    from devcluster.cluster import running_cluster
    with running_cluster(nodes=0, real=1) as cluster:
        cluster.load_image(Path(sys.argv[1]))
        cluster.kubectl("run", "p", "--image=docker.io/local/tiny:1", "--restart=Never", "--", "-c", "sleep 600")
        cluster.kubectl("wait", "pod/p", "--for=condition=Ready", "--timeout=120s")
        print(cluster.kubeconfig.parent, flush=True)
        sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["ended", "killed"])
def test_nothing_is_left_of_a_cluster(image: Path, how: str) -> None:
    """Ended: nothing at all. Its process killed: files and empty control groups, and nothing that lives."""
    settings = [Path("/proc/sys", name) for name in ("vm/overcommit_memory", "kernel/panic", "net/ipv4/ip_forward")]
    before = [path.read_text() for path in settings]
    command = [sys.executable, "-c", textwrap.dedent(LIFE), str(image)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "deploy")}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as life:
        assert life.stdout is not None
        directory = Path(life.stdout.readline().strip())
        found = nodes.of(directory)
        assert found is not None
        interface = found.network.interface
        spaces = namespaces(directory, "switch", "node-1")
        assert len(spaces) == 4, "the switch's network, and the node's three"
        assert len(in_namespaces(spaces)) >= 6
        assert len(traces(directory, interface)) >= 5
        if how == "killed":
            life.send_signal(signal.SIGKILL)
        life.communicate()
    if how == "ended":
        assert traces(directory, interface) == []
        assert not directory.exists()
    else:
        devcluster.until(lambda: not in_namespaces(spaces), "something of the killed cluster lives on", 10)
        devcluster.until(lambda: not living(directory, interface), "something of the killed cluster is still there", 10)
        devcluster.stop(directory)
        directory.parent.rmdir()
        assert traces(directory, interface) == []
    assert in_namespaces(spaces) == []
    assert [path.read_text() for path in settings] == before
