"""What waiting trials and queues are told, and how often."""

from typing import Any

import pytest
from api_server_in_memory import FakeKube, add_trial

from tuneyard_scheduler import reporting
from tuneyard_scheduler.kube import KubeError, path
from tuneyard_scheduler.reporting import Reporter
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import QueueView, StudyView, TrialView, Waiting


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
