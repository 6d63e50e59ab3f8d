"""Placing on a real API server with kwok's nodes: 250 of 8 (fake) GPUs, 2,000 trials of several studies and queues.

First all that comes at once finds a free cluster: how many places a second are given, written and bound by Kubernetes'
own scheduler, beside as many plain Jobs that nobody plans for. Then two full queues turn over: how long is it from a
GPU falling free to the next pod bound? Whether a node is ever given more than it has is checked from the pods
themselves, at each of their events.
"""

import argparse
import asyncio
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _fake import CRDS, pod, study
from _figures import save, show
from _queueing import percentile

from devcluster.cluster import Cluster, running_cluster
from devcluster.stack import running_stack
from tuneyard_scheduler.kube import Kube, path

NAMESPACE = "default"
GPUS_PER_NODE = 8
WIDTH = 30
"""GPUs that each of the two queues may use while they turn over."""
SIZES = (1, 1, 2, 2)
"""GPUs a trial of those that come at once: three quarters of all, so that they fit though Kubernetes spreads pods."""
Object = dict[str, Any]


class Observer:
    """Sees each pod bound and ended, with the time by this process' clock."""

    def __init__(self) -> None:
        self.bound: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self.queue: dict[str, str] = {}
        self._gpus: Counter[str] = Counter()
        self.most = 0
        """GPUs that were ever held on one node."""

    def on_pod(self, kind: str, item: Object) -> None:
        """Take one event."""
        uid, node = item["metadata"]["uid"], item["spec"].get("nodeName")
        limits = (item["spec"]["containers"][0].get("resources") or {}).get("limits") or {}
        gpus, now = int(limits.get("nvidia.com/gpu", 0)), time.monotonic()
        self.queue[uid] = item["metadata"]["labels"]["tuneyard.dev/study"].split("-")[0]
        over = kind == "DELETED" or (item.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
        if node is not None and uid not in self.bound and not over:
            self.bound[uid] = now
            self._gpus[node] += gpus
            self.most = max(self.most, self._gpus[node])
        if over and uid in self.bound and uid not in self.ended:
            self.ended[uid] = now
            self._gpus[node] -= gpus

    def gaps(self) -> list[float]:
        """Seconds from each pod's end to when the pod was bound that came for it: in each queue, one for one."""
        found = []
        queues = defaultdict[str, list[str]](list)
        for uid in self.bound:
            queues[self.queue[uid]].append(uid)
        for uids in queues.values():
            bound = sorted(self.bound[uid] for uid in uids)
            ended = sorted(self.ended[uid] for uid in uids if uid in self.ended)
            # The queue was filled before anybody ended; from then on each end lets one in.
            first = sum(1 for at in bound if at < ended[0])
            found += [max(0.0, came - went) for went, came in zip(ended, bound[first:], strict=False)]
        return found


@contextmanager
def observed(cluster: Cluster) -> Iterator[Observer]:
    """An observer that watches in a thread of its own for the time of the block."""
    observer, stop = Observer(), threading.Event()

    async def watch() -> None:
        async with await Kube.connect(str(cluster.kubeconfig)) as kube:
            labelled = "tuneyard.dev/study"
            task = asyncio.create_task(kube.reflect(path("pods", NAMESPACE), observer.on_pod, label_selector=labelled))
            while not stop.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            task.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(watch()))
    thread.start()
    try:
        yield observer
    finally:
        stop.set()
        thread.join()


def plain(cluster: Cluster, trials: int) -> float:
    """The reference: as many Jobs at once, which only Kubernetes places; bound pods a second."""

    async def create_all() -> None:
        async with await Kube.connect(str(cluster.kubeconfig)) as kube:
            at_once = asyncio.Semaphore(30)

            async def create(number: int) -> None:
                template = pod(3600)
                template["metadata"]["labels"] = {"tuneyard.dev/study": "plain-0"}
                template["spec"]["restartPolicy"] = "Never"
                limits = {"nvidia.com/gpu": str(SIZES[number % len(SIZES)])}
                template["spec"]["containers"][0]["resources"] = {"limits": limits}
                job = {
                    "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": f"plain-{number}"},
                    "spec": {"backoffLimit": 0, "template": template},
                }  # fmt: skip
                async with at_once:
                    await kube.request("POST", path("jobs", NAMESPACE), body=job)

            await asyncio.gather(*(create(number) for number in range(trials)))

    with observed(cluster) as observer:
        begun = time.monotonic()
        asyncio.run(create_all())
        until(lambda: len(observer.bound) >= trials, 900)
        seconds = time.monotonic() - begun
    cluster.kubectl("delete", "jobs", "--all", "--wait=false")
    until(lambda: not cluster.objects("pods"), 900)
    return trials / seconds


