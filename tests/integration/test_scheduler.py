"""The scheduler's process against a real API server and kube-scheduler; the tests play the operator."""

import asyncio
import contextlib
import random
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from devcluster.cluster import Cluster, die_with_parent
from devcluster.stack import TUNEYARD
from tuneyard_api.common import ATTEMPT_LABEL, INDEX_LABEL, STUDY_LABEL, UID_LABEL
from tuneyard_scheduler.backends import VENDORS, catalog
from tuneyard_scheduler.kube import MERGE_PATCH, Kube, KubeError, path

Object = dict[str, Any]


class Scheduler:
    """The process, as `tuneyard scheduler`."""

    def __init__(self, cluster: Cluster) -> None:
        self._command = [str(TUNEYARD), "scheduler", "--kubeconfig", str(cluster.kubeconfig)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, preexec_fn=die_with_parent)  # noqa: PLW1509

    def kill(self) -> None:
        """As kill -9 does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> int:
        """As Kubernetes ends a pod; the exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout=60)


class Bench:
    """A namespace with GPU nodes that no other study may use: their GPU model is the namespace's name."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.kube = kube
        self.namespace = namespace
        self._made: list[str] = []

    async def _create(self, collection: str, item: Object) -> Object:
        made = await self.kube.request("POST", collection, body=item)
        self._made.append(f"{collection}/{made['metadata']['name']}")
        return made

    async def clean(self) -> None:
        for url in reversed(self._made):
            with contextlib.suppress(KubeError):  # a test may have deleted it
                await self.kube.request("DELETE", url, params={"propagationPolicy": "Background"})

    async def node(self, number: int, gpus: int) -> str:
        name = f"{self.namespace}-{number}"
        meta = {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, VENDORS["nvidia"].model_label: self.namespace},
            "annotations": {"kwok.x-k8s.io/node": "fake", "kwok.tuneyard.dev/gpus": str(gpus)},
        }
        await self._create(path("nodes"), {"apiVersion": "v1", "kind": "Node", "metadata": meta})
        await until(lambda: self._ready(name), "the node is ready")
        return name

    async def _ready(self, name: str) -> bool:
        node = await self.kube.request("GET", path("nodes", name=name))
        return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", ()))

    async def queue(self, **spec: Any) -> str:
        item = {"apiVersion": "tuneyard.dev/v1alpha1", "kind": "GpuQueue", "spec": spec}
        await self._create(path("gpuqueues"), {**item, "metadata": {"name": self.namespace}})
        return self.namespace

    async def study(self, name: str, *, gpus: int = 1, parallel: int = 100, trials: int = 0, **spec: Any) -> Object:
        gpu = {"gpu": {"count": gpus, "model": self.namespace}} if gpus else {}
        ours: Object = {
            "objectives": [{"metric": "loss", "goal": "minimize"}],
            "parameters": [{"name": "x", "double": {"min": 0, "max": 1}}],
            "trials": {"max": 1000, "parallel": parallel},
            "template": {"spec": {"containers": [{"name": "trial", "image": "example.test/trial:1"}]}},
        }
        item = {"apiVersion": "tuneyard.dev/v1alpha1", "kind": "Study", "metadata": {"name": name}}
        study = await self._create(path("studies", self.namespace), {**item, "spec": {**ours, **gpu, **spec}})
        for index in range(trials):
            await self.trial(study, index)
        return study

    async def trial(self, study: Object, index: int) -> None:
        name, uid = study["metadata"]["name"], study["metadata"]["uid"]
        owner = {"apiVersion": study["apiVersion"], "kind": "Study", "name": name, "uid": uid, "controller": True}
        meta = {"name": f"{name}-{index}", "labels": {STUDY_LABEL: name, UID_LABEL: uid}, "ownerReferences": [owner]}
        spec = {"study": name, "index": index, "parameters": {"x": 0.5}}
        item = {"apiVersion": study["apiVersion"], "kind": "Trial", "metadata": meta, "spec": spec}
        await self.kube.request("POST", path("trials", self.namespace), body=item)

    async def trials(self, study: str) -> dict[int, Object]:
        """Status by index."""
        listed = await self.kube.request("GET", path("trials", self.namespace))
        found = {
            item["spec"]["index"]: item.get("status") or {}
            for item in listed["items"]
            if item["spec"]["study"] == study
        }
        return dict(sorted(found.items()))

    async def placed(self, study: str) -> dict[int, str | None]:
        """Node by index of the trials that have a place."""
        trials = await self.trials(study)
        return {i: s["placement"].get("node") for i, s in trials.items() if s.get("phase") in {"Placed", "Running"}}

    async def until_placed(self, study: str, count: int) -> dict[int, str | None]:
        async def enough() -> bool:
            return len(await self.placed(study)) >= count

        await until(enough, f"{count} trials of {study} have a place")
        return await self.placed(study)

    async def pod(self, study: Object | None, index: int, placement: Object) -> str:
        """A trial's pod (of nobody's study: somebody else's) that runs until it is deleted."""
        container: Object = {"name": "main", "image": "example.test/trial:1"}
        spec: Object = {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 0}
        catalog.render(placement, {"spec": spec}, container)
        meta: Object = {"name": f"other-{index}"}
        if study is not None:
            name, uid = study["metadata"]["name"], study["metadata"]["uid"]
            labels = {STUDY_LABEL: name, UID_LABEL: uid, INDEX_LABEL: str(index)}
            meta = {"name": f"{name}-{index}", "labels": {**labels, ATTEMPT_LABEL: str(placement["attempt"])}}
        await self.kube.request("POST", path("pods", self.namespace), body={"metadata": meta, "spec": spec})
        await until(lambda: self._runs(meta["name"], placement.get("node")), f"pod {meta['name']} runs")
        return str(meta["name"])

    async def _runs(self, name: str, node: str | None) -> bool:
        pod = await self.kube.request("GET", path("pods", self.namespace, name))
        assert pod["spec"].get("nodeName") in (None, node), "Kubernetes put the pod where its placement says"
        return bool(pod["status"].get("phase") == "Running")

    async def delete(self, kind: str, name: str) -> None:
        await self.kube.request("DELETE", path(kind, self.namespace, name))

    async def end(self, study: str, index: int, phase: str = "Succeeded") -> None:
        """Record a trial's end."""
        url = path("trials", self.namespace, f"{study}-{index}", "status")
        await self.kube.request("PATCH", url, body={"status": {"phase": phase}}, content_type=MERGE_PATCH)


