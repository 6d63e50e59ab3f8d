"""Helm, and what it renders."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from _chart import CHART, VALUES, Helm, Objects, program

from devcluster import tools


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Runs helm with no settings of this machine's."""
    path, home = program("helm", tools.HELM), tmp_path_factory.mktemp("helm")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HELM", "KUBE"))}
    folders = {f"HELM_{kind}_HOME": str(home / kind) for kind in ("CACHE", "CONFIG", "DATA")}

    def run(*arguments: str, check: bool = True) -> CompletedProcess[str]:
        command = [path, *arguments]
        done = subprocess.run(command, env={**kept, **folders}, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def render(helm: Helm) -> Callable[..., Objects]:
    """Renders the chart: `render("--set=log.level=debug")`, as release `tuneyard` in namespace `tuneyard-system`."""

    def rendered(*options: str, name: str = "tuneyard") -> Objects:
        text = helm("template", name, str(CHART), "--namespace", "tuneyard-system", *options).stdout
        return Objects([document for document in yaml.safe_load_all(text) if document])

    return rendered


@pytest.fixture(scope="session", params=sorted(VALUES.glob("*.yaml")), ids=lambda path: path.stem)
def values(request: pytest.FixtureRequest) -> Path:
    """Each of the sets of values that are tested."""
    path: Path = request.param
    return path


@pytest.fixture(scope="session")
def objects(render: Callable[..., Objects], values: Path) -> Objects:
    """What the chart makes of a set of values."""
    return render("--values", str(values))
