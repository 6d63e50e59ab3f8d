"""The command line in a home of its own, with studies of tiny shell programs."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tuneyard.cli import main

Object = dict[str, Any]

STUDY: Object = {
    "apiVersion": "tuneyard.dev/v1alpha1",
    "kind": "Study",
    "metadata": {"name": "toy"},
    "spec": {
        "objectives": [{"metric": "score", "goal": "maximize"}],
        "parameters": [
            {"name": "x", "double": {"min": 0, "max": 1}},
            {"name": "kind", "categorical": {"values": ["it's a", "b"]}},
        ],
        "strategy": {"name": "random"},
        "trials": {"max": 3, "parallel": 2},
        "template": {"spec": {"containers": [{"name": "main", "command": ["sh", "-c", ""]}]}},
    },
}
REPORT_X = 'echo "{\\"score\\": ${x}}" >"$TUNEYARD_TERMINATION_FILE"'
RECORD = 'echo "$TUNEYARD_INDEX $TUNEYARD_ATTEMPT" >>starts; '


class Cli:
    """Calls the command line, here or as a process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.home = folder / "home"
        self._capsys = capsys
        self.processes: list[subprocess.Popen[str]] = []

    def write(self, script: str = REPORT_X, *, file: str = "toy.yaml", name: str = "toy", **spec: Any) -> Path:
        """A manifest; keywords replace fields of its spec."""
        study = copy.deepcopy(STUDY)
        study["metadata"]["name"] = name
        study["spec"] |= spec
        study["spec"]["template"]["spec"]["containers"][0]["command"][2] = RECORD + script
        path = self.folder / file
        path.write_text(yaml.safe_dump(study))
        return path

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        """Run a command here: exit status, standard output, standard error."""
        self._capsys.readouterr()
        try:
            status = main([*map(str, arguments)])
        except SystemExit as end:  # argparse
            status = int(end.code or 0)
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Run a command as a process."""
        command = [sys.executable, "-m", "tuneyard.cli", *map(str, arguments)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=self.folder)
        self.processes.append(process)
        return process

    @property
    def starts(self) -> list[str]:
        """`index attempt` of each program that began, sorted."""
        path = self.folder / "starts"
        return sorted(path.read_text().splitlines()) if path.exists() else []


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    monkeypatch.setenv("TUNEYARD_HOME", str(tmp_path / "home"))
    made = Cli(tmp_path, capsys)
    yield made
    for process in made.processes:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def until() -> Callable[..., None]:
    def wait(condition: Callable[[], object], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.01)

    return wait
