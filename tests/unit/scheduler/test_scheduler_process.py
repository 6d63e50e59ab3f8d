"""The process against an API server in memory: what it writes, and what it does when writing fails."""

import asyncio
import logging
from typing import Any

import pytest
from api_server_in_memory import FakeKube, running, until

from tuneyard_scheduler import reporting
from tuneyard_scheduler.backends import kai
from tuneyard_scheduler.controller import BOUND_AND_ALIVE, Controller
from tuneyard_scheduler.kube import KubeError, path
from tuneyard_scheduler.reporting import Reporter
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import QueueView, StudyView, TrialView, Waiting

READY = [{"type": "Ready", "status": "True"}]


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


def add_node(kube: FakeKube, name: str = "n1", gpus: int = 4) -> None:
    kube.put("nodes", None, name, status={"allocatable": {"nvidia.com/gpu": str(gpus)}, "conditions": READY})


def add_study(
    kube: FakeKube, name: str = "a", *, trials: int = 0, parallel: int = 100, gpus: int = 1, **spec: Any
) -> None:
    more = {"creationTimestamp": "2026-01-01T00:00:00Z"}
    gpu = {"gpu": {"count": gpus}} if gpus else {}
    kube.put("studies", "ns", name, metadata=more, spec={"trials": {"parallel": parallel}, **gpu, **spec})
    for index in range(trials):
        add_trial(kube, index, name)


def add_trial(kube: FakeKube, index: int, study: str = "a", **status: Any) -> None:
    owners = [{"kind": "Study", "name": study, "uid": f"studies-{study}"}]
    kube.put("trials", "ns", f"{study}-{index}", metadata={"ownerReferences": owners}, status=status)


def add_pod(
    kube: FakeKube, name: str, gpus: int = 1, *, node: str = "n1", of: tuple[str, int, int] | None = None
) -> None:
    containers = [{"resources": {"requests": {"nvidia.com/gpu": str(gpus)}}}] if gpus else [{}]
    labels = {}
    if of is not None:
        study, index, attempt = of
        labels = {"study": study, "study-uid": f"studies-{study}", "index": str(index), "attempt": str(attempt)}
    meta = {"labels": {f"tuneyard.dev/{key}": value for key, value in labels.items()}}
    kube.put("pods", "ns", name, metadata=meta, spec={"nodeName": node, "containers": containers})


def placed(kube: FakeKube, study: str = "a") -> dict[int, str | None]:
    """Node by index of the trials that have a place."""
    return {
        int(url.rsplit("-", 1)[1]): item["status"]["placement"].get("node")
        for url, item in kube.objects.items()
        if url.startswith(f"{path('trials', 'ns')}/{study}-") and item["status"].get("phase") == "Placed"
    }


async def settle() -> None:
    """Long enough for several cycles."""
    await asyncio.sleep(0.06)


