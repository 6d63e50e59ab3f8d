"""`python -m tuneyard_operator.worlds.simulation SEED`: run a schedule again, and show what broke."""

from __future__ import annotations

import argparse
import sys

from tuneyard_operator.worlds.simulation.faults import Faults
from tuneyard_operator.worlds.simulation.run import simulate


def main(arguments: list[str] | None = None) -> int:
    """Run the schedules; the exit status says whether all invariants held."""
    parser = argparse.ArgumentParser(prog="python -m tuneyard_operator.worlds.simulation", description=__doc__)
    parser.add_argument("seed", type=int, help="the schedule")
    parser.add_argument("--count", type=int, default=1, help="run so many, beginning with that seed")
    parser.add_argument("--trace", action="store_true", help="show every step")
    parser.add_argument("--without-faults", action="store_true", help="nothing goes wrong")
    options = parser.parse_args(arguments)
    for seed in range(options.seed, options.seed + options.count):
        report = simulate(seed, faults=Faults() if options.without_faults else None, keep_trace=options.trace)
        if options.trace:
            sys.stdout.writelines(line + "\n" for line in report.trace)
        if report.violation is not None or options.count == 1:
            sys.stdout.write(f"{report}\n")
        if report.violation is not None:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
