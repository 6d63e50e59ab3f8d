"""What must hold after every step, judged by the truth and never by what a process believes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final, NamedTuple

from tuneyard_api.common import STUDY_LABEL, epoch_seconds
from tuneyard_api.study import StudyStatus
from tuneyard_api.trial import Phase, Placement, TrialStatus
from tuneyard_operator import pods
from tuneyard_operator.worlds.simulation.apiserver import ApiServer, Object
from tuneyard_operator.worlds.simulation.cluster import Cluster
from tuneyard_operator.worlds.simulation.kernel import Kernel, Violation
from tuneyard_operator.worlds.simulation.machines import Machine
from tuneyard_operator.worlds.simulation.pauses import Pauses
from tuneyard_operator.worlds.simulation.plans import Plan
from tuneyard_operator.worlds.simulation.quotas import Quotas, judge_reclaims
from tuneyard_operator.worlds.simulation.schedulers import SCHEDULER, SchedulerProcess
from tuneyard_operator.worlds.simulation.shares import Demand, Room, Taken, Way, taken_by_place
from tuneyard_operator.worlds.simulation.strategies import Strategies
from tuneyard_operator.worlds.simulation.verdicts import Verdicts
from tuneyard_operator.worlds.simulation.world import OPERATOR
from tuneyard_scheduler.health import LOSSES, PATIENCE, TRIAL_SECONDS
from tuneyard_scheduler.views import Decisions, Place

LATE: Final = 15.0
"""Seconds after the end of a study in which something under way may still come to be, only to be collected."""
IDLE: Final = 30.0
"""Seconds for which a GPU may be idle beside a trial that fits it: slow and broken watches, a crash, lost writes."""
_TICK: Final = 3.0
_ACTIVE: Final = frozenset({Phase.PLACED, Phase.RUNNING})
_OVER: Final = frozenset({"Complete", "Failed"})

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
        self._strategies = strategies
        self.configurations: dict[tuple[str, int], Object] = {}
        """Every configuration that was ever tried, by study name and index."""
        self._created: Counter[tuple[str, int]] = Counter()
        self._made_again: set[tuple[str, int]] = set()
        """Trials that were deleted, by their study's uid and index."""
        self._started: Counter[Key] = Counter()
        self._most: dict[str, int] = {}
        self._deleted: dict[str, float] = {}
        self._waits: dict[str, float] = {}
        self._kept: dict[str, float] = {}
        self._strays: dict[Key, float] = {}
        self.verdicts = Verdicts(kernel, api, cluster)
        self._quotas = Quotas(kernel, api, cluster, _TICK if cluster.faults.over else IDLE)
        self._pauses = Pauses(kernel, api, cluster.faults)
        api.witnesses.append(self)
        kernel.after(_TICK, self._look)

    def changed(self, kind: str, before: Object | None, after: Object | None, by: str) -> None:
        """See apiserver.Witness."""
        if kind == "trials":
            if before is None and after is not None:
                self._trial_created(after)
            elif before is not None and after is not None:
                self._trial_changed(before, after, by)
            elif before is not None:
                self._created[_study_of(before), before["spec"]["index"]] -= 1
        elif kind == "jobs" and before is None and after is not None:
            self._job_created(after)
        elif kind == "studies":
            self._study_changed(before, after, by)

    # Studies and trials ----------------------------------------------------------------------------------------

    def _study_changed(self, before: Object | None, after: Object | None, by: str) -> None:
        if after is None:
            assert before is not None, "something was deleted"
            self._deleted[before["metadata"]["uid"]] = self.kernel.now
            return
        uid = after["metadata"]["uid"]
        self._most[uid] = max(self._most.get(uid, 0), after["spec"]["trials"]["max"])
        self._waits.pop(uid, None)
        self._pauses.study_changed(after)
        if by == OPERATOR:
            StudyStatus.model_validate(after["status"])
            if before is not None:
                self._end_stays(before.get("status") or {}, after["status"], after["metadata"]["name"])

    def _end_stays(self, old: Object, new: Object, name: str) -> None:
        """A study that has ended stays so, for the same reason, until somebody changes it or its trials."""
        fields = ("phase", "reason")
        if old.get("phase") in _OVER and all(old[key] == new[key] for key in ("observedGeneration", "trials")):
            was, now = ([status[key] for key in fields] for status in (old, new))
            _must(was == now, f"{name} had ended ({was}) and now says {now}")

    def _not_long_deleted(self, study: str, what: str) -> None:
        if not self.api.exists(study):
            _must(self.kernel.now - self._deleted[study] < LATE, f"{what} long after its study was deleted")

    def _trial_created(self, trial: Object) -> None:
        name, index, study = trial["metadata"]["name"], trial["spec"]["index"], _study_of(trial)
        again = (study, index) in self._created
        self._created[study, index] += 1
        _must(self._created[study, index] == 1, f"{name}: index {index} exists twice")
        _must(index < self._most[study], f"{name} is beyond trials.max, which never was above {self._most[study]}")
        self._not_long_deleted(study, f"{name} was created")
        plan = self.plans[trial["spec"]["study"]]
        parameters = trial["spec"]["parameters"]
        rung = trial["spec"].get("rung") or {}
        changes = plan.spec["strategy"]["name"] == "pbt"
        if again:
            self._made_again.add((study, index))
        elif changes:
            self._member(trial, rung)
        if "continues" in rung:
            self._continues(trial, rung, once=not changes)
        if "continues" not in rung or changes:
            new = "continues" not in rung and not again
            others = self._other_configurations(study, index) if new else ()
            mistake = self._strategies.mistake(plan, index, parameters, others)
            _must(mistake is None, f"{name} {mistake}")
        self.configurations[plan.name, index] = parameters

    def _continues(self, trial: Object, rung: Object, *, once: bool) -> None:
        """Who continues a trial goes on from one that came to the end of the rung below.

        A promotion (once) has its configuration, and is the only one.
        """
        name, study = trial["metadata"]["name"], _study_of(trial)
        for other in self.api.objects["trials"].values():
            if _study_of(other) != study or other is trial or other["metadata"]["name"] == name:
                continue
            theirs = other["spec"].get("rung") or {}
            if other["spec"]["index"] == rung["continues"]:
                same = other["spec"]["parameters"] == trial["spec"]["parameters"]
                same &= theirs["bracket"] == rung["bracket"]
                _must(same or not once, f"{name} has not the configuration of {rung['continues']}, which it continues")
                ended = (other.get("status") or {}).get("phase") == Phase.SUCCEEDED
                _must(theirs["level"] + 1 == rung["level"] and ended, f"{name} continues {other}")
            twice = theirs.get("continues") == rung["continues"]
            _must(not twice or not once, f"{name} continues a trial that goes on as {other}")

    def _member(self, trial: Object, rung: Object) -> None:
        """A member of a population trains one generation at a time, and each until it succeeds.

        But for trials that somebody deletes, which are run again as they were, whatever became of the member since.
        """
        for other in self.api.objects["trials"].values():
            theirs, phase = other["spec"].get("rung") or {}, Phase((other.get("status") or {}).get("phase", "Pending"))
            study, index = _study_of(other), other["spec"]["index"]
            if study != _study_of(trial) or index == trial["spec"]["index"] or (study, index) in self._made_again:
                continue
            if theirs["bracket"] == rung["bracket"]:
                over = phase.terminal and (phase != Phase.SUCCEEDED or theirs["level"] < rung["level"])
                _must(over, f"{trial['metadata']['name']} trains a member that has {other}")

    def _other_configurations(self, study: str, index: int) -> Iterator[Object]:
        for trial in self.api.objects["trials"].values():
            if _study_of(trial) == study and trial["spec"]["index"] != index:
                yield trial["spec"]["parameters"]

    def _trial_changed(self, before: Object, after: Object, by: str) -> None:
        old, new = before.get("status") or {}, after.get("status") or {}
        if old == new:
            return
        name = after["metadata"]["name"]
        TrialStatus.model_validate(new)
        was, now = Phase(old.get("phase", Phase.PENDING)), Phase(new.get("phase", Phase.PENDING))
        _must(not was.terminal, f"{name} had ended ({was}) and was changed to {now} by {by}")
        attempts, earlier = new.get("attempts") or [], old.get("attempts") or []
        _must(attempts[: len(earlier)] == earlier, f"{name}: ended attempts were rewritten")
        _must([a["number"] for a in attempts] == list(range(len(attempts))), f"{name}: attempts are not numbered 0, 1")
        step = new.get("attempt", 0) - old.get("attempt", 0)
        if by == SCHEDULER:
            self._placed(name, old, new, was, now)
        elif step == 1:
            _must(was in _ACTIVE and now is Phase.PENDING, f"{name}: a retry goes from {was} to {now}")
            _must(len(attempts) == new["attempt"], f"{name}: a retry without a record of what it retries")
        elif now.terminal:
            self._trial_ended(name, was, now, after)
        else:
            _must(step == 0 and (was, now) in _STEPS, f"{name} went from {was} to {now} (attempt {new.get('attempt')})")

    def _placed(self, name: str, old: Object, new: Object, was: Phase, now: Phase) -> None:
        if was in _ACTIVE:
            taken_back = {**old, "placement": {**old["placement"], "reclaim": new["placement"].get("reclaim")}}
            _must(new == taken_back, f"{name}: the scheduler changed more than to take its place back")
            _must("reclaim" not in old["placement"], f"{name}: its place was taken back twice")
            return
        allowed = {Phase.PENDING, Phase.PLACED}
        _must(was is Phase.PENDING and now in allowed, f"{name}: the scheduler changed {was} to {now}")
        _must(old.get("attempt", 0) == new.get("attempt", 0), f"{name}: the scheduler changed the attempt")
        if now is Phase.PLACED:
            _must(new["placement"]["attempt"] == new.get("attempt", 0), f"{name}: placed for another attempt")
            early = "notBefore" in old and self.kernel.now < epoch_seconds(old["notBefore"])
            _must(not early, f"{name} was placed in its backoff")

    def _trial_ended(self, name: str, was: Phase, now: Phase, trial: Object) -> None:
        new = trial["status"]
        attempts = new.get("attempts") or []
        number = new.get("attempt", 0) + (was in _ACTIVE)
        _must(len(attempts) == number, f"{name} ended with {len(attempts)} recorded attempts of {number}")
        _must("completionTime" in new and bool(new.get("conditions")), f"{name} ended without saying so")
        if new.get("reason") == "EarlyStopped":
            _must(now is Phase.STOPPED, f"{name} was stopped early and is {now}")
            self.verdicts.ended(trial)
        if now is Phase.SUCCEEDED:
            _must(new.get("value") is not None and "loss" in new["observation"]["metrics"], f"{name}: no observation")
        else:
            _must(bool(new.get("reason") and new.get("message")), f"{name} is {now} without reason or message")

    # Attempts --------------------------------------------------------------------------------------------------

    def _job_created(self, job: Object) -> None:
        meta = job["metadata"]
        key = pods.key(job)
        assert key is not None, "Jobs are ours"
        owner = meta["ownerReferences"][0]
        self._started[owner["uid"], key.attempt] += 1
        self._not_long_deleted(key.study_uid, f"{meta['name']} was started")
        study = self.api.objects["studies"].get(meta["labels"][STUDY_LABEL])
        if study is not None and study["metadata"]["uid"] == key.study_uid:
            self._pauses.job_created(job, study)
        trial = self.api.objects["trials"].get(owner["name"])
        if trial is None or trial["metadata"]["uid"] != owner["uid"]:
            return  # deleted while the request was on its way: it is collected
        _must(self._started[owner["uid"], key.attempt] == 1, f"{meta['name']} was started twice")
        status = trial.get("status") or {}
        placement = status.get("placement") or {}
        _must(Phase(status.get("phase", "Pending")) in _ACTIVE, f"{meta['name']} was started for a trial without place")
        _must(placement.get("attempt") == key.attempt, f"{meta['name']} was started for another attempt's place")
        parameters = trial["spec"]["parameters"]
        args = job["spec"]["template"]["spec"]["containers"][0]["args"]
        expected = [f"--x={parameters['x']!r}", f"--k={parameters['k']}"]
        _must(args == expected, f"{meta['name']} was started with {args}, not {expected}")
        fidelity = self.plans[trial["spec"]["study"]].spec.get("fidelity")
        if fidelity is not None:
            env = {e["name"]: e["value"] for e in job["spec"]["template"]["spec"]["containers"][0]["env"]}
            told = str((trial["spec"].get("rung") or {}).get("fidelity", fidelity["max"]))
            _must(env["TUNEYARD_PARAM_epochs"] == told, f"{meta['name']} is to run for {told} epochs: {env}")

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
            _must(study is not None, f"{place} is for a study that the scheduler was told is gone")
            assert study is not None, "checked above"
            self._waits.pop(study["metadata"]["uid"], None)
            if trial is None or _study_of(trial) != study["metadata"]["uid"] or _claims(trial):
                continue  # gone or changed meanwhile: it cannot be written
            before = [claim.taken for claim in taken.values() if claim.node == place.node]
            claim = Claim(_study_of(trial), place.node, _taken_by(place, study["spec"], trial))
            taken[trial["metadata"]["uid"], place.attempt] = claim
            self._judge(place, study, taken)
            self._judge_node(place, claim, before, Demand.of(study["spec"], _needs(trial)))

    def _judge(self, place: Place, study: Object, taken: dict[Key, Claim]) -> None:
        spec, uid = study["spec"], study["metadata"]["uid"]
        _must(not spec.get("suspend", False), f"{place} is for a suspended study")
        running = sum(claim.study == uid for claim in taken.values())
        parallel = spec["trials"]["parallel"]
        _must(running <= parallel, f"{place} makes {running} attempts at a time, and parallel is {parallel}")
        if place.gpus:
            if place.node is None:
                out = [claim.study for claim in taken.values() if claim.node is None and claim.taken.gpus]
                self._quotas.judge_unplaced(str(place), study, out)
            self._quotas.judge(str(place), study, ((claim.study, claim.taken.gpus) for claim in taken.values()))

    def _judge_node(self, place: Place, claim: Claim, before: list[Taken], demand: Demand) -> None:
        """Whether it is what was asked for, and the node has it beside all that is taken there."""
        _must(bool(place.gpus) == demand.gpus, f"{place} has not the GPUs that were asked for")
        machine = self.cluster.machines.machines.get(place.node or "")
        if machine is None or not demand.gpus:
            return
        share = sum(claim.taken.parts.values())
        given = place.resource, sum(claim.taken.units.values()), round(share, 4), round(place.gpus, 4)
        asked = [(w.resource, w.units, round(w.share, 4), round(w.gpus, 4)) for w in demand.ways(machine.build)]
        _must(given in asked, f"{place} is not what was asked for: {asked}")
        room = Room(machine.build, before)
        _must(room.takes(claim.taken), f"{place} does not fit on {machine} beside {before}")

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
            if _claims(trial) and self.api.exists(_study_of(trial)) and key not in ended and key not in taken:
                placed = Placement.model_validate(status["placement"])
                taken[key] = Claim(_study_of(trial), placed.node, _taken_by(placed, specs[_study_of(trial)], trial))
        for place, uid in scheduler.unsettled.items():
            if not isinstance(place, Place):
                continue
            trial_now = self.api.objects["trials"].get(f"{place.study.partition('/')[2]}-{place.index}")
            if uid is not None and trial_now is not None and _could_take(trial_now, uid, place.attempt):
                of = _study_of(trial_now)
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
                _must(self.kernel.now - since < IDLE, f"{pod.name} lives on long after its attempt ended")

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
            avoided = max(PATIENCE, TRIAL_SECONDS) if machine.lost >= LOSSES else 0.0
            if idle >= IDLE + avoided and machine.room().has(each.way, each.demand):
                said = f"{machine.name} has had {each.way} idle for {idle:.0f} s beside a trial of {each.study}"
                raise Violation(said)

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
            if _study_of(trial) == study["metadata"]["uid"]
            and (trial.get("status") or {}).get("phase") == Phase.PENDING
        )
        return Demand.of(study["spec"], max((needs.get("memory", 0) for needs in waiting), default=0))

    def _may_have_another(self, name: str, study: Object) -> bool:
        status, spec = study.get("status") or {}, study["spec"]
        held = spec.get("suspend", False) or status.get("phase") in {"Blocked", "Complete", "Failed"}
        if held or "deletionTimestamp" in study["metadata"]:
            return False
        mine = [t for t in self.api.objects["trials"].values() if _study_of(t) == study["metadata"]["uid"]]
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


_STEPS: Final = {
    (Phase.PLACED, Phase.RUNNING),
    (Phase.PLACED, Phase.PLACED),
    (Phase.RUNNING, Phase.RUNNING),
    (Phase.PENDING, Phase.PENDING),
}


def _must(holds: bool, broken: str) -> None:
    if not holds:
        raise Violation(broken)


def _study_of(trial: Object) -> str:
    uid: str = trial["metadata"]["ownerReferences"][0]["uid"]
    return uid


def _claims(trial: Object) -> bool:
    status = trial.get("status") or {}
    return status.get("phase") in _ACTIVE


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
