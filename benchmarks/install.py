"""What an installation costs: seconds to bring up, size, memory idle and after a big study, seconds to fail over.

Everything runs in real containers on two real nodes of this machine; only the trials are fake (kwok's pods of a second,
on fake GPUs), so that a thousand of them fit. Beside Tuneyard's components stand the controller manager and the
scheduler of Kubernetes itself, in the same run. A failover is the worst one: the leader's node dies, and nobody tells.
"""

import argparse
import gzip
import json
import statistics
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

from _figures import save, show

import images
from devcluster import tools
from devcluster.cluster import Cluster, running_cluster, status
from images import oci

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "tests" / "support")]

from _release import Release  # noqa: E402
from _studies import Studies, study, until  # noqa: E402

from tuneyard_api.common import timestamp  # noqa: E402
from tuneyard_scheduler.lease import DURATION  # noqa: E402

MIB = 1024 * 1024
NODES = ("node-1", "node-2")
FAILOVERS = 3
REAL = {"tuneyard.dev/real": "true"}
CONTAINERS = ("operator", "strategy", "scheduler")
REFERENCES = ("controller-manager", "scheduler")


def unpacked(archive: Path) -> int:
    """Bytes of an image's layers, unpacked."""
    total = 0
    with tarfile.open(archive) as tar:
        for member in tar:
            blob = tar.extractfile(member)
            if blob is not None and blob.read(2) == b"\x1f\x8b":  # gzip: RFC 1952
                blob.seek(0)
                with gzip.GzipFile(fileobj=blob) as layer:
                    while chunk := layer.read(MIB):
                        total += len(chunk)
    return total


def memory(cluster: Cluster, release: Release) -> dict[str, float]:
    """MiB: working sets of the leaders' containers, by the kubelets, and resident sets of Kubernetes' processes."""
    leaders = {release.leader(component) for component in ("operator", "scheduler")}
    found = {}
    for node in NODES:
        summary = json.loads(cluster.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary").stdout)
        for pod in summary["pods"]:
            if pod["podRef"]["name"] in leaders:
                for container in pod["containers"]:
                    found[container["name"]] = container["memory"]["workingSetBytes"] / MIB
    pids = status(cluster.kubeconfig.parent)
    for name in REFERENCES:
        pages = int(Path(f"/proc/{pids[name]}/statm").read_text().split()[1])
        found[f"kube-{name}"] = pages * 4096 / MIB
    return found


def install(release: Release) -> None:
    """Install, on the real nodes only: kwok would play the pods on its own."""
    release.cluster.kubectl("label", "node", *NODES, *(f"{key}={value}" for key, value in REAL.items()))
    release.cluster.kubectl("create", "namespace", release.namespace)
    selectors = [f"--set-json={name}.nodeSelector={json.dumps(REAL)}" for name in ("operator", "scheduler")]
    release.install(*selectors)


def fail_over(cluster: Cluster, release: Release, component: str) -> float:
    """Seconds from the death of the leader's node until another replica leads; then all is as before."""
    leader = release.leader(component)
    node = release.objects("pod", leader)[0]["spec"]["nodeName"]
    killed, began = timestamp(time.time()), time.monotonic()
    cluster.kill_node(node)
    until(lambda: release.leader(component) not in {leader, ""}, "another leads", 60)
    took = time.monotonic() - began
    cluster.start_node(node)
    until(lambda: all(is_back(pod, node, killed) for pod in release.pods()), "the node's pods are back", 180)
    time.sleep(DURATION)  # those that wait have seen the lease by then
    return took


def is_back(pod: dict[str, Any], node: str, since: str) -> bool:
    """Whether a pod is ready; on the node that died, with containers that have started since."""
    ready = any(entry["type"] == "Ready" and entry["status"] == "True" for entry in pod["status"]["conditions"])
    begun = [entry["state"].get("running", {}).get("startedAt", "") for entry in pod["status"]["containerStatuses"]]
    return ready and (pod["spec"]["nodeName"] != node or min(begun) >= since)


def thousand(cluster: Cluster, trials: int) -> float:
    """Run a study of so many one-second trials, 30 at a time; its seconds."""
    studies = Studies(cluster, "default")
    began = time.monotonic()
    studies.apply(study("big", annotations={"duration-ms": "1000"}, trials={"max": trials, "parallel": 30}))
    studies.wait("big", timeout=1200)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=1000)
    options = parser.parse_args()
    figures: dict[str, Any] = {"trials": options.trials}
    archives = images.ensure()
    for name, archive in archives.items():
        figures[f"image_{name}_mib"] = round(unpacked(archive) / MIB, 1)
        figures[f"image_{name}_compressed_mib"] = round(sum(oci.read(archive).layers) / MIB, 1)
    tools.ensure(tools.CONTROL_PLANE, tools.NODE, tools.HELM)
    began = time.monotonic()
    with running_cluster(nodes=4, real=len(NODES)) as cluster:
        figures["cluster_ready_s"] = round(time.monotonic() - began, 1)
        began = time.monotonic()
        for archive in archives.values():
            cluster.load_image(archive)
        figures["images_loaded_s"] = round(time.monotonic() - began, 1)
        release = Release(cluster, tools.path("helm"))
        began = time.monotonic()
        install(release)
        figures["chart_ready_s"] = round(time.monotonic() - began, 1)
        time.sleep(30)
        idle = memory(cluster, release)
        figures["study_s"] = round(thousand(cluster, options.trials), 1)
        time.sleep(15)  # the kubelets measure now and then
        after = memory(cluster, release)
        rows = [[name, idle[name], after[name]] for name in idle]
        for name in idle:
            key = name.replace("-", "_")
            figures[f"{key}_idle_mib"], figures[f"{key}_after_mib"] = round(idle[name], 1), round(after[name], 1)
        for component in ("operator", "scheduler"):
            times = [fail_over(cluster, release, component) for _ in range(FAILOVERS)]
            figures[f"failover_{component}_s"] = round(statistics.median(times), 1)
            figures[f"failover_{component}_most_s"] = round(max(times), 1)
    ours = sum(after[name] for name in CONTAINERS)
    theirs = sum(after[f"kube-{name}"] for name in REFERENCES)
    figures["memory_ratio_to_kubernetes"] = round(ours / theirs, 2)
    show("Memory (MiB)", ["process", "idle", f"after {options.trials:,} trials"], rows)
    others = {name: value for name, value in figures.items() if not name.endswith(("_idle_mib", "_after_mib"))}
    show("Installation", ["figure", "value"], [[name, value] for name, value in others.items()])
    save("install", figures)


if __name__ == "__main__":
    main()
