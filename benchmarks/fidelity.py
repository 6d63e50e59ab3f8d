"""What it takes to reach the score that random search has at ten times the budget: epochs, and simulated time.

Trials are real trainings whose learning curves were computed before (`_curves`); time is simulated, with 4 and 16
workers. The budget is that of TRIALS trials of all epochs. A score counts as reached when a trial reports it. Where a
trial continues another one it goes on from its checkpoint. Ended studies are kept, so that a benchmark that was stopped
goes on.
"""

from __future__ import annotations

import argparse
import heapq
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import _curves
import _searchers
import numpy as np
from _cells import kept, version
from _curves import CURVES, EPOCHS, CurveTask
from _figures import save, show
from _searchers import SCRIPTS, Lines, present, requirements

from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.registry import create
from tuneyard_strategy.stopping import Judge

TRIALS = 10
"""The budget, in trials of all epochs."""
LEAST = EPOCHS // 27
"""Of the fidelity: no trial is stopped before."""
TENFOLD = 10
MOST = TENFOLD * TRIALS * EPOCHS
"""Epochs after which a study is given up."""
DRAWN = 4000
"""Configurations among which those that reach the score are looked for, to say how long these take."""
KEPT = Path.home() / ".cache" / "tuneyard" / "fidelity"
BASELINES = 20
"""Seeds of random search, at least: it costs nothing, and all else is a multiple of it."""
OURS: dict[str, dict[str, Any]] = {
    "random": {"strategy": {"name": "random"}},
    "median": {"strategy": {"name": "random"}, "earlyStopping": {"warmup": 3}},
    "tpe+median": {"strategy": {"name": "tpe"}, "earlyStopping": {"warmup": 3}},
    "asha-sobol": {"strategy": {"name": "asha", "sampler": "sobol"}},
    "asha-tpe": {"strategy": {"name": "asha", "sampler": "tpe"}},
    "asha": {"strategy": {"name": "asha"}},
    "asha-resume": {"strategy": {"name": "asha"}, "resume": True},
    "hyperband": {"strategy": {"name": "hyperband"}, "resume": True},
    "bohb-tpe": {"strategy": {"name": "bohb", "sampler": "tpe"}, "resume": True},
    "bohb": {"strategy": {"name": "bohb"}, "resume": True},
}
PRUNERS = {
    "optuna-hyperband": ("optuna", "hyperband"),
    "optuna-asha": ("optuna", "asha"),
    "optuna-median": ("optuna", "median"),
    "synetune-asha": ("synetune", "asha"),
    "synetune-bohb": ("synetune", "bohb"),
}
"""Peers: their environment and script, and what of it."""


class Search(Protocol):
    """One study's search."""

    def ask(self, index: int) -> tuple[dict[str, float], int, int]:
        """The trial's configuration, after how many epochs it begins, and for how many it runs in all."""

    def report(self, index: int, epoch: int, loss: float) -> bool:
        """The loss after an epoch; whether to stop."""

    def tell(self, index: int, epoch: int, loss: float, *, stopped: bool) -> None:
        """It has ended, after the epoch."""


