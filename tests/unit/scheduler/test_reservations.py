"""The pods that hold shared GPUs: made once, given back, and never a GPU given twice, whatever dies when."""

import random
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from cluster_of_sharers import GPU, Cluster, Trial
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneyard_api.trial import Phase
from tuneyard_scheduler.backends import reservation
from tuneyard_scheduler.devices import Slot
from tuneyard_scheduler.reservations import (
    AGAIN,
    CLOSED_FIRST,
    LINGER,
    REFUSED,
    STARTING,
    Action,
    Create,
    Delete,
    Lose,
    Tell,
)
from tuneyard_scheduler.views import Place

SLOT = Slot("n1", GPU, "0")
NAME = reservation.name(SLOT)


def shared(trials: int = 2, gpus: int = 1) -> Cluster:
    cluster = Cluster({"n1": gpus})
    cluster.study("ns/a", trials, 0.5)
    return cluster


def planned(cluster: Cluster, *, act: bool = True) -> list[Action]:
    """What a cycle plans; it is done at once."""
    cluster.hear(everything=True)
    cluster.cycle()
    actions = list(cluster.queue)
    while cluster.queue and act:
        cluster.act()
    cluster.queue.clear()
    cluster.hear(everything=True)
    return actions


def running(cluster: Cluster) -> Cluster:
    """With its trials running."""
    planned(cluster)
    cluster.kubelets()
    planned(cluster)
    cluster.operator()
    cluster.hear(everything=True)
    return cluster


def losses(actions: list[Action]) -> list[int]:
    return [action.index for action in actions if isinstance(action, Lose)]


class TestOneGpu:
    def test_is_held_by_one_pod_for_all_its_sharers(self) -> None:
        cluster = shared()
        assert planned(cluster) == [Create(SLOT)]
        assert planned(cluster) == []
        cluster.kubelets()
        assert planned(cluster) == [Tell(SLOT, "ns/a", index, 0, "n1/0") for index in (0, 1)]
        assert planned(cluster) == []

    def test_who_comes_later_is_told_with_the_place(self) -> None:
        cluster = running(shared(1))
        cluster.study("ns/b", 1, 0.5)
        assert planned(cluster) == []
        place = cluster.trials["ns/b", 0].placement
        assert place is not None
        assert place.uuid == "n1/0"

    def test_is_given_back_a_while_after_the_last_sharer_left(self) -> None:
        cluster = running(shared())
        cluster.finish()
        assert planned(cluster) == []
        cluster.finish()
        assert planned(cluster) == []
        cluster.now += LINGER
        [pod] = cluster.pods.values()
        assert planned(cluster) == [Delete(SLOT, NAME, pod.uid)]
        assert cluster.state.inventory.left("n1", GPU) == 0, "not before it is gone"
        cluster.kubelets()
        assert planned(cluster) == []
        assert cluster.state.inventory.left("n1", GPU) == 1

    def test_stays_for_who_comes_meanwhile(self) -> None:
        cluster = running(shared(1))
        cluster.finish()
        planned(cluster)
        cluster.study("ns/b", 1, 0.5)
        planned(cluster)
        cluster.now += LINGER
        assert planned(cluster) == []

    def test_goes_at_once_where_somebody_waits_for_a_whole_one(self) -> None:
        cluster = running(shared(1))
        cluster.study("ns/whole", 1, None)
        assert planned(cluster) == []
        cluster.finish()
        assert [type(action) for action in planned(cluster)] == [Delete]
        cluster.study("ns/b", 2, 0.5)
        assert planned(cluster) == [], "and is not divided again before"
        assert {trial.phase for trial in cluster.trials.values() if trial.study == "ns/b"} == {Phase.PENDING}
        cluster.settle()

    def test_nobody_gets_a_part_while_its_pod_ends(self) -> None:
        cluster = running(shared(1))
        [pod] = cluster.pods.values()
        cluster._pod(pod._replace(deleting=True))
        cluster.study("ns/b", 1, 0.5)
        planned(cluster)
        assert cluster.trials["ns/b", 0].phase is Phase.PENDING

    def test_a_gpu_that_is_being_given_back_is_not_shown_to_who_comes_late(self) -> None:
        cluster = running(shared(1))
        place = Place("ns/a", 0, 0, "n1", 0.5, GPU, reservation.NAME, ("0",))
        assert cluster.planner.uuid(place) == "n1/0"
        cluster.finish()
        planned(cluster)
        cluster.now += LINGER
        assert [type(action) for action in planned(cluster, act=False)] == [Delete]
        assert cluster.planner.uuid(place) is None

    def test_an_action_that_does_not_show_comes_again(self) -> None:
        cluster = shared()
        assert planned(cluster, act=False) == [Create(SLOT)]
        cluster.now += AGAIN / 2
        assert planned(cluster, act=False) == []
        cluster.now += AGAIN / 2
        assert planned(cluster) == [Create(SLOT)]
        assert planned(cluster) == []

    def test_what_is_asked_for_is_forgotten(self) -> None:
        cluster = running(shared(40))
        cluster.settle()
        assert planned(cluster) == []
        assert not cluster.planner._seats
        assert not cluster.planner._idle