async def until(condition: Callable[[], Any], what: str, seconds: float = 120) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not await condition():
        assert loop.time() < end, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.02)


async def settle() -> None:
    """Long enough for the scheduler to do what it should not do."""
    await asyncio.sleep(0.7)


@pytest.fixture
async def bench(cluster: Cluster, namespace: str) -> AsyncIterator[Bench]:
    if not any(
        n["metadata"].get("annotations", {}).get("kwok.x-k8s.io/node") == "fake" for n in cluster.objects("nodes")
    ):
        pytest.skip("the cluster that KUBECONFIG names has no fake nodes")
    async with await Kube.connect(str(cluster.kubeconfig)) as kube:
        bench = Bench(kube, namespace)
        yield bench
        await bench.clean()


@pytest.fixture
def scheduler(cluster: Cluster) -> Iterator[Scheduler]:
    process = Scheduler(cluster)
    process.start()
    yield process
    process.kill()


async def test_gives_the_gpus_that_are_free_and_says_why_the_others_wait(bench: Bench, scheduler: Scheduler) -> None:
    nodes = [await bench.node(number, 2) for number in range(2)]
    await bench.pod(None, 0, {"node": nodes[0], "gpus": 1, "resource": "nvidia.com/gpu"})
    await bench.study("a", trials=5)
    assert Counter((await bench.until_placed("a", 3)).values()) == {nodes[0]: 1, nodes[1]: 2}

    async def told() -> bool:
        return "reason" in (await bench.trials("a"))[3]

    await until(told, "the next trial in line says why it waits")
    trials = await bench.trials("a")
    assert {k: v for k, v in trials[0]["placement"].items() if k != "time"} == {
        "attempt": 0,
        "node": nodes[0],
        "gpus": 1,
        "resource": "nvidia.com/gpu",
        "backend": "whole",
    }
    assert trials[3]["reason"] == "NoNodeFits"
    fits = f"needs 1 nvidia.com/gpu ({bench.namespace}) on one node; the freest of 2 nodes has 0 free"
    assert trials[3]["message"] == fits
    assert "reason" not in trials[4], "only the next in line is told"
    assert scheduler.stop() == 0


async def test_a_pods_end_makes_room_before_it_is_recorded(bench: Bench, scheduler: Scheduler) -> None:
    node = await bench.node(0, 4)
    study = await bench.study("a", gpus=2, trials=3)
    assert await bench.until_placed("a", 2) == {0: node, 1: node}
    for index, status in (await bench.trials("a")).items():
        if "placement" in status:
            await bench.pod(study, index, status["placement"])
    await settle()
    assert len(await bench.placed("a")) == 2
    await bench.delete("pods", "a-1")
    assert set(await bench.until_placed("a", 3)) == {0, 1, 2}


