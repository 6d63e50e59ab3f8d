"""What the state keeps of a trial and of a study, and how much each takes at present."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tuneyard_api.trial import Phase, Placement
from tuneyard_scheduler.devices import amount
from tuneyard_scheduler.ordered import MinSet
from tuneyard_scheduler.views import Place, PodView, StudyView, Taken, TrialView, taken


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

    @property
    def units(self) -> int:
        """GPUs, or slices of such, that are held as one."""
        return 0 if self.devices else max(1, int(self.gpus))

    @property
    def share(self) -> float:
        """What is held of each of the devices."""
        return amount(self.gpus / len(self.devices)) if self.devices else 0.0


class Holding(NamedTuple):
    """A place on record, with GPUs that are held there: what a trial could give back."""

    order: tuple[float, int]
    """The smallest has its place for the shortest time."""
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
        if place is None or place.resource is None:
            return None
        node = place.node or next((pod.node for pod in self.pods.values() if pod.node is not None), None)
        return Held(node, place.resource, place.gpus, tuple(place.devices or ())) if node is not None else None

    def could_give(self) -> Holding | None:
        """What it could be told to give back now."""
        view = self.view
        if view is None or view.placement is None or self.leaving is not None or not self.share.gpus:
            return None
        held = self.held()
        told = view.placement.reclaim is not None and not view.placement.reclaim.trial
        if view.phase not in (Phase.PLACED, Phase.RUNNING) or held is None or told:
            return None
        return Holding((-view.since, -view.index), held)

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
        claim: Place | Placement | None = assumed
        if claim is None and view is not None and view.phase in (Phase.PLACED, Phase.RUNNING):
            claim = view.placement or Place(view.study, view.index, view.attempt)
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
            bound = claim.attempt in _attempts(pod for pod in own if pod.node is not None)
            if not bound:
                hold = Hold(claim.node, taken(claim, study)) if claim.node is not None else None
                unplaced = claim.node is None and claim.resource is not None
                gpus += claim.gpus
        waits = view is not None and view.phase is Phase.PENDING and assumed is None and study is not None
        pending = (view.not_before or 0.0) if waits and view is not None else None
        return Share(len(attempts) + others, amount(gpus), hold, pending, unplaced)


def _attempts(pods: Iterable[PodView]) -> set[int]:
    return {pod.attempt.attempt for pod in pods if pod.attempt is not None}


def _of_study(pod: PodView, study: StudyView | None) -> bool:
    return study is None or pod.owner is None or pod.owner == study.uid


def _of_trial(pod: PodView, view: TrialView | None) -> bool:
    return view is None or None in (pod.trial, view.uid) or pod.trial == view.uid


class StudyBook:
    """One study: its trials, and what they take together."""

    __slots__ = ("attempts", "gpus", "holding", "key", "last_place", "pending", "queue", "ready", "trials", "view")

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
        self.ready: MinSet[int] = MinSet()
        """Those of them whose backoff has passed."""
        self.holding: MinSet[tuple[float, int]] = MinSet()
        """The trials that could give GPUs back, by `Holding.order`."""
        self.last_place = 0.0
        """When one of its trials last got a place, as far as is known."""
