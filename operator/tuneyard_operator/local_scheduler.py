"""The scheduler of this machine: the same cycle as a cluster's, over what the trials of all studies here hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from tuneyard_operator.worlds.leases import Holding, Lease
from tuneyard_operator.worlds.machine import Machine
from tuneyard_scheduler import translate
from tuneyard_scheduler.books import TrialBook
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.devices import Portion
from tuneyard_scheduler.outlook import outlook
from tuneyard_scheduler.policies import DEFAULT, nodes
from tuneyard_scheduler.policies.nodes import Spot
from tuneyard_scheduler.reasons import Reason, Refusal
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import NOTHING, AttemptKey, Place, PodView, StudyView, Waiting

Object = dict[str, Any]
Write = Callable[[int, int, Object], bool]
"""Put a status into a trial (its index) if it is still at this version; whether it was."""


class LocalScheduler:
    """Gives the trials of one study places beside those of the others.

    Whatever is held of the machine is a pod of its one node. A place is taken hold of as it is given, while nobody else
    gives any: so two studies never give the same one.

    Args:
        machine: what there is.
        uid: the study's.
        key: the study's key.
    """

    def __init__(self, machine: Machine, uid: str, key: str) -> None:
        self._machine = machine
        self._uid = uid
        self._key = key
        self._cluster = ClusterState()
        self._held: set[str] = set()
        self._ended: set[tuple[int, int]] = set()
        self._leases: dict[tuple[int, int], Lease] = {}
        """Of attempts that are to start."""
        self.waiting: Waiting | None = None
        """The next trial that waits, if one does, and why."""

    def set_trial(self, trial: Object) -> None:
        """The trial is there, as given; a place that it gave back before it was started is free again."""
        view = translate.trial(trial)
        self._cluster.set_trial(view)
        for index, attempt in [key for key in self._leases if key[0] == view.index]:
            if attempt != view.attempt or not view.phase.has_place:
                self._leases.pop((index, attempt)).close()

    def close(self) -> None:
        """Let go of the places of which nothing was started."""
        for lease in self._leases.values():
            lease.close()
        self._leases.clear()

    def set_process(self, index: int, attempt: int, *, ended: bool) -> None:
        """An attempt's process is seen. It counts against parallel for as long as it lives, also when told to end."""
        uid = Holding(self._uid, index, attempt, {}).name
        if ended:
            self._ended.add((index, attempt))
            self._cluster.remove_pod(uid)
        elif uid not in self._held:  # it holds nothing, or that is seen in a moment
            key = AttemptKey(self._key, index, attempt)
            self._cluster.set_pod(PodView(uid, self._machine.name, NOTHING, key, self._uid))

    def schedule(self, study: Object, now: float, write: Write, *, suspended: bool) -> float | None:
        """Give places to waiting trials; when to look again if nothing happens before."""
        view = replace(self._machine.view(study), suspended=suspended)
        self._cluster.set_study(view)
        self._cluster.set_node(self._machine.node(view))
        with self._machine.leases.alone():
            self._see(self._machine.leases.held(), view)
            decisions = schedule(self._cluster, now, policies=_HERE)
            for place in decisions.placements:
                self._give(place, view, now, write)
        self.waiting = next(iter(decisions.waiting), None)
        return decisions.next_wakeup

    def lease(self, index: int, attempt: int, placement: Object, study: Object) -> Lease | None:
        """What holds an attempt's place until its process does; None while others have what an earlier run gave it."""
        lease = self._leases.pop((index, attempt), None)
        if lease is not None:
            return lease
        view, leases = self._machine.view(study), self._machine.leases
        place = Place(
            self._key, index, attempt, gpus=placement.get("gpus", 0), devices=tuple(placement.get("devices") or ())
        )
        wanted = self._machine.holding(self._uid, place, view)
        with leases.alone():
            return leases.take(wanted) if self._machine.fits(wanted, leases.held()) else None

    def _see(self, held: list[Holding], view: StudyView) -> None:
        """Take in what is held now. What is left of an ended attempt is nobody's."""
        seen: set[str] = set()
        for holding in held:
            own = holding.study == self._uid and (holding.trial, holding.attempt) not in self._ended
            key = AttemptKey(self._key, holding.trial, holding.attempt) if own else None
            uid = holding.name if own else f"{holding.name}/"
            seen.add(uid)
            taken, owner = self._machine.taken(holding, view), self._uid if own else None
            self._cluster.set_pod(PodView(uid, self._machine.name, taken, key, owner))
        for uid in self._held - seen:
            self._cluster.remove_pod(uid)
        self._held = seen

    def version(self, of: Place | Waiting) -> int:
        """The version of a trial that was decided on."""
        trial = self._cluster.trial(of.study, of.index)
        return int(trial.view.version or 0) if trial is not None and trial.view is not None else 0

    def start(self, waiting: Waiting, now: float) -> float | None:
        """When a trial that waits may have its place, where that can be told."""
        return outlook(self._cluster, [waiting], now)[waiting.study].start

    def _give(self, place: Place, view: StudyView, now: float, write: Write) -> None:
        if write(place.index, self.version(place), translate.placed(place, None, now)["status"]):
            holding = self._machine.holding(self._uid, place, view)
            self._leases[place.index, place.attempt] = self._machine.leases.take(holding)
        else:
            self._cluster.forget(place)


def _on_this_machine(state: ClusterState, view: StudyView, trial: TrialBook) -> Spot | Refusal | None:
    """Trials without GPUs, too, are placed: by cores and memory."""
    if view.gpu is not None:
        return nodes.fullest_that_fits(state, view, trial)
    node = next(state.inventory.nodes())
    if state.inventory.fits(node.name, view.cpu, view.memory):
        return Spot(node.name, None, _NO_GPU)
    cores, memory = state.inventory.spare(node.name)
    asked = [f"{view.cpu:g} of {node.cpu:g} cores ({max(0.0, cores):g} free)"] if view.cpu else []
    asked += [f"{_gib(view.memory)} of {_gib(node.memory)} GiB ({_gib(memory)} free)"] if view.memory else []
    return Refusal(Reason.NO_NODE_FITS, f"each trial asks for {' and '.join(asked)} of this machine")


def _gib(size: float | None) -> str:
    return f"{max(0.0, size or 0.0) / 2**30:.3g}"


_NO_GPU: Final = Portion(None)
_HERE: Final = replace(DEFAULT, choose=_on_this_machine)
