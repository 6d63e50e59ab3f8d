"""Small studies of small programs, run for real in a folder of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tuneyard_operator.local_runner import Ending, LocalRunner
from tuneyard_operator.state import StudyState
from tuneyard_operator.worlds.gpus import Gpu
from tuneyard_operator.worlds.home import Home
from tuneyard_operator.worlds.leases import Leases
from tuneyard_operator.worlds.local import FOLDER_ANNOTATION, News
from tuneyard_operator.worlds.machine import Machine
from tuneyard_operator.worlds.store import Store

Object = dict[str, Any]

REPORT_X = 'echo "{\\"score\\": ${x}}" >"$TUNEYARD_TERMINATION_FILE"'
"""The end of a program that scores its parameter x."""


class Laptop:
    """A home folder, and studies in it. `starts` holds a line `index attempt` for each program that began."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = Home(folder / "home")
        self.store = Store(self.home.root)
        self.news: list[News] = []
        self.runner: LocalRunner | None = None

    def show(self, state: StudyState, news: list[News], waits: str | None) -> None:
        self.news += news

    def interrupted(self, times: int, running: int) -> None:
        self.news.append(("interrupted", times, running))  # type: ignore[arg-type]

    def create(self, script: str, *, name: str = "toy", **spec: Any) -> Object:
        """A study that searches x in [0, 1] by running a shell script."""
        record = 'echo "$TUNEYARD_INDEX $TUNEYARD_ATTEMPT" >>starts; '
        container = {"name": "main", "command": ["sh", "-c", record + script]}
        whole = {
            "objectives": [{"metric": "score", "goal": "maximize"}],
            "parameters": [{"name": "x", "double": {"min": 0, "max": 1}}],
            "strategy": {"name": "random"},
            "trials": {"max": 4, "parallel": 2},
            "template": {"spec": {"containers": [container]}},
            **spec,
        }
        return self.store.create_study(name, {FOLDER_ANNOTATION: str(self.folder)}, whole)

    def machine(self, gpus: list[Gpu] | None = None, cores: float = 8.0, memory: float = 2.0**33) -> Machine:
        return Machine(Leases(self.home.leases), cores, memory, gpus)

    def prepare(self, study: Object, machine: Machine | None = None) -> LocalRunner:
        known = self.store.study(study["metadata"]["name"]) or {}
        self.runner = LocalRunner(self.store, self.home, known, machine or self.machine(), self)
        return self.runner

    async def run(self, study: Object, machine: Machine | None = None) -> Ending:
        return await asyncio.wait_for(self.prepare(study, machine).run(), 60)

    def trials(self, study: Object) -> list[Object]:
        return self.store.trials(study["metadata"]["uid"])

    def phases(self, study: Object) -> list[str]:
        return [trial.get("status", {}).get("phase", "Pending") for trial in self.trials(study)]

    def status(self, study: Object) -> Object:
        return (self.store.study(study["metadata"]["name"]) or {})["status"]

    @property
    def starts(self) -> list[tuple[int, int]]:
        path = self.folder / "starts"
        lines = path.read_text().splitlines() if path.exists() else []
        return sorted((int(line.split()[0]), int(line.split()[1])) for line in lines)


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    made = Laptop(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def report_x() -> str:
    return REPORT_X


@pytest.fixture
def until() -> Callable[..., Any]:
    async def wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)

    return wait