def queue(name: str, **spec: Any) -> Object:
    """A GpuQueue."""
    return {"apiVersion": "tuneyard.dev/v1alpha1", "kind": "GpuQueue", "metadata": {"name": name}, "spec": spec}


def burst(cluster: Cluster, trials: int) -> tuple[Observer, float, float]:
    """Several studies at once on a free cluster: places a second until all run, and seconds to the last pod bound."""
    each = trials // len(SIZES)
    with observed(cluster) as observer:
        begun = time.monotonic()
        for number, gpus in enumerate(SIZES):
            more = {"gpu": {"count": gpus}, "queue": ("red", "blue")[number % 2]}
            cluster.create(study(f"burst-{number}", 3600, trials=each, parallel=each, **more))
        until(lambda: len(observer.bound) >= len(SIZES) * each, 900)
        seconds = time.monotonic() - begun
    for number in range(len(SIZES)):
        cluster.kubectl("delete", "study", f"burst-{number}")
    until(lambda: not cluster.objects("pods"), 900)
    return observer, len(SIZES) * each / seconds, seconds


def turnover(cluster: Cluster, trials: int, seconds: float) -> Observer:
    """Two full queues, of three studies each: what falls free is given on."""
    for name in ("red", "blue"):
        cluster.kubectl("patch", "gpuqueue", name, "--type=merge", "-p", f'{{"spec":{{"limit":{WIDTH}}}}}')
    with observed(cluster) as observer:
        names = [f"{name}-{number}" for name in ("red", "blue") for number in range(3)]
        for number, name in enumerate(names):
            more = {"priority": number % 2, "queue": name.split("-")[0]}
            cluster.create(study(name, seconds, trials=trials // 6, parallel=trials // 6, **more))
        cluster.kubectl("wait", "--for=condition=Complete", "--timeout=1800s", *(f"study/{name}" for name in names))
    return observer


def until(condition: Any, seconds: float) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s")
        time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=250)
    parser.add_argument("--trials", type=int, default=2000, help="half of them come at once, half by turns")
    parser.add_argument("--seconds", type=float, default=12.0, help="that a trial takes while queues turn over")
    options = parser.parse_args()
    with running_cluster(nodes=options.nodes) as cluster, tempfile.TemporaryDirectory() as folder:
        cluster.kubectl("apply", "--server-side", "-f", str(CRDS))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")
        for name in ("red", "blue"):
            cluster.create(queue(name, guaranteed=8))
        reference = plain(cluster, options.trials // 2)
        with running_stack(cluster, Path(folder)):
            first, rate, seconds = burst(cluster, options.trials // 2)
            second = turnover(cluster, options.trials // 2, options.seconds)
    gaps = [1000 * gap for gap in second.gaps()]
    p50, p95 = percentile(gaps, 0.5), percentile(gaps, 0.95)
    most = max(first.most, second.most)
    title = f"{options.trials} trials on {options.nodes} fake nodes of {GPUS_PER_NODE} GPUs, by a real API server"
    header = [
        "at once",
        "places/s",
        "plain Jobs/s",
        "until all are bound, s",
        "free to bound p50 ms",
        "p95 ms",
        "most on a node",
    ]
    show(title, header, [[options.trials // 2, rate, reference, seconds, p50, p95, f"{most} of {GPUS_PER_NODE}"]])
    if most > GPUS_PER_NODE:
        raise SystemExit(f"a node was given {most} GPUs of {GPUS_PER_NODE}")
    figures: dict[str, float | int | str] = {
        "nodes": options.nodes,
        "trials": options.trials,
        "admissions_per_s": round(rate, 2),
        "plain_jobs_bound_per_s": round(reference, 2),
        "admission_ratio": round(rate / reference, 3),
        "free_to_bound_p50_ms": round(p50, 1),
        "free_to_bound_p95_ms": round(p95, 1),
        "most_gpus_on_a_node": most,
        "gpus_of_a_node": GPUS_PER_NODE,
    }
    save("placing", figures)


if __name__ == "__main__":
    main()
