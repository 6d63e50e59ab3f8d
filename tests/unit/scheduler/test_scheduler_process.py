"""The process against an API server in memory: what it writes, and what it does when writing fails."""

import asyncio
import logging
from typing import Any

import pytest
from api_server_in_memory import FakeKube, add_node, add_pod, add_study, add_trial, placed, running, settle, until

from tuneyard_scheduler.controller import BOUND_AND_ALIVE, Controller
from tuneyard_scheduler.kube import KubeError, path


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
