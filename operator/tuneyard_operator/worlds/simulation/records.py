"""What must hold of the records: a study ends once, a trial goes its way step by step, and each writes its own part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from tuneyard_api.common import epoch_seconds
from tuneyard_api.study_status import StudyStatus
from tuneyard_api.trial import Phase, TrialStatus
from tuneyard_operator.worlds.simulation.apiserver import ApiServer, Object
from tuneyard_operator.worlds.simulation.kernel import Kernel, must
from tuneyard_operator.worlds.simulation.plans import Plan
from tuneyard_operator.worlds.simulation.schedulers import SCHEDULER
from tuneyard_operator.worlds.simulation.strategies import Strategies
from tuneyard_operator.worlds.simulation.verdicts import Verdicts
from tuneyard_operator.worlds.simulation.world import OPERATOR

LATE: Final = 15.0
"""Seconds after the end of a study in which something under way may still come to be, only to be collected."""
_OVER: Final = frozenset({"Complete", "Failed"})
_STEPS: Final = {
    (Phase.PLACED, Phase.RUNNING),
    (Phase.PLACED, Phase.PLACED),
    (Phase.RUNNING, Phase.RUNNING),
    (Phase.PENDING, Phase.PENDING),
}


class Records:
    """Sees every change of studies and trials."""

    def __init__(
        self, kernel: Kernel, api: ApiServer, plans: dict[str, Plan], strategies: Strategies, verdicts: Verdicts
    ) -> None:
        self._kernel = kernel
        self._api = api
        self._plans = plans
        self._strategies = strategies
        self._verdicts = verdicts
        self.configurations: dict[tuple[str, int], Object] = {}
        """Every configuration that was ever tried, by study name and index."""
        self._created: Counter[tuple[str, int]] = Counter()
        self._made_again: set[tuple[str, int]] = set()
        """Trials that were deleted, by their study's uid and index."""
        self._most: dict[str, int] = {}
        self._deleted: dict[str, float] = {}

    def changed(self, kind: str, before: Object | None, after: Object | None, by: str) -> None:
        """See apiserver.Witness."""
        if kind == "studies":
            self._study_changed(before, after, by)
        elif kind == "trials":
            if before is None and after is not None:
                self._trial_created(after)
            elif before is not None and after is not None:
                self._trial_changed(before, after, by)
            elif before is not None:
                self._created[study_of(before), before["spec"]["index"]] -= 1

    # Studies ---------------------------------------------------------------------------------------------------

    def _study_changed(self, before: Object | None, after: Object | None, by: str) -> None:
        if after is None:
            assert before is not None, "something was deleted"
            self._deleted[before["metadata"]["uid"]] = self._kernel.now
            return
        uid = after["metadata"]["uid"]
        self._most[uid] = max(self._most.get(uid, 0), after["spec"]["trials"]["max"])
        if by == OPERATOR:
            StudyStatus.model_validate(after["status"])
            if before is not None:
                self._end_stays(before.get("status") or {}, after["status"], after["metadata"]["name"])

    def _end_stays(self, old: Object, new: Object, name: str) -> None:
        """A study that has ended stays so, for the same reason, until somebody changes it or its trials."""
        fields = ("phase", "reason")
        if old.get("phase") in _OVER and all(old[key] == new[key] for key in ("observedGeneration", "trials")):
            was, now = ([status[key] for key in fields] for status in (old, new))
            must(was == now, f"{name} had ended ({was}) and now says {now}")

    def not_long_deleted(self, study: str, what: str) -> None:
        """Whether the study is there, or was a moment ago."""
        if not self._api.exists(study):
            must(self._kernel.now - self._deleted[study] < LATE, f"{what} long after its study was deleted")

    # Trials ----------------------------------------------------------------------------------------------------

    def _trial_created(self, trial: Object) -> None:
        name, index, study = trial["metadata"]["name"], trial["spec"]["index"], study_of(trial)
        again = (study, index) in self._created
        self._created[study, index] += 1
        must(self._created[study, index] == 1, f"{name}: index {index} exists twice")
        must(index < self._most[study], f"{name} is beyond trials.max, which never was above {self._most[study]}")
        self.not_long_deleted(study, f"{name} was created")
        plan = self._plans[trial["spec"]["study"]]
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
            must(mistake is None, f"{name} {mistake}")
        self.configurations[plan.name, index] = parameters

    def _continues(self, trial: Object, rung: Object, *, once: bool) -> None:
        """Who continues a trial goes on from one that came to the end of the rung below.

        A promotion (once) has its configuration, and is the only one.
        """
        name, study = trial["metadata"]["name"], study_of(trial)
        for other in self._api.objects["trials"].values():
            if study_of(other) != study or other is trial or other["metadata"]["name"] == name:
                continue
            theirs = other["spec"].get("rung") or {}
            if other["spec"]["index"] == rung["continues"]:
                same = other["spec"]["parameters"] == trial["spec"]["parameters"]
                same &= theirs["bracket"] == rung["bracket"]
                must(same or not once, f"{name} has not the configuration of {rung['continues']}, which it continues")
                ended = (other.get("status") or {}).get("phase") == Phase.SUCCEEDED
                must(theirs["level"] + 1 == rung["level"] and ended, f"{name} continues {other}")
            twice = theirs.get("continues") == rung["continues"]
            must(not twice or not once, f"{name} continues a trial that goes on as {other}")

    def _member(self, trial: Object, rung: Object) -> None:
        """A member of a population trains one generation at a time, and each until it succeeds.

        But for trials that somebody deletes, which are run again as they were, whatever became of the member since.
        """
        for other in self._api.objects["trials"].values():
            theirs, phase = other["spec"].get("rung") or {}, Phase((other.get("status") or {}).get("phase", "Pending"))
            study, index = study_of(other), other["spec"]["index"]
            if study != study_of(trial) or index == trial["spec"]["index"] or (study, index) in self._made_again:
                continue
            if theirs["bracket"] == rung["bracket"]:
                over = phase.terminal and (phase != Phase.SUCCEEDED or theirs["level"] < rung["level"])
                must(over, f"{trial['metadata']['name']} trains a member that has {other}")

    def _other_configurations(self, study: str, index: int) -> Iterator[Object]:
        for trial in self._api.objects["trials"].values():
            if study_of(trial) == study and trial["spec"]["index"] != index:
                yield trial["spec"]["parameters"]

    def _trial_changed(self, before: Object, after: Object, by: str) -> None:
        old, new = before.get("status") or {}, after.get("status") or {}
        if old == new:
            return
        name = after["metadata"]["name"]
        TrialStatus.model_validate(new)
        was, now = Phase(old.get("phase", Phase.PENDING)), Phase(new.get("phase", Phase.PENDING))
        must(not was.terminal, f"{name} had ended ({was}) and was changed to {now} by {by}")
        attempts, earlier = new.get("attempts") or [], old.get("attempts") or []
        must(attempts[: len(earlier)] == earlier, f"{name}: ended attempts were rewritten")
        must([a["number"] for a in attempts] == list(range(len(attempts))), f"{name}: attempts are not numbered 0, 1")
        step = new.get("attempt", 0) - old.get("attempt", 0)
        if by == SCHEDULER:
            self._placed(name, old, new, was, now)
        elif step == 1:
            must(was.has_place and now is Phase.PENDING, f"{name}: a retry goes from {was} to {now}")
            must(len(attempts) == new["attempt"], f"{name}: a retry without a record of what it retries")
        elif now.terminal:
            self._trial_ended(name, was, now, after)
        else:
            must(step == 0 and (was, now) in _STEPS, f"{name} went from {was} to {now} (attempt {new.get('attempt')})")

    def _placed(self, name: str, old: Object, new: Object, was: Phase, now: Phase) -> None:
        if was.has_place:
            taken_back = {**old, "placement": {**old["placement"], "reclaim": new["placement"].get("reclaim")}}
            must(new == taken_back, f"{name}: the scheduler changed more than to take its place back")
            must("reclaim" not in old["placement"], f"{name}: its place was taken back twice")
            return
        allowed = {Phase.PENDING, Phase.PLACED}
        must(was is Phase.PENDING and now in allowed, f"{name}: the scheduler changed {was} to {now}")
        must(old.get("attempt", 0) == new.get("attempt", 0), f"{name}: the scheduler changed the attempt")
        if now is Phase.PLACED:
            must(new["placement"]["attempt"] == new.get("attempt", 0), f"{name}: placed for another attempt")
            early = "notBefore" in old and self._kernel.now < epoch_seconds(old["notBefore"])
            must(not early, f"{name} was placed in its backoff")

    def _trial_ended(self, name: str, was: Phase, now: Phase, trial: Object) -> None:
        new = trial["status"]
        attempts = new.get("attempts") or []
        number = new.get("attempt", 0) + (was.has_place)
        must(len(attempts) == number, f"{name} ended with {len(attempts)} recorded attempts of {number}")
        must("completionTime" in new and bool(new.get("conditions")), f"{name} ended without saying so")
        if new.get("reason") == "EarlyStopped":
            must(now is Phase.STOPPED, f"{name} was stopped early and is {now}")
            self._verdicts.ended(trial)
        if now is Phase.SUCCEEDED:
            must(new.get("value") is not None and "loss" in new["observation"]["metrics"], f"{name}: no observation")
        else:
            must(bool(new.get("reason") and new.get("message")), f"{name} is {now} without reason or message")


def study_of(trial: Object) -> str:
    """The uid of a trial's study."""
    uid: str = trial["metadata"]["ownerReferences"][0]["uid"]
    return uid
