"""What a population is worth: the held-out loss of a small network by pbt, beside other strategies with as many epochs.

The network is that of examples/population.py, really trained, here in this process: checkpoints are kept in memory, and
WORKERS trials run at a time, that end in the order in which they began. The loss is that of all epochs at the end.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from _figures import save, show

from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.registry import create

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))
from digits import TESTED, Network, Sgd, batches, load_digits
from population import WIDTH

EPOCHS, PART, MEMBERS, WORKERS = 60, 5, 12, 4
SPENT = EPOCHS * MEMBERS
"""Epochs of a search."""
PARAMETERS = [
    {"name": "lr", "double": {"min": 0.001, "max": 1, "scale": "log"}},
    {"name": "momentum", "double": {"min": 0, "max": 0.99}},
    {"name": "batch", "categorical": {"values": [16, 32, 64, 128]}},
]
STRATEGIES: dict[str, tuple[dict[str, Any], int]] = {
    "random": ({"name": "random"}, SPENT),
    "bayesian": ({"name": "bayesian"}, SPENT),
    "asha, resuming": ({"name": "asha"}, SPENT),
    "pbt": ({"name": "pbt", "population": MEMBERS}, SPENT),
    "random, 4 times the epochs": ({"name": "random"}, 4 * SPENT),
}
IMAGES, LABELS = load_digits()
ORDER = np.random.default_rng(seed=0).permutation(len(IMAGES))
State = tuple[Network, list[Any], int]


def train(config: dict[str, Any], epochs: int, before: State | None) -> tuple[float, State]:
    """Go on up to so many epochs; the held-out loss, and the state."""
    network, velocities, done = copy.deepcopy(before) if before is not None else (_network(), [], 0)
    optimizer = Sgd(config["lr"], config["momentum"])
    optimizer.velocities = velocities
    for epoch in range(done, epochs):
        for batch in batches(np.random.default_rng((2, epoch)).permutation(ORDER[TESTED:]), config["batch"]):
            optimizer.step(network.tensors, network.loss_and_gradients(IMAGES[batch], LABELS[batch])[1])
    loss, _ = network.loss_and_gradients(IMAGES[ORDER[:TESTED]], LABELS[ORDER[:TESTED]])
    return loss, (network, optimizer.velocities, epochs)


def _network() -> Network:
    return Network([64, WIDTH, 10], np.random.default_rng(seed=1))


def search(strategy: dict[str, Any], seed: int, budget: int) -> float:
    """The best held-out loss after all epochs that a search of so many epochs finds."""
    definition = StudyDefinition.model_validate(
        {
            "parameters": PARAMETERS,
            "objectives": [{"metric": "loss", "goal": "minimize"}],
            "strategy": {**strategy, "seed": seed},
            "fidelity": {"parameter": "epochs", "min": PART, "max": EPOCHS, "resume": True},
        }
    )
    asked, states, best = create(definition), dict[int, State](), float("inf")
    running: deque[TrialRecord] = deque()
    index = 0
    while budget > 0 or running:
        while budget > 0 and len(running) < WORKERS:
            found = asked.suggest([index])
            if not found:
                break
            rung = found[0].rung
            record = TrialRecord(index=index, parameters=dict(found[0].parameters), state="running", rung=rung)
            done = states[rung.continues][2] if rung is not None and rung.continues is not None else 0
            budget -= (rung.fidelity if rung is not None else EPOCHS) - done
            running.append(record)
            asked.update([record])
            index += 1
        if not running:
            break
        record = running.popleft()
        rung = record.rung
        before = states[rung.continues] if rung is not None and rung.continues is not None else None
        loss, states[record.index] = train(record.parameters, rung.fidelity if rung else EPOCHS, before)
        loss = min(loss, 1e3) if np.isfinite(loss) else 1e3
        asked.update([record.model_copy(update={"state": "succeeded", "metrics": {"loss": loss}})])
        if states[record.index][2] == EPOCHS:
            best = min(best, loss)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strategies", nargs="*", default=list(STRATEGIES))
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument("--first", type=int, default=1000, help="the first seed; those below serve to try things out")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    rows, figures = [], dict[str, float]()
    with np.errstate(all="ignore"):  # some diverge
        for name in options.strategies:
            losses = []
            for seed in seeds:
                sys.stderr.write(f"\r{name}: {seed}".ljust(60))
                losses.append(search(STRATEGIES[name][0], seed, STRATEGIES[name][1]))
            rows.append([name, STRATEGIES[name][1], float(np.median(losses)), min(losses), max(losses)])
            figures[name.replace(", ", "_").replace(" ", "_")] = round(float(np.median(losses)), 4)
    sys.stderr.write("\r".ljust(60) + "\r")
    header = ["strategy", "epochs", "held-out loss, median", "best", "worst"]
    show(f"A network of {EPOCHS} epochs, {WORKERS} trials at a time, {options.seeds} seeds", header, rows)
    save("schedules", {"first_seed": options.first, "seeds": options.seeds, **figures})


if __name__ == "__main__":
    main()
