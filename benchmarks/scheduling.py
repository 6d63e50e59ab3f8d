"""The scheduler: what a decision cycle costs and how that grows; and what its decisions are worth, beside simpler ones.

Costs: a full cluster on which trials end all the time, and a cycle that gives their GPUs to the next ones; nothing but
the cycle is measured, and in CPU time, since others may use the machine. Worth: a small seeded simulator
(_queueing.py) in which the same workload runs under our policies and under baselines: strict FIFO (the first in line
holds up all others), best-effort FIFO (who does not fit is passed over), and our policies without packing (the emptiest
node that fits), without backfill (nobody uses the node that is kept for a bigger trial) and without reservation (no
node is kept).
"""

import argparse
import itertools
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from _figures import save, show
from _queueing import (
    GPU,
    Outcome,
    Scheduler,
    Simulator,
    Workload,
    burst,
    failures,
    idle_share,
    mixed,
    one_large,
    over_quota,
    percentile,
)
from _sharing import fractions, quarters

from tuneyard_api.trial import Phase
from tuneyard_scheduler.books import StudyBook, TrialBook
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.devices import GpuRequest, Kind
from tuneyard_scheduler.policies import Policies, nodes
from tuneyard_scheduler.reasons import Refusal
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Decisions, Node, Place, PodView, QueueView, StudyView, Taken, TrialView

Figures = dict[str, float | int | str]
ROOM = 64
"""Places that the scheduler's process decides on at once."""
REQUESTS = [
    *(GpuRequest(GPU, count) for count in (1, 1, 1, 2, 4, 8)),
    *(GpuRequest(GPU, share=share) for share in (0.25, 0.5)),
]
ENDS = 16
"""Trials that end between two cycles."""


# What a cycle costs ------------------------------------------------------------------------------------------------