class TestPlacing:
    async def test_gives_what_fits_and_no_more(self, kube: FakeKube) -> None:
        add_node(kube, gpus=4)
        add_pod(kube, "theirs", 1)
        add_study(kube, trials=6)
        async with running(kube):
            await until(lambda: len(placed(kube)) == 3)
            await settle()
            assert placed(kube) == {0: "n1", 1: "n1", 2: "n1"}
        status = kube.objects[path("trials", "ns", "a-0")]["status"]
        assert status["placement"] | {"time": ""} == {
            "attempt": 0,
            "node": "n1",
            "gpus": 1,
            "resource": "nvidia.com/gpu",
            "backend": "whole",
            "time": "",
        }
        assert kube.selectors[path("pods")] == BOUND_AND_ALIVE

    async def test_a_pods_end_lets_the_next_one_in(self, kube: FakeKube) -> None:
        add_node(kube, gpus=1)
        add_study(kube, trials=2)
        async with running(kube):
            await until(lambda: placed(kube) == {0: "n1"})
            add_pod(kube, "p0", of=("a", 0, 0))
            await settle()
            assert placed(kube) == {0: "n1"}
            kube.delete("pods", "ns", "p0")
            await until(lambda: placed(kube) == {0: "n1", 1: "n1"})

    async def test_a_retry_replaces_its_earlier_placement(self, kube: FakeKube) -> None:
        add_study(kube, gpus=0)
        old = {"attempt": 0, "node": "n9", "gpus": 3, "resource": "nvidia.com/gpu"}
        add_trial(kube, 0, phase="Pending", attempt=1, placement=old, reason="ProgramFailed", message="exit code 1")
        async with running(kube):
            await until(lambda: placed(kube) == {0: None})
        status = kube.objects[path("trials", "ns", "a-0")]["status"]
        assert set(status) == {"phase", "attempt", "placement"}
        assert set(status["placement"]) == {"attempt", "gpus", "time"}
        assert status["placement"]["attempt"] == 1

    async def test_a_passing_backoff_needs_no_event(self, kube: FakeKube) -> None:
        add_study(kube, gpus=0)
        add_trial(kube, 0, phase="Pending", attempt=1, notBefore="2026-01-01T00:00:10Z")
        now = [1_767_225_600.0]
        controller = Controller(kube, clock=lambda: now[0])
        task = asyncio.create_task(controller.run())
        await settle()
        assert placed(kube) == {}
        now[0] += 9.95
        kube.put("studies", "ns", "a", spec={"priority": 1})
        await settle()
        assert placed(kube) == {}
        now[0] += 0.1
        await until(lambda: placed(kube) == {0: None})
        task.cancel()
        await asyncio.wait([task])

    async def test_many_are_written_some_at_a_time(self, kube: FakeKube) -> None:
        add_study(kube, gpus=0, trials=200, parallel=1000)
        async with running(kube):
            await until(lambda: len(placed(kube)) == 200)
        assert kube.most_running <= 17, "16 writers and the reporter"
        assert len(kube.writes) == 200

    async def test_a_slow_api_server_is_not_decided_far_ahead_of(self, kube: FakeKube) -> None:
        def busy(method: str, _: str) -> None:
            if method == "PATCH":
                raise KubeError(429, "TooManyRequests", "try again later")

        kube.before = busy
        add_study(kube, gpus=0, trials=200, parallel=1000)
        async with running(kube) as controller:
            await until(lambda: (study := controller.state.study("ns/a")) is not None and study.attempts == 64)
            await settle()
            study = controller.state.study("ns/a")
            assert study is not None
            assert study.attempts == 64
            kube.before = lambda *_: None
            await until(lambda: len(placed(kube)) == 200)

    async def test_an_object_that_cannot_be_read_stops_nobody_else(
        self, kube: FakeKube, caplog: pytest.LogCaptureFixture
    ) -> None:
        add_study(kube, "bad", trials=1)
        kube.put("studies", "ns", "bad", spec={"gpu": {"memory": "much"}})
        add_study(kube, "a", gpus=0, trials=1)
        async with running(kube):
            await until(lambda: placed(kube) == {0: None})
        assert "studies/ns/bad is left out" in caplog.text


class TestRestart:
    async def test_goes_on_where_it_was(self, kube: FakeKube) -> None:
        add_node(kube, gpus=4)
        add_study(kube, trials=9, parallel=3)
        async with running(kube):
            await until(lambda: len(placed(kube)) == 3)
            add_pod(kube, "p0", of=("a", 0, 0))
        kube.writes.clear()
        async with running(kube):
            await settle()
            assert len(placed(kube)) == 3
            kube.delete("pods", "ns", "p0")
            await until(lambda: len(placed(kube)) == 4)
            await settle()
        assert [name for name, _ in kube.writes] == ["a-3"]

    @pytest.mark.parametrize("loops", range(8))
    async def test_ends_when_it_is_told_to_whatever_happens_then(self, kube: FakeKube, loops: int) -> None:
        """asyncio.wait_for of Python 3.11 forgets that it was cancelled when what it waits for comes at that moment."""
        add_node(kube, gpus=4)
        add_study(kube, trials=3, parallel=3)
        async with asyncio.timeout(5), running(kube):
            await settle()
            add_pod(kube, "p0", of=("a", 0, 0))
            for _ in range(loops):
                await asyncio.sleep(0)

    async def test_waits_for_all_lists(self, kube: FakeKube) -> None:
        """Without the pods, a GPU that is taken would look free."""
        add_node(kube, gpus=1)
        add_study(kube, trials=1)
        add_pod(kube, "theirs", 1)
        original = kube.reflect

        async def pods_late(url_path: str, *arguments: Any, **more: Any) -> None:
            if url_path == path("pods"):
                await asyncio.sleep(0.1)
            await original(url_path, *arguments, **more)

        kube.reflect = pods_late  # type: ignore[method-assign]
        async with running(kube):
            await asyncio.sleep(0.2)
            assert placed(kube) == {}
            kube.delete("pods", "ns", "theirs")
            await until(lambda: placed(kube) == {0: "n1"})


