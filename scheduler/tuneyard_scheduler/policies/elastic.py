"""Where nodes are added on demand: a few trials for which no node has room go out without one.

Autoscalers (Cluster Autoscaler, Karpenter) add nodes for pods that wait for one, and trials have no pod before they
have a place. A queue may let a bounded number out: their pods ask for the GPUs and may run on any node. Whichever node
takes one, new or with GPUs that have fallen free, it counts there as soon as it is bound. Only whole GPUs are asked for
so: a part is of a certain GPU, and there is none yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final

from tuneyard_scheduler.books import StudyBook
from tuneyard_scheduler.policies import caps, nodes, quota
from tuneyard_scheduler.policies.reclaim import OFTEN
from tuneyard_scheduler.reasons import Reason
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Place, StudyView, TakeBack, Taken, Waiting

_HELPED: Final = frozenset({Reason.NO_NODE_FITS, Reason.NO_GPU_NODES})
_BACKEND: Final = "whole"


def let_out(state: ClusterState, waiting: Iterable[Waiting], now: float, most: int | None = None) -> list[Place]:
    """Whom to let out of those who got no place, as far as queues allow; each is applied to the state.

    Not of a queue for which others are being stopped: their GPUs come sooner than a node, and need its limit.
    """
    out = Counter(study.queue for key, _ in state.unplaced if (study := state.study(key)) is not None)
    helped = {leaving.queue for leaving in state.giving.leaving.values()}
    given: list[Place] = []
    for each in waiting:
        study = state.study(each.study)
        if each.reason not in _HELPED or study is None or study.view is None:
            continue
        queue = state.queue_of(study)
        if study.queue in helped:
            continue
        bound = queue.view.unplaced if queue is not None and queue.view is not None else 0
        room = bound - out[study.queue] if most is None else min(bound - out[study.queue], most - len(given))
        for place in _places(study, study.view, room):
            if quota.gate(state, study, study.view) or caps.gate(state, study, study.view):
                break
            state.apply([place], now)
            given.append(place)
            out[study.queue] += 1
    return given


def _places(study: StudyBook, view: StudyView, most: int) -> list[Place]:
    """A place without a node for each of so many trials of the study that are ready and may have one."""
    gpu = view.gpu
    if gpu is None or not gpu.count or gpu.backend not in {None, _BACKEND} or most <= 0:
        return []
    ready = (trial for index in study.turns() if (trial := study.trials[index].view) is not None)
    return [
        Place(view.key, trial.index, trial.attempt, None, gpu.count, gpu.resource, _BACKEND)
        for trial in islice((trial for trial in ready if trial.preempted < OFTEN), most)
    ]


def take_back(state: ClusterState, now: float) -> tuple[list[TakeBack], float | None]:
    """Those for whom no node has come in time, and when the next one is due.

    Each further time a trial waits twice as long, and the last time for good: so demand is seen as long as there is
    any, and a trial has few attempts.
    """
    told: list[TakeBack] = []
    next_due: float | None = None
    for (key, index), told_before in state.unplaced.items():
        study = state.study(key)
        trial = study.trials[index].view if study is not None else None
        queue = state.queue_of(study) if study is not None else None
        placement = trial.placement if trial is not None else None
        if told_before or trial is None or placement is None or placement.reclaim is not None:
            continue
        if queue is None or queue.view is None:
            continue
        due = trial.since + queue.view.patience * 2**trial.preempted
        if now >= due and trial.preempted < OFTEN - 1:
            told.append(TakeBack(key, index, trial.attempt, queue.name))
            state.unplaced[key, index] = True
        elif now < due:
            next_due = due if next_due is None else min(due, next_due)
    return told, next_due


@contextmanager
def room_kept(state: ClusterState) -> Iterator[None]:
    """Give nobody else the room that has come for trials that wait for a node: kube-scheduler gives it to them."""
    booked: list[tuple[str, Taken]] = []
    for key, index in state.unplaced:
        study = state.study(key)
        view = study.fitted(index) if study is not None else None
        if study is None or view is None:
            continue
        spot = nodes.fullest_that_fits(state, view, study.trials[index], charged=True)
        if isinstance(spot, nodes.Spot) and spot.resource is not None:
            taken = Taken({spot.resource: spot.portion.units}, (), 0, view.cpu, view.memory)
            state.inventory.take(spot.node, taken)
            booked.append((spot.node, taken))
    try:
        yield
    finally:
        for node, taken in booked:
            state.inventory.take(node, taken, -1)
