"""What must hold after every step, judged by the truth and never by what a process believes."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Final, NamedTuple

from tuneyard_api.common import STUDY_LABEL, epoch_seconds
from tuneyard_api.trial import Phase, Placement
from tuneyard_operator import pods
from tuneyard_operator.worlds.simulation.apiserver import ApiServer, Object
from tuneyard_operator.worlds.simulation.cluster import Cluster
from tuneyard_operator.worlds.simulation.kernel import Kernel, Violation, must
from tuneyard_operator.worlds.simulation.machines import Machine
from tuneyard_operator.worlds.simulation.pauses import Pauses
from tuneyard_operator.worlds.simulation.plans import Plan
from tuneyard_operator.worlds.simulation.quotas import Quotas, judge_reclaims
from tuneyard_operator.worlds.simulation.records import Records, study_of
from tuneyard_operator.worlds.simulation.schedulers import SchedulerProcess
from tuneyard_operator.worlds.simulation.shares import Demand, Room, Taken, Way, taken_by_place
from tuneyard_operator.worlds.simulation.strategies import Strategies
from tuneyard_operator.worlds.simulation.verdicts import Verdicts
from tuneyard_scheduler.health import LOSSES, PATIENCE, TRIAL_SECONDS
from tuneyard_scheduler.views import Decisions, Place

IDLE: Final = 30.0
"""Seconds for which a GPU may be idle beside a trial that fits it: slow and broken watches, a crash, lost writes."""
_TICK: Final = 3.0

Key = tuple[str, int]
"""An attempt: the uid of its trial, and its number."""


class Claim(NamedTuple):
    """An attempt's place, or pod: study, node, and what it takes there."""

    study: str
    node: str | None
    taken: Taken


class _Lack(NamedTuple):
    """A study that waits, and a machine that could serve it so, were it empty."""

    study: str
    demand: Demand
    machine: Machine
    way: Way
    since: float


