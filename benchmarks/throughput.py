"""Trials per second on fake GPUs, beside the ideal driver, on the same control plane in the same run.

The ideal driver is a plain loop that keeps 30 Jobs in flight and watches them: no trials, no placement, no results, no
way to go on after a crash. It is what a Job on this machine costs at least. Tuneyard runs a study of as many trials,
30 in parallel, each on one (fake) GPU for one second. Both run several times in turn, and the medians count.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _fake import CRDS, study
from _figures import save, show
from _meter import Reading, read

from devcluster.cluster import Cluster, running_cluster
from devcluster.stack import Stack, running_stack
from tuneyard_scheduler.kube import Kube, path

NAMESPACE = "default"
POD_SECONDS = 1.0
POD: dict[str, Any] = {
    "metadata": {"annotations": {"kwok.tuneyard.dev/duration-ms": f"{1000 * POD_SECONDS:.0f}"}},
    "spec": {
        "restartPolicy": "Never",
        "containers": [{"name": "trial", "image": "fake", "resources": {"limits": {"nvidia.com/gpu": "1"}}}],
    },
}


@dataclass(frozen=True)
class Run:
    """One measurement."""

    trials: int
    seconds: float
    used: Reading

    @property
    def rate(self) -> float:
        """Trials per second."""
        return self.trials / self.seconds

    def milliseconds(self, *prefixes: str) -> float:
        """CPU milliseconds per trial of the processes whose names begin so (none: of all)."""
        return 1000 * sum(s for name, s in self.used.cpu.items() if name.startswith(prefixes or "")) / self.trials


async def ideal(cluster: Cluster, trials: int, parallel: int, tag: str, *, by_pod: bool) -> Run:
    """Keep `parallel` Jobs in flight until `trials` of them have ended; by_pod: see the pod's end, not the Job's."""
    kube = await Kube.connect(str(cluster.kubeconfig))
    slots, ended, finished = asyncio.Semaphore(parallel), set[str](), asyncio.Event()

    def on_event(kind: str, item: dict[str, Any]) -> None:
        labels, status = item["metadata"].get("labels") or {}, item.get("status") or {}
        if by_pod:
            over = status.get("phase") in {"Succeeded", "Failed"}
        else:
            over = any(c["type"] == "Complete" and c["status"] == "True" for c in status.get("conditions") or [])
        name = labels.get("job")
        if kind != "DELETED" and over and name not in ended:
            ended.add(name)
            slots.release()
            if len(ended) == trials:
                finished.set()

    async def create(name: str) -> None:
        labels = {"run": tag, "job": name}
        template = {**POD, "metadata": {**POD["metadata"], "labels": labels}}
        job = {
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels},
            "spec": {"backoffLimit": 0, "template": template},
        }  # fmt: skip
        await kube.request("POST", path("jobs", NAMESPACE), body=job)

    synced = asyncio.Event()
    watched = path("pods" if by_pod else "jobs", NAMESPACE)
    watch = asyncio.create_task(kube.reflect(watched, on_event, label_selector=f"run={tag}", on_synced=synced.set))
    await synced.wait()
    before, begun = read(cluster, {"own driver": os.getpid()}), time.monotonic()
    creations = []
    for number in range(trials):
        await slots.acquire()
        creations.append(asyncio.create_task(create(f"{tag}-{number}")))
    await finished.wait()
    seconds = time.monotonic() - begun
    used = read(cluster, {"own driver": os.getpid()}) - before
    await asyncio.gather(*creations)
    watch.cancel()
    await clean(kube, f"run={tag}")
    await kube.close()
    return Run(trials, seconds, used)


def tuneyard(cluster: Cluster, stack: Stack, trials: int, parallel: int, tag: str) -> Run:
    """Run a study of as many trials to its end, from `kubectl apply` to condition Complete."""
    pids = {f"own {name}": process.pid for name, process in stack.processes.items()}
    before, begun = read(cluster, pids), time.monotonic()
    cluster.create(study(tag, POD_SECONDS, trials=trials, parallel=parallel))
    cluster.kubectl("wait", "--for=condition=Complete", f"study/{tag}", "--timeout=600s")
    seconds = time.monotonic() - begun
    used = read(cluster, pids) - before
    status = cluster.objects("study", tag)[0]["status"]
    assert status["trials"]["succeeded"] == trials, status
    cluster.kubectl("delete", "study", tag)
    cluster.kubectl("wait", "--for=delete", "pods", "-l", f"tuneyard.dev/study={tag}", "--timeout=300s", check=False)
    return Run(trials, seconds, used)


async def clean(kube: Kube, selector: str) -> None:
    """Delete a driver's Jobs, and wait until their pods are gone: the next run must not pay for it."""
    options = {"labelSelector": selector, "propagationPolicy": "Background"}
    await kube.request("DELETE", path("jobs", NAMESPACE), params=options, timeout=300)
    left = {"labelSelector": selector, "limit": 1}
    while (await kube.request("GET", path("pods", NAMESPACE), params=left))["items"]:  # noqa: ASYNC110
        await asyncio.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--parallel", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    runs: dict[str, list[Run]] = {"ideal driver (Jobs)": [], "ideal driver (pods)": [], "Tuneyard": []}
    with running_cluster(nodes=4) as cluster, tempfile.TemporaryDirectory() as folder:
        cluster.kubectl("apply", "--server-side", "-f", str(CRDS))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")
        for number in range(options.rounds):
            for name, by_pod in (("ideal driver (Jobs)", False), ("ideal driver (pods)", True)):
                tag = f"{'pod' if by_pod else 'job'}s-{number}"
                runs[name].append(asyncio.run(ideal(cluster, options.trials, options.parallel, tag, by_pod=by_pod)))
            with running_stack(cluster, Path(folder)) as stack:
                tuneyard(cluster, stack, 1, 1, f"warm-up-{number}")  # the drivers have synced before their clock starts
                runs["Tuneyard"].append(tuneyard(cluster, stack, options.trials, options.parallel, f"bench-{number}"))
    report(runs, options.parallel)