class Ours:
    """A strategy of Tuneyard and its rules."""

    def __init__(self, name: str, task: CurveTask, seed: int) -> None:
        setting = dict(OURS[name])
        fidelity = {"parameter": "epochs", "min": LEAST, "max": EPOCHS, "resume": setting.pop("resume", False)}
        document = {
            "parameters": task.parameters,
            "objectives": [{"metric": "loss", "goal": "minimize"}],
            **setting,
            "strategy": {**setting["strategy"], "seed": seed},
            "fidelity": fidelity,
        }
        definition = StudyDefinition.model_validate(document)
        self._strategy, self._judge = create(definition), Judge(definition)
        self._records: dict[int, TrialRecord] = {}

    def _hear(self, index: int, **news: Any) -> None:
        self._records[index] = self._records[index].model_copy(update=news)
        self._strategy.update([self._records[index]])
        self._judge.update([self._records[index]])

    def ask(self, index: int) -> tuple[dict[str, float], int, int]:
        """See Search."""
        (found,) = self._strategy.suggest([index])
        self._records[index] = TrialRecord(index=index, parameters=found.parameters, rung=found.rung)
        self._hear(index, state="running")
        rung = found.rung
        if rung is None:
            return dict(found.parameters), 0, EPOCHS  # type: ignore[arg-type]
        below = self._records[rung.continues].rung if rung.continues is not None else None
        return dict(found.parameters), below.fidelity if below else 0, rung.fidelity  # type: ignore[arg-type]

    def report(self, index: int, epoch: int, loss: float) -> bool:
        """See Search."""
        record = self._records[index]
        record = self._records[index] = record.model_copy(update={"curve": [*record.curve, (epoch, loss)]})
        verdicts = self._judge.judge([record])
        for verdict in verdicts:
            self._hear(index, judged=verdict.fidelity)
        return any(verdict.stop for verdict in verdicts)

    def tell(self, index: int, epoch: int, loss: float, *, stopped: bool) -> None:
        """See Search."""
        self._hear(index, state="stopped" if stopped else "succeeded", metrics={"loss": loss})


class Pruned:
    """A peer that stops trials, in a process of its own."""

    def __init__(self, name: str, task: CurveTask, seed: int) -> None:
        room, pruner = PRUNERS[name]
        self._lines = Lines(room, f"{room}_pruner.py")
        amounts = {"least": LEAST, "epochs": EPOCHS}
        self._lines.say({"parameters": task.parameters, "seed": seed, "pruner": pruner, **amounts})

    def ask(self, index: int) -> tuple[dict[str, float], int, int]:
        """See Search."""
        self._lines.say({"ask": index})
        return self._lines.hear(), 0, EPOCHS

    def report(self, index: int, epoch: int, loss: float) -> bool:
        """See Search."""
        self._lines.say({"report": index, "epoch": epoch, "loss": loss})
        return bool(self._lines.hear())

    def tell(self, index: int, epoch: int, loss: float, *, stopped: bool) -> None:
        """See Search."""
        self._lines.say({"tell": index, "epoch": epoch, "loss": loss, "pruned": stopped})

    def __del__(self) -> None:
        self._lines.close()


def run(name: str, task: CurveTask, seed: int, workers: int) -> Iterator[tuple[int, float, float]]:
    """A study without an end: after each epoch, epochs in all, time, and the loss reported."""
    search: Search = Pruned(name, task, seed) if name in PRUNERS else Ours(name, task, seed)
    running: list[tuple[float, int, int, int, np.ndarray, float]] = []
    clock, index, epochs = 0.0, 0, 0
    while True:
        while len(running) < workers:
            given, begun, until = search.ask(index)
            seconds = task.cost(given)
            heapq.heappush(running, (clock + seconds, index, begun + 1, until, task.curve(given), seconds))
            index += 1
        clock, trial, epoch, until, curve, seconds = heapq.heappop(running)
        loss = float(curve[epoch - 1])
        epochs += 1
        yield epochs, clock, loss
        stopped = epoch < until and search.report(trial, epoch, loss)
        if stopped or epoch == until:
            search.tell(trial, epoch, loss, stopped=stopped)
        else:
            heapq.heappush(running, (clock + seconds, trial, epoch + 1, until, curve, seconds))


def target(task: CurveTask, seeds: range) -> float:
    """The median of random search's best loss at ten times the budget."""
    best = []
    for seed in seeds:
        search = Ours("random", task, seed)
        best.append(min(task.curve(search.ask(index)[0]).min() for index in range(TENFOLD * TRIALS)))
    return float(np.median(best))