async def test_a_restart_forgets_nothing(bench: Bench, scheduler: Scheduler) -> None:
    node = await bench.node(0, 4)
    study = await bench.study("a", trials=6, parallel=2)
    await bench.until_placed("a", 2)
    pod = await bench.pod(study, 0, (await bench.trials("a"))[0]["placement"])
    other = await bench.pod(None, 0, {"node": node, "gpus": 1, "resource": "nvidia.com/gpu"})
    scheduler.kill()
    await bench.end("a", 1)
    await bench.study("b", trials=6)
    scheduler.start()
    assert set(await bench.until_placed("a", 2)) == {0, 2}
    assert set(await bench.until_placed("b", 1)) == {0}
    await settle()
    assert (len(await bench.placed("a")), len(await bench.placed("b"))) == (2, 1)
    await bench.delete("pods", other)
    assert set(await bench.until_placed("b", 2)) == {0, 1}
    scheduler.kill()
    await bench.delete("pods", pod)
    await bench.end("a", 0)
    scheduler.start()
    assert set(await bench.until_placed("a", 2)) == {2, 3}


async def test_parallel_holds_while_it_is_killed_again_and_again(bench: Bench, scheduler: Scheduler) -> None:
    """Trials without GPUs, which end as soon as they have a place; the scheduler dies every 0.6 s on average."""
    parallel, count, ended = 4, 60, 0
    await bench.study("a", gpus=0, trials=count, parallel=parallel)
    rng = random.Random(7)
    loop = asyncio.get_running_loop()
    kills, next_kill, deadline = 0, loop.time() + 0.5, loop.time() + 90
    while ended < count:
        assert loop.time() < deadline, f"only {ended} of {count} trials got their place"
        trials = await bench.trials("a")
        placed = [index for index, status in trials.items() if status.get("phase") == "Placed"]
        assert len(placed) <= parallel
        for index in placed[:2]:
            await bench.end("a", index)
        ended = sum(status.get("phase") == "Succeeded" for status in trials.values())
        if loop.time() >= next_kill and kills < 8:
            scheduler.kill()
            scheduler.start()
            kills, next_kill = kills + 1, loop.time() + rng.uniform(0.2, 1.0)
        await asyncio.sleep(0.02)
    assert kills >= 3


async def test_queue(bench: Bench, scheduler: Scheduler) -> None:
    await bench.node(0, 8)
    await bench.study("early", trials=1, queue=bench.namespace)

    async def reason(study: str, index: int) -> str | None:
        return (await bench.trials(study))[index].get("reason")

    async def early_told() -> bool:
        return await reason("early", 0) == "QueueNotFound"

    async def late_told() -> bool:
        return await reason("late", 2) == "QueueLimit"

    async def figures() -> bool:
        queue = await bench.kube.request("GET", path("gpuqueues", name=bench.namespace))
        status = queue.get("status") or {}
        return (status.get("used"), status.get("borrowed"), status.get("pending")) == (3, 3, 3)

    await until(early_told, "the trial says that there is no such queue")
    queue = await bench.queue(limit=3, namespaces=[bench.namespace])
    await bench.until_placed("early", 1)
    assert await reason("early", 0) is None, "a placed trial does not say any more why it waited"
    await bench.study("late", trials=5, queue=queue)
    await bench.until_placed("late", 2)
    await until(late_told, "the trial says that the queue is full")
    await until(figures, "the queue shows what it uses")
    await bench.kube.request(
        "PATCH", path("gpuqueues", name=queue), body={"spec": {"limit": 5}}, content_type=MERGE_PATCH
    )
    await bench.until_placed("late", 4)
    await settle()
    assert len(await bench.placed("late")) == 4


async def test_suspended_studies_wait(bench: Bench, scheduler: Scheduler) -> None:
    await bench.study("a", gpus=0, trials=2, suspend=True)
    await bench.study("b", gpus=0, trials=1)
    await bench.until_placed("b", 1)
    await settle()
    assert await bench.placed("a") == {}
    url = path("studies", bench.namespace, "a")
    await bench.kube.request("PATCH", url, body={"spec": {"suspend": False}}, content_type=MERGE_PATCH)
    await bench.until_placed("a", 2)


def test_no_credentials_is_one_sentence(tmp_path: Any) -> None:
    command = [str(TUNEYARD), "scheduler", "--kubeconfig", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("tuneyard: no usable kubeconfig")
    assert "Traceback" not in done.stderr
