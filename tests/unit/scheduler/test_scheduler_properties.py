"""Random histories, replayable by seed: what must hold after every step, computed anew from the whole truth."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tuneyard_api.trial import Phase, Placement
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.devices import GpuRequest, Kind
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import (
    AttemptKey,
    Node,
    Place,
    PodView,
    QueueView,
    StudyView,
    Taken,
    TrialView,
    taken,
)

GPU = "nvidia.com/gpu"
ACTIVE = (Phase.PLACED, Phase.RUNNING)
Told = Callable[[ClusterState], Any]


@dataclass
class World:
    """The truth, as an API server holds it, and who is still to hear of what."""

    rng: random.Random
    nodes: dict[str, Node] = field(default_factory=dict)
    queues: dict[str, QueueView] = field(default_factory=dict)
    studies: dict[str, StudyView] = field(default_factory=dict)
    trials: dict[tuple[str, int], TrialView] = field(default_factory=dict)
    pods: dict[str, PodView] = field(default_factory=dict)
    over: set[AttemptKey] = field(default_factory=set)
    """Attempts whose pod has ended."""
    forgotten: set[AttemptKey] = field(default_factory=set)
    """Those that ended before the scheduler started anew: it can't know, so their place counts on."""
    told: set[str | None] = field(default_factory=lambda: {None})
    """Pods that the scheduler has heard of (and no pod at all)."""
    now: float = 0.0
    state: ClusterState = field(default_factory=ClusterState)
    news: dict[str, list[Told]] = field(default_factory=dict)
    """What the state was not told yet, by kind; within a kind the order is kept."""
    lag: bool = False

    def tell(self, kind: str, told: Told) -> None:
        self.news.setdefault(kind, []).append(told)
        if not self.lag:
            self.deliver()

    def deliver(self, share: float = 1.0) -> None:
        for waiting in self.news.values():
            while waiting and self.rng.random() < share:
                told = waiting.pop(0)
                told(self.state)
                if self.rng.random() < 0.1:
                    told(self.state)

    def restart(self) -> None:
        """A new process lists everything, in any order."""
        self.state, self.news, self.forgotten = ClusterState(), {}, set(self.over)
        tell: list[Told] = [lambda s, v=v: s.set_node(v) for v in self.nodes.values()]
        tell += [lambda s, v=v: s.set_queue(v) for v in self.queues.values()]
        tell += [lambda s, v=v: s.set_study(v) for v in self.studies.values()]
        tell += [lambda s, v=v: s.set_trial(v) for v in self.trials.values()]
        tell += [lambda s, v=v: s.set_pod(v) for v in self.pods.values()]
        self.rng.shuffle(tell)
        for told in tell:
            told(self.state)

    def set_trial(self, view: TrialView) -> None:
        self.trials[view.study, view.index] = view
        self.tell("trials", lambda s: s.set_trial(view))

    def set_pod(self, pod: PodView) -> None:
        self.pods[pod.uid] = pod
        self.tell("pods", lambda s: (s.set_pod(pod), self.told.add(pod.uid)))

    def end_pod(self, uid: str) -> None:
        pod = self.pods.pop(uid)
        if pod.attempt is not None:
            self.over.add(pod.attempt)
        self.tell("pods", lambda s: s.remove_pod(uid))

    def counts(self, attempt: AttemptKey) -> bool:
        return attempt not in self.over or attempt in self.forgotten

    def live(self, view: TrialView) -> set[int]:
        """The attempts of a trial that count: placed and not known to be over, or with a pod."""
        pods = {
            p.attempt.attempt
            for p in self.pods.values()
            if p.attempt and (p.attempt.study, p.attempt.index) == (view.study, view.index)
        }
        key = AttemptKey(view.study, view.index, view.attempt)
        return pods | ({view.attempt} if view.phase in ACTIVE and self.counts(key) else set())

    def used(self) -> Counter[str]:
        """GPUs taken by node."""
        taken: Counter[str] = Counter()
        bound = {pod.attempt for pod in self.pods.values()}
        for pod in self.pods.values():
            taken[str(pod.node)] += int(pod.taken.charge)
        for view in self.trials.values():
            place = view.placement
            key = AttemptKey(view.study, view.index, view.attempt)
            if view.phase in ACTIVE and place is not None and place.node and self.counts(key) and key not in bound:
                taken[place.node] += place.gpus
        return taken

    def attempts(self, key: str) -> int:
        return sum(len(self.live(view)) for view in self.trials.values() if view.study == key)


def add_study(world: World, key: str, **fields: Any) -> None:
    rng = world.rng
    gpus = rng.choice([0, 1, 1, 2, 4])
    request = GpuRequest(GPU, gpus, rng.choice([None, None, "A100"])) if gpus else None
    values = {"priority": rng.randrange(3), "created": float(rng.randrange(9)), "parallel": rng.randrange(6), **fields}
    study = world.studies[key] = StudyView(key, f"uid-{key}", "ns", gpu=request, **values)
    world.tell("studies", lambda s: s.set_study(study))


