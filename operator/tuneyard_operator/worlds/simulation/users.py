"""People: they apply studies, and change their minds."""

from __future__ import annotations

from typing import Any, Final

from tuneyard_api.common import API_VERSION, timestamp
from tuneyard_operator.worlds.simulation.apiserver import ApiServer, Object
from tuneyard_operator.worlds.simulation.cluster import Cluster
from tuneyard_operator.worlds.simulation.faults import Faults
from tuneyard_operator.worlds.simulation.kernel import Kernel
from tuneyard_operator.worlds.simulation.plans import Plan, reworded
from tuneyard_operator.worlds.simulation.programs import BROKEN, MENDED

USER: Final = "user"
_TICK: Final = 2.0


class Users:
    """Apply studies and change their minds."""

    def __init__(self, kernel: Kernel, api: ApiServer, faults: Faults, cluster: Cluster, plans: list[Plan]) -> None:
        self.kernel = kernel
        self.api = api
        self.faults = faults
        self.plans = {plan.name: plan for plan in plans}
        self._to_apply = len(plans)
        self._cluster = cluster
        for plan in plans:
            kernel.after(kernel.jitter(0.0, 15.0), self._apply, plan)
        kernel.after(_TICK, self._act)
        kernel.after(_TICK, self._mend)

    def _apply(self, plan: Plan) -> None:
        if plan.name in self.api.objects["studies"]:
            self.kernel.after(1.0, self._apply, plan)
            return
        self._cluster.tempers[plan.name] = plan.temper
        self._to_apply -= 1
        item = {"apiVersion": API_VERSION, "kind": "Study", "metadata": {"name": plan.name}, "spec": plan.spec}
        self.api.create("studies", item, USER)

    def _act(self) -> None:
        kernel = self.kernel
        if self.faults.over:
            return
        for name, study in list(self.api.objects["studies"].items()):
            if kernel.chance(self.faults.user_action * _TICK) and "deletionTimestamp" not in study["metadata"]:
                kernel.counts["user_action"] += 1
                kernel.rng.choices((self._change, self._delete_trial, self._delete_study), (10, 3, 1))[0](name, study)
        kernel.after(_TICK, self._act)

    def _change(self, name: str, study: Object) -> None:
        rng, trials = self.kernel.rng, study["spec"]["trials"]
        template = study["spec"]["template"]
        changes: Object = {}
        match rng.randrange(6):
            case 0:
                changes = {"trials": {"parallel": rng.randint(0, min(8, trials["max"]))}}
            case 1:
                changes = {"suspend": not study["spec"].get("suspend", False)}
            case 2:
                changes = {"trials": {"max": min(40, trials["max"] + rng.randint(1, 8))}}
            case 3:
                most = rng.randint(1, trials["max"])
                changes = {"trials": {"max": most, "parallel": min(most, trials["parallel"])}}
            case 4:
                changes = {"template": reworded(template, f"train:{rng.random()}", "--x=${y}")}
            case _:
                changes = {"template": reworded(template, f"train:{rng.random()}")}
        self.api.update("studies", name, {"spec": changes}, USER)

    def _mend(self) -> None:
        """Whoever reads that nothing works corrects the program, sooner or later."""
        kernel = self.kernel
        for name, study in list(self.api.objects["studies"].items()):
            status = study.get("status") or {}
            if status.get("reason") == "NoTrialSucceeds" and kernel.chance(0.1):
                kernel.counts["mended"] += 1
                mended = reworded(study["spec"]["template"], MENDED)
                self.api.update("studies", name, {"spec": {"trials": {"max": 30}, "template": mended}}, USER)
        kernel.after(_TICK, self._mend)

    def _delete_trial(self, name: str, study: Object) -> None:
        mine = [key for key in self.api.objects["trials"] if key.rpartition("-")[0] == name]
        if mine:
            self._delete("trials", self.kernel.rng.choice(mine))
        del study

    def _delete_study(self, name: str, study: Object) -> None:
        self._delete("studies", name)
        if self.kernel.chance(0.6):
            self._to_apply += 1
            self.kernel.after(self.kernel.jitter(0.0, 3.0), self._apply, self.plans[name])
        del study

    def _delete(self, kind: str, name: str) -> None:
        """In the background, or in the foreground: then it is marked first, and goes last."""
        uid = self.api.get(kind, name)["metadata"]["uid"]
        if self.kernel.chance(0.5):
            self.api.delete(kind, name, USER)
        else:
            mark = {"metadata": {"deletionTimestamp": timestamp(self.kernel.now)}}
            self.api.update(kind, name, mark, USER)
            self.kernel.after(self.kernel.jitter(0.1, 3.0), self._delete_marked, kind, name, uid)

    def _delete_marked(self, kind: str, name: str, uid: str) -> None:
        if self.api.exists(uid):
            self.api.delete(kind, name, "cluster")

    @property
    def quiet(self) -> bool:
        """Whether nobody is about to apply or delete anything."""
        return self._to_apply == 0

    def calm(self) -> None:
        """Let all studies go on to their end."""
        for name, study in list(self.api.objects["studies"].items()):
            trials: dict[str, Any] = study["spec"]["trials"]
            limits = {"parallel": max(1, trials["parallel"])}
            template = study["spec"]["template"]
            broken = template["spec"]["containers"][0]["image"] == BROKEN
            if not broken:
                limits["max"] = min(40, trials["max"])
            image = reworded(template, BROKEN if broken else "train:2")
            changes = {"suspend": False, "trials": limits, "template": image}
            self.api.update("studies", name, {"spec": changes}, USER)
