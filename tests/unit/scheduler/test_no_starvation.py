"""However small ones press, a big trial gets its place: played with trials that end and are followed by others."""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuneyard_api.trial import Phase, Placement
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.devices import GpuRequest
from tuneyard_scheduler.durations import Run
from tuneyard_scheduler.policies import DEFAULT, Policies
from tuneyard_scheduler.policies.reservation import PATIENCE
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Node, Place, QueueView, StudyView, TrialView

GPU = "nvidia.com/gpu"


@dataclass
class Crowd:
    """A study that never runs out of trials."""

    gpus: int
    lengths: list[float]
    """One of these each; the shortest is what is learnt at first."""
    parallel: int
    queue: str | None = None


@dataclass
class Play:
    """Virtual time: trials end after as long as they take, and each end is followed by a cycle."""

    nodes: list[int]
    crowds: list[Crowd]
    rng: random.Random
    policies: Policies = DEFAULT
    now: float = 1000.0
    state: ClusterState = field(default_factory=ClusterState)
    ends: list[tuple[float, str, int]] = field(default_factory=list)
    made: int = 0
    placed: dict[tuple[str, int], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number, gpus in enumerate(self.nodes):
            self.state.set_node(Node(f"n{number}", {GPU: gpus}))
        for name in ("a", "b"):
            self.state.set_queue(QueueView(name))
        for number, crowd in enumerate(self.crowds):
            self.study(f"ns/{number}", crowd.gpus, parallel=crowd.parallel, queue=crowd.queue)
            for _ in range(crowd.parallel + 2):
                self.trial(f"ns/{number}")

    def study(self, key: str, gpus: int, **more: Any) -> None:
        self.state.set_study(StudyView(key, key, "ns", created=self.now, gpu=GpuRequest(GPU, gpus), **more))

    def trial(self, key: str) -> None:
        self.made += 1
        self.state.set_trial(TrialView(key, self.made, since=self.now))

    def cycle(self) -> None:
        for place in schedule(self.state, self.now, policies=self.policies).placements:
            self.start(place)
        for number, gpus in enumerate(self.nodes):
            assert self.state.inventory.used(f"n{number}", GPU) <= gpus

    def start(self, place: Place) -> None:
        placement = Placement(attempt=0, node=place.node, gpus=place.gpus, resource=place.resource)
        running = TrialView(place.study, place.index, Phase.RUNNING, 0, placement, since=self.now, started=self.now)
        self.state.set_trial(running)
        self.placed[place.study, place.index] = self.now
        if place.study != "ns/big":
            crowd = self.crowds[int(place.study.removeprefix("ns/"))]
            heapq.heappush(self.ends, (self.now + self.rng.choice(crowd.lengths), place.study, place.index))

    def step(self) -> None:
        """The next end, and the cycle that follows."""
        at, key, index = heapq.heappop(self.ends)
        since = self.placed[key, index]
        self.now = at
        self.state.set_trial(TrialView(key, index, Phase.SUCCEEDED, run=Run(at, at - since)))
        self.trial(key)
        self.cycle()

    def waits_for(self, key: str, until: float) -> float:
        """When a trial of a study gets a place; `until`, where it has none by then."""
        while not any(study == key for study, _ in self.placed):
            if self.now > until or not self.ends:
                return max(until, self.now)
            self.step()
        return next(at for (study, _), at in self.placed.items() if study == key)


LENGTHS = st.lists(st.sampled_from([60.0, 100.0, 300.0, 900.0]), min_size=1, max_size=3)
CROWD = st.builds(
    Crowd,
    gpus=st.sampled_from([1, 1, 1, 2]),
    lengths=LENGTHS,
    parallel=st.integers(1, 8),
    queue=st.sampled_from([None, "a", "b"]),
)
SETTINGS = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@SETTINGS
@given(
    nodes=st.lists(st.sampled_from([2, 4, 8]), min_size=1, max_size=4),
    crowds=st.lists(CROWD, min_size=1, max_size=4),
    queue=st.sampled_from([None, "a", "b"]),
    warm=st.integers(0, 30),
    seed=st.integers(0, 3),
)
def test_a_big_trial_starts_within_a_bound(
    nodes: list[int], crowds: list[Crowd], queue: str | None, warm: int, seed: int
) -> None:
    """From when a node is kept nobody fills in for longer than estimated, and then nobody at all."""
    play = Play(nodes, crowds, random.Random(seed))
    play.cycle()
    for _ in range(warm):
        if play.ends:
            play.step()
    asked = play.now
    play.study("ns/big", max(nodes), queue=queue)
    play.trial("ns/big")
    play.cycle()
    longest = max(max(crowd.lengths) for crowd in crowds)
    bound = asked + PATIENCE + 3 * longest
    assert play.waits_for("ns/big", bound) < bound


def test_without_a_reservation_it_waits_for_ever() -> None:
    """That the test above can fail."""

    def kept(policies: Policies) -> bool:
        play = Play([4], [Crowd(1, [50.0, 60.0, 100.0], 8)], random.Random(1), policies)
        play.cycle()
        play.study("ns/big", 4)
        play.trial("ns/big")
        return play.waits_for("ns/big", 50_000.0) < 50_000.0

    assert kept(DEFAULT)
    assert not kept(Policies(reserve=lambda *_: None))


def test_big_ones_of_all_queues_take_turns() -> None:
    """Two crowds of small ones, and in each queue a study of big trials without an end: all of them get on."""
    crowds = [Crowd(1, [60.0, 200.0], 12, "a"), Crowd(1, [100.0], 12, "b"), Crowd(8, [80.0], 1, "a"),
              Crowd(4, [150.0], 2, "b")]  # fmt: skip
    play = Play([8, 8, 8], crowds, random.Random(5))
    play.cycle()
    while play.now < 40_000:
        play.step()
    for number in range(4):
        starts = sorted(at for (study, _), at in play.placed.items() if study == f"ns/{number}")
        assert len(starts) > 20
        longest = max(later - earlier for earlier, later in itertools.pairwise(starts))
        assert longest < 3600 + 2000, f"study {number} got nothing for {longest:.0f} s"


def test_what_is_kept_is_little() -> None:
    """With known durations, small ones fill in: the cluster is as good as full beside big trials."""
    crowds = [Crowd(1, [20.0, 30.0], 24), Crowd(1, [300.0], 24), Crowd(4, [200.0], 2)]
    play = Play([8, 8, 8], crowds, random.Random(5))
    play.cycle()
    idle = 0.0
    while play.now < 10_000:
        before, free = play.now, sum(play.state.inventory.left(f"n{n}", GPU) for n in range(3))
        play.step()
        idle += free * (play.now - before)
    assert idle / (24 * 9_000) < 0.02
