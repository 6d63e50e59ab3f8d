"""What the state keeps of a trial and of a study, and how much each takes at present."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self

from tuneyard_api.trial import Phase, Placement
from tuneyard_scheduler.devices import amount
from tuneyard_scheduler.durations import Durations
from tuneyard_scheduler.ordered import MinSet
from tuneyard_scheduler.views import Need, Place, PodView, StudyView, Taken, TrialView, fitted, taken


class Hold(NamedTuple):
    """What is kept free of a node for a pod that has not been seen."""

    node: str
    taken: Taken


class Held(NamedTuple):
    """GPUs of a node that a trial holds."""

    node: str
    resource: str
    gpus: float
    devices: tuple[str, ...] = ()
    """Which ones, where the place is on certain ones; each gives an equal part."""

    @classmethod
    def by(cls, place: Place | Placement, node: str | None = None) -> Self | None:
        """What a place gives; None where that is no GPU of a certain node: of its own, or else of this one."""
        node = place.node or node
        if node is None or place.resource is None:
            return None
        return cls(node, place.resource, place.gpus, tuple(place.devices or ()))

    @property
    def units(self) -> int:
        """GPUs, or slices of such, that are held as one."""
        return 0 if self.devices else max(1, int(self.gpus))

    @property
    def share(self) -> float:
        """What is held of each of the devices."""
        return amount(self.gpus / len(self.devices)) if self.devices else 0.0


GivingOrder = tuple[float, float, int]
Turn = tuple[float, int]
"""Of a trial that is ready: its promise, with a minus, and its index. The smallest is the next one."""


class Holding(NamedTuple):
    """A place on record, with GPUs that are held there: what a trial could give back."""

    order: GivingOrder
    """The smallest is the least promising; of those, the one that has its place for the shortest time."""
    held: Held


class Leaving(NamedTuple):
    """GPUs that a trial holds and was told to give back."""

    held: Held
    queue: str
    """The queue that gets them."""
    trial: str
    """The trial for which they are meant: its study's key, - and its index."""
    needs: float
    """GPUs that this one needs on a node."""

    @property
    def study(self) -> str:
        """The key of the study of the trial for which they are meant."""
        return self.trial.rpartition("-")[0]

    @property
    def number(self) -> int:
        """The index of that trial."""
        return int(self.trial.rpartition("-")[2])


class Reservation(NamedTuple):
    """A node that is kept for a trial for which no node has room: it gets what falls free there."""

    study: str
    trial: int
    """Its index."""
    node: str
    resource: str
    at: float
    """When the trial is expected to start there. Until then others may have what they surely give back before."""


class Share(NamedTuple):
    """What a trial takes: the contribution that is booked for it."""

    attempts: int = 0
    """Attempts that count against the study's `parallel`."""
    gpus: float = 0
    """GPUs in use, by its pods and by a place whose pod has not been seen."""
    hold: Hold | None = None
    pending: float | None = None
    """The time from which it may be placed; None: it does not wait for a place."""
    unplaced: bool = False
    """Whether it waits for a node that is yet to come."""


class TrialBook:
    """One trial: the record, the place assumed before the record shows it, and its pods."""

    __slots__ = ("assumed", "ended", "holding", "leaving", "pods", "share", "view")

    def __init__(self) -> None:
        self.view: TrialView | None = None
        self.assumed: Place | None = None
        self.pods: dict[str, PodView] = {}
        self.ended: dict[str, PodView] = {}
        """The pods that were seen and have ended."""
        self.share = Share()
        self.leaving: Leaving | None = None
        """What it was told to give back, until it has."""
        self.holding: Holding | None = None
        """What it could be told to give back."""

    def held(self) -> Held | None:
        """The GPUs that go with its place, once it has a node: its own, or that which took its pod."""
        place = self.view.placement if self.view is not None else None
        if place is None:
            return None
        return Held.by(place, next((pod.node for pod in self.pods.values() if pod.node is not None), None))

    def could_give(self, study: StudyView | None) -> Holding | None:
        """What it could be told to give back now. Trials of different studies compare by their part of the fidelity."""
        view = self.view
        if view is None or view.placement is None or self.leaving is not None or not self.share.gpus:
            return None
        told = view.placement.reclaim is not None and not view.placement.reclaim.trial
        held = None if told else self.held()
        if not view.phase.has_place or held is None:
            return None
        most = study.fidelity if study is not None else None
        return Holding((view.promise / most if most else 0.0, -view.since, -view.index), held)

    @property
    def blank(self) -> bool:
        """Whether nothing is known of it any more."""
        return self.view is None and not self.pods

    def count(self, study: StudyView | None) -> Share:
        """What it takes now, from what is known of it and of its study.

        A place counts from its decision until its pod has been seen and has ended, even before that end is recorded;
        while the pod lives, the pod itself counts, on whatever node it is.
        """
        view, assumed = self.view, self.assumed
        if view is not None and study is not None and view.owner not in (None, study.uid):
            view = assumed = None
        if view is not None and view.need is not None and study is not None:
            study = fitted(study, view.need)
        claim: Place | Placement | None = assumed
        if claim is None and view is not None and view.phase.has_place:
            claim = view.placement or Place(view.study, view.index, view.attempt)
        waits = view is not None and view.phase is Phase.PENDING and assumed is None and study is not None
        pending = (view.not_before or 0.0) if waits and view is not None else None
        if not self.pods and not self.ended:  # as most are
            gpus = claim.gpus if claim is not None else 0.0
            return Share(int(claim is not None), gpus, _hold(claim, study), pending, _is_unplaced(claim))
        return self._count_pods(claim, view, study, pending)

    def _count_pods(
        self, claim: Place | Placement | None, view: TrialView | None, study: StudyView | None, pending: float | None
    ) -> Share:
        ended = (pod for pod in self.ended.values() if _of_study(pod, study) and _of_trial(pod, view))
        if claim is not None and claim.attempt <= max(_attempts(ended), default=-1):
            claim = None
        pods = [pod for pod in self.pods.values() if _of_study(pod, study)]
        own = [pod for pod in pods if _of_trial(pod, view)]
        others = len({(pod.trial, pod.attempt) for pod in pods if not _of_trial(pod, view)})
        attempts = _attempts(own)
        gpus = sum(pod.taken.charge for pod in pods)
        hold, unplaced = None, False
        if claim is not None:
            attempts.add(claim.attempt)
            if claim.attempt not in _attempts(pod for pod in own if pod.node is not None):
                hold, unplaced = _hold(claim, study), _is_unplaced(claim)
                gpus += claim.gpus
        return Share(len(attempts) + others, amount(gpus), hold, pending, unplaced)


