"""What proposes configurations in the benchmarks: Tuneyard's strategies, and peers in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import tuneyard_strategy
from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.registry import create

PEERS = Path.home() / ".cache" / "tuneyard" / "peers"
SCRIPTS = Path(__file__).parent / "peers"
METHODS = {
    "optuna-tpe": ("optuna", "optuna", "tpe"),
    "optuna-cmaes": ("optuna", "optuna", "cmaes"),
    "optuna-gp": ("optuna-gp", "optuna", "gp"),
    "hyperopt": ("hyperopt", "hyperopt", "tpe"),
    "skopt": ("skopt", "skopt", "gp"),
    "smac": ("smac", "smac", "forest"),
    "hebo": ("hebo", "hebo", "mace"),
    "vizier": ("vizier", "vizier", "gp-ucb-pe"),
}
"""Peers by the name that tables have: their environment, which has requirements, their script, and the method in it."""
ROOMS = {name: room for name, (room, _, _) in METHODS.items()}

Loss = float | Sequence[float]
"""Of one objective, or of each of several."""


class Searcher(Protocol):
    """One study's search."""

    seconds: list[float]
    """CPU time of each ask, with the tells since the one before."""

    def know(self, trials: Sequence[tuple[dict[str, Any], float]]) -> None:
        """Trials 0, 1, ... have ended: their configurations and losses."""

    def ask(self, index: int) -> dict[str, Any]:
        """The configuration of a trial."""

    def tell(self, index: int, loss: Loss) -> None:
        """What it came to."""

    def close(self) -> None:
        """The study has ended."""


class Ours:
    """A strategy of Tuneyard."""

    def __init__(
        self, name: str, parameters: list[dict[str, Any]], seed: int, losses: Sequence[str] = ("loss",)
    ) -> None:
        self._losses = losses
        document = {
            "parameters": parameters,
            "objectives": [{"metric": metric, "goal": "minimize"} for metric in losses],
            "strategy": {"name": name, "seed": seed},
        }
        self._strategy = create(StudyDefinition.model_validate(document))
        self._records: dict[int, TrialRecord] = {}
        self._news: list[TrialRecord] = []
        self.seconds: list[float] = []

    def know(self, trials: Sequence[tuple[dict[str, Any], float]]) -> None:
        """See Searcher."""
        for index, (parameters, loss) in enumerate(trials):
            self._records[index] = TrialRecord(index=index, parameters=parameters)
            self.tell(index, loss)

    def ask(self, index: int) -> dict[str, Any]:
        """See Searcher."""
        begun = time.process_time()
        self._strategy.update(self._news)
        (suggestion,) = self._strategy.suggest([index])
        self.seconds.append(time.process_time() - begun)
        self._records[index] = TrialRecord(index=index, parameters=suggestion.parameters, state="running")
        self._news = [self._records[index]]
        return dict(suggestion.parameters)

    def tell(self, index: int, loss: Loss) -> None:
        """See Searcher."""
        metrics = dict(zip(self._losses, [loss] if isinstance(loss, float) else loss, strict=True))
        self._news.append(self._records[index].model_copy(update={"state": "succeeded", "metrics": metrics}))

    def close(self) -> None:
        """See Searcher."""


class Lines:
    """A script in an environment of its own, with which lines of JSON are exchanged."""

    def __init__(self, room: str, script: str) -> None:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment["PYTHONWARNINGS"] = "ignore"  # those of what a peer is made of
        self._process = subprocess.Popen(
            [python(room), SCRIPTS / script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def say(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """No more is said, and it ends."""
        self._process.communicate()


class Peer:
    """Another optimiser, behind lines of JSON."""

    def __init__(self, peer: tuple[str, str, str], parameters: list[dict[str, Any]], seed: int) -> None:
        room, script, method = peer
        self._lines = Lines(room, f"{script}_peer.py")
        self.seconds: list[float] = []
        self._lines.say({"parameters": parameters, "seed": seed, "method": method})

    def know(self, trials: Sequence[tuple[dict[str, Any], float]]) -> None:
        """See Searcher."""
        self._lines.say({"know": trials})

    def ask(self, index: int) -> dict[str, Any]:
        """See Searcher."""
        self._lines.say({"ask": index})
        answer: dict[str, Any] = self._lines.hear()
        self.seconds.append(answer["seconds"])
        return dict(answer["parameters"])

    def tell(self, index: int, loss: Loss) -> None:
        """See Searcher."""
        self._lines.say({"tell": index, "loss": loss})

    def close(self) -> None:
        """See Searcher."""
        self._lines.close()


def searcher(name: str, parameters: list[dict[str, Any]], seed: int) -> Searcher:
    """The search of a name."""
    return Peer(METHODS[name], parameters, seed) if name in METHODS else Ours(name, parameters, seed)


def python(room: str) -> Path:
    """The interpreter of a peer's environment, which may not be there: see `make peers`."""
    return PEERS / room / "bin" / "python"


def present(names: Sequence[str], rooms: Mapping[str, str] = ROOMS) -> list[str]:
    """Those names that are no peers' or whose environment is installed. Of each other one a line says so."""
    missing = [name for name in names if name in rooms and not python(rooms[name]).exists()]
    for name in missing:
        heavy = " HEAVY=1" * (requirements(rooms[name]).parent.name == "heavy")
        sys.stderr.write(f"{name} is left out: it is not installed (make peers{heavy})\n")
    return [name for name in names if name not in missing]


def requirements(room: str) -> Path:
    """What is installed in a peer's environment."""
    (found,) = (SCRIPTS / "requirements").rglob(f"{room}.txt")
    return found


def sources(name: str) -> list[Path]:
    """The files that decide what a search proposes."""
    if name not in METHODS:
        return sorted(Path(tuneyard_strategy.__file__).parent.glob("*.py"))
    room, script, _ = METHODS[name]
    return [SCRIPTS / "lines.py", SCRIPTS / f"{script}_peer.py", requirements(room)]
