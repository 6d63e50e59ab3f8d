"""The cluster's own controllers: Jobs get a pod, owners take their dependents with them; and its misfortunes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tuneyard_api.common import STUDY_LABEL
from tuneyard_operator import pods
from tuneyard_operator.worlds.simulation.apiserver import ApiServer, Object
from tuneyard_operator.worlds.simulation.faults import Faults
from tuneyard_operator.worlds.simulation.kernel import Kernel
from tuneyard_operator.worlds.simulation.machines import Machines, Pod, tolerates
from tuneyard_operator.worlds.simulation.programs import Program, Temper
from tuneyard_operator.worlds.simulation.shares import RESOURCE, draw_build, taken_by_pod
from tuneyard_scheduler import memory

_BY = "cluster"
_TICK = 1.0
"""Seconds between two throws of the dice for misfortunes."""


class Cluster:
    """Watches the API server without delay, as its own controllers nearly do, and acts on it."""

    def __init__(self, kernel: Kernel, api: ApiServer, faults: Faults, *, plain: bool = True) -> None:
        self.kernel = kernel
        self.api = api
        self.faults = faults
        self.plain = plain
        """Whether all machines have whole GPUs."""
        self.machines = Machines(kernel, api, faults)
        self.tempers: dict[str, Temper] = {}
        """How the programs of a study behave, by its name."""
        self.jobs: dict[str, Pod] = {}
        """The pod of each Job, by the Job's name."""
        self._made = 0
        api.witnesses.append(self)
        kernel.after(_TICK, self._misfortunes)

    # Controllers -----------------------------------------------------------------------------------------------

    def changed(self, kind: str, before: Object | None, after: Object | None, by: str) -> None:
        """See apiserver.Witness."""
        del by
        if after is None and before is not None:
            self._soon(self._collect, before["metadata"]["uid"])
            if kind == "pods":
                self._job_follows(before, "Failed")
        elif before is None and after is not None:
            owners = after["metadata"].get("ownerReferences") or ()
            if any(not self.api.exists(owner["uid"]) for owner in owners):
                self._soon(self._collect_orphan, kind, after)
            if kind == "jobs":
                self._soon(self._create_pod, after)
        elif kind == "pods" and after is not None:
            self._job_follows(after, (after.get("status") or {}).get("phase"))

    def _soon(self, run: Callable[..., None], *args: Any) -> None:
        slow = self.kernel.chance(0.05)
        self.kernel.after(self.kernel.jitter(0.2, 3.0) if slow else self.kernel.jitter(0.005, 0.1), run, *args)

    def _collect(self, owner: str) -> None:
        """Garbage collection: what a deleted object owned goes as well."""
        for kind, name in self.api.dependents(owner):
            self._remove(kind, name)

    def _collect_orphan(self, kind: str, item: Object) -> None:
        """Garbage collection: an object whose owner does not exist."""
        if self.api.exists(item["metadata"]["uid"]):
            self._remove(kind, item["metadata"]["name"])

    def _remove(self, kind: str, name: str) -> None:
        if kind == "pods":
            self.machines.evict(self.machines.pods[self.api.get("pods", name)["metadata"]["uid"]], None)
        else:
            self.api.delete(kind, name, _BY)

    def _create_pod(self, job: Object) -> None:
        """The Job controller: one pod a Job, never another."""
        meta, template = job["metadata"], job["spec"]["template"]
        if not self.api.exists(meta["uid"]):
            return
        key = pods.key(job)
        assert key is not None, "Jobs are ours"
        study = meta["labels"][STUDY_LABEL]
        parameters = self.api.objects["trials"].get(f"{study}-{key.index}", {"spec": {"parameters": {}}})
        temper = self.tempers[study]
        shown = parameters["spec"]["parameters"] or {"x": 0.0, "k": 0}
        self._made += 1
        item = self.api.create(
            "pods",
            {
                "metadata": {
                    "name": f"{meta['name']}-{self._made}",
                    "labels": template["metadata"]["labels"],
                    "annotations": template["metadata"]["annotations"],
                    "ownerReferences": [{"kind": "Job", "name": meta["name"], "uid": meta["uid"]}],
                },
                "spec": template["spec"],
                "status": {"phase": "Pending"},
            },
            _BY,
        )
        pod = Pod(
            uid=item["metadata"]["uid"],
            name=item["metadata"]["name"],
            job=meta["name"],
            study=key.study_uid,
            trial=meta["ownerReferences"][0]["uid"],
            index=key.index,
            attempt=key.attempt,
            taken=taken_by_pod(item),
            wants=_pinned(item),
            tolerates=tolerates(item),
            memory=memory.of(template["spec"]["containers"][0]).limit / memory.MIB,
            program=temper.program(key.index, key.attempt, shown, template["spec"]["containers"][0], _epochs(item)),
            born=self.kernel.now,
        )
        self.jobs[meta["name"]] = pod
        self.machines.add(pod)

    def _job_follows(self, pod: Object, phase: str | None) -> None:
        """A Job's status follows its pod's, a second later; a pod that is gone counts as failed."""
        job = next((o for o in pod["metadata"].get("ownerReferences") or () if o["kind"] == "Job"), None)
        if job is not None and phase in {"Succeeded", "Failed"}:
            self.kernel.after(self.kernel.jitter(0.2, 2.0), self._finish_job, job, phase)

    def _finish_job(self, owner: Object, phase: str) -> None:
        if self.api.exists(owner["uid"]) and "conditions" not in self.api.get("jobs", owner["name"]).get("status", {}):
            done = {"type": "Complete" if phase == "Succeeded" else "Failed", "status": "True"}
            self.api.update("jobs", owner["name"], {"status": {"conditions": [done]}}, _BY)

    def log_of(self, job: str) -> str:
        """The log of a Job's pod, while there is a pod."""
        pod = self.jobs.get(job)
        if pod is None or pod.name not in self.api.objects["pods"] or pod.ended is None:
            return ""
        good = pod.program.kind == "good" and pod.disturbed is None
        return f"epoch 1\nloss: 9.5\nfinal loss: {pod.program.value!r} (done)\n" if good else "epoch 1\n"

    # Misfortunes -----------------------------------------------------------------------------------------------

    def _misfortunes(self) -> None:
        if self.faults.over:
            return
        kernel, faults, machines = self.kernel, self.faults, self.machines
        ready = [machine for machine in machines.machines.values() if machine.ready]
        if ready and kernel.chance(faults.node_loss * _TICK):
            machines.lose(kernel.rng.choice(ready), for_good=kernel.chance(0.3))
        if kernel.chance(faults.node_join * _TICK):
            machines.join(draw_build(kernel.rng, plain=self.plain))
        if kernel.chance(faults.eviction * _TICK):
            self._disturb()
        if kernel.chance(faults.foreign_pod * _TICK):
            self._foreign()
        if not machines.image_broken and kernel.chance(faults.broken_image * _TICK):
            kernel.counts["broken_image"] += 1
            machines.image_broken = True
            kernel.after(kernel.jitter(2.0, 40.0), self._mend_image)
        kernel.after(_TICK, self._misfortunes)

    def _mend_image(self) -> None:
        self.machines.image_broken = False

    def _disturb(self) -> None:
        alive = self.machines.alive()
        if alive:
            self.kernel.counts["eviction"] += 1
            reason = self.kernel.rng.choice(("EvictionByEvictionAPI", "PreemptionByScheduler", None))
            self.machines.evict(self.kernel.rng.choice(alive), reason)

    def _foreign(self) -> None:
        """Somebody else's pod takes a GPU for a while."""
        self.kernel.counts["foreign_pod"] += 1
        self._made += 1
        container = {"name": "other", "resources": {"limits": {RESOURCE: "1"}}}
        item: Object = {
            "metadata": {"name": f"other{self._made}"},
            "spec": {"containers": [container]},
            "status": {"phase": "Pending"},
        }
        item = self.api.create("pods", item, _BY)
        uid, name = item["metadata"]["uid"], item["metadata"]["name"]
        program = Program("good", self.kernel.jitter(1.0, 30.0), 0.0)
        pod = Pod(uid, name, None, "", "", -1, -1, taken_by_pod(item), None, False, program, born=self.kernel.now)
        self.machines.add(pod)


def _epochs(pod: Object) -> int:
    """For how many epochs the program is asked to run."""
    given = {entry["name"]: entry["value"] for entry in pod["spec"]["containers"][0].get("env") or ()}
    return int(given.get("TUNEYARD_PARAM_epochs", 0))


def _pinned(pod: Object) -> str | None:
    """The node that the pod's affinity requires."""
    affinity: Mapping[str, Any] = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms") or [{}]
    fields = terms[0].get("matchFields") or [{"values": [None]}]
    node: str | None = fields[0]["values"][0]
    return node