class TestFailingWrites:
    async def test_are_tried_again(self, kube: FakeKube, caplog: pytest.LogCaptureFixture) -> None:
        left = [3]

        def refuse(method: str, _: str) -> None:
            if method == "PATCH" and left[0]:
                left[0] -= 1
                raise KubeError(500, "InternalError", "etcd is away")

        kube.before = refuse
        add_node(kube, gpus=1)
        add_study(kube, trials=2)
        async with running(kube):
            await until(lambda: placed(kube) == {0: "n1"})
        assert "placement of trial ns/a-0 is tried again in 0.1 s: InternalError: etcd is away" in caplog.text
        assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 3

    async def test_a_lost_answer_gives_nothing_twice(self, kube: FakeKube) -> None:
        lost = [True]

        def lose(method: str, _: str) -> None:
            if method == "PATCH" and lost[0]:
                lost[0] = False
                raise KubeError(0, "Unreachable", "connection reset")

        kube.after = lose
        add_node(kube, gpus=1)
        add_study(kube, trials=2)
        async with running(kube) as controller:
            kube.watchers.pop(path("trials"), None)  # nor does the watch tell
            await until(lambda: len(kube.writes) == 1)
            await asyncio.sleep(0.2)
            assert placed(kube) == {0: "n1"}
            assert controller.state.inventory.used("n1", "nvidia.com/gpu") == 1
        assert [name for name, _ in kube.writes] == ["a-0"]

    async def test_a_trial_that_has_moved_on_is_left_as_it_is(self, kube: FakeKube) -> None:
        """The operator stops the trial between the decision and its write."""
        add_node(kube, gpus=1)
        add_study(kube, trials=2)

        def stop(method: str, url: str) -> None:
            if method == "PATCH" and "a-0" in url:
                kube.before = lambda *_: None
                watcher = kube.watchers.pop(path("trials"))
                kube.put("trials", "ns", "a-0", status={"phase": "Stopped"})
                kube.watchers[path("trials")] = watcher

        kube.before = stop
        async with running(kube):
            await until(lambda: placed(kube) == {1: "n1"})
        assert kube.objects[path("trials", "ns", "a-0")]["status"] == {"phase": "Stopped"}

    async def test_a_trial_that_is_gone_frees_its_place(self, kube: FakeKube) -> None:
        add_node(kube, gpus=1)
        add_study(kube, trials=2)

        def delete(method: str, url: str) -> None:
            if method == "PATCH" and "a-0" in url:
                del kube.objects[path("trials", "ns", "a-0")]

        kube.before = delete
        async with running(kube):
            await until(lambda: placed(kube) == {1: "n1"})

    async def test_a_changed_trial_is_decided_on_again(self, kube: FakeKube) -> None:
        add_node(kube, gpus=1)
        add_study(kube, trials=1)
        touched = [2]

        def touch(method: str, url: str) -> None:
            if method == "PATCH" and touched[0]:
                touched[0] -= 1
                kube.put("trials", "ns", "a-0", status={"message": f"touched {touched[0]}"})

        kube.before = touch
        async with running(kube):
            await until(lambda: placed(kube) == {0: "n1"})


class TestGaps:
    async def test_an_end_told_late_is_not_that_of_the_new_object(self, kube: FakeKube) -> None:
        """After a gap the new objects are told first, then the ends of those that vanished."""
        add_node(kube, gpus=1)
        old_study = {"metadata": {"name": "a", "namespace": "ns", "uid": "old"}}
        old_pod = {"metadata": {"name": "p", "namespace": "ns", "uid": "old"}}
        async with running(kube):
            await settle()
            add_pod(kube, "p", 1)
            add_study(kube, trials=1)
            kube.watchers[path("studies")]("DELETED", old_study)
            kube.watchers[path("pods")]("DELETED", old_pod)
            await settle()
            assert placed(kube) == {}
            kube.delete("pods", "ns", "p")
            await until(lambda: placed(kube) == {0: "n1"})


