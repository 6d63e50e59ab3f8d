"""What peers share: an optimiser behind lines of JSON, in an environment of its own. See `_searchers.Peer`.

In, first: {"parameters": [...], "seed": 1, "method": "tpe"}; then {"know": [[configuration, loss], ...]}, {"ask": 0} or
{"tell": 0, "loss": 0.3}. Out, for each ask: {"parameters": {"lr": 0.01}, "seconds": CPU time since the ask before}.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

Parameters = list[dict[str, Any]]
INITIAL = 10
"""Points of its own initial design that every peer is given, whatever its default: 10 is Optuna's and skopt's."""


class Optimiser(Protocol):
    """One study."""

    def ask(self, index: int) -> dict[str, Any]:
        """The configuration of a trial, without parameters that it does not have."""

    def tell(self, index: int, loss: float) -> None:
        """What it came to."""


def serve(begin: Callable[[Parameters, int, str], Optimiser]) -> None:
    """Run one study, then end."""
    start = json.loads(sys.stdin.readline())
    optimiser = begin(start["parameters"], start["seed"], start["method"])
    begun = time.process_time()
    for line in sys.stdin:
        message = json.loads(line)
        if "ask" in message:
            parameters = optimiser.ask(message["ask"])
            print(json.dumps({"parameters": parameters, "seconds": time.process_time() - begun}), flush=True)
            begun = time.process_time()
        elif "tell" in message:
            optimiser.tell(message["tell"], message["loss"])
        else:
            optimiser.know(message["know"])  # type: ignore[attr-defined] # only those that bench-ask asks have it


def active(parameters: Parameters, found: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the parameters whose conditions do not hold; parents come before children."""
    kept: dict[str, Any] = {}
    for parameter in parameters:
        conditions = parameter.get("when", {}).items()
        if all(parent in kept and kept[parent] in values for parent, values in conditions):
            kept[parameter["name"]] = found[parameter["name"]]
    return kept
