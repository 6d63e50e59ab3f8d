"""What peers share that stop trials early, behind lines of JSON: see `fidelity.Pruned`.

In, first: {"parameters": [...], "seed": 1, "pruner": "hyperband", "least": 3, "epochs": 81}; then {"ask": 0},
{"report": 0, "epoch": 3, "loss": 0.3} or {"tell": 0, "epoch": 3, "loss": 0.3, "pruned": false}. Out, for each ask: the
configuration; for each report: whether to prune.
"""

import json
import sys
from collections.abc import Callable
from typing import Any, Protocol


class Pruner(Protocol):
    """One study. All its parameters are doubles."""

    def ask(self, index: int) -> dict[str, float]:
        """The configuration of a trial."""

    def report(self, index: int, epoch: int, loss: float) -> bool:
        """What it has come to after an epoch that is not its last; whether to stop it."""

    def tell(self, index: int, epoch: int, loss: float, *, pruned: bool) -> None:
        """It has ended, after the epoch."""


def serve(begin: Callable[[dict[str, Any]], Pruner]) -> None:
    """Run one study, then end."""
    pruner = begin(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        message = json.loads(line)
        if "ask" in message:
            print(json.dumps(pruner.ask(message["ask"])), flush=True)
        elif "report" in message:
            stop = bool(pruner.report(message["report"], message["epoch"], message["loss"]))  # not NumPy's
            print(json.dumps(stop), flush=True)
        else:
            pruner.tell(message["tell"], message["epoch"], message["loss"], pruned=message["pruned"])
