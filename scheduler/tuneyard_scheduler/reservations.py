"""The pure planner of the pods that hold shared GPUs: what is known and the clock in, actions out.

A pod is made for each GPU of which a trial got a part, and goes once nobody has one any more. Trials are told which GPU
it is when the pod runs; only then do they start. A pod that cannot get its GPU gives the place up: its trials are
placed anew, and the node is left alone for a while, longer each time.

Everything is decided from what is there now, so that it makes no difference where an earlier process ended. An action
may be done twice, and comes again until it shows.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

from tuneyard_api.trial import Placement
from tuneyard_scheduler.backends import reservation
from tuneyard_scheduler.backends.reservation import Reservation
from tuneyard_scheduler.devices import Part, Slot
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Place, PodView, Taken, TrialView

AGAIN: Final = 5.0
"""Seconds after which an action that does not show is planned again."""
LINGER: Final = 10.0
"""Seconds for which a GPU is held after its last sharer has left: the next one need not wait for a pod."""
REFUSED: Final = 60.0
"""Seconds for which no node (or no API server) takes the pod before its place is given up."""
STARTING: Final = 300.0
"""The same for a pod that has a node and does not run: its image may have to be pulled."""
CLOSED_FIRST: Final = 10.0
CLOSED_MAX: Final = 600.0
"""Seconds for which a node's GPUs are not divided after one could not be held: at first, doubling, and at most."""
SWEEP: Final = 30.0
"""Every so many seconds all are looked at, whatever was missed."""


