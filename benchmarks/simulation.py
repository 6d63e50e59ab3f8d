"""Simulated schedules a second: whole studies with faults of all kinds, every invariant checked after every step.

Each schedule is two or three studies of 5 to 40 trials on a small cluster, in virtual time, until all have ended. The
reference of each figure is zero violations: one that breaks is printed with its seed, which shows it again.
"""

import argparse
import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field

from _figures import save, show

from tuneyard_operator.worlds.simulation import simulate

CHUNK = 50
EVERY_REAL = 20
"""One schedule of so many is searched by the strategies that users have; the others by one that costs nothing."""


@dataclass
class Sums:
    """What some schedules came to."""

    schedules: int = 0
    steps: int = 0
    trials: int = 0
    virtual_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def add(self, other: "Sums") -> None:
        """Take in the sums of other schedules."""
        self.schedules += other.schedules
        self.steps += other.steps
        self.trials += other.trials
        self.virtual_s += other.virtual_s
        self.faults += other.faults
        self.broken += other.broken


def run_chunk(first: int, count: int) -> Sums:
    """Run the schedules of some seeds."""
    sums = Sums()
    for seed in range(first, first + count):
        report = simulate(seed, real_strategies=seed % EVERY_REAL == 0)
        sums.schedules += 1
        sums.steps += report.steps
        sums.trials += report.trials
        sums.virtual_s += report.seconds
        sums.faults.update(report.faults)
        if report.violation is not None:
            sums.broken.append(str(report))
    gc.collect()
    return sums


def run_all(schedules: int, first: int, workers: int) -> Iterator[Sums]:
    """The sums of each chunk, as it ends."""
    with ProcessPoolExecutor(workers) as pool:
        ends = range(first, first + schedules, CHUNK)
        chunks = [pool.submit(run_chunk, begin, min(CHUNK, first + schedules - begin)) for begin in ends]
        for chunk in as_completed(chunks):
            yield chunk.result()


def main() -> int:
    """Run, print, save; the exit status says whether all invariants held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=1_000_000, help="the first seed; tests have those below")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    begun, sums = time.monotonic(), Sums()
    for chunk in run_all(options.schedules, options.first, options.workers):
        sums.add(chunk)
        sys.stderr.write(f"\r{sums.schedules} of {options.schedules} schedules, {len(sums.broken)} violations ")
    seconds = time.monotonic() - begun
    sys.stderr.write("\n")
    for report in sums.broken:
        print(report)
    print_figures(sums, seconds, options.workers)
    return 1 if sums.broken else 0


def print_figures(sums: Sums, seconds: float, workers: int) -> None:
    """The table, and the figures for the file."""
    rate = sums.schedules / seconds
    show(
        f"{sums.schedules} schedules in {seconds:.0f} s by {workers} processes",
        ["schedules/s", "steps/s", "steps", "trials", "virtual hours", "violations"],
        [[rate, sums.steps / seconds, sums.steps, sums.trials, sums.virtual_s / 3600, len(sums.broken)]],
    )
    show("Faults injected", ["kind", "times"], sorted(sums.faults.items()))
    figures: dict[str, float | int | str] = {
        "schedules": sums.schedules,
        "schedules_per_s": round(rate, 1),
        "schedules_per_s_and_process": round(rate / workers, 1),
        "violations": len(sums.broken),
        "steps": sums.steps,
        "steps_per_s": round(sums.steps / seconds),
        "trials": sums.trials,
        "virtual_hours": round(sums.virtual_s / 3600),
        "seconds": round(seconds),
        "processes": workers,
    }
    save("simulation", figures | {f"fault_{kind}": times for kind, times in sorted(sums.faults.items())})


if __name__ == "__main__":
    sys.exit(main())
