"""A small seeded simulator of a cluster's queue: studies arrive, trials run for as long as they run, GPUs fall free.

The scheduler under test sees a `ClusterState` and gives places; nothing else is modelled, so that baselines and our own
cycle are compared by their decisions alone. Trials that are told to give way stop after a grace period and run anew;
so do those whose node is lost, at once.
"""

import dataclasses
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tuneyard_api.trial import Phase
from tuneyard_scheduler.devices import GpuRequest, Kind
from tuneyard_scheduler.durations import Run
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Decisions, Node, Place, Preempt, QueueView, StudyView, TrialView

GPU = "nvidia.com/gpu"
GRACE = 30.0
Scheduler = Callable[[ClusterState, float], Decisions]


@dataclass(frozen=True)
class Job:
    """A study as the simulator plays it: its trials' durations settle everything."""

    view: StudyView
    durations: list[float]

    @property
    def gpus(self) -> float:
        """GPUs of each trial; below 1: a part of one."""
        return self.view.gpu.gpus if self.view.gpu is not None else 0


@dataclass(frozen=True)
class Workload:
    """What is to be scheduled."""

    name: str
    nodes: list[int]
    jobs: list[Job]
    queues: list[QueueView] = field(default_factory=list)
    failures: list[tuple[float, int, float]] = field(default_factory=list)
    """When which node is lost, and when it is back."""


@dataclass
class Outcome:
    """What came of it."""

    makespan: float = 0.0
    waits: list[float] = field(default_factory=list)
    """From a study's arrival to each of its trials' first start."""
    idle_beside_fitting: float = 0.0
    """GPU-seconds idle on a node beside a trial that fits it and may run."""
    kept: float = 0.0
    """Those of them that are idle on the node that is kept for a bigger trial."""
    big_waits: list[float] = field(default_factory=list)
    """Of the studies whose trials need most GPUs: for how long each got no place that it could have had."""
    capacity_seconds: float = 0.0
    slowdowns: list[float] = field(default_factory=list)
    """Of each study: how long it took, by how long it would have taken alone."""
    owed: list[float] = field(default_factory=list)
    """Seconds for which a queue with enough trials was below its guarantee, each time."""
    preempted: int = 0
    lost: float = 0.0
    """GPU-seconds of work that preempted trials had done."""

    @property
    def jain(self) -> float:
        """Jain's index of the studies' speed (1 / slowdown): 1 where all are slowed down alike."""
        speeds = [1 / slow for slow in self.slowdowns]
        return sum(speeds) ** 2 / (len(speeds) * sum(speed**2 for speed in speeds))