def set_node(world: World, name: str) -> None:
    rng = world.rng
    model = rng.choice(["A100", "T4"])
    node = Node(name, {GPU: rng.choice([0, 2, 4, 8])}, rng.random() < 0.9, rng.random() < 0.9, {GPU: Kind(GPU, model)})
    world.nodes[name] = node
    world.tell("nodes", lambda s: s.set_node(node))


def cycle(world: World) -> list[Place]:
    """Decide, and write most of it; a write may be refused, or take effect though its answer is lost."""
    decisions = schedule(world.state, world.now)
    for place in decisions.placements:
        view = world.trials[place.study, place.index]
        assert view.phase is Phase.PENDING, "placed while it was not waiting"
        assert view.attempt == place.attempt
        assert (view.not_before or 0.0) <= world.now, "placed before its backoff had passed"
        if world.rng.random() < 0.1:
            world.state.forget(place)
            continue
        placement = Placement(attempt=place.attempt, node=place.node, gpus=place.gpus, resource=place.resource)
        world.set_trial(replace(view, phase=Phase.PLACED, placement=placement, since=world.now))
    return decisions.placements


def step_trials(world: World) -> None:
    """Pods start, run and end, and ends are recorded; a pod may also vanish, or never come.

    An attempt whose pod lives may be recorded as ended (it is too late, say), but not before the pod is known to all.
    """
    rng = world.rng
    for view in list(world.trials.values()):
        key = AttemptKey(view.study, view.index, view.attempt)
        pod = next((uid for uid, p in world.pods.items() if p.attempt == key), None)
        if view.phase in ACTIVE and pod is None and key not in world.over and rng.random() < 0.5:
            place = view.placement
            assert place is not None
            world.set_pod(PodView(f"pod-{key}", place.node or "cpu", taken(place, None), key, f"uid-{view.study}"))
        elif pod is not None and rng.random() < 0.3:
            world.end_pod(pod)
        elif view.phase is Phase.PLACED and rng.random() < 0.3:
            world.set_trial(replace(view, phase=Phase.RUNNING))
        elif view.phase in ACTIVE and pod in world.told and rng.random() < (0.5 if key in world.over else 0.05):
            retried = replace(view, phase=Phase.PENDING, attempt=view.attempt + 1, placement=None)
            if rng.random() < 0.4:
                later = world.now + rng.randrange(20) if rng.random() < 0.5 else None
                world.set_trial(replace(retried, not_before=later, avoid=("n1",) if rng.random() < 0.5 else ()))
            else:
                world.set_trial(replace(view, phase=rng.choice([Phase.SUCCEEDED, Phase.FAILED, Phase.STOPPED])))


def add_trials(world: World) -> None:
    key = world.rng.choice(list(world.studies))
    for _ in range(world.rng.randrange(4)):
        index = sum(1 for study, _ in world.trials if study == key)
        world.set_trial(TrialView(key, index, owner=f"uid-{key}"))


def remove_some_trial(world: World) -> None:
    """A trial without a pod is deleted."""
    idle = [(v.study, v.index) for v in world.trials.values() if v.phase.terminal and not world.live(v)]
    if idle:
        study, index = world.rng.choice(idle)
        world.trials[study, index] = replace(world.trials[study, index], phase=Phase.STOPPED)
        world.tell("trials", lambda s: s.remove_trial(study, index))


def disturb(world: World) -> None:
    """Everything that others may do: nodes, studies and queues change, foreign pods come and go."""
    rng = world.rng
    match rng.randrange(7):
        case 0 | 1:
            set_node(world, f"n{rng.randrange(4)}")
        case 2:
            name = f"n{rng.randrange(4)}"
            world.nodes.pop(name, None)
            world.tell("nodes", lambda s: s.remove_node(name))
        case 3:
            key = rng.choice(list(world.studies))
            suspended, queue = rng.random() < 0.2, rng.choice([None, "q", "none"])
            study = replace(world.studies[key], parallel=rng.randrange(6), suspended=suspended, queue=queue)
            world.studies[key] = study
            world.tell("studies", lambda s: s.set_study(study))
        case 4:
            queue = world.queues["q"] = QueueView("q", rng.choice([None, 0, 3, 8]))
            world.tell("queues", lambda s: s.set_queue(queue))
        case 5:
            world.set_pod(
                PodView(f"theirs-{rng.randrange(99)}", f"n{rng.randrange(4)}", Taken({GPU: rng.randrange(1, 4)}))
            )
        case 6:
            theirs = [uid for uid, pod in world.pods.items() if pod.attempt is None]
            if theirs:
                world.end_pod(rng.choice(theirs))


def check_books(world: World) -> None:
    """The running totals are what counting everything gives."""
    used = world.used()
    assert {n: c for n in [*world.nodes, "cpu"] if (c := world.state.inventory.used(n, GPU))} == {
        n: c for n in [*world.nodes, "cpu"] if (c := used[n])
    }
    for key in world.studies:
        study = world.state.study(key)
        assert study is not None
        assert study.attempts == world.attempts(key)
        waiting = {v.index for v in world.trials.values() if v.study == key and v.phase is Phase.PENDING}
        assert set(study.pending) == waiting
    for queue in world.state.queues:
        members = [s for s in world.state.studies() if s.view and (s.view.queue or "default") == queue.name]
        assert (queue.used, queue.pending) == (sum(s.gpus for s in members), sum(len(s.pending) for s in members))