def _hold(claim: Place | Placement | None, study: StudyView | None) -> Hold | None:
    if claim is None or claim.node is None:
        return None
    return Hold(claim.node, taken(claim, study))


def _is_unplaced(claim: Place | Placement | None) -> bool:
    return claim is not None and claim.node is None and claim.resource is not None


def _attempts(pods: Iterable[PodView]) -> set[int]:
    return {pod.attempt.attempt for pod in pods if pod.attempt is not None}


def _of_study(pod: PodView, study: StudyView | None) -> bool:
    return study is None or pod.owner is None or pod.owner == study.uid


def _of_trial(pod: PodView, view: TrialView | None) -> bool:
    return view is None or None in (pod.trial, view.uid) or pod.trial == view.uid


class StudyBook:
    """One study: its trials, and what they take together."""

    __slots__ = (
        "_of_need", "_plain", "_special", "attempts", "durations", "gpus", "holding", "key", "last_place", "pending",
        "queue", "ready", "trials", "view",
    )  # fmt: skip

    def __init__(self, key: str) -> None:
        self.key = key
        self.view: StudyView | None = None
        self.trials: dict[int, TrialBook] = {}
        self.attempts = 0
        """Attempts that count against `parallel`."""
        self.gpus = 0.0
        self.queue: str | None = None
        """The queue that is charged."""
        self.pending: MinSet[int] = MinSet()
        """Indices of the trials that wait for a place."""
        self.ready: MinSet[Turn] = MinSet()
        """Those of them whose backoff has passed; `make_ready` and `unready` keep them."""
        self._plain: MinSet[Turn] = MinSet()
        self._of_need: dict[Need, MinSet[Turn]] = {}
        """Those that are ready, without and with a need of their own: each need is a request of its own."""
        self._special: dict[int, tuple[float, Need | None]] = {}
        """Promise and need of those that are ready and have one of them."""
        self.holding: MinSet[GivingOrder] = MinSet()
        """The trials that could give GPUs back, by `Holding.order`."""
        self.last_place = 0.0
        """When one of its trials last got a place, as far as is known."""
        self.durations = Durations()
        """How long its attempts run."""

    def fitted(self, index: int) -> StudyView | None:
        """The study as it is for one of its trials, which may need more than it asks for; None: it is not known."""
        trial = self.trials.get(index)
        need = trial.view.need if trial is not None and trial.view is not None else None
        return fitted(self.view, need) if self.view is not None else None

    def make_ready(self, index: int) -> None:
        """A trial may have a place."""
        self.unready(index)
        view = self.trials[index].view
        promise, need = view.standing if view is not None else (0.0, None)
        if self.view is None or self.view.fidelity is None:
            promise = 0.0
        if promise or need is not None:
            self._special[index] = promise, need
        turn = -promise, index
        self.ready.add(turn)
        alike = self._plain if need is None else self._of_need.setdefault(need, MinSet())
        alike.add(turn)

    def unready(self, index: int) -> None:
        """A trial does not wait for a place, or not yet."""
        promise, need = self._special.pop(index, (0.0, None))
        turn = -promise, index
        self.ready.discard(turn)
        alike = self._plain if need is None else self._of_need[need]
        alike.discard(turn)
        if need is not None and not alike:
            del self._of_need[need]

    def is_ready(self, index: int) -> bool:
        """Whether a trial may have a place."""
        return (-self._special.get(index, (0.0, None))[0], index) in self.ready

    def turns(self) -> Iterator[int]:
        """The trials that may have a place: the most promising first, and of those the oldest."""
        return (index for _, index in self.ready.ascending())

    def heads(self) -> list[int]:
        """The next trial of each request, in order; the next of all where none is ready."""
        found = [each.smallest() for each in (self._plain, *self._of_need.values())]
        ready = [index for _, index in sorted(turn for turn in found if turn is not None)]
        return ready or [index for index in (self.pending.smallest(),) if index is not None]
