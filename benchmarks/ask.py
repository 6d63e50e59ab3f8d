"""How long an ask takes, by the number of trials that have ended and of parameters, beside Optuna in the same run.

An ask is what happens between a trial's end and the next one's beginning: hear of the one, propose the other. The
figures are CPU milliseconds of one thread, measured within the process that does it, so that a busy machine does not
change them. Half of the parameters are numbers, a quarter ints, a quarter categories.
"""

import argparse
import sys
from itertools import product

import numpy as np
from _figures import save, show
from _searchers import present, searcher

HISTORIES = (50, 200, 500, 1_000, 6_000, 10_000)
WIDTHS = (5, 20)
ASKS = 40
PASSES = 3
"""How often all is timed. Each figure is of the quickest pass: the pace of a shared machine varies by half."""
SHORT = {"bayesian": "gp"}
"""Names of the figures that are the worst of all widths, such as gp_200_p95_ms."""
MOST = {"optuna-tpe": 10_000, "optuna-cmaes": 10_000, "optuna-gp": 200}
"""Peers that are timed, and the trials up to which: beyond, it takes too long."""
FEW = {"optuna-gp": 10}
"""Asks of those that take long, instead of ASKS."""


def parameters(width: int) -> list[dict[str, object]]:
    kinds: list[dict[str, object]] = [
        {"double": {"min": 0, "max": 1}},
        {"double": {"min": 1e-4, "max": 1, "scale": "log"}},
        {"int": {"min": 1, "max": 20}},
        {"categorical": {"values": ["a", "b", "c"]}},
    ]
    return [{"name": f"x{i}", **kinds[i % 4]} for i in range(width)]


def loss(configuration: dict[str, object], chance: np.random.Generator) -> float:
    """A bowl with noise: something to learn."""
    values = [ord(v) - ord("a") if isinstance(v, str) else float(str(v)) for v in configuration.values()]
    return float(np.mean((np.array(values) / 20 - 0.3) ** 2)) + 0.01 * float(chance.standard_normal())


def times(name: str, width: int, history: int) -> np.ndarray:
    """Milliseconds of each ask, shape (asks,)."""
    chance = np.random.default_rng(1)
    drawn = searcher("random", parameters(width), 1)
    asked = searcher(name, parameters(width), 1)
    known = [(configuration, loss(configuration, chance)) for configuration in map(drawn.ask, range(history))]
    asked.know(known)
    for index in range(history, history + FEW.get(name, ASKS) + 1):
        asked.tell(index, loss(asked.ask(index), chance))
    asked.close()
    return 1e3 * np.array(asked.seconds[1:])  # the first one loads libraries and takes in the history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strategies", nargs="*", default=["random", "sobol", "cmaes", "tpe", "bayesian", *MOST])
    parser.add_argument("--histories", nargs="*", type=int, default=HISTORIES)
    parser.add_argument("--widths", nargs="*", type=int, default=WIDTHS)
    options = parser.parse_args()
    strategies = present(options.strategies)
    quickest: dict[tuple[str, int, int], tuple[float, float]] = {}
    for number, width, name, history in product(range(PASSES), options.widths, strategies, options.histories):
        if history <= MOST.get(name, history):
            sys.stderr.write(f"\rpass {number + 1}: {name}, {width} parameters, {history} trials ".ljust(60))
            p50, p95 = np.quantile(times(name, width, history), [0.5, 0.95]).tolist()
            before = quickest.get((name, width, history), (np.inf, np.inf))
            quickest[name, width, history] = min(before[0], p50), min(before[1], p95)
    figures: dict[str, float] = {}
    for (name, width, history), (p50, p95) in quickest.items():
        key = f"{name}_{history}_{width}d".replace("-", "_")
        figures |= {f"{key}_p50_ms": round(p50, 2), f"{key}_p95_ms": round(p95, 2)}
        worst = f"{SHORT.get(name, name)}_{history}_p95_ms".replace("-", "_")
        figures[worst] = max(figures.get(worst, 0.0), round(p95, 2))
    rows: list[list[object]] = []
    for width, name in product(options.widths, strategies):
        cells = [quickest.get((name, width, history)) for history in options.histories]
        rows.append([name, width, *(f"{cell[0]:.3g} / {cell[1]:.3g}" if cell else "" for cell in cells)])
    sys.stderr.write("\r".ljust(60) + "\r")
    show(
        "CPU milliseconds of an ask, p50 / p95, by ended trials", ["", "parameters", *map(str, options.histories)], rows
    )
    save("ask", figures)


if __name__ == "__main__":
    main()