def cluster(pending: int, studies: int, size: int) -> ClusterState:
    """A cluster with nodes of 8 GPUs, and studies of 1 to 8 GPUs or a part of one in ten queues of two parents."""
    state = ClusterState()
    for number in range(size):
        state.set_node(Node(f"n{number:04}", {GPU: 8}, kinds={GPU: Kind(GPU, parts="reservation")}))
    for number in range(10):
        state.set_queue(QueueView(f"q{number}", parent=f"p{number % 2}", guaranteed=size * 8 / 40, weight=1.0 + number))
    for name in ("p0", "p1"):
        state.set_queue(QueueView(name))
    running = size * 8
    for number in range(studies):
        request = REQUESTS[number % len(REQUESTS)]
        key = f"ns/s{number}"
        state.set_study(
            StudyView(key, key, "ns", created=float(number), parallel=10**6, gpu=request, queue=f"q{number % 10}")
        )
        for index in range((pending + running) // studies + 1):
            state.set_trial(TrialView(key, index))
    return state


def record(state: ClusterState, place: Place, now: float) -> None:
    """The place is on record, as after its write."""
    running = TrialView(place.study, place.index, Phase.RUNNING, place.attempt, place.placement(now), since=now)
    state.set_trial(running)


def measure(pending: int, studies: int, size: int, cycles: int = 200) -> Figures:
    """Fill a cluster, then let trials end and give their GPUs away, many times."""
    state, rng = cluster(pending, studies, size), random.Random(1)
    begun, running = time.process_time(), schedule(state, 1.0).placements
    filled = time.process_time() - begun
    for place in running:
        record(state, place, 1.0)
    seconds: list[float] = []
    fresh = itertools.count(10**6)
    for number in range(cycles):
        now = 2.0 + number
        for _ in range(min(ENDS, len(running))):
            place = running.pop(rng.randrange(len(running)))
            state.set_trial(TrialView(place.study, place.index, Phase.SUCCEEDED, place.attempt))
            state.set_trial(TrialView(place.study, next(fresh)))  # so that as many wait as before
        begun = time.process_time()
        decisions = schedule(state, now, limit=ROOM)
        seconds.append(time.process_time() - begun)
        for place in decisions.placements:
            record(state, place, now)
        running += decisions.placements
    return {
        "p50_ms": round(1000 * statistics.median(seconds), 2),
        "p95_ms": round(1000 * percentile(seconds, 0.95), 2),
        "decisions_per_s": round(len(running) / filled) if filled else 0,
        "first_fit_per_s": first_fit(size),
    }


def first_fit(size: int) -> int:
    """The reference, places a second: a loop that gives each trial the first node with room, and knows nothing else.

    No queues, studies, shares or records; it looks at every node.
    """
    free, given = [8.0] * size, 0
    begun = time.process_time()
    for request in itertools.cycle(REQUESTS):
        node = next((node for node, left in enumerate(free) if left >= request.gpus), None)
        if node is None:
            break
        free[node] -= request.gpus
        given += 1
    return round(given / (time.process_time() - begun))


def measure_reclaim(size: int) -> Figures:
    """A queue comes back to its guarantee, a tenth of a cluster that is lent out to the last GPU."""
    state = ClusterState()
    for number in range(size):
        state.set_node(Node(f"n{number:04}", {GPU: 8}))
    state.set_queue(QueueView("own", guaranteed=size * 8 / 10))
    for name, queue in [*((f"ns/lent{number}", None) for number in range(20)), ("ns/own", "own")]:
        gpu = GpuRequest(GPU, 1)
        state.set_study(StudyView(name, name, "ns", parallel=10**6, gpu=gpu, queue=queue, suspended=queue is not None))
        for index in range(size):
            state.set_trial(TrialView(name, index))
    for place in schedule(state, 1.0).placements:
        record(state, place, 1.0)
    state.set_study(StudyView("ns/own", "ns/own", "ns", parallel=10**6, gpu=GpuRequest(GPU, 1), queue="own"))
    seconds: list[float] = []
    stopped = 0
    while True:
        begun = time.process_time()
        decisions = schedule(state, 2.0, limit=ROOM)
        if not decisions.preempt:
            break
        seconds.append(time.process_time() - begun)
        stopped += len(decisions.preempt)
    assert stopped == size * 8 // 10, f"{stopped} were stopped"
    return {
        "reclaim_cycle_p50_ms": round(1000 * statistics.median(seconds), 2),
        "reclaim_cycle_p95_ms": round(1000 * percentile(seconds, 0.95), 2),
        "reclaimed": stopped,
    }


def measure_hopeless(size: int, studies: int = 20) -> Figures:
    """As many studies below their guarantee wait for 8 GPUs of a node, and a pod that is no trial's is on each node."""
    state = ClusterState()
    for number in range(size):
        state.set_node(Node(f"n{number:04}", {GPU: 8}))
        state.set_pod(PodView(f"p{number}", f"n{number:04}", Taken({GPU: 1})))
    state.set_queue(QueueView("own", guaranteed=size * 8 / 2))
    for number in range(studies):
        for name, count, queue in ((f"ns/lent{number}", 1, None), (f"ns/own{number}", 8, "own")):
            gpu = GpuRequest(GPU, count)
            state.set_study(StudyView(name, name, "ns", parallel=10**6, gpu=gpu, queue=queue))
            for index in range(size * 8 // studies if count == 1 else 10):
                state.set_trial(TrialView(name, index))
    for place in schedule(state, 1.0).placements:
        record(state, place, 1.0)
    seconds: list[float] = []
    for number in range(50):
        begun = time.process_time()
        decisions = schedule(state, 2.0 + number, limit=ROOM)
        seconds.append(time.process_time() - begun)
        assert not decisions.preempt, "nobody could be helped"
    return {"hopeless_cycle_p95_ms": round(1000 * percentile(seconds, 0.95), 2)}


def costs() -> Figures:
    """The table of costs."""
    cases = [(10_000, 100, 1000), (1_000, 100, 1000), (100_000, 100, 1000), (10_000, 100, 100), (10_000, 100, 5000)]
    found = {case: measure(*case) for case in cases}
    show(
        f"A cycle after {ENDS} trials have ended; decisions/s as an empty cluster is filled (goals: 50 ms, 10,000/s)",
        ["pending", "studies", "nodes x 8 GPUs", "p50 ms", "p95 ms", "decisions/s", "first-fit loop"],
        [[*case, *figures.values()] for case, figures in found.items()],
    )
    reclaim, hopeless = measure_reclaim(1000), measure_hopeless(1000)
    show(
        f"A cycle that has {ROOM} of 8,000 trials stopped for a queue below its guarantee",
        ["stopped in all", "p50 ms", "p95 ms"],
        [[reclaim["reclaimed"], reclaim["reclaim_cycle_p50_ms"], reclaim["reclaim_cycle_p95_ms"]]],
    )
    show(
        "A cycle in which 20 studies below their guarantee wait for what no node can give",
        ["p95 ms"],
        [[hopeless["hopeless_cycle_p95_ms"]]],
    )
    main = found[cases[0]]
    figures: Figures = {"cycle_p50_ms": main["p50_ms"], "cycle_p95_ms": main["p95_ms"]}
    figures |= {
        "decisions_per_s": main["decisions_per_s"],
        "first_fit_per_s": main["first_fit_per_s"],
        **reclaim,
        **hopeless,
    }
    for (pending, _, size), each in found.items():
        figures |= {f"{name}_at_{pending}_pending_{size}_nodes": value for name, value in each.items()}
    return figures


# What its decisions are worth --------------------------------------------------------------------------------------


def by_arrival(study: StudyBook, view: StudyView, now: float) -> tuple[float, ...]:
    """First in, first out."""
    del study, now
    return (view.created,)


def emptiest(state: ClusterState, view: StudyView, trial: TrialBook) -> nodes.Spot | Refusal | None:
    """What schedulers do by default that spread pods over nodes: no packing."""
    gpu = replace(view.gpu, spread=True) if view.gpu is not None else None
    return nodes.fullest_that_fits(state, replace(view, gpu=gpu), trial)


FIFO = Policies(share=lambda *_: (0.0,), order=by_arrival, reclaim=lambda *_: [], reserve=lambda *_: None)


def strict_fifo(state: ClusterState, now: float) -> Decisions:
    """Places until the first in line gets none for want of GPUs: then nobody does."""
    given: list[Place] = []
    while True:
        decisions = schedule(state, now, policies=FIFO, limit=1)
        blocked = any(waiting.reason == "NoNodeFits" for waiting in decisions.waiting)
        for place in decisions.placements:
            if blocked:
                state.forget(place)
            else:
                given.append(place)
        if blocked or not decisions.placements:
            return Decisions(given, [], [])


SCHEDULERS: dict[str, Scheduler] = {
    "tuneyard": schedule,
    "strict FIFO": strict_fifo,
    "best-effort FIFO": partial(schedule, policies=FIFO),
    "no packing": partial(schedule, policies=Policies(choose=emptiest)),
    "no backfill": partial(schedule, policies=Policies(backfill=lambda *_: False)),
    "no reservation": partial(schedule, policies=Policies(reserve=lambda *_: None)),
}
WORKLOADS: list[Callable[[random.Random], Workload]] = [one_large, mixed, burst, fractions, over_quota, failures]


def worth() -> Figures:
    """The tables of the workloads."""
    figures: Figures = {}
    for make in WORKLOADS:
        found: dict[str, Outcome] = {}
        for name, scheduler in SCHEDULERS.items():
            found[name] = Simulator(make(random.Random(7)), scheduler).run()
        workload = make(random.Random(7)).name
        show(
            f"{workload}: {(make.__doc__ or '').rstrip('.')}",
            [
                "scheduler",
                "idle beside fitting %",
                "of it kept %",
                "makespan h",
                "p95 wait min",
                "big: most min",
                "Jain",
                "owed p95 s",
                "lost GPU-h",
            ],
            [_row(name, out) for name, out in found.items()],
        )
        for name, out in found.items():
            key = f"{make.__name__}_{name.replace(' ', '_').replace('-', '_').lower()}"
            figures |= {
                f"{key}_idle_beside_fitting_percent": round(idle_share(out), 3),
                f"{key}_kept_percent": round(100 * out.kept / out.capacity_seconds, 3),
                f"{key}_makespan_s": round(out.makespan),
                f"{key}_big_longest_wait_s": round(max(out.big_waits)),
                f"{key}_wait_p95_s": round(percentile(out.waits, 0.95)),
                f"{key}_jain": round(out.jain, 3),
                f"{key}_owed_p95_s": round(percentile(out.owed, 0.95)),
                f"{key}_preempted": out.preempted,
                f"{key}_lost_gpu_s": round(out.lost),
            }
    return figures


def _row(name: str, out: Outcome) -> list[object]:
    wait, owed, big = percentile(out.waits, 0.95) / 60, percentile(out.owed, 0.95), max(out.big_waits) / 60
    kept = 100 * out.kept / out.capacity_seconds
    return [name, idle_share(out), kept, out.makespan / 3600, wait, big, out.jain, owed, out.lost / 3600]


def main() -> int:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts: dict[str, Callable[[], Figures]] = {"costs": costs, "worth": worth, "quarters": quarters}
    parser.add_argument("--part", choices=list(parts), help="only this one; nothing is saved then")
    part = parser.parse_args().part
    if part is None:
        save("scheduling", {key: figure for measure in parts.values() for key, figure in measure().items()})
    else:
        parts[part]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