class TestTrouble:
    @pytest.mark.parametrize(
        ("pod", "after", "why"),
        [
            ({"refused": True, "trouble": "Unschedulable: Insufficient nvidia.com/gpu"}, REFUSED, "Insufficient"),
            ({"trouble": "ImagePullBackOff: no such image"}, STARTING, "no such image"),
            ({"stage": "over", "trouble": "UnexpectedAdmissionError: no healthy devices"}, 0.0, "no healthy devices"),
            ({"stage": "running"}, 0.0, "did not say which GPU"),
        ],
    )
    def test_a_pod_that_gets_no_gpu_gives_the_place_up(self, pod: dict[str, object], after: float, why: str) -> None:
        cluster = shared()
        planned(cluster)
        [made] = cluster.pods.values()
        cluster._pod(made._replace(**pod))  # type: ignore[arg-type]
        if after:
            assert planned(cluster) == []
            cluster.now += after - 1
            assert planned(cluster) == []
            cluster.now += 1
        actions = planned(cluster)
        assert losses(actions) == [0, 1]
        assert actions[-1] == Delete(SLOT, NAME, made.uid)
        assert why in actions[0].message  # type: ignore[union-attr]

    def test_its_trials_are_placed_elsewhere_and_the_node_is_left_alone(self) -> None:
        """KAI-Scheduler#848: pods that hold GPUs were made on a full node again and again, for hours."""
        cluster = Cluster({"n1": 4, "n2": 1})
        cluster.owners = {f"n1/{number}": "a stranger's pod that nobody told of" for number in range(4)}
        cluster.study("ns/a", 2, 0.5)
        made = Counter[int]()
        for _ in range(2 * 3600 // 5):
            planned(cluster)
            cluster.kubelets()
            cluster.operator()
            cluster.now += 5.0
            made[int((cluster.now - 1000) // 3600)] = sum(cluster.made.values())
        assert all(trial.runs_on == "n2/0" or trial.runs_on is None for trial in cluster.trials.values())
        assert made[1] <= 16, "two hours, and hardly a pod more"
        cluster.check()

    def test_a_closed_node_is_tried_again_later_and_later(self) -> None:
        cluster = shared(1)
        cluster.owners = {"n1/0": "a stranger's"}
        tried = []
        for _ in range(3000):
            if any(isinstance(action, Create) for action in planned(cluster)):
                tried.append(cluster.now)
            cluster.kubelets()
            cluster.operator()
            cluster.now += 1.0
        pauses = [round(b - a - REFUSED) for a, b in pairwise(tried)]
        assert pauses[:5] == pytest.approx([CLOSED_FIRST * 2**n for n in range(5)], abs=6)
        cluster.owners.clear()
        cluster.settle()

    def test_who_was_on_the_way_to_a_gpu_that_is_closed_by_now_goes_elsewhere_too(self) -> None:
        """Its place was decided on before, and is written after."""
        cluster = shared(1)
        planned(cluster)
        [made] = cluster.pods.values()
        cluster._pod(made._replace(stage="over", trouble="Evicted: the node is full"))
        assert losses(planned(cluster)) == [0]
        cluster.kubelets()
        planned(cluster)
        late = Trial("ns/b", 0, 0.5, Phase.PLACED, placement=cluster.trials["ns/a", 0].placement)
        assert late.placement is not None
        late.placement = late.placement.model_copy(update={"lost": None})
        cluster.trials["ns/b", 0] = late
        cluster._tell_study("ns/b", 0.5)
        cluster._tell(late)
        [lost] = planned(cluster)
        assert (type(lost), lost.study) == (Lose, "ns/b")  # type: ignore[union-attr]

    def test_whole_gpus_of_a_closed_node_are_given(self) -> None:
        cluster = Cluster({"n1": 2})
        cluster.study("ns/a", 1, 0.5)
        planned(cluster)
        [made] = cluster.pods.values()
        cluster._pod(made._replace(stage="over", trouble="Evicted: the node is full"))
        planned(cluster)
        cluster.kubelets()
        cluster.operator()
        cluster.study("ns/whole", 2, None)
        planned(cluster)
        assert [cluster.trials["ns/whole", index].phase for index in (0, 1)] == [Phase.PLACED] * 2
        assert cluster.trials["ns/a", 0].phase is Phase.PENDING

    def test_a_pod_that_the_api_server_refuses_is_told_as_the_reason(self) -> None:
        cluster = shared(1)
        assert planned(cluster, act=False) == [Create(SLOT)]
        cluster.planner.refused(SLOT, "Forbidden: violates PodSecurity")
        cluster.now += REFUSED
        [lost] = planned(cluster)
        assert isinstance(lost, Lose)
        assert "violates PodSecurity" in lost.message

    def test_a_pod_that_was_evicted_is_replaced_and_nobody_is_the_worse_for_it(self) -> None:
        cluster = running(shared())
        [pod] = cluster.pods.values()
        cluster._pod(pod._replace(stage="over", trouble="Evicted: ..."))
        assert planned(cluster) == [Delete(SLOT, NAME, pod.uid)]
        cluster.kubelets()
        assert planned(cluster) == [Create(SLOT)]
        cluster.kubelets()
        assert planned(cluster) == []
        cluster.check()

    def test_if_the_new_pod_has_another_gpu_the_sharers_are_told_to_leave(self) -> None:
        cluster = running(shared(2, gpus=2))
        [pod] = cluster.pods.values()
        cluster.gone(pod)
        cluster.owners = {str(pod.uuid): "whoever was faster"}
        assert planned(cluster) == [Create(SLOT)]
        cluster.kubelets()
        assert losses(planned(cluster)) == [0, 1]

    def test_two_pods_never_hold_one_gpu(self) -> None:
        """KAI-Scheduler#1673: several pods of one group, each on another GPU, and the sums were wrong for good."""
        cluster = shared(4, gpus=2)
        planned(cluster)
        assert sorted(cluster.pods) == sorted(reservation.name(SLOT._replace(device=each)) for each in "01")
        first, second = sorted(cluster.pods.values(), key=lambda pod: pod.slot)
        cluster._pod(first._replace(stage="running", uuid="n1/0"))
        cluster._pod(second._replace(stage="running", uuid="n1/0"))
        actions = planned(cluster)
        assert {action.slot.device for action in actions if isinstance(action, Tell)} == {"0"}
        assert {action.slot.device for action in actions if isinstance(action, Lose | Delete)} == {"1"}

    def test_nobody_is_told_of_a_gpu_on_which_others_still_run(self) -> None:
        cluster = running(shared(2, gpus=2))
        [pod] = cluster.pods.values()
        cluster.gone(pod)
        cluster.study("ns/b", 1, 0.9)
        planned(cluster)
        other = next(p for p in cluster.pods.values() if p.slot.device == "1")
        cluster._pod(other._replace(stage="running", uuid=pod.uuid))
        assert not [action for action in planned(cluster) if isinstance(action, Tell)]

    @pytest.mark.parametrize("node", [None, {"schedulable": False}, {"ready": False}], ids=str)
    def test_on_a_node_that_takes_nobody_who_runs_goes_on_and_who_does_not_leaves(self, node: object) -> None:
        cluster = running(shared(1))
        cluster.study("ns/b", 1, 0.5)
        [pod] = cluster.pods.values()
        cluster._pod(pod._replace(stage="waiting", uuid=None))
        planned(cluster)
        cluster.gone(cluster.pods[NAME])
        known = cluster.state.inventory.node("n1")
        assert known is not None
        if node is None:
            cluster.state.remove_node("n1")
        else:
            cluster.state.set_node(replace(known, **node))  # type: ignore[arg-type]
        actions = planned(cluster)
        assert [(action.study, type(action)) for action in actions] == [("ns/b", Lose)]  # type: ignore[union-attr]


def test_a_hundred_at_once() -> None:
    """KAI-Scheduler#2153: a burst of fractional pods over-packed GPUs and made reservations without end."""
    cluster = Cluster({f"n{number}": 8 for number in range(3)}, random.Random(3))
    cluster.study("ns/a", 100, 0.25)
    for _ in range(6):
        planned(cluster)
        cluster.kubelets()
        cluster.operator()
        cluster.check()
        cluster.now += 0.5
    running = Counter(trial.runs_on for trial in cluster.trials.values())
    assert running.pop(None) == 4, "24 GPUs of 4 parts each"
    assert set(running.values()) == {4}
    assert set(cluster.made.values()) == {1}
    assert len(cluster.made) == 24
    cluster.settle()
    assert set(cluster.made.values()) == {1}, "each GPU was held once"
    assert not any(trial.losses for trial in cluster.trials.values())


STEPS = ["cycle", "act", "hear", "kubelets", "operator", "finish", "wait", "die", "drop"]


def step(cluster: Cluster, name: str) -> None:
    if name == "die":
        cluster.start()
    elif name == "drop":  # an action whose request never arrived
        cluster.queue[:1] = []
    else:
        getattr(cluster, name)()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(STEPS), max_size=60), st.integers(0, 2**32), st.integers(1, 3))
def test_wherever_the_scheduler_dies_no_gpu_is_given_twice_and_all_is_done(
    steps: list[str], seed: int, gpus: int
) -> None:
    cluster = Cluster({"n1": gpus, "n2": 1}, random.Random(seed))
    cluster.study("ns/half", 3, 0.5)
    cluster.study("ns/most", 2, 0.7)
    cluster.study("ns/whole", 2, None)
    for name in steps:
        step(cluster, name)
        cluster.check()
    cluster.settle()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([*STEPS, "evict", "delete"]), max_size=60), st.integers(0, 2**32))
