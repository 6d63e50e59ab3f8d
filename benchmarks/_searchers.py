"""What proposes configurations in the benchmarks: Tuneyard's strategies, and peers in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import tuneyard_strategy
from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.registry import create

PEERS = Path.home() / ".cache" / "tuneyard" / "peers"
SCRIPTS = Path(__file__).parent / "peers"
METHODS = {
    "optuna-tpe": ("optuna", "tpe"),
    "optuna-cmaes": ("optuna", "cmaes"),
    "hyperopt": ("hyperopt", "tpe"),
    "skopt": ("skopt", "gp"),
    "smac": ("smac", "forest"),
}
"""Peers by the name that tables have: their environment, which has a script and requirements, and the method in it."""


class Searcher(Protocol):
    """One study's search."""

    seconds: list[float]
    """CPU time of each ask, with the tells since the one before."""

    def know(self, trials: Sequence[tuple[dict[str, Any], float]]) -> None:
        """Trials 0, 1, ... have ended: their configurations and losses."""

    def ask(self, index: int) -> dict[str, Any]:
        """The configuration of a trial."""

    def tell(self, index: int, loss: float) -> None:
        """What it came to."""

    def close(self) -> None:
        """The study has ended."""


class Ours:
    """A strategy of Tuneyard."""

    def __init__(self, name: str, parameters: list[dict[str, Any]], seed: int) -> None:
        document = {
            "parameters": parameters,
            "objectives": [{"metric": "loss", "goal": "minimize"}],
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

    def tell(self, index: int, loss: float) -> None:
        """See Searcher."""
        self._news.append(self._records[index].model_copy(update={"state": "succeeded", "metrics": {"loss": loss}}))

    def close(self) -> None:
        """See Searcher."""


class Peer:
    """Another optimiser, behind lines of JSON."""

    def __init__(self, name: str, parameters: list[dict[str, Any]], seed: int) -> None:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        room, method = METHODS[name]
        self._process = subprocess.Popen(
            [PEERS / room / "bin" / "python", SCRIPTS / f"{room}_peer.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.seconds: list[float] = []
        self._say({"parameters": parameters, "seed": seed, "method": method})

    def know(self, trials: Sequence[tuple[dict[str, Any], float]]) -> None:
        """See Searcher."""
        self._say({"know": trials})

    def ask(self, index: int) -> dict[str, Any]:
        """See Searcher."""
        self._say({"ask": index})
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        self.seconds.append(answer["seconds"])
        return dict(answer["parameters"])

    def tell(self, index: int, loss: float) -> None:
        """See Searcher."""
        self._say({"tell": index, "loss": loss})

    def close(self) -> None:
        """See Searcher."""
        self._process.communicate()

    def _say(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()


def searcher(name: str, parameters: list[dict[str, Any]], seed: int) -> Searcher:
    """The search of a name."""
    return Peer(name, parameters, seed) if name in METHODS else Ours(name, parameters, seed)


def peers() -> list[str]:
    """The peers that are installed: see `make peers`."""
    return [name for name, (room, _) in METHODS.items() if (PEERS / room / "bin" / "python").exists()]


def sources(name: str) -> list[Path]:
    """The files that decide what a search proposes."""
    if name not in METHODS:
        return sorted(Path(tuneyard_strategy.__file__).parent.glob("*.py"))
    room = METHODS[name][0]
    return [SCRIPTS / "lines.py", SCRIPTS / f"{room}_peer.py", SCRIPTS / "requirements" / f"{room}.txt"]