def check_nothing_given_in_excess(world: World, given: list[Place]) -> None:
    used = world.used()
    for place in given:
        study = world.studies[place.study]
        assert world.attempts(place.study) <= study.parallel
        if place.node is not None:
            node = world.nodes[place.node]
            assert node.ready
            assert node.schedulable
            assert used[place.node] <= node.capacity[GPU]
        queue = world.state.queues.get(study.queue or "default")
        assert queue is not None
        assert queue.view is not None
        assert queue.limit is None or not place.gpus or queue.used <= queue.limit


def check_nothing_idle(world: World) -> None:
    """No GPU (and no room under `parallel`) is free beside a waiting trial that may have it."""
    used = world.used()
    for key, study in world.studies.items():
        ready = any(
            v.phase is Phase.PENDING and (v.not_before or 0.0) <= world.now
            for v in world.trials.values()
            if v.study == key
        )
        if not ready or study.suspended or world.attempts(key) >= study.parallel:
            continue
        queue = world.queues.get(study.queue) if study.queue else None
        taken = world.state.queues.get(study.queue) if study.queue else None
        if study.queue and queue is None:
            continue
        if study.gpu is None:
            pytest.fail(f"{key} could start a trial without GPUs")
        if queue and queue.limit is not None and taken and taken.used + study.gpu.count > queue.limit:
            continue
        for node in world.nodes.values():
            fits = node.capacity[GPU] - used[node.name] >= study.gpu.count
            right = study.gpu.model in (None, node.kinds[GPU].model)
            assert not (node.ready and node.schedulable and fits and right), f"{node.name} is idle beside {key}"


@pytest.mark.parametrize("seed", range(150))
def test_told_at_once(seed: int) -> None:
    """With all events told, the books are exact, nothing is given in excess, and nothing that fits is left idle."""
    world = World(random.Random(seed))
    for number in range(3):
        set_node(world, f"n{number}")
        add_study(world, f"ns/{number}")
    for _ in range(40):
        add_trials(world)
        step_trials(world)
        disturb(world)
        remove_some_trial(world)
        if world.rng.random() < 0.05:
            world.restart()
        check_books(world)
        check_nothing_given_in_excess(world, cycle(world))
        for _ in range(20):  # refused writes are decided on again
            given = cycle(world)
            check_nothing_given_in_excess(world, given)
            if not given:
                break
        check_nothing_idle(world)
        world.now += world.rng.randrange(5)


@pytest.mark.parametrize("seed", range(150))
def test_told_late(seed: int) -> None:
    """However late events are told, no study has more attempts than `parallel`, no node more than its GPUs."""
    world = World(random.Random(seed), lag=True)
    for number in range(3):
        node = world.nodes[f"n{number}"] = Node(f"n{number}", {GPU: 2 + 2 * number}, kinds={GPU: Kind(GPU, "A100")})
        world.tell("nodes", lambda s, node=node: s.set_node(node))
        add_study(world, f"ns/{number}", parallel=1 + 2 * number)
    for _ in range(60):
        add_trials(world)
        step_trials(world)
        world.deliver(world.rng.random())
        for place in schedule(world.state, world.now).placements:
            view = world.trials[place.study, place.index]
            if view.phase is not Phase.PENDING or view.attempt != place.attempt:
                # The record has moved on: the write is refused, and the scheduler reads what it is now.
                world.state.set_trial(view)
                world.state.forget(place)
                continue
            placement = Placement(attempt=place.attempt, node=place.node, gpus=place.gpus, resource=place.resource)
            world.set_trial(replace(view, phase=Phase.PLACED, placement=placement))
        used = world.used()
        assert all(used[name] <= node.capacity[GPU] for name, node in world.nodes.items())
        assert all(world.attempts(key) <= study.parallel for key, study in world.studies.items())
        world.now += world.rng.randrange(5)
    world.deliver()
    check_books(world)


def grown(seed: int) -> World:
    """A world after some history, in which all ends are recorded."""
    world = World(random.Random(seed))
    for number in range(3):
        set_node(world, f"n{number}")
        add_study(world, f"ns/{number}")
    for _ in range(10):
        add_trials(world)
        step_trials(world)
        cycle(world)
    add_trials(world)
    for view in list(world.trials.values()):
        if AttemptKey(view.study, view.index, view.attempt) in world.over:
            world.set_trial(replace(view, phase=Phase.FAILED))
    return world


def test_the_same_state_gives_the_same_decisions_however_it_came_about() -> None:
    given = 0
    for seed in range(40):
        world = grown(seed)
        same = schedule(grown(seed).state, world.now)
        decisions = schedule(world.state, world.now)
        world.restart()
        assert decisions == same == schedule(world.state, world.now)
        given += len(decisions.placements)
    assert given > 10