class TestReporting:
    """Reasons and figures, by a clock of the test's own."""

    @pytest.fixture
    def reporter(self, kube: FakeKube) -> Reporter:
        self.kube = kube
        self.now = 0.0
        self.state = ClusterState()
        self.state.set_study(StudyView("ns/a", "u", "ns", queue="q"))
        add_trial(kube, 0)
        add_trial(kube, 1)
        for index in range(2):
            self.state.set_trial(TrialView("ns/a", index, version=self.version(index)))
        return Reporter(kube, self.state, lambda: self.now)

    def version(self, index: int) -> str:
        return str(self.kube.objects[path("trials", "ns", f"a-{index}")]["metadata"]["resourceVersion"])

    async def note(
        self, reporter: Reporter, at: float, reason: str, message: str = "m", index: int = 0, *, told: bool = True
    ) -> None:
        self.now = at
        if told:
            self.state.set_trial(TrialView("ns/a", index, version=self.version(index)))
        reporter.note([Waiting("ns/a", index, reason, message)], at)
        await reporter.report()

    async def test_only_what_lasts_is_written_and_only_once(self, kube: FakeKube, reporter: Reporter) -> None:
        await self.note(reporter, 0.0, "ParallelLimit")
        await self.note(reporter, reporting.WAITED - 0.1, "ParallelLimit")
        assert kube.writes == []
        await self.note(reporter, reporting.WAITED, "ParallelLimit", "now 3")
        await self.note(reporter, 60.0, "ParallelLimit", "now 4")
        told = {"reason": "ParallelLimit", "message": "now 3", "waiting": {"position": None, "expectedStart": None}}
        assert kube.writes == [("a-0", told)]

    async def test_who_stands_in_line_is_told_what_changes_but_not_often(
        self, kube: FakeKube, reporter: Reporter
    ) -> None:
        await self.note(reporter, 0.0, "NoNodeFits", "0 free")
        await self.note(reporter, 3.0, "NoNodeFits", "0 free")
        await self.note(reporter, 60.0, "NoNodeFits", "0 free")
        await self.note(reporter, 61.0, "NoNodeFits", "1 free")
        await self.note(reporter, 62.0, "NoNodeFits", "2 free")
        await self.note(reporter, 92.0, "NoNodeFits", "3 free")
        assert [(s["message"], s["waiting"]["position"]) for _, s in kube.writes] == [
            ("0 free", 1), ("1 free", 1), ("3 free", 1),
        ]  # fmt: skip

    async def test_however_many_wait_few_are_told_at_a_time(self, kube: FakeKube, reporter: Reporter) -> None:
        told = []
        for number in range(50):
            self.state.set_study(StudyView(f"ns/s{number}", "u", "ns"))
            add_trial(kube, 0, f"s{number}")
            self.state.set_trial(TrialView(f"ns/s{number}", 0))
            told.append(Waiting(f"ns/s{number}", 0, "NoNodeFits", "m"))
        for at in (0.0, 3.0, 5.0, 7.0, 9.0):
            self.now = at
            reporter.note(told, at)
            before = len(kube.writes)
            await reporter.report()
            assert len(kube.writes) - before <= reporting.MOST
        assert sorted(name for name, _ in kube.writes) == sorted(f"s{number}-0" for number in range(50))

    async def test_another_reason_starts_anew(self, kube: FakeKube, reporter: Reporter) -> None:
        await self.note(reporter, 0.0, "ParallelLimit")
        await self.note(reporter, 1.9, "NoNodeFits")
        await self.note(reporter, 3.0, "NoNodeFits")
        assert kube.writes == []
        await self.note(reporter, 4.0, "NoNodeFits")
        assert [status["reason"] for _, status in kube.writes] == ["NoNodeFits"]

    async def test_a_trial_that_waits_no_more_is_not_told_why_it_waited(
        self, kube: FakeKube, reporter: Reporter
    ) -> None:
        await self.note(reporter, 0.0, "ParallelLimit")
        self.state.remove_trial("ns/a", 0)
        self.now = 9.0
        await reporter.report()
        assert kube.writes == []

    async def test_a_trial_that_changed_meanwhile_is_not_overwritten(self, kube: FakeKube, reporter: Reporter) -> None:
        kube.put("trials", "ns", "a-0", status={"phase": "Stopped", "reason": "StudyEnded"})
        await self.note(reporter, 0.0, "ParallelLimit", told=False)
        await self.note(reporter, 9.0, "ParallelLimit", told=False)
        assert kube.objects[path("trials", "ns", "a-0")]["status"]["reason"] == "StudyEnded"

    async def test_figures_of_queues(self, kube: FakeKube, reporter: Reporter) -> None:
        await reporter.report()
        assert kube.writes == [], "no such queue"
        kube.put("gpuqueues", None, "q")
        self.state.set_queue(QueueView("q"))
        for _ in range(3):
            await reporter.report()
        [(name, status)] = kube.writes
        figures = {"guaranteed": 0, "used": 0, "borrowed": 0, "pending": 2}
        assert (name, {key: status[key] for key in figures}) == ("q", figures)
        since = {"lastTransitionTime": "1970-01-01T00:00:00Z"}
        assert [condition | since for condition in status["conditions"]] == status["conditions"]
        self.state.remove_trial("ns/a", 1)
        self.now = 60.0
        await reporter.report()
        assert [status["pending"] for _, status in kube.writes[1:]] == [1]
        assert kube.writes[1][1]["conditions"] == status["conditions"], "nothing of them has changed"

    async def test_an_api_server_that_is_away_is_asked_again_later(
        self, kube: FakeKube, reporter: Reporter, caplog: pytest.LogCaptureFixture
    ) -> None:
        def away(*_: Any) -> None:
            raise KubeError(0, "Unreachable", "connection refused")

        kube.before = away
        await self.note(reporter, 0.0, "ParallelLimit")
        await self.note(reporter, 9.0, "ParallelLimit")
        assert "reasons and figures are written later: Unreachable: connection refused" in caplog.text
        kube.before = lambda *_: None
        await reporter.report()
        assert [name for name, _ in kube.writes] == ["a-0"]


