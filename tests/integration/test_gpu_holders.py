"""Trials that share GPUs, on a real API server and kube-scheduler; kwok plays the kubelets and their device plugins."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from _studies import Studies, study

from devcluster.cluster import Cluster
from devcluster.stack import Stack
from tuneyard_scheduler.backends import reservation
from tuneyard_scheduler.kube import MERGE_PATCH, Kube, path

Object = dict[str, Any]
GPU = "nvidia.com/gpu"
HELD = "default"
"""Where a scheduler that runs outside of the cluster has the pods that hold GPUs."""


class Observer:
    """Sees every pod of the cluster as it changes, and adds up what they have of each GPU."""

    def __init__(self) -> None:
        self.pods: dict[str, Object] = {}
        self.wrong: list[str] = []
        self.busiest: Counter[str] = Counter()
        self.held: Counter[str] = Counter()
        """How many pods there have been that held a GPU, by its name."""

    def see(self, event: str, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        known = uid in self.pods
        if event == "DELETED" or (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}:
            self.pods.pop(uid, None)
            return
        self.pods[uid] = pod
        if reservation.SLOT_LABEL in pod["metadata"].get("labels", {}) and not known:
            self.held[pod["metadata"]["name"]] += 1
        self._add_up()

    def _add_up(self) -> None:
        holders, shares, units = {}, Counter[str](), Counter[str]()
        for pod in self.pods.values():
            node = pod["spec"].get("nodeName")
            container = pod["spec"]["containers"][0]
            units[node] += int(container.get("resources", {}).get("limits", {}).get(GPU, 0)) if node else 0
            if reservation.SLOT_LABEL in pod["metadata"].get("labels", {}):
                holders[reservation.read(pod).uuid] = pod
            env = {entry["name"]: entry.get("value") for entry in container.get("env", ())}
            if reservation.VISIBLE in env and pod["metadata"]["namespace"] != HELD:
                shares[env[reservation.VISIBLE]] += round(10_000 * float(env["TUNEYARD_GPU_FRACTION"]))
        for gpu, total in shares.items():
            self.busiest[gpu] = max(self.busiest[gpu], total)
            if total > 10_000:
                self.wrong.append(f"{total / 10_000} of {gpu} is in use")
            if gpu not in holders:
                self.wrong.append(f"{gpu} is used and not held")
        self.wrong += [f"{count} GPUs of {node} are taken" for node, count in units.items() if node and count > 8]


@pytest.fixture
async def observer(cluster: Cluster, stack: Stack) -> AsyncIterator[Observer]:
    seeing, synced = Observer(), asyncio.Event()
    async with await Kube.connect(str(cluster.kubeconfig)) as kube:
        task = asyncio.create_task(kube.reflect(path("pods"), seeing.see, on_synced=synced.set))
        await synced.wait()
        yield seeing
        task.cancel()


@pytest.fixture
def studies(cluster: Cluster, namespace: str) -> Studies:
    return Studies(cluster, namespace)


async def until(true: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not (found := await asyncio.to_thread(true)):
        assert loop.time() < end, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.2)
    return found


def complete(studies: Studies, name: str) -> bool:
    return bool(studies.status(name).get("phase") == "Complete")


async def test_a_hundred_at_once_share_gpus_whoever_dies(stack: Stack, studies: Studies, observer: Observer) -> None:
    long = {"duration-ms": "2500"}
    trials = {"max": 100, "parallel": 100}
    studies.apply(study("parts", annotations=long, gpu={"fraction": 0.25}, trials=trials))
    studies.apply(study("wholes", annotations=long, trials={"max": 12, "parallel": 4}))
    await until(lambda: studies.status("parts").get("replicas"), "trials run")
    stack.kill("scheduler")
    await asyncio.sleep(0.5)
    stack.start("scheduler")
    await until(lambda: complete(studies, "parts") and complete(studies, "wholes"), "both studies are done", 240)
    assert observer.wrong == []
    assert max(observer.busiest.values()) == 10_000
    assert studies.status("parts")["trials"]["succeeded"] == 100
    lost = [t["status"]["attempts"] for t in studies.trials("parts") if len(t["status"]["attempts"]) > 1]
    assert lost == [], "no place was lost"
    await until(lambda: not any(reservation.SLOT_LABEL in p["metadata"].get("labels", {})
                                for p in observer.pods.values()), "all GPUs are given back")  # fmt: skip


async def test_what_a_sharer_and_its_record_say(stack: Stack, studies: Studies, observer: Observer) -> None:
    studies.apply(study("one", annotations={"duration-ms": "60000"}, gpu={"fraction": 0.5}, trials={"max": 1}))
    [pod] = await until(lambda: studies.objects("pods"), "its pod is there")
    [trial] = studies.trials("one")
    place = trial["status"]["placement"]
    assert place["backend"] == "reservation"
    assert place["uuid"] == f"GPU-fake-{place['node']}-{place['devices'][0]}"
    env = {entry["name"]: entry.get("value") for entry in pod["spec"]["containers"][0]["env"]}
    assert env["NVIDIA_VISIBLE_DEVICES"] == place["uuid"]
    assert GPU not in json.dumps(pod["spec"]["containers"])
    studies.kubectl("delete", "study", "one")


async def test_a_gpu_that_somebody_else_took_first_costs_an_attempt_and_no_more(
    cluster: Cluster, stack: Stack, studies: Studies, observer: Observer
) -> None:
    """The kubelet refuses the pod that is to hold the GPU (KAI-Scheduler#848)."""
    studies.apply(study("unlucky", gpu={"fraction": 0.5}, trials={"max": 1}, suspend=True))
    refused: list[str] = []

    async with await Kube.connect(str(cluster.kubeconfig)) as kube:
        failed = {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no healthy devices"}

        async def refuse() -> None:
            while not refused:
                for pod in list(observer.pods.values()):
                    if reservation.SLOT_LABEL in pod["metadata"].get("labels", {}):
                        url = path("pods", HELD, pod["metadata"]["name"], "status")
                        await kube.request("PATCH", url, body={"status": {**failed, "initContainerStatuses": None}},
                                           content_type=MERGE_PATCH)  # fmt: skip
                        refused.append(pod["metadata"]["name"])
                        return
                await asyncio.sleep(0.005)

        task = asyncio.create_task(refuse())
        studies.patch("unlucky", suspend=False)
        await until(lambda: complete(studies, "unlucky"), "it is done all the same")
        await task
    [trial] = studies.trials("unlucky")
    assert trial["status"]["phase"] == "Succeeded"
    outcomes = [(attempt["outcome"], attempt["reason"]) for attempt in trial["status"]["attempts"]]
    assert outcomes in ([("Infrastructure", "PlaceLost"), ("Succeeded", "Completed")], [("Succeeded", "Completed")])
    assert observer.held[refused[0]] <= 2