class Invariants:
    """Sees every change of the API server and every decision of the scheduler."""

    def __init__(
        self, kernel: Kernel, api: ApiServer, cluster: Cluster, plans: dict[str, Plan], strategies: Strategies
    ) -> None:
        self.kernel = kernel
        self.api = api
        self.cluster = cluster
        self.plans = plans
        self._started: Counter[Key] = Counter()
        self._waits: dict[str, float] = {}
        self._kept: dict[str, float] = {}
        self._strays: dict[Key, float] = {}
        self.verdicts = Verdicts(kernel, api, cluster)
        self.records = Records(kernel, api, plans, strategies, self.verdicts)
        self._quotas = Quotas(kernel, api, cluster, _TICK if cluster.faults.over else IDLE)
        self._pauses = Pauses(kernel, api, cluster.faults)
        api.witnesses.append(self)
        kernel.after(_TICK, self._look)

    def changed(self, kind: str, before: Object | None, after: Object | None, by: str) -> None:
        """See apiserver.Witness."""
        self.records.changed(kind, before, after, by)
        if kind == "jobs" and before is None and after is not None:
            self._job_created(after)
        elif kind == "studies" and after is not None:
            self._waits.pop(after["metadata"]["uid"], None)
            self._pauses.study_changed(after)

    # Attempts --------------------------------------------------------------------------------------------------

    def _job_created(self, job: Object) -> None:
        meta = job["metadata"]
        key = pods.key(job)
        assert key is not None, "Jobs are ours"
        owner = meta["ownerReferences"][0]
        self._started[owner["uid"], key.attempt] += 1
        self.records.not_long_deleted(key.study_uid, f"{meta['name']} was started")
        study = self.api.objects["studies"].get(meta["labels"][STUDY_LABEL])
        if study is not None and study["metadata"]["uid"] == key.study_uid:
            self._pauses.job_created(job, study)
        trial = self.api.objects["trials"].get(owner["name"])
        if trial is None or trial["metadata"]["uid"] != owner["uid"]:
            return  # deleted while the request was on its way: it is collected
        must(self._started[owner["uid"], key.attempt] == 1, f"{meta['name']} was started twice")
        status = trial.get("status") or {}
        placement = status.get("placement") or {}
        must(Phase(status.get("phase", "Pending")).has_place, f"{meta['name']} was started for a trial without place")
        must(placement.get("attempt") == key.attempt, f"{meta['name']} was started for another attempt's place")
        parameters = trial["spec"]["parameters"]
        args = job["spec"]["template"]["spec"]["containers"][0]["args"]
        expected = [f"--x={parameters['x']!r}", f"--k={parameters['k']}"]
        must(args == expected, f"{meta['name']} was started with {args}, not {expected}")
        fidelity = self.plans[trial["spec"]["study"]].spec.get("fidelity")
        if fidelity is not None:
            env = {e["name"]: e["value"] for e in job["spec"]["template"]["spec"]["containers"][0]["env"]}
            told = str((trial["spec"].get("rung") or {}).get("fidelity", fidelity["max"]))
            must(env["TUNEYARD_PARAM_epochs"] == told, f"{meta['name']} is to run for {told} epochs: {env}")

    def decided(self, scheduler: SchedulerProcess, decisions: Decisions) -> None:
        """The scheduler gives places: caps and nodes are judged by all that it can know at this moment."""
        judge_reclaims(scheduler.state, decisions.preempt)
        if not decisions.placements:
            return
        taken = self._taken(scheduler)
        told = {item["metadata"]["name"]: item for item in scheduler.by_kind["studies"].known.values()}
        for place in decisions.placements:
            name = place.study.partition("/")[2]
            trial = self.api.objects["trials"].get(f"{name}-{place.index}")
            study = told.get(name)
            must(study is not None, f"{place} is for a study that the scheduler was told is gone")
            assert study is not None, "checked above"
            self._waits.pop(study["metadata"]["uid"], None)
            if trial is None or study_of(trial) != study["metadata"]["uid"] or _claims(trial):
                continue  # gone or changed meanwhile: it cannot be written
            before = [claim.taken for claim in taken.values() if claim.node == place.node]
            claim = Claim(study_of(trial), place.node, _taken_by(place, study["spec"], trial))
            taken[trial["metadata"]["uid"], place.attempt] = claim
            self._judge(place, study, taken)
            self._judge_node(place, claim, before, Demand.of(study["spec"], _needs(trial)))

    def _judge(self, place: Place, study: Object, taken: dict[Key, Claim]) -> None:
        spec, uid = study["spec"], study["metadata"]["uid"]
        must(not spec.get("suspend", False), f"{place} is for a suspended study")
        running = sum(claim.study == uid for claim in taken.values())
        parallel = spec["trials"]["parallel"]
        must(running <= parallel, f"{place} makes {running} attempts at a time, and parallel is {parallel}")
        if place.gpus:
            if place.node is None:
                out = [claim.study for claim in taken.values() if claim.node is None and claim.taken.gpus]
                self._quotas.judge_unplaced(str(place), study, out)
            self._quotas.judge(str(place), study, ((claim.study, claim.taken.gpus) for claim in taken.values()))

    def _judge_node(self, place: Place, claim: Claim, before: list[Taken], demand: Demand) -> None:
        """Whether it is what was asked for, and the node has it beside all that is taken there."""
        must(bool(place.gpus) == demand.gpus, f"{place} has not the GPUs that were asked for")
        machine = self.cluster.machines.machines.get(place.node or "")
        if machine is None or not demand.gpus:
            return
        share = sum(claim.taken.parts.values())
        given = place.resource, sum(claim.taken.units.values()), round(share, 4), round(place.gpus, 4)
        asked = [(w.resource, w.units, round(w.share, 4), round(w.gpus, 4)) for w in demand.ways(machine.build)]
        must(given in asked, f"{place} is not what was asked for: {asked}")
        room = Room(machine.build, before)
        must(room.takes(claim.taken), f"{place} does not fit on {machine} beside {before}")

    def _taken(self, scheduler: SchedulerProcess) -> dict[Key, Claim]:
        """Attempts that have a place, or that live and the scheduler has heard of."""
        taken: dict[Key, Claim] = {}
        specs = {study["metadata"]["uid"]: study["spec"] for study in self.api.objects["studies"].values()}
        known = scheduler.by_kind["pods"].known
        ended: set[Key] = set()
        for pod in self.cluster.machines.pods.values():
            key = (pod.trial or pod.uid, pod.attempt)
            if not pod.alive:
                ended.add(key)
            elif pod.uid in known:
                taken[key] = Claim(pod.study, pod.machine.name if pod.machine else pod.wants, pod.taken)
        for trial in self.api.objects["trials"].values():
            status = trial.get("status") or {}
            key = (trial["metadata"]["uid"], status.get("attempt", 0))
            if _claims(trial) and self.api.exists(study_of(trial)) and key not in ended and key not in taken:
                placed = Placement.model_validate(status["placement"])
                taken[key] = Claim(study_of(trial), placed.node, _taken_by(placed, specs[study_of(trial)], trial))
        for place, uid in scheduler.unsettled.items():
            if not isinstance(place, Place):
                continue
            trial_now = self.api.objects["trials"].get(f"{place.study.partition('/')[2]}-{place.index}")
            if uid is not None and trial_now is not None and _could_take(trial_now, uid, place.attempt):
                of = study_of(trial_now)
                if of in specs:
                    taken[uid, place.attempt] = Claim(of, place.node, _taken_by(place, specs[of], trial_now))
        return taken

    # What must not last ----------------------------------------------------------------------------------------

    def _look(self) -> None:
        self.kernel.after(_TICK, self._look)
        self._look_for_idle_gpus()
        self._look_for_strays()
        self.verdicts.look()

    def _look_for_strays(self) -> None:
        """Whether an attempt lives on long after its end was recorded, or its study or trial was deleted."""
        current = {
            (trial["metadata"]["uid"], (trial.get("status") or {}).get("attempt", 0))
            for trial in self.api.objects["trials"].values()
            if _claims(trial)
        }
        for pod in self.cluster.machines.alive():
            key = (pod.trial, pod.attempt)
            if not pod.trial or key in current or self.cluster.machines.terminating(pod):
                self._strays.pop(key, None)
            else:
                since = self._strays.setdefault(key, self.kernel.now)
                must(self.kernel.now - since < IDLE, f"{pod.name} lives on long after its attempt ended")

    def _look_for_idle_gpus(self) -> None:
        """Whether some study has waited long although a node has been ready, with enough free GPUs, as long.

        One node at a time may be kept for a trial that needs more than is free there.
        """
        now = self.kernel.now
        lacking: list[_Lack] = []
        for name, study in self.api.objects["studies"].items():
            uid = study["metadata"]["uid"]
            if not self._may_have_another(name, study):
                self._waits.pop(uid, None)
                self._quotas.forget(uid)
                continue
            demand = self._demand(study)
            self._quotas.look(study, demand)
            spare = self._quotas.spare(study)
            ready = [m for m in self.cluster.machines.machines.values() if demand.gpus and m.ready]
            ways = [(m, way) for m in ready for way in demand.ways(m.build) if way.gpus <= spare]
            if ready and not ways:
                self._waits.pop(uid, None)
                continue
            since = self._waits.setdefault(uid, now)
            lacking += [_Lack(name, demand, machine, way, since) for machine, way in ways]
        kept = self._could_be_kept(lacking)
        if kept:
            self._kept[min(kept, key=lambda machine: machine.changed).name] = now
        crowded = {pod.wants for pod in self.cluster.machines.alive() if pod.machine is None}
        for each in lacking:
            machine = each.machine
            if each.way.share and machine.name in crowded:
                continue  # a stranger was faster, and parts are given again once that is settled
            idle = now - max(each.since, machine.changed, self._kept.get(machine.name, 0.0))
            if idle >= IDLE and idle >= IDLE + self._avoided(machine) and machine.room().has(each.way, each.demand):
                said = f"{machine.name} has had {each.way} idle for {idle:.0f} s beside a trial of {each.study}"
                raise Violation(said)

    def _avoided(self, machine: Machine) -> float:
        """For how long it may be left alone, because of what was lost there, or came there and found no room."""
        attempts = (
            attempt
            for trial in self.api.objects["trials"].values()
            for attempt in (trial.get("status") or {}).get("attempts") or ()
        )
        turned_away = sum(each.get("reason") == "PlaceLost" and each.get("node") == machine.name for each in attempts)
        return max(PATIENCE, TRIAL_SECONDS) if machine.lost + turned_away >= LOSSES else 0.0

    def _could_be_kept(self, lacking: list[_Lack]) -> list[Machine]:
        """The machines that have room for some who wait, and would have it for others as well, were they empty."""
        fits: defaultdict[str, set[bool]] = defaultdict(set)
        for each in lacking:
            if Room(each.machine.build, ()).has(each.way, each.demand):
                fits[each.machine.name].add(each.machine.room().has(each.way, each.demand))
        return [self.cluster.machines.machines[name] for name, found in fits.items() if len(found) == 2]

    def _demand(self, study: Object) -> Demand:
        """What a trial of a study asks for that waits: as much memory as the one that needs most."""
        waiting = (
            trial["status"].get("needs") or {}
            for trial in self.api.objects["trials"].values()
            if study_of(trial) == study["metadata"]["uid"] and (trial.get("status") or {}).get("phase") == Phase.PENDING
        )
        return Demand.of(study["spec"], max((needs.get("memory", 0) for needs in waiting), default=0))

    def _may_have_another(self, name: str, study: Object) -> bool:
        status, spec = study.get("status") or {}, study["spec"]
        held = spec.get("suspend", False) or status.get("phase") in {"Blocked", "Complete", "Failed"}
        if held or "deletionTimestamp" in study["metadata"]:
            return False
        mine = [t for t in self.api.objects["trials"].values() if study_of(t) == study["metadata"]["uid"]]
        alive = {
            (pod.index, pod.attempt)
            for pod in self.cluster.machines.pods.values()
            if pod.alive and pod.study == study["metadata"]["uid"]
        }
        alive |= {(t["spec"]["index"], t["status"].get("attempt", 0)) for t in mine if _claims(t)}
        del name
        return len(alive) < spec["trials"]["parallel"] and any(self._ready(trial) for trial in mine)

    def _ready(self, trial: Object) -> bool:
        status = trial.get("status") or {}
        later = status.get("notBefore")
        waits = status.get("phase", "Pending") == "Pending" and "deletionTimestamp" not in trial["metadata"]
        return waits and (later is None or epoch_seconds(later) <= self.kernel.now)


def _claims(trial: Object) -> bool:
    status = trial.get("status") or {}
    return Phase(status.get("phase", "Pending")).has_place


def _taken_by(place: Place | Placement, spec: Object, trial: Object) -> Taken:
    return taken_by_place(place.gpus, place.resource, place.devices, spec, _needs(trial))


def _needs(trial: Object) -> int:
    """MiB of memory that a trial needs, where that is more than its study asks for."""
    return int(((trial.get("status") or {}).get("needs") or {}).get("memory", 0))


def _could_take(trial: Object, uid: str, attempt: int) -> bool:
    """Whether a place for this trial may still be written."""
    meta, status = trial["metadata"], trial.get("status") or {}
    waits = (status.get("phase", "Pending"), status.get("attempt", 0)) == ("Pending", attempt)
    return waits and meta["uid"] == uid and "deletionTimestamp" not in meta