def foreknown(task: CurveTask, score: float) -> tuple[float, float]:
    """Epochs of each worker, and time, where all trials have configurations that get there: no search is as good.

    How long it takes is the median of such configurations, of those that random search draws.
    """
    search = Ours("random", task, 0)
    drawn = [search.ask(index)[0] for index in range(DRAWN)]
    good = [(curve <= score, task.cost(each)) for each in drawn if (curve := task.curve(each)).min() <= score]
    took = [(1 + int(reached.argmax()), cost) for reached, cost in good]
    return float(np.median([e for e, _ in took])), float(np.median([e * cost for e, cost in took]))


def to_reach(name: str, task: CurveTask, seed: int, workers: int, score: float) -> tuple[int, float]:
    """Epochs and time until a loss is reached; where it is not, those at ten times the budget. Kept."""
    path = KEPT / f"{name}-{version(sources(name))}" / f"{task.name}.{workers}.{seed}.json"
    ends = ((e, c) for e, c, loss in run(name, task, seed, workers) if loss <= score or e >= MOST)
    epochs, clock = kept(path, lambda: next(ends))
    return epochs, clock


def sources(name: str) -> tuple[Path, ...]:
    """The files that decide what a search comes to."""
    own = (Path(__file__), Path(_curves.__file__))
    if name not in PRUNERS:
        return (*own, *_searchers.sources(name))
    room, _ = PRUNERS[name]
    return (*own, SCRIPTS / "pruning.py", SCRIPTS / f"{room}_pruner.py", requirements(room))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=list(CURVES))
    parser.add_argument("--workers", nargs="*", type=int, default=[4, 16])
    parser.add_argument("--strategies", nargs="*", default=[*OURS, *PRUNERS])
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first", type=int, default=1000, help="the first seed; those below serve to try things out")
    parser.add_argument("--results", default="fidelity", metavar="NAME", help="the file within results")
    options = parser.parse_args()
    there = present(options.strategies, {name: room for name, (room, _) in PRUNERS.items()})
    strategies = ["random", *(s for s in there if s != "random")]
    scores = {name: target(CURVES[name], range(20)) for name in options.tasks}
    known = [foreknown(CURVES[name], scores[name]) for name in options.tasks]
    figures: dict[str, float] = {}
    for workers in options.workers:
        rows: list[list[object]] = []
        for strategy in strategies:
            sys.stderr.write(f"\r{workers} workers: {strategy}".ljust(60))
            many = max(options.seeds, BASELINES) if strategy == "random" else options.seeds
            seeds = range(options.first, options.first + many)
            found = np.array(
                [
                    [to_reach(strategy, CURVES[task], seed, workers, scores[task]) for seed in seeds]
                    for task in options.tasks
                ]
            )
            rows.append([strategy, *np.median(found, axis=1).reshape(-1).tolist()])
        rows.append(["foreknown", *(part for epochs, time in known for part in (workers * epochs, time))])
        base = np.array(rows[0][1:], dtype=float)
        for row in rows:
            ratio = base / np.array(row[1:], dtype=float)
            epochs, clock = (float(np.exp(np.log(part).mean())) for part in (ratio[::2], ratio[1::2]))
            row += [epochs, clock]
            own = f"{row[0]}_{workers}".replace("-", "_").replace("+", "_")
            figures |= {f"{own}_epochs_ratio": round(epochs, 2), f"{own}_time_ratio": round(clock, 2)}
            figures |= {f"{own}_{t}_epochs": round(float(e)) for t, e in zip(options.tasks, row[1::2], strict=False)}
        sys.stderr.write("\r".ljust(60) + "\r")
        header = [f"{task} {what}" for task in options.tasks for what in ("epochs", "time")]
        show(
            f"{workers} workers: to reach random search's score at {TENFOLD * TRIALS} trials of {EPOCHS} epochs; the "
            f"median of {options.seeds} seeds (random search: {BASELINES}), and random search's as a multiple of it. "
            f"{MOST} epochs: not reached. Foreknown: every trial has a configuration that gets there",
            ["strategy", *header, "fewer epochs", "less time"],
            rows,
        )
    save(options.results, {"first_seed": options.first, "seeds": options.seeds, **figures})


if __name__ == "__main__":
    main()
