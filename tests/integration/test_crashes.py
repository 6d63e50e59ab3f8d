"""Operator, scheduler and strategy service are killed with -9 at random moments: nothing is lost or done twice."""

import asyncio
import random
from collections import Counter
from typing import Any

from _studies import Studies, study

from devcluster.cluster import Cluster
from devcluster.stack import COMPONENTS, Stack
from tuneyard_scheduler.kube import Kube, path

TRIALS, PARALLEL = 100, 12


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


async def test_kill_minus_nine_at_random_moments(cluster: Cluster, stack: Stack, namespace: str) -> None:
    studies, seen, rng = Studies(cluster, namespace), Witness(), random.Random(20)
    async with await Kube.connect(str(cluster.kubeconfig)) as kube:
        watches = [
            asyncio.create_task(kube.reflect(path(kind, namespace), on_event))
            for kind, on_event in (("jobs", seen.on_job), ("pods", seen.on_pod), ("trials", seen.on_trial))
        ]
        annotations = {"duration-ms": "700"}
        studies.apply(study("chaos", annotations=annotations, trials={"max": TRIALS, "parallel": PARALLEL}))
        kills = 0
        while sum(seen.outcomes.values()) < TRIALS and kills < 60:
            await asyncio.sleep(rng.uniform(0.05, 2.0))
            victim = rng.choice(COMPONENTS)
            stack.kill(victim)
            kills += 1
            await asyncio.sleep(rng.uniform(0, 0.5))
            stack.start(victim)
        status = await asyncio.to_thread(studies.wait, "chaos", "Complete", 120)
        await asyncio.sleep(1)
        for watch in watches:
            watch.cancel()

    assert kills >= 5, "the study was over before it was disturbed"
    assert seen.outcomes == {"Succeeded": TRIALS}
    assert seen.changed_after_end == []
    assert [job for job, uids in seen.jobs.items() if len(uids) > 1] == []
    assert sorted(seen.jobs) == sorted(f"chaos-{index}-0" for index in range(TRIALS))
    assert seen.most_alive <= PARALLEL
    assert status["trials"]["succeeded"] == TRIALS
    values = {trial["status"]["value"] for trial in studies.trials("chaos")}
    assert len(values) == TRIALS
    assert status["best"]["value"] == min(values)
