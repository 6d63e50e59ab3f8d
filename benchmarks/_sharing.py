"""What parts of GPUs are worth: a burst of whole and fractional trials, and quarters against whole GPUs."""

import random

from _figures import show
from _queueing import Outcome, Simulator, Workload, idle_share, job

from tuneyard_scheduler.cycle import schedule

SLOWER = (1.0, 1.5, 2.0)
"""By how much a trial on a quarter takes longer than on a whole GPU. 1: it never used more than a quarter."""


def fractions(rng: random.Random) -> Workload:
    """60 studies of whole GPUs (1 to 4) and parts (0.1 to 0.7) on 64 GPUs, in three bursts of a few minutes."""
    jobs = []
    for number in range(60):
        gpus = rng.choice((1, 1, 2, 4, 0.1, 0.25, 0.25, 0.3, 0.5, 0.7))
        trials = int(4 * 2 ** rng.uniform(0, 3) / max(gpus, 0.25)) + 2
        arrives = 5400 * (number % 3) + rng.uniform(0, 240)
        jobs.append(job(f"s{number:02}", trials, rng, gpus=gpus, parallel=rng.choice((4, 8, 16, 32)), arrives=arrives))
    return Workload("whole and fractional burst", [8] * 8, jobs)


def quarters() -> dict[str, float | int | str]:
    """6,000 trials on 30 GPUs: how long they take on quarters, by how long on whole GPUs."""
    alone = _run(1, 30, 1.0)
    whole = alone.makespan
    rows: list[list[object]] = [["whole", 30, 1.0, whole / 3600, 1.0, idle_share(alone)]]
    figures: dict[str, float | int | str] = {"whole_6000x30_makespan_s": round(whole)}
    for slower in SLOWER:
        out = _run(0.25, 120, slower)
        ratio = out.makespan / whole
        rows.append(["1/4", 120, slower, out.makespan / 3600, ratio, idle_share(out)])
        figures[f"quarters_by_whole_ratio_slower_{slower:g}"] = round(ratio, 4)
    show(
        "6,000 trials, 30 GPUs: quarters of GPUs against whole ones",
        ["GPUs by", "at a time", "trial takes longer by", "makespan h", "ratio", "idle beside fitting %"],
        rows,
    )
    return figures


def _run(gpus: float, parallel: int, slower: float) -> Outcome:
    large = job("large", 6000, random.Random(7), gpus=gpus, parallel=parallel)
    large.durations[:] = [seconds * slower for seconds in large.durations]
    return Simulator(Workload("6,000 trials", [8, 8, 8, 6], [large]), schedule).run()