DRIVER = "gpu.nvidia.com"


def add_claimed_gpus(kube: FakeKube, node: str = "n1", gpus: int = 2) -> None:
    """A node whose GPUs are in a ResourceSlice, and their DeviceClass."""
    kube.put("nodes", None, node, status={"allocatable": {"cpu": "8"}, "conditions": READY})
    text = f"device.driver == '{DRIVER}'"
    kube.put("deviceclasses", None, DRIVER, spec={"selectors": [{"cel": {"expression": text}}]})
    devices = [{"name": f"gpu-{n}", "attributes": {"uuid": {"string": f"GPU-{n}"}}} for n in range(gpus)]
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    kube.put("resourceslices", None, node, spec={"driver": DRIVER, "nodeName": node, "pool": pool, "devices": devices})


class TestWhatAClusterHas:
    async def test_gpus_are_claimed_where_the_api_is_served(self, kube: FakeKube) -> None:
        kube.objects["/apis/resource.k8s.io/v1"] = {"metadata": {}}
        add_claimed_gpus(kube)
        results = [{"driver": DRIVER, "pool": "n1", "device": "gpu-0"}]
        kube.put("resourceclaims", "ns", "theirs", status={"allocation": {"devices": {"results": results}}})
        add_study(kube, trials=2)
        async with running(kube):
            await until(lambda: len(placed(kube)) == 1)
            await settle()
            placement = kube.objects[path("trials", "ns", "a-0")]["status"]["placement"]
            assert (placement["backend"], placement["devices"], placement["claim"]["count"]) == ("dra", ["gpu-1"], 1)
            assert placement["claim"]["deviceClass"] == DRIVER
            assert len(placed(kube)) == 1
            kube.delete("resourceclaims", "ns", "theirs")
            await until(lambda: len(placed(kube)) == 2)

    async def test_nothing_is_claimed_where_it_is_not(self, kube: FakeKube) -> None:
        """Kubernetes 1.31 to 1.33."""
        add_claimed_gpus(kube)
        add_node(kube, "n2", gpus=1)
        add_study(kube, trials=2)
        async with running(kube):
            await until(lambda: placed(kube) == {0: "n2"})
            await settle()
            assert placed(kube) == {0: "n2"}
        assert path("resourceslices") not in kube.selectors

    @pytest.mark.parametrize("shares", [True, False])
    async def test_kai_divides_gpus_where_it_is_set_up_to(self, kube: FakeKube, shares: bool) -> None:
        kube.objects[kai.CONFIG] = {"metadata": {}, "spec": {"admission": {"gpuSharing": shares}}}
        add_node(kube, gpus=1)
        add_study(kube, trials=3, gpu={"fraction": 0.5})
        async with running(kube):
            await settle()
            assert placed(kube) == ({0: "n1", 1: "n1"} if shares else {})

    async def test_what_is_not_known_yet_is_asked_again(self, kube: FakeKube) -> None:
        refused = []

        def refuse_first(method: str, url: str) -> None:
            if url.startswith("/apis/") and url.count("/") == 3 and not refused:
                refused.append(url)
                raise KubeError(503, "Unavailable", "later")

        kube.before = refuse_first
        add_node(kube, gpus=1)
        add_study(kube, trials=1)
        async with running(kube):
            await until(lambda: placed(kube) == {0: "n1"})
        assert refused == ["/apis/resource.k8s.io/v1"]
