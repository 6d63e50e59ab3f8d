"""An observer of its own: what the API server says of Jobs, pods and trials, whatever Tuneyard says."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from devcluster.cluster import Cluster
from tuneyard_scheduler.kube import Kube, path


class Witness:
    """Sees every Job and pod of a namespace come and go, independently of Tuneyard."""

    def __init__(self) -> None:
        self.jobs: dict[str, set[str]] = {}
        self.alive: set[str] = set()
        self.most_alive = 0
        self.outcomes: Counter[str] = Counter()
        self.changed_after_end: list[str] = []
        self._ended: dict[str, Any] = {}

    def on_job(self, kind: str, job: dict[str, Any]) -> None:
        if kind != "DELETED":
            self.jobs.setdefault(job["metadata"]["name"], set()).add(job["metadata"]["uid"])

    def on_pod(self, kind: str, pod: dict[str, Any]) -> None:
        over = kind == "DELETED" or pod["status"].get("phase") in {"Succeeded", "Failed"}
        (self.alive.discard if over else self.alive.add)(pod["metadata"]["uid"])
        self.most_alive = max(self.most_alive, len(self.alive))

    def on_trial(self, kind: str, trial: dict[str, Any]) -> None:
        name, status = trial["metadata"]["name"], trial.get("status") or {}
        if name in self._ended and self._ended[name] != (status.get("phase"), status.get("value")):
            self.changed_after_end.append(name)
        if status.get("phase") in {"Succeeded", "Failed", "Infeasible", "Stopped"} and name not in self._ended:
            self._ended[name] = (status["phase"], status.get("value"))
            self.outcomes[status["phase"]] += 1


@contextmanager
def witness(cluster: Cluster, namespace: str) -> Iterator[Witness]:
    """One that watches a namespace for the time of the block, in a thread of its own."""
    seen, stop = Witness(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_watch(seen, str(cluster.kubeconfig), namespace, stop)))
    thread.start()
    try:
        yield seen
        time.sleep(1)  # what has happened is on its way
    finally:
        stop.set()
        thread.join()


async def _watch(seen: Witness, kubeconfig: str, namespace: str, stop: threading.Event) -> None:
    async with await Kube.connect(kubeconfig) as kube:
        watches = [
            asyncio.create_task(kube.reflect(path(kind, namespace), on_event))
            for kind, on_event in (("jobs", seen.on_job), ("pods", seen.on_pod), ("trials", seen.on_trial))
        ]
        while not stop.is_set():
            await asyncio.sleep(0.05)
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
