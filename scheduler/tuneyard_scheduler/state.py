"""The state that the cycle reads: kept up to date by events, never rebuilt.

Every mutator takes what is true now (not what changed), costs O(1), and does nothing when that is known already:
repeated events do no harm, and events of different kinds may come in any order. Each returns whether the cycle could
now decide differently.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator

from tuneyard_api.gpuqueue import DEFAULT_QUEUE
from tuneyard_api.trial import Phase
from tuneyard_scheduler.books import Held, Hold, Reservation, Share, StudyBook, TrialBook
from tuneyard_scheduler.devices import amount
from tuneyard_scheduler.durations import Durations
from tuneyard_scheduler.giving import Giving
from tuneyard_scheduler.health import NodeHealth
from tuneyard_scheduler.inventory import Inventory
from tuneyard_scheduler.queues import QueueBook, QueueTree
from tuneyard_scheduler.views import (
    AttemptKey,
    Node,
    Place,
    PodView,
    Preempt,
    QueueView,
    StudyView,
    TakeBack,
    TrialView,
)


class ClusterState:
    """Nodes, pods, studies, trials and queues, with running totals of who takes what.

    GPUs of a node are taken by the pods bound to it, whoever made them, and by places whose pod has not been seen yet.
    """

    def __init__(self) -> None:
        self.inventory = Inventory()
        self.health = NodeHealth()
        self._studies: dict[str, StudyBook] = {}
        self._waiting: dict[str, StudyBook] = {}
        self.queues = QueueTree()
        self.giving = Giving(self.inventory)
        self.unplaced: dict[tuple[str, int], bool] = {}
        """The trials that wait for a node that is yet to come, and whether each was told to come back."""
        self.reservation: Reservation | None = None
        """Whom a node is kept for. A plan, not on record: after a restart it is made anew."""
        self._pods: dict[str, PodView] = {}
        self._claims: defaultdict[tuple[str, str], set[tuple[str, int]]] = defaultdict(set)
        self._foreign: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._backoff: list[tuple[float, str, int]] = []

    # Nodes

    def set_node(self, node: Node) -> bool:
        """The node is there, as given."""
        return self.inventory.set(node)

    def remove_node(self, name: str) -> bool:
        """The node is gone. What its pods take stays booked until they are gone as well."""
        return self.inventory.remove(name)

    # Queues

    def set_queue(self, queue: QueueView) -> bool:
        """The queue is there, as given."""
        return self.queues.set(queue)

    def remove_queue(self, name: str) -> bool:
        """The queue is gone; studies that name it wait."""
        return self.queues.remove(name)

    # Studies

    def set_study(self, view: StudyView) -> bool:
        """The study is there, as given. With another uid than before it is another study, and starts empty."""
        study = self._study(view.key)
        before = study.view
        if before == view:
            return False
        study.view = view
        self._charge(study, -study.gpus, -len(study.pending))
        study.queue = view.queue or DEFAULT_QUEUE
        self._charge(study, study.gpus, len(study.pending))
        self._note_place(study, study.last_place)
        if before is None or before.uid != view.uid:
            self._recount_all(study)
            study.durations = Durations()
            for index, trial in study.trials.items():
                self._learn(study, index, trial)
                if study.is_ready(index):
                    study.make_ready(index)  # its turn depends on the study
        return True

    def remove_study(self, key: str) -> bool:
        """The study is gone; its trials are not placed any more."""
        study = self._studies.get(key)
        if study is None or study.view is None:
            return False
        study.view = None
        self._recount_all(study)
        self._charge(study, -study.gpus, -len(study.pending))
        study.queue = None
        self._prune(study)
        return True

    # Trials

    def set_trial(self, view: TrialView) -> bool:
        """The trial is there, as given. A record that is behind what is known of the same object is ignored."""
        study = self._study(view.study)
        trial = study.trials.setdefault(view.index, TrialBook())
        before = trial.view
        if before is not None and before.uid != view.uid:
            trial.assumed = None
            trial.ended.clear()
        elif before is not None and (view == before or view.age < before.age):
            return False
        self._hear_ends(before, view)
        trial.view = view
        if trial.assumed is not None and view.age > (trial.assumed.attempt, 0):
            trial.assumed = None
        if view.placement is not None:
            self._note_place(study, view.since)
        changed = self._recount(study, view.index, trial)
        self._learn(study, view.index, trial)
        if before is not None and before.standing != view.standing and study.is_ready(view.index):
            study.make_ready(view.index)
        heard = self.giving.hear(study, view.index, trial)
        self.giving.note(study, view.index, trial)
        return changed or heard

    def remove_trial(self, study_key: str, index: int) -> bool:
        """The trial is gone. Its pods count until they are gone as well."""
        study = self._studies.get(study_key)
        trial = study.trials.get(index) if study is not None else None
        if study is None or trial is None or trial.view is None:
            return False
        trial.view = trial.assumed = None
        trial.ended.clear()
        changed = self._recount(study, index, trial)
        self._drop_blank(study, index, trial)
        return changed

    # Pods

    def set_pod(self, pod: PodView) -> bool:
        """The pod is there, as given, and has not ended. A pod of a trial that was seen to end does not come back."""
        before = self._pods.get(pod.uid)
        if before == pod or (pod.attempt is not None and self._has_ended(pod.uid, pod.attempt)):
            return False
        if before is not None:
            self._unlink(before)
        self._pods[pod.uid] = pod
        self._take(pod, 1)
        if pod.attempt is not None:
            study = self._study(pod.attempt.study)
            trial = study.trials.setdefault(pod.attempt.index, TrialBook())
            trial.pods[pod.uid] = pod
            self._recount(study, pod.attempt.index, trial)
        return True

    def remove_pod(self, uid: str) -> bool:
        """The pod has ended or is gone: what it took is free at once, before its trial's end is recorded."""
        pod = self._pods.pop(uid, None)
        if pod is None:
            return False
        self._unlink(pod)
        if pod.attempt is not None:
            study = self._study(pod.attempt.study)
            trial = study.trials[pod.attempt.index]
            trial.ended[uid] = pod
            self._recount(study, pod.attempt.index, trial)
            self._drop_blank(study, pod.attempt.index, trial)
        return True

    # Decisions

    def apply(self, placements: Iterable[Place], now: float) -> None:
        """Take the decisions for done, so that they count before their records show them."""
        for place in placements:
            study = self._study(place.study)
            trial = study.trials.get(place.index)
            view = trial.view if trial is not None else None
            if trial is None or view is None or view.phase is not Phase.PENDING or view.attempt != place.attempt:
                continue
            trial.assumed = place
            if place.node is not None:
                self.health.placed(place.node, f"{place.study}-{place.index}", now)
            self._note_place(study, now)
            self._recount(study, place.index, trial)

    def forget(self, place: Place) -> None:
        """The decision could not be written: undo `apply`, unless the record shows it by now."""
        trial = self.trial(place.study, place.index)
        if trial is not None and trial.assumed == place:
            trial.assumed = None
            if place.node is not None:
                self.health.withdrawn(place.node, f"{place.study}-{place.index}")
            self._recount(self._studies[place.study], place.index, trial)

    def preempt(self, told: Preempt) -> None:
        """Take it for done that an attempt is told to end: its GPUs are kept for whom they are meant."""
        study, trial = self._study(told.study), self.trial(told.study, told.index)
        if trial is not None and trial.view is not None and trial.view.placement is not None:
            self.giving.tell(study, told.index, trial, told)

    def spare(self, told: Preempt) -> None:
        """The decision could not be written: undo `preempt`, unless the record shows it by now."""
        trial = self.trial(told.study, told.index)
        if trial is None or trial.leaving is None or trial.leaving.trial != told.trial:
            return
        placement = trial.view.placement if trial.view is not None else None
        if placement is None or placement.reclaim is None:
            self.giving.leave(self._study(told.study), told.index, trial, None)

    def leave_out(self, told: TakeBack) -> None:
        """The decision could not be written: the trial may be told to come back again."""
        if (told.study, told.index) in self.unplaced:
            self.unplaced[told.study, told.index] = False

    def release(self, now: float) -> None:
        """It is now this time: make the trials ready whose backoff has passed."""
        self.health.advance(now)
        while self._backoff and self._backoff[0][0] <= now:
            due, key, index = heapq.heappop(self._backoff)
            if self._waits_until(key, index) == due:
                self._studies[key].make_ready(index)

    def next_release(self) -> float | None:
        """When the next backoff passes or an avoided node may be tried again; None when nothing waits for that."""
        times = [at for at in (self._next_backoff(), self.health.next_change()) if at is not None]
        return min(times, default=None)

    def _next_backoff(self) -> float | None:
        while self._backoff:
            due, key, index = self._backoff[0]
            if self._waits_until(key, index) == due:
                return due
            heapq.heappop(self._backoff)
        return None

    # Questions

    def waiting_studies(self) -> Iterator[StudyBook]:
        """The studies that have trials waiting for a place."""
        return iter(self._waiting.values())

    def studies(self) -> Iterator[StudyBook]:
        """All studies, also those of which only trials or pods are known."""
        return iter(self._studies.values())

    def study(self, key: str) -> StudyBook | None:
        """What is known of a study."""
        return self._studies.get(key)

    def occupants(self, node: str, resource: str) -> Iterator[tuple[str, int, Held]]:
        """The trials that have a place on a node, on record or not yet: study's key, index and what they hold."""
        here = node, resource
        for key, index in {*self.giving.holders(*here), *self._claims.get(here, ())}:
            trial = self._studies[key].trials[index]
            if trial.holding is not None:
                yield key, index, trial.holding.held
            elif trial.assumed is not None and (held := Held.by(trial.assumed)) is not None:
                yield key, index, held

    def foreign(self, node: str, resource: str) -> float:
        """GPUs of a node that pods hold that are no trial's."""
        return self._foreign.get((node, resource), 0)

    def ours(self, node: str, resource: str) -> float:
        """GPUs of a node that trials can have, if no other trial has any."""
        known = self.inventory.node(node)
        return known.capacity.get(resource, 0) - self.foreign(node, resource) if known is not None else 0.0

    def sharers(self, node: str, resource: str) -> Iterator[TrialView]:
        """The trials on record that have parts of a node's GPUs."""
        at = node, resource
        for key, index in sorted({*self.giving.holders(*at), *self.giving.leaving_from(*at)}):
            trial = self.trial(key, index)
            place = trial.view.placement if trial is not None and trial.view is not None else None
            if trial is not None and trial.view is not None and place is not None and place.devices:
                yield trial.view

    def trial(self, study_key: str, index: int) -> TrialBook | None:
        """What is known of a trial."""
        study = self._studies.get(study_key)
        return study.trials.get(index) if study is not None else None

    def queue_of(self, study: StudyBook) -> QueueBook | None:
        """The queue that a study is charged to."""
        return self.queues.get(study.queue) if study.queue is not None else None

    # Book-keeping

    def _study(self, key: str) -> StudyBook:
        study = self._studies.get(key)
        if study is None:
            study = self._studies[key] = StudyBook(key)
        return study

    def _prune(self, study: StudyBook) -> None:
        if study.view is None and not study.trials:
            self._studies.pop(study.key, None)

    def _drop_blank(self, study: StudyBook, index: int, trial: TrialBook) -> None:
        if trial.blank:
            study.trials.pop(index, None)
            self._prune(study)

    def _has_ended(self, uid: str, attempt: AttemptKey) -> bool:
        trial = self.trial(attempt.study, attempt.index)
        return trial is not None and uid in trial.ended

    def _unlink(self, pod: PodView) -> None:
        self._take(pod, -1)
        if pod.attempt is not None:
            study = self._studies[pod.attempt.study]
            trial = study.trials[pod.attempt.index]
            del trial.pods[pod.uid]
            self._recount(study, pod.attempt.index, trial)

    def _take(self, pod: PodView, sign: int) -> None:
        """Book what a pod holds of its node; with sign -1, give it back."""
        if pod.node is None:
            return
        self.inventory.take(pod.node, pod.taken, sign)
        if pod.attempt is None:
            shares = [*pod.taken.units.items(), *((part.resource, part.share) for part in pod.taken.parts)]
            for resource, gpus in shares:
                self._foreign[pod.node, resource] = amount(self._foreign[pod.node, resource] + sign * gpus)
                if not self._foreign[pod.node, resource]:
                    del self._foreign[pod.node, resource]

    def _recount_all(self, study: StudyBook) -> None:
        for index, trial in study.trials.items():
            self._recount(study, index, trial)

    def _recount(self, study: StudyBook, index: int, trial: TrialBook) -> bool:
        """Book the difference between what the trial took and what it takes now; whether there is one."""
        old, new = trial.share, trial.count(study.view)
        if new == old:
            return False
        trial.share = new
        if new.hold != old.hold:
            self._book_hold(old.hold, (study.key, index), -1)
            self._book_hold(new.hold, (study.key, index), 1)
        if new.unplaced:
            self.unplaced.setdefault((study.key, index), False)
        elif old.unplaced:
            self.unplaced.pop((study.key, index), None)
        study.attempts += new.attempts - old.attempts
        study.gpus = amount(study.gpus + new.gpus - old.gpus)
        if not new.gpus and trial.leaving is not None:
            self.giving.leave(study, index, trial, None)
        elif new.gpus and (not old.gpus or old.unplaced):
            self.giving.hear(study, index, trial)
        self.giving.note(study, index, trial)
        waiting = len(study.pending)
        if new.pending != old.pending:
            self._queue_up(study, index, new)
        self._charge(study, new.gpus - old.gpus, len(study.pending) - waiting)
        return True

    def _learn(self, study: StudyBook, index: int, trial: TrialBook) -> None:
        """A trial that has ended tells how long those run that are to come."""
        view = trial.view
        if view is None or view.run is None:
            return
        if study.view is None or view.owner in (None, study.view.uid):
            study.durations.add(view.run, index)

    def _hear_ends(self, before: TrialView | None, view: TrialView) -> None:
        """What the ends of a trial's attempts tell about the nodes that they were on."""
        known = len(before.lost) if before is not None and before.uid == view.uid else 0
        for node, at in view.lost[known:]:
            self.health.lost(node, f"{view.study}-{view.index}", at)
        if view.proved is not None and (before is None or before.proved != view.proved):
            self.health.survived(*view.proved)

    def _book_hold(self, hold: Hold | None, key: tuple[str, int], sign: int) -> None:
        """Book what a place whose pod has not been seen takes of its node; with sign -1, that it does not any more."""
        if hold is None:
            return
        self.inventory.take(hold.node, hold.taken, sign)
        for resource in hold.taken.resources:
            claims = self._claims[hold.node, resource]
            claims.add(key) if sign > 0 else claims.discard(key)

    def _queue_up(self, study: StudyBook, index: int, share: Share) -> None:
        study.unready(index)
        if share.pending is None:
            study.pending.discard(index)
        else:
            study.pending.add(index)
            if share.pending > 0:
                heapq.heappush(self._backoff, (share.pending, study.key, index))
            else:
                study.make_ready(index)
        if study.pending:
            self._waiting[study.key] = study
        else:
            self._waiting.pop(study.key, None)

    def _note_place(self, study: StudyBook, at: float) -> None:
        study.last_place = max(study.last_place, at)
        if study.queue is not None:
            self.queues.note_place(study.queue, at)

    def _charge(self, study: StudyBook, gpus: float, pending: int) -> None:
        if study.queue is None or not (gpus or pending):
            return
        self.queues.charge(study.queue, gpus, pending)

    def _waits_until(self, key: str, index: int) -> float | None:
        trial = self.trial(key, index)
        return trial.share.pending if trial is not None else None