def report(runs: dict[str, list[Run]], parallel: int) -> None:
    """The table and the figures."""
    cluster = ("controller-manager", "scheduler", "kwok")
    rows, rates = [], {}
    for name, several in runs.items():
        run = sorted(several, key=lambda one: one.rate)[len(several) // 2]
        rates[name] = statistics.median(one.rate for one in several)
        idle = 1 - run.rate * POD_SECONDS / parallel
        rows.append([
            name, rates[name], f"{100 * idle:.0f} %", run.used.requests / run.trials, run.milliseconds("own"),
            run.milliseconds("apiserver", "etcd"), run.milliseconds(*cluster), run.milliseconds(),
        ])  # fmt: skip
    first = runs["Tuneyard"][0]
    show(
        f"{first.trials} one-second trials, {parallel} in flight, medians of {len(runs['Tuneyard'])} rounds",
        ["driver", "trials/s", "GPUs idle", "requests/trial", "own ms", "API ms", "other ms", "all CPU ms/trial"],
        rows,
    )
    best = rates["Tuneyard"]
    figures: dict[str, float | int | str] = {
        f"ratio_to_ideal_{parallel}": round(best / rates["ideal driver (Jobs)"], 3),
        f"ratio_to_pod_driver_{parallel}": round(best / rates["ideal driver (pods)"], 3),
        "tuneyard_trials_per_s": round(best, 2),
        "ideal_trials_per_s": round(rates["ideal driver (Jobs)"], 2),
        "ideal_pod_trials_per_s": round(rates["ideal driver (pods)"], 2),
        "tuneyard_requests_per_trial": round(rows[2][3], 1),
        "ideal_requests_per_trial": round(rows[0][3], 1),
        "tuneyard_own_cpu_ms_per_trial": round(rows[2][4], 1),
        "ideal_own_cpu_ms_per_trial": round(rows[0][4], 1),
    }
    print(f"ratio to the ideal driver: {figures[f'ratio_to_ideal_{parallel}']}")
    save("throughput", figures)


if __name__ == "__main__":
    main()
