"""Any tree of queues over any load: what must hold once everybody has gone who was told to."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuneyard_api.trial import Phase, Placement
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.devices import GpuRequest
from tuneyard_scheduler.queues import QueueBook
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Decisions, Node, QueueView, StudyView, TrialView

GPU = "nvidia.com/gpu"
NAMES = ["a", "b", "c", "d", "e"]


@st.composite
def queues(draw: Any) -> list[QueueView]:
    """A tree: each queue may be a part of one before it."""
    made: list[QueueView] = []
    for number, name in enumerate(NAMES[: draw(st.integers(1, 5))]):
        parent = draw(st.sampled_from([None, *NAMES[:number]]))
        guaranteed = draw(st.sampled_from([None, 0, 1, 2, 4]))
        limit = draw(st.sampled_from([None, None, 2, 4, 8]))
        if limit is not None and guaranteed is not None:
            limit = max(limit, guaranteed)
        weight = draw(st.sampled_from([0.5, 1.0, 3.0]))
        made.append(QueueView(name, limit, guaranteed=guaranteed, weight=weight, parent=parent))
    return made


@st.composite
def steps(draw: Any) -> list[tuple[str, int, int]]:
    """Studies that arrive one after the other: queue, trials, GPUs of each."""
    one = st.tuples(st.sampled_from(["default", *NAMES]), st.integers(1, 9), st.sampled_from([1, 1, 1, 2, 4]))
    found: list[tuple[str, int, int]] = draw(st.lists(one, min_size=1, max_size=7))
    return found


class Play:
    """A cluster in which placements and reclaims come about at once, and no trial ends by itself."""

    def __init__(self, nodes: list[int], tree: list[QueueView]) -> None:
        self.state = ClusterState()
        self.nodes = nodes
        self.now = 1.0
        for number, gpus in enumerate(nodes):
            self.state.set_node(Node(f"n{number}", {GPU: gpus}))
        for queue in tree:
            self.state.set_queue(queue)

    def arrive(self, number: int, queue: str, trials: int, gpus: int) -> None:
        key = f"ns/{number}"
        request = GpuRequest(GPU, gpus)
        self.state.set_study(StudyView(key, key, "ns", created=self.now, parallel=99, gpu=request, queue=queue))
        for index in range(trials):
            self.state.set_trial(TrialView(key, index))

    def settle(self) -> int:
        """Cycles until nothing changes any more; how many were stopped."""
        stopped = 0
        for _ in range(60):
            decisions = schedule(self.state, self.now)
            self.check(decisions)
            self.now += 1.0
            if not decisions.to_write:
                return stopped
            for place in decisions.placements:
                placement = Placement(attempt=place.attempt, node=place.node, gpus=place.gpus, resource=place.resource)
                view = TrialView(place.study, place.index, Phase.RUNNING, place.attempt, placement, since=self.now)
                self.state.set_trial(view)
            for told in decisions.preempt:
                stopped += 1
                self.state.set_trial(TrialView(told.study, told.index, attempt=told.attempt + 1))
        pytest.fail("trials are stopped and placed without an end")

    def check(self, decisions: Decisions) -> None:
        for number, gpus in enumerate(self.nodes):
            assert self.state.inventory.used(f"n{number}", GPU) <= gpus
        for queue in self.state.queues:
            assert queue.limit is None or queue.used <= queue.limit
        needs = {told.trial: told.gpus for told in decisions.preempt}
        for trial, gpus in needs.items():
            freed = [
                self.state.giving.leaving[t.study, t.index].held.gpus for t in decisions.preempt if t.trial == trial
            ]
            assert sum(freed) - min(freed) < gpus, "each of them is needed"

    def waiting(self) -> list[tuple[QueueBook, int]]:
        """Queue and GPUs of the studies that wait, where queues and limits allow them more."""
        found = []
        for study in self.state.waiting_studies():
            queue = self.state.queue_of(study)
            assert queue is not None
            assert study.view is not None
            assert study.view.gpu is not None
            if queue.view is not None and not queue.children and queue.problem is None:
                found.append((queue, study.view.gpu.count))
        return found


SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@SETTINGS
@given(nodes=st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=3), tree=queues(), arrivals=steps())
def test_limits_and_idle_gpus(nodes: list[int], tree: list[QueueView], arrivals: list[tuple[str, int, int]]) -> None:
    """Never over a node or a limit, never a victim too many, and no idle GPU beside a trial that may have it."""
    play = Play(nodes, tree)
    for number, arrival in enumerate(arrivals):
        play.arrive(number, *arrival)
        play.settle()
        most = max(play.state.inventory.left(f"n{n}", GPU) for n in range(len(nodes)))
        for queue, gpus in play.waiting():
            within = all(each.limit is None or each.used + gpus <= each.limit for each in queue.path)
            assert not within or gpus > most, f"{gpus} GPUs are idle beside a trial of {queue.name}"


@SETTINGS
@given(gpus=st.integers(1, 12), tree=queues(), arrivals=steps())
def test_guarantees_are_honoured(gpus: int, tree: list[QueueView], arrivals: list[tuple[str, int, int]]) -> None:
    """Whoever still waits below the guarantee could only be helped by whoever would then be below it."""
    play = Play([gpus], tree)
    for number, (name, trials, _) in enumerate(arrivals):
        play.arrive(number, name, trials, 1)
        play.settle()
        for queue, _ in play.waiting():
            for other in play.state.queues:
                if other.own_used and other is not queue:
                    assert not could_give(other, queue), f"{other.name} borrows what {queue.name} is guaranteed"


def could_give(other: QueueBook, queue: QueueBook) -> bool:
    """Whether a GPU could go from one queue to the other, with every guarantee honoured and every limit kept.

    Where they meet, the queue (or the whole that it is a part of) is to be guaranteed one more.
    """
    mine, theirs = queue.path, other.path
    gains = [each for each in mine if each not in theirs]
    gives = [each for each in theirs if each not in mine]
    due = bool(gains) and gains[-1].used + 1 <= gains[-1].guaranteed
    allowed = all(each.limit is None or each.used + 1 <= each.limit for each in gains)
    return due and allowed and all(each.used - 1 >= each.guaranteed for each in gives)


@SETTINGS
@given(gpus=st.integers(1, 12), tree=queues(), arrivals=steps())
def test_no_borrower_stands_in_the_way(gpus: int, tree: list[QueueView], arrivals: list[tuple[str, int, int]]) -> None:
    """Trials of all sizes: whoever waits within the guarantee waits for no single trial that another queue borrows."""
    play = Play([gpus], tree)
    for number, arrival in enumerate(arrivals):
        play.arrive(number, *arrival)
        play.settle()
        for queue, needs in play.waiting():
            for study in play.state.studies():
                other = play.state.queue_of(study)
                if study.gpus and study.view and study.view.gpu and other is not None and other is not queue:
                    freed = study.view.gpu.count
                    enough = play.state.inventory.left("n0", GPU) + freed >= needs
                    assert not enough or not is_in_the_way(other, queue, freed, needs), f"{study.key} of {other.name}"


def is_in_the_way(other: QueueBook, queue: QueueBook, freed: int, needs: int) -> bool:
    """Whether a trial of a queue that borrows holds what another queue is guaranteed and may have."""
    mine, theirs = queue.path, other.path
    gains = [each for each in mine if each not in theirs]
    gives = [each for each in theirs if each not in mine]
    due = bool(gains) and gains[-1].used + needs <= gains[-1].guaranteed
    back = {each.name: freed for each in mine if each in theirs}
    allowed = all(each.limit is None or each.used + needs - back.get(each.name, 0) <= each.limit for each in mine)
    return due and allowed and all(each.used > each.guaranteed for each in gives)


@SETTINGS
@given(nodes=st.lists(st.sampled_from([2, 4, 8]), min_size=1, max_size=3), tree=queues(), arrivals=steps())
def test_the_same_snapshot_gives_the_same_decisions(
    nodes: list[int], tree: list[QueueView], arrivals: list[tuple[str, int, int]]
) -> None:
    def played(order: int) -> ClusterState:
        play = Play(nodes, tree[::order])
        for number, arrival in list(enumerate(arrivals))[::order]:
            play.arrive(number, *arrival)
        return play.state

    assert schedule(played(1), 9.0) == schedule(played(-1), 9.0)