def test_whatever_becomes_of_the_pods_all_is_done(steps: list[str], seed: int) -> None:
    """Administrators delete pods that hold GPUs, kubelets evict them: GPUs may be given away under their sharers."""
    cluster = Cluster({"n1": 2, "n2": 1}, random.Random(seed))
    cluster.study("ns/half", 4, 0.5)
    cluster.study("ns/whole", 1, None)
    for name in steps:
        if name in {"evict", "delete"} and cluster.pods:
            pod = cluster.rng.choice(list(cluster.pods.values()))
            if name == "delete":
                cluster.gone(pod)
            elif not pod.deleting:
                cluster._pod(pod._replace(stage="over", trouble="Evicted: disk pressure"))
        elif name in STEPS:
            step(cluster, name)
    cluster.settle()


@pytest.mark.parametrize("slot", [SLOT, Slot("ip-10-0-3-143.eu-central-1.compute.internal", GPU, "11"),
                                  Slot("n" * 253, GPU, "0"), Slot("n", "nvidia.com/gpu", "GPU-8a.B/2")])  # fmt: skip
def test_names_are_names_of_pods_and_tell_slots_apart(slot: Slot) -> None:
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", reservation.name(slot))
    others = {reservation.name(other) for other in (slot._replace(node=slot.node + "x"), slot._replace(device="12"))}
    assert len({reservation.name(slot), *others}) == 3