@dataclass(frozen=True, slots=True)
class Create:
    """Make the pod that holds a GPU; it is fine when there is one."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the pod of this uid; it is fine when it is gone."""

    slot: Slot
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Write into a trial's placement which GPU it is, if it is still this attempt's."""

    slot: Slot
    study: str
    index: int
    attempt: int
    uuid: str


@dataclass(frozen=True, slots=True)
class Lose:
    """Write into a trial's placement that the place is no more, if it is still this attempt's."""

    slot: Slot
    study: str
    index: int
    attempt: int
    message: str


Action = Create | Delete | Tell | Lose


@dataclass(slots=True)
class _Seat:
    """What is remembered of a GPU that is shared. All of it but the pod may be forgotten."""

    pod: Reservation | None = None
    since: float = 0.0
    """When the pod was first seen, or first asked for: clocks of two machines are not compared."""
    ends: str | None = None
    """The uid of the pod that was told to end; that is not taken back."""
    idle: float | None = None
    """Since when nobody has a part of it."""
    until: float = 0.0
    """It stays closed until then."""
    refusal: str = ""
    asked: dict[Action, float] = field(default_factory=dict)


class Reservations:
    """The pods that hold shared GPUs of one cluster."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._seats: dict[Slot, _Seat] = {}
        self._nodes: defaultdict[tuple[str, str], set[Slot]] = defaultdict(set)
        self._slots: dict[str, Slot] = {}
        self._idle: set[Slot] = set()
        self._failures: dict[Slot, int] = {}
        self._wakeups: list[tuple[float, Slot]] = []
        self._swept = 0.0
        self.reopened = False
        """Whether GPUs can be divided again since this was last looked at: whoever waits may get a place now."""

    # What happens

    def take(self, pod: Reservation) -> bool:
        """The pod is there, as given. Whether the scheduler could now decide differently."""
        seat = self._seat(pod.slot)
        if seat.pod is not None and seat.pod.uid != pod.uid:
            self.remove(seat.pod.uid)  # the news that it is gone come late
            seat = self._seat(pod.slot)
        if seat.pod is None:
            seat.since = 0.0
            seat.asked.clear()
        seat.pod = pod
        self._slots[pod.uid] = pod.slot
        self._state.inventory.touched.add(pod.slot)
        return self._book(seat, pod)

    def remove(self, uid: str) -> bool:
        """The pod of this uid is gone."""
        slot = self._slots.pop(uid, None)
        if slot is None:
            return False
        seat = self._seat(slot)
        seat.pod, seat.since, seat.ends = None, 0.0, None
        seat.asked.clear()
        self._state.inventory.touched.add(slot)
        return self._state.remove_pod(uid)

    def refused(self, slot: Slot, why: str) -> None:
        """The API server does not take the pod."""
        self._seat(slot).refusal = why

    def uuid(self, place: Place) -> str | None:
        """The GPU of a place, where that is known already."""
        if place.backend != reservation.NAME or place.node is None or place.resource is None:
            return None
        [device] = place.devices
        seat = self._seats.get(Slot(place.node, place.resource, device))
        pod = seat.pod if seat is not None else None
        return pod.uuid if seat is not None and pod is not None and self._sound(seat, pod) else None

    # What to do

    def plan(self, now: float, hurry: Collection[str] = ()) -> list[Action]:
        """What to do now.

        Args:
            now: Epoch seconds.
            hurry: The resources of which somebody waits for a whole GPU: none is held for nobody then.
        """
        due = self._due(now, hurry)
        return [action for slot in sorted(due) for action in self._plan(slot, now, hurry)]

    def next_due(self) -> float | None:
        """When to plan again if nothing happens before."""
        return self._wakeups[0][0] if self._wakeups else None

    def _due(self, now: float, hurry: Collection[str]) -> set[Slot]:
        touched = self._state.inventory.touched
        due = {slot for slot in touched if slot in self._seats or self._divides(slot)}
        touched.clear()
        while self._wakeups and self._wakeups[0][0] <= now:
            due.add(heapq.heappop(self._wakeups)[1])
        if now - self._swept >= SWEEP:
            self._swept = now
            due |= self._seats.keys()
        if hurry:
            due |= {slot for slot in self._idle if slot.resource in hurry}
        return due

    def _divides(self, slot: Slot) -> bool:
        """Whether a GPU is one of those that are shared in this way."""
        node = self._state.inventory.node(slot.node)
        if node is not None and node.kind(slot.resource).parts == reservation.NAME:
            return True
        return any(_place(each).backend == reservation.NAME for each in self._sharers(slot))

    def _plan(self, slot: Slot, now: float, hurry: Collection[str]) -> list[Action]:
        seat = self._seat(slot)
        if seat.until and now >= seat.until:
            seat.until, self.reopened = 0.0, True
            self._state.inventory.close(slot, broken=False)
        pod = seat.pod
        wanted = self._without(slot, seat, now) if pod is None else self._with(slot, seat, pod, now, hurry)
        actions = [action for action in wanted if self._once(seat, action, now)]
        (self._idle.discard if seat.idle is None else self._idle.add)(slot)
        if seat.pod is None and not seat.until and not self._state.inventory.shared(slot):
            self._forget(slot)
        return actions

    def _without(self, slot: Slot, seat: _Seat, now: float) -> Iterator[Action]:
        """What to do where no pod holds the GPU."""
        seat.idle = None
        sharers = self._sharers(slot)
        staying = [each for each in sharers if not _goes(each)]
        if not self._state.inventory.shared(slot) or (sharers and not staying):
            return
        node = self._state.inventory.node(slot.node)
        seat.since = seat.since or now
        if node is None or not (node.ready and node.schedulable):
            # Nobody else gets the GPU either, so whoever runs may go on; who has not begun need not wait.
            waiting = [each for each in staying if _place(each).uuid is None]
            yield from self._lost(slot, waiting, f"node {slot.node} takes no pods any more")
        elif seat.until:
            yield from self._lost(slot, staying, f"no GPU of node {slot.node} can be shared at present")
        elif now - seat.since >= REFUSED:
            yield from self._give_up(slot, seat, staying, seat.refusal or "the pod that holds it does not appear", now)
        else:
            yield Create(slot)

    def _with(self, slot: Slot, seat: _Seat, pod: Reservation, now: float, hurry: Collection[str]) -> Iterator[Action]:
        """What to do with a pod that holds the GPU, or is to."""
        seat.since = seat.since or now
        if pod.deleting:
            return  # what it holds is given to nobody before it is gone
        if seat.ends == pod.uid:
            yield Delete(slot, pod.name, pod.uid)
        elif not self._state.inventory.shared(slot):
            seat.idle = now if seat.idle is None else seat.idle
            if now >= seat.idle + LINGER or slot.resource in hurry or pod.stage == "over":
                yield self._end(seat, pod)
            else:
                self._wake(slot, seat.idle + LINGER)
        else:
            seat.idle = None
            yield from self._in_use(slot, seat, pod, now)

    def _in_use(self, slot: Slot, seat: _Seat, pod: Reservation, now: float) -> Iterator[Action]:
        staying = [each for each in self._sharers(slot) if not _goes(each)]
        if pod.stage == "waiting":
            at = seat.since + (REFUSED if pod.refused else STARTING)
            if now < at:
                self._wake(slot, at)
            else:
                yield from self._give_up(slot, seat, staying, pod.trouble, now)
        elif pod.uuid is None:
            said = pod.trouble if pod.stage == "over" else "it did not say which GPU it was given"
            yield from self._give_up(slot, seat, staying, said, now)
        elif pod.stage == "over":
            # It was evicted, say. The next one may well be given the same GPU, and then nobody is the worse for it.
            yield self._end(seat, pod)
        elif not self._sound(seat, pod):
            yield from self._give_up(slot, seat, staying, f"its GPU {pod.uuid} is held twice", now)
        else:
            self._failures.pop(slot, None)
            yield from self._tell(slot, pod.uuid, staying, now)

    def _tell(self, slot: Slot, uuid: str, staying: list[TrialView], now: float) -> Iterator[Action]:
        """Who is to know which GPU it is, and who had another one before the pod was replaced."""
        elsewhere = self._state.sharers(slot.node, slot.resource)
        if any(each.placement and each.placement.uuid == uuid and not _at(each, slot) for each in elsewhere):
            self._wake(slot, now + AGAIN)  # they are told that it is theirs no more; until they have left it, nobody is
            return
        for each in staying:
            before = _place(each).uuid
            if before is None:
                yield Tell(slot, each.study, each.index, each.attempt, uuid)
            elif before != uuid:
                yield from self._lost(slot, [each], f"the pod that held GPU {before} on node {slot.node} is gone")

    def _give_up(self, slot: Slot, seat: _Seat, staying: list[TrialView], why: str, now: float) -> Iterator[Action]:
        """The GPU cannot be held: its trials go elsewhere, and the node is left alone for a while."""
        failures = self._failures[slot] = self._failures.get(slot, 0) + 1
        seat.until = now + min(CLOSED_MAX, CLOSED_FIRST * 2.0 ** min(failures - 1, 16))
        seat.since, seat.refusal = 0.0, ""
        self._state.inventory.close(slot)
        self._wake(slot, seat.until)
        yield from self._lost(slot, staying, f"a GPU of node {slot.node} could not be held for it: {why}")
        if seat.pod is not None:
            yield self._end(seat, seat.pod)

    def _lost(self, slot: Slot, sharers: list[TrialView], why: str) -> Iterator[Action]:
        return (Lose(slot, each.study, each.index, each.attempt, why[:1024]) for each in sharers)

    def _end(self, seat: _Seat, pod: Reservation) -> Action:
        seat.ends = pod.uid
        self._book(seat, pod)
        return Delete(pod.slot, pod.name, pod.uid)

    # Book-keeping

    def _book(self, seat: _Seat, pod: Reservation) -> bool:
        """A GPU that is held is nobody's as a whole; while the pod ends, nobody gets a part either."""
        share = 1.0 if pod.deleting or seat.ends == pod.uid else 0.0
        parts = (Part(pod.slot.resource, pod.slot.device, share),)
        return self._state.set_pod(PodView(pod.uid, pod.slot.node, Taken(parts=parts)))

    def _sound(self, seat: _Seat, pod: Reservation) -> bool:
        """Whether the pod holds a GPU of its own, and goes on to."""
        if pod.stage != "running" or pod.uuid is None or pod.deleting or seat.ends == pod.uid:
            return False
        rivals = (self._seats[slot].pod for slot in self._nodes[pod.slot[:2]] if slot < pod.slot)
        return not any(other and other.uuid == pod.uuid and other.stage == "running" for other in rivals)

    def _sharers(self, slot: Slot) -> list[TrialView]:
        return [each for each in self._state.sharers(slot.node, slot.resource) if _at(each, slot)]

    def _once(self, seat: _Seat, action: Action, now: float) -> bool:
        """Whether to do this now: not if it was asked for a moment ago."""
        asked = seat.asked.get(action)
        if asked is not None and now < asked + AGAIN:
            self._wake(action.slot, asked + AGAIN)
            return False
        seat.asked = {each: at for each, at in seat.asked.items() if now < at + AGAIN} | {action: now}
        self._wake(action.slot, now + AGAIN)
        return True

    def _seat(self, slot: Slot) -> _Seat:
        seat = self._seats.get(slot)
        if seat is None:
            seat = self._seats[slot] = _Seat()
            self._nodes[slot[:2]].add(slot)
        return seat

    def _forget(self, slot: Slot) -> None:
        self._seats.pop(slot, None)
        self._idle.discard(slot)
        self._nodes[slot[:2]].discard(slot)

    def _wake(self, slot: Slot, at: float) -> None:
        heapq.heappush(self._wakeups, (at, slot))


def _place(view: TrialView) -> Placement:
    assert view.placement is not None, "sharers have a place"
    return view.placement


def _at(view: TrialView, slot: Slot) -> bool:
    return slot.device in (_place(view).devices or ())


def _goes(view: TrialView) -> bool:
    """Whether the trial was told to leave, for whatever reason."""
    return _place(view).lost is not None or _place(view).reclaim is not None
