"""The scheduler's process holds shared GPUs: what it asks an API server in memory for, and what it makes of answers."""

import asyncio
from functools import partial
from typing import Any

import api_server_in_memory as api
import pytest
from api_server_in_memory import FakeKube

from tuneyard_scheduler import reservations
from tuneyard_scheduler.backends import reservation
from tuneyard_scheduler.controller import Controller
from tuneyard_scheduler.devices import Slot
from tuneyard_scheduler.kube import KubeError, path
from tuneyard_scheduler.reserving import Where, default_template

HELD = "held"
GPU = "nvidia.com/gpu"
NAME = reservation.name(Slot("n1", GPU, "0"))
POD = path("pods", HELD, NAME)
running = partial(api.running, holding=Where(HELD, default_template()))
until = partial(api.until, seconds=10)
RUNS = {
    "phase": "Running",
    "initContainerStatuses": [{"state": {"terminated": {"exitCode": 0, "message": "GPU-8a\n"}}}],
}


@pytest.fixture
def kube(monkeypatch: pytest.MonkeyPatch) -> FakeKube:
    monkeypatch.setattr(reservations, "AGAIN", 0.05)
    monkeypatch.setattr(reservations, "LINGER", 0.05)
    made = FakeKube()
    ready = [{"type": "Ready", "status": "True"}]
    made.put("nodes", None, "n1", status={"allocatable": {GPU: "1"}, "conditions": ready})
    meta = {"creationTimestamp": "2026-01-01T00:00:00Z"}
    made.put("studies", "ns", "a", metadata=meta, spec={"trials": {"parallel": 100}, "gpu": {"fraction": 0.5}})
    for index in range(2):
        owners = [{"kind": "Study", "name": "a", "uid": "studies-a"}]
        made.put("trials", "ns", f"a-{index}", metadata={"ownerReferences": owners}, status={})
    return made


def placement(kube: FakeKube, index: int) -> dict[str, Any]:
    found: dict[str, Any] = kube.objects[path("trials", "ns", f"a-{index}")]["status"].get("placement", {})
    return found


def told(kube: FakeKube) -> list[Any]:
    return [placement(kube, index).get("uuid") for index in (0, 1)]


async def test_from_the_first_place_to_the_last_end(kube: FakeKube) -> None:
    async with running(kube) as controller:
        await until(lambda: POD in kube.objects)
        await until(lambda: placement(kube, 1))
        assert told(kube) == [None, None]
        assert kube.objects[POD]["metadata"]["ownerReferences"][0]["uid"] == "nodes-n1"
        kube.put("pods", HELD, NAME, status=RUNS)
        await until(lambda: told(kube) == ["GPU-8a", "GPU-8a"])
        assert controller.state.inventory.left("n1", GPU) == 0
        for index in range(2):
            kube.put("trials", "ns", f"a-{index}", status={"phase": "Succeeded"})
        await until(lambda: POD not in kube.objects)
        await until(lambda: controller.state.inventory.left("n1", GPU) == 1)
    assert [name for name, _ in kube.writes].count("a-0") == 2, "its place, and its GPU"


async def test_a_lost_answer_makes_no_second_pod(kube: FakeKube) -> None:
    posts = []

    def lose(method: str, url: str) -> None:
        if method == "POST":
            posts.append(url)
            if len(posts) == 1:
                raise KubeError(0, "Unreachable", "connection reset")

    kube.after = lose
    kube.before = lambda method, url: None
    async with running(kube):
        await until(lambda: POD in kube.objects)
        kube.put("pods", HELD, NAME, status=RUNS)
        await until(lambda: told(kube) == ["GPU-8a", "GPU-8a"])
    assert len(posts) == 1


async def test_one_that_is_there_already_is_a_success(kube: FakeKube) -> None:
    """The watch has not told of it yet, or an earlier process made it."""
    async with running(kube) as controller:
        await until(lambda: POD in kube.objects)
        edge = controller._reserving
        assert edge is not None
        await edge.perform(reservations.Create(Slot("n1", GPU, "0")))


async def test_what_the_next_process_finds_it_goes_on_with(kube: FakeKube) -> None:
    async with running(kube):
        await until(lambda: POD in kube.objects)
    kube.put("pods", HELD, NAME, status=RUNS)
    async with running(kube):
        await until(lambda: told(kube) == ["GPU-8a", "GPU-8a"])
    uid = kube.objects[POD]["metadata"]["uid"]
    async with running(kube):
        await asyncio.sleep(0.2)
        assert kube.objects[POD]["metadata"]["uid"] == uid, "not given back, not made anew"


async def test_a_trial_that_changes_all_the_time_is_told_all_the_same(kube: FakeKube) -> None:
    left = [3]

    def change(method: str, url: str) -> None:
        if method == "PATCH" and left[0] and placement(kube, 0):
            left[0] -= 1
            watcher = kube.watchers.pop(path("trials"))
            kube.put("trials", "ns", "a-0", status={"message": str(left[0])})
            kube.watchers[path("trials")] = watcher

    async with running(kube):
        await until(lambda: POD in kube.objects)
        await until(lambda: placement(kube, 0))
        kube.before = change
        kube.put("pods", HELD, NAME, status=RUNS)
        await until(lambda: told(kube) == ["GPU-8a", "GPU-8a"])
    assert left == [0]


async def test_a_place_that_cannot_be_held_is_told_to_be_lost(kube: FakeKube, caplog: pytest.LogCaptureFixture) -> None:
    async with running(kube):
        await until(lambda: POD in kube.objects)
        await until(lambda: placement(kube, 1))
        over = {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no healthy devices"}
        kube.put("pods", HELD, NAME, status=over)
        await until(lambda: placement(kube, 0).get("lost"))
        await until(lambda: POD not in kube.objects)
    said = "a GPU of node n1 could not be held for it: UnexpectedAdmissionError: no healthy devices"
    assert placement(kube, 0)["lost"] == said
    assert f"trial ns/a-0 lost its place: {said}" in caplog.text


async def test_a_refusal_is_the_reason(kube: FakeKube, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "REFUSED", 0.3)

    def refuse(method: str, url: str) -> None:
        if method == "POST":
            raise KubeError(403, "Forbidden", "exceeded quota")

    kube.before = refuse
    async with running(kube):
        await until(lambda: placement(kube, 0).get("lost"))
    assert "Forbidden: exceeded quota" in placement(kube, 0)["lost"]


async def test_whoever_labels_a_pod_so_elsewhere_takes_the_whole_gpu(kube: FakeKube) -> None:
    pod = reservation.pod(Slot("n1", GPU, "0"), default_template())
    pod["spec"]["nodeName"] = "n1"
    kube.put("pods", "team", "disguised", metadata=pod["metadata"], spec=pod["spec"])
    async with running(kube) as controller:
        await until(lambda: controller._beat)
        assert controller.state.inventory.left("n1", GPU) == 0
        assert controller.state.inventory.used("n1", GPU) == 1
        assert POD not in kube.objects


async def test_a_pod_there_that_nobody_understands_stops_nothing(
    kube: FakeKube, caplog: pytest.LogCaptureFixture
) -> None:
    kube.put("pods", HELD, "odd", metadata={"labels": {reservation.SLOT_LABEL: "0"}, "annotations": {}})
    async with running(kube):
        await until(lambda: POD in kube.objects)
    assert "pod held/odd holds no GPU that is known" in caplog.text


async def test_without_sharing_no_gpu_is_divided(kube: FakeKube) -> None:
    controller = Controller(kube)
    task = asyncio.create_task(controller.run())
    await until(lambda: controller._beat)
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.wait([task])
    assert placement(kube, 0) == {}