class Simulator:
    """One workload under one scheduler."""

    def __init__(self, workload: Workload, scheduler: Scheduler) -> None:
        self.workload = workload
        self.scheduler = scheduler
        self.state = ClusterState()
        self.now = 0.0
        self.out = Outcome()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._made = 0
        self._jobs = {job.view.key: job for job in workload.jobs}
        self._places: dict[tuple[str, int, int], tuple[Place, float]] = {}
        self._left = {job.view.key: len(job.durations) for job in workload.jobs}
        self._owed_since: dict[str, float] = {}
        self._biggest = max(job.gpus for job in workload.jobs)
        self._could_since = {job.view.key: job.view.created for job in workload.jobs}
        """From when a study could have a further place, as far as its own cap goes."""
        self._running = dict.fromkeys(self._jobs, 0)
        for number, gpus in enumerate(workload.nodes):
            self._back(f"n{number:04}", gpus)
        for queue in workload.queues:
            self.state.set_queue(queue)
        for job in workload.jobs:
            self._at(job.view.created, lambda job=job: self._arrive(job))
        for lost, number, back in workload.failures:
            self._at(lost, lambda number=number: self._lose(f"n{number:04}"))
            self._at(back, lambda number=number: self._back(f"n{number:04}", workload.nodes[number]))

    def run(self) -> Outcome:
        """Until all trials have ended."""
        while self._events:
            at = self._events[0][0]
            self._account(at - self.now)
            self.now = at
            while self._events and self._events[0][0] == at:
                heapq.heappop(self._events)[2]()
            if not any(self._left.values()):
                break  # nodes may yet come and go
            while self._cycle():
                pass
            self._note_owed()
        self.out.makespan = self.now
        return self.out

    def _cycle(self) -> bool:
        """Whether another one is to follow at once."""
        decisions = self.scheduler(self.state, self.now)
        for place in decisions.placements:
            self._start(place)
        for told in decisions.preempt:
            self._tell(told)
        return decisions.next_wakeup is not None and decisions.next_wakeup <= self.now

    def _at(self, time: float, run: Callable[[], None]) -> None:
        self._made += 1
        heapq.heappush(self._events, (time, self._made, run))

    def _arrive(self, job: Job) -> None:
        self.state.set_study(job.view)
        for index in range(len(job.durations)):
            self.state.set_trial(TrialView(job.view.key, index, since=self.now))

    def _start(self, place: Place) -> None:
        placement, key, now = place.placement(self.now), place.study, self.now
        self.state.set_trial(
            TrialView(key, place.index, Phase.RUNNING, place.attempt, placement, since=now, started=now)
        )
        self._places[key, place.index, place.attempt] = place, now
        job = self._jobs[key]
        if place.attempt == 0:
            self.out.waits.append(now - job.view.created)
        if job.gpus == self._biggest:
            self.out.big_waits.append(now - self._could_since[key])
        self._could_since[key] = now
        self._running[key] += 1
        self._at(self.now + job.durations[place.index], lambda: self._end(place))

    def _end(self, place: Place) -> None:
        if self._places.pop((place.study, place.index, place.attempt), None) is None:
            return  # it was stopped before
        run = Run(self.now, self._jobs[place.study].durations[place.index])
        self.state.set_trial(
            TrialView(place.study, place.index, Phase.SUCCEEDED, place.attempt, since=self.now, run=run)
        )
        self._ended(place.study)
        self._left[place.study] -= 1
        if not self._left[place.study]:
            job = self._jobs[place.study]
            alone = _alone(job, sum(self.workload.nodes))
            self.out.slowdowns.append((self.now - job.view.created) / alone)

    def _tell(self, told: Preempt) -> None:
        self.out.preempted += 1
        self._at(self.now + GRACE, lambda: self._stop(told))

    def _stop(self, told: Preempt) -> None:
        self._again(told.study, told.index, told.attempt)

    def _again(self, study: str, index: int, attempt: int) -> None:
        """An attempt has not come to its end: what it has done is lost."""
        started = self._places.pop((study, index, attempt), None)
        if started is not None:
            self.out.lost += (self.now - started[1]) * started[0].gpus
            self.state.set_trial(TrialView(study, index, attempt=attempt + 1, since=self.now))
            self._ended(study)

    def _lose(self, node: str) -> None:
        self.state.remove_node(node)
        for key, (place, _) in list(self._places.items()):
            if place.node == node:
                self._again(*key)

    def _back(self, node: str, gpus: int) -> None:
        self.state.set_node(Node(node, {GPU: gpus}, kinds={GPU: Kind(GPU, parts="kai")}))

    def _ended(self, study: str) -> None:
        if self._running[study] == self._jobs[study].view.parallel:
            self._could_since[study] = self.now
        self._running[study] -= 1

    # Figures ---------------------------------------------------------------------------------------------------

    def _account(self, seconds: float) -> None:
        """GPU-seconds until the next event, and those of them that are idle beside a trial that fits."""
        if not seconds:
            return
        self.out.capacity_seconds += seconds * sum(self.workload.nodes)
        waits = [self._jobs[study.key] for study in self.state.waiting_studies() if self._may(study.key)]
        smallest = min((job.gpus for job in waits), default=None)
        if smallest is None:
            return
        reserved = self.state.reservation
        kept = {leaving.held.node for leaving in self.state.giving.leaving.values()}
        inventory, shared = self.state.inventory, self._shared_gpus() if smallest < 1 else {}
        for node in inventory.nodes():
            if node.name in kept or not node.ready:
                continue
            free = inventory.left(node.name, GPU)
            idle: float = free if free >= smallest else 0
            lefts = (inventory.part_left(node.name, GPU, device) for device in shared.get(node.name, ()))
            idle += sum(left for left in lefts if left >= smallest)
            self.out.idle_beside_fitting += seconds * idle
            if reserved is not None and reserved.node == node.name:
                self.out.kept += seconds * idle

    def _shared_gpus(self) -> dict[str | None, set[str]]:
        """The GPUs of which somebody has a part, by node."""
        found: dict[str | None, set[str]] = {}
        for place, _ in self._places.values():
            found.setdefault(place.node, set()).update(place.devices)
        return found

    def _may(self, key: str) -> bool:
        """Whether a further trial of a study may run by its cap and its queues' limits."""
        study = self.state.study(key)
        queue = self.state.queue_of(study) if study is not None else None
        if study is None or study.view is None or queue is None or not study.ready:
            return False
        gpus = self._jobs[key].gpus
        within = all(each.limit is None or each.used + gpus <= each.limit for each in queue.path)
        return within and study.attempts < study.view.parallel

    def _note_owed(self) -> None:
        """How long a queue waits for what it is guaranteed, while it has trials for it."""
        for queue in self.state.queues:
            wants = min(queue.guaranteed, queue.used + queue.pending)
            if queue.guaranteed and queue.used < wants:
                self._owed_since.setdefault(queue.name, self.now)
            elif queue.name in self._owed_since:
                self.out.owed.append(self.now - self._owed_since.pop(queue.name))


