"""What must hold of queues: no limit is passed, guarantees are honoured, and nobody gives way without need."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from tuneyard_operator.worlds.simulation.apiserver import ApiServer, Object
from tuneyard_operator.worlds.simulation.cluster import Cluster
from tuneyard_operator.worlds.simulation.kernel import Kernel, must
from tuneyard_operator.worlds.simulation.machines import Machine, Pod
from tuneyard_operator.worlds.simulation.shares import Demand
from tuneyard_scheduler.policies.reclaim import OFTEN
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Preempt, StudyView

_GRACE: Final = 10.0
"""Seconds within which a pod that was told to end has ended, on a node that answers."""
_DEFAULT: Final = "default"


class Quotas:
    """Reads queues and pods as they are in truth."""

    def __init__(self, kernel: Kernel, api: ApiServer, cluster: Cluster, patience: float) -> None:
        self._kernel = kernel
        self._api = api
        self._cluster = cluster
        self._patience = patience + _GRACE
        self._owed: dict[str, float] = {}

    def judge(self, place: str, study: Object, taken: Iterable[tuple[str, float]]) -> None:
        """Whether a place that was just given is within all limits; `taken` has the study and GPUs of each attempt."""
        used = self._used(taken)
        for queue in self._path(_queue(study)):
            limit, now = self._spec(queue).get("limit"), round(used[queue], 4)
            must(limit is None or now <= limit, f"{place} makes {now} GPUs of {queue}, limit {limit}")

    def judge_unplaced(self, place: str, study: Object, out: Iterable[str]) -> None:
        """Whether no more trials wait for a node than their queue allows; `out` has the study of each."""
        queues = {each["metadata"]["uid"]: _queue(each) for each in self._api.objects["studies"].values()}
        name = _queue(study)
        most = (self._spec(name).get("elastic") or {}).get("unplaced", 0)
        waiting = sum(queues.get(each) == name for each in out)
        must(waiting <= most, f"{place} makes {waiting} of {name} that wait for a node, and it allows {most}")

    def spare(self, study: Object) -> float:
        """How many GPUs more the limits allow a study."""
        used = self._used_by_pods()
        limits = {queue: self._spec(queue).get("limit") for queue in self._path(_queue(study))}
        rooms = (round(limit - used[queue], 4) for queue, limit in limits.items() if limit is not None)
        return min(rooms, default=math.inf)

    def look(self, study: Object, demand: Demand) -> None:
        """Whether a study waits for long, although its queue is guaranteed more and one trial elsewhere is enough."""
        uid, queue = study["metadata"]["uid"], _queue(study)
        used = self._used_by_pods()
        due = self._spec(queue).get("guaranteed", 0) - used[queue]
        if not demand.gpus or due <= 0 or (self._spec(queue).get("preemption") or {}).get("reclaim", "Any") != "Any":
            self.forget(uid)
            return
        machines = self._cluster.machines.machines.values()
        borrower = next((p for m in machines for p in self._borrowers(m, queue, demand, due, used)), None)
        if borrower is None:
            self.forget(uid)
            return
        owed = self._kernel.now - self._owed.setdefault(uid, self._kernel.now)
        said = f"{borrower.name} borrows GPUs, and {study['metadata']['name']} is guaranteed them, for {owed:.0f} s"
        must(owed < self._patience, said)

    def forget(self, uid: str) -> None:
        """The study is owed nothing now."""
        self._owed.pop(uid, None)

    def _borrowers(
        self, machine: Machine, queue: str, demand: Demand, due: float, used: dict[str, float]
    ) -> Iterable[Pod]:
        """The pods of a node that alone would make room for a trial of the queue, and could be made to."""
        studies = {study["metadata"]["uid"]: study for study in self._api.objects["studies"].values()}
        parent = self._spec(queue).get("parent")
        ways = [way for way in demand.ways(machine.build) if round(way.gpus - due, 4) <= 0]
        if not machine.ready or any(machine.room().has(way, demand) for way in ways):
            return
        for pod in machine.pods.values() if ways else ():
            study = studies.get(pod.study)
            other = _queue(study) if study is not None else queue
            sibling = parent is None or self._spec(other).get("parent") == parent
            spare = round(used[other] - self._spec(other).get("guaranteed", 0), 4)
            if other == queue or not sibling or spare < pod.gpus or not pod.gpus:
                continue
            room = machine.room(without=pod)
            if pod.started is not None and self._may_go(pod) and any(room.has(way, demand) for way in ways):
                yield pod

    def _may_go(self, pod: Pod) -> bool:
        trial = next((t for t in self._api.objects["trials"].values() if t["metadata"]["uid"] == pod.trial), None)
        status = (trial or {}).get("status") or {}
        preempted = sum(attempt["outcome"] == "Preempted" for attempt in status.get("attempts") or ())
        return status.get("phase") == "Running" and status.get("attempt") == pod.attempt and preempted < OFTEN

    def _used_by_pods(self) -> defaultdict[str, float]:
        return self._used((pod.study, pod.gpus) for pod in self._cluster.machines.alive())

    def _used(self, taken: Iterable[tuple[str, float]]) -> defaultdict[str, float]:
        """GPUs in use by queue, those of its parts included; of pods of others none."""
        queues = {study["metadata"]["uid"]: _queue(study) for study in self._api.objects["studies"].values()}
        used: defaultdict[str, float] = defaultdict(float)
        for study, gpus in taken:
            for queue in self._path(queues[study]) if study in queues else ():
                used[queue] += gpus
        return used

    def _spec(self, queue: str) -> Object:
        spec: Object = self._api.objects["gpuqueues"].get(queue, {"spec": {}})["spec"]
        return spec

    def _path(self, queue: str) -> list[str]:
        parent = self._spec(queue).get("parent")
        return [queue, *self._path(parent)] if parent else [queue]


def judge_reclaims(state: ClusterState, preempt: list[Preempt]) -> None:
    """Whether those who are told to go have to, by what the scheduler knows."""
    gone: defaultdict[str, float] = defaultdict(float)
    largest: defaultdict[str, float] = defaultdict(float)
    for (key, _), leaving in state.giving.leaving.items():
        study = state.study(key)
        for above in _path_of(state, study.queue if study is not None else None):
            gone[above] += leaving.held.gpus
            largest[above] = max(largest[above], leaving.held.gpus)
    coming: defaultdict[str, float] = defaultdict(float)
    for queue, _, needs in {(told.queue, told.trial, told.gpus) for told in preempt}:
        for above in _path_of(state, queue):
            coming[above] += needs
    for told in preempt:
        study = state.study(told.study)
        must(study is not None and study.queue not in {None, told.queue}, f"{told} is of the queue itself")
        theirs, mine = _path_of(state, study.queue if study is not None else None), _path_of(state, told.queue)
        for name in (each for each in theirs if each not in mine):
            left, guaranteed = _left(state, name, gone[name]), _guaranteed(state, name)
            # The last one of them may have been borrowed in part.
            must(left + largest[name] > guaranteed, f"{told} leaves {name} {left} GPUs of {guaranteed}")
        due = next(each for each in reversed(mine) if each not in theirs)
        used = _left(state, due, gone[due]) + coming[due]
        must(round(used - _guaranteed(state, due), 4) <= 0, f"{due} would have more than it is guaranteed")
        others = [each for each in preempt if each.trial == told.trial and each is not told]
        must(not _is_enough(state, told, others), f"{told} has not to go beside {others}")


def _left(state: ClusterState, name: str, gone: float) -> float:
    queue = state.queues.get(name)
    return round(queue.used - gone, 4) if queue is not None else 0.0


def _guaranteed(state: ClusterState, name: str) -> float:
    queue = state.queues.get(name)
    return queue.guaranteed if queue is not None else 0.0


def _is_enough(state: ClusterState, told: Preempt, others: list[Preempt]) -> bool:
    """Whether what others give back is enough for the trial for which this one is to go, too."""
    mine, books = state.giving.leaving[told.study, told.index], state.inventory
    held = mine.held
    # Pods of others may have come to the node after places on it were given: those places have to go as well.
    over: list[float] = [books.left(held.node, held.resource)]
    over += [books.part_left(held.node, held.resource, device) for device in held.devices]
    gives = sum(state.giving.leaving[each.study, each.index].held.gpus for each in others)
    views = [_view(state, each.study, each.index) for each in others]
    cpu, memory = books.spare(held.node)
    here = {leaving.trial: leaving for leaving in state.giving.leaving.values() if leaving.held.node == held.node}
    for other in (leaving for trial, leaving in here.items() if trial != told.trial):
        promised = _view(state, other.study, other.number)
        cpu, memory = cpu - promised.cpu, memory - promised.memory
    wanted = _view(state, mine.study, mine.number)
    fits = wanted.cpu <= cpu + sum(view.cpu for view in views)
    fits &= wanted.memory <= memory + sum(view.memory for view in views)
    return fits and gives >= told.gpus + max(0.0, -min(over)) - 1e-6


def _view(state: ClusterState, study: str, index: int) -> StudyView:
    book = state.study(study)
    view = book.fitted(index) if book is not None else None
    assert view is not None, "only trials of known studies are helped or stopped"
    return view


def _path_of(state: ClusterState, name: str | None) -> list[str]:
    queue = state.queues.get(name) if name is not None else None
    return [each.name for each in queue.path] if queue is not None else []


def _queue(study: Object) -> str:
    return str(study["spec"].get("queue", _DEFAULT))