def _alone(job: Job, gpus: int) -> float:
    """How long a study takes that has the cluster for itself: its trials one after the other on as many lanes."""
    lanes = [0.0] * max(1, min(job.view.parallel, int(gpus / (job.gpus or 1))))
    for seconds in job.durations:
        heapq.heapreplace(lanes, lanes[0] + seconds)
    return max(lanes)


def one_large(rng: random.Random) -> Workload:
    """6,000 trials of one GPU on 30 GPUs."""
    return Workload("6,000 x 30", [8, 8, 8, 6], [job("large", 6000, rng, gpus=1, parallel=30)])


def mixed(rng: random.Random) -> Workload:
    """50 studies of 1, 2, 4 or 8 GPUs a trial on 64 GPUs, arriving over two hours."""
    jobs = []
    for number in range(50):
        gpus = rng.choice((1, 1, 1, 2, 2, 4, 8))
        trials = int(10 * 2 ** rng.uniform(0, 5) / gpus) + 2
        arrives, parallel = rng.uniform(0, 7200), rng.choice((2, 4, 8, 16))
        jobs.append(job(f"s{number:02}", trials, rng, gpus=gpus, parallel=parallel, arrives=arrives))
    return Workload("50 mixed", [8] * 8, jobs)


def burst(rng: random.Random) -> Workload:
    """A study of small trials without an end on 64 GPUs, and after an hour 12 studies of 1, 4 or 8 GPUs a trial."""
    jobs = [job("crowd", 3000, rng, gpus=1, parallel=64, minutes=(5, 20))]
    for number in range(12):
        gpus = (1, 4, 8)[number % 3]
        arrives = 3600 + rng.uniform(0, 600)
        jobs.append(job(f"b{number:02}", 48 // gpus, rng, gpus=gpus, parallel=4, arrives=arrives, minutes=(10, 40)))
    return Workload("burst", [8] * 8, jobs)


def failures(rng: random.Random) -> Workload:
    """The 50 mixed studies, and each of the 8 nodes is lost for half an hour, every five hours on average."""
    workload = mixed(rng)
    lost: list[tuple[float, int, float]] = []
    for node in range(len(workload.nodes)):
        at = 0.0
        while (at := at + 1800 + rng.expovariate(1 / 18_000)) < 36_000:
            lost.append((at, node, at + 1800))
            at += 1800
    return dataclasses.replace(workload, name="node failures", failures=lost)


def over_quota(rng: random.Random) -> Workload:
    """Two teams that are guaranteed half of 32 GPUs each: one borrows all, the other comes and goes."""
    queues = [QueueView("a", guaranteed=16), QueueView("b", guaranteed=16)]
    jobs = [job("a", 600, rng, gpus=1, parallel=32, queue="a", minutes=(20, 60))]
    for number in range(6):
        arrives = 1800 + number * 7200
        jobs.append(
            job(
                f"b{number}", 40, rng, gpus=rng.choice((1, 2)), parallel=16, queue="b", arrives=arrives, minutes=(5, 20)
            )
        )
    return Workload("over quota", [8] * 4, jobs, queues)


def job(
    name: str,
    trials: int,
    rng: random.Random,
    *,
    gpus: float,
    parallel: int,
    arrives: float = 0.0,
    queue: str | None = None,
    minutes: tuple[float, float] = (2, 12),
) -> Job:
    """A study whose trials take so many minutes, most of them few."""
    low, high = minutes
    durations = [60 * (low + (high - low) * rng.random() ** 2) for _ in range(trials)]
    request = GpuRequest(GPU, int(gpus)) if gpus >= 1 else GpuRequest(GPU, share=gpus)
    view = StudyView(f"ns/{name}", name, "ns", created=round(arrives, 1), parallel=parallel, gpu=request, queue=queue)
    return Job(view, durations)


def idle_share(out: Outcome) -> float:
    """Part of all GPU time that was idle beside a trial that fits, in %."""
    return 100 * out.idle_beside_fitting / out.capacity_seconds


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
