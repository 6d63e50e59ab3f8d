"""The machines of the simulated cluster and the pods on them: what kube-scheduler, kubelets and node life do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tuneyard_api.common import timestamp
from tuneyard_operator.worlds.simulation.apiserver import ApiServer, Object
from tuneyard_operator.worlds.simulation.faults import Faults
from tuneyard_operator.worlds.simulation.kernel import Kernel
from tuneyard_operator.worlds.simulation.programs import Program
from tuneyard_operator.worlds.simulation.shares import TAINT, Build, Room, Taken

_EVICTED_AFTER: Final = (3.0, 20.0)
_BACK_AFTER: Final = (1.0, 40.0)
_IMAGE_RETRY: Final = (1.0, 4.0)
_GRACE: Final = 5
"""Seconds that a pod has to end after it was told to."""


@dataclass(eq=False, slots=True)
class Machine:
    """A node."""

    name: str
    build: Build
    ready: bool = True
    gone: bool = False
    pods: dict[str, Pod] = field(default_factory=dict)
    """The pods that are bound to it and live, by uid."""
    lost: int = 0
    """Pods that did not come to their own end here."""
    changed: float = 0.0
    """When GPUs of it were last taken or given back, or it came or went."""

    def room(self, without: Pod | None = None) -> Room:
        """What its pods (but that one) leave."""
        return Room(self.build, (pod.taken for pod in self.pods.values() if pod is not without))


@dataclass(eq=False, slots=True)
class Pod:
    """What is true of a pod, whatever its object says yet."""

    uid: str
    name: str
    job: str | None
    study: str
    trial: str
    index: int
    attempt: int
    taken: Taken
    wants: str | None
    """The only node that it may run on."""
    tolerates: bool
    program: Program
    born: float
    memory: float = 0.0
    """MiB that its container may use; 0: it has no limit."""
    machine: Machine | None = None
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    disturbed: str | None = None
    """Why it did not come to its own end."""

    @property
    def gpus(self) -> float:
        """What the queue is charged."""
        return self.taken.gpus

    @property
    def alive(self) -> bool:
        """Whether it may still run."""
        return self.ended is None


class Machines:
    """Binds pods to nodes, runs them to their end, and loses nodes."""

    def __init__(self, kernel: Kernel, api: ApiServer, faults: Faults) -> None:
        self.kernel = kernel
        self.api = api
        self.faults = faults
        self.machines: dict[str, Machine] = {}
        self.pods: dict[str, Pod] = {}
        """All pods that ever were, by uid."""
        self.image_broken = False
        self.on_start: Callable[[Pod], None] = lambda _: None
        """Is told of each program that begins."""
        self._waiting: dict[str, Pod] = {}
        self._kicked = False
        self._made = 0

    # Nodes -----------------------------------------------------------------------------------------------------

    def join(self, build: Build) -> Machine:
        """A new node."""
        self._made += 1
        machine = Machine(f"node{self._made}", build, changed=self.kernel.now)
        self.machines[machine.name] = machine
        item = build.item()
        item["metadata"]["name"] = machine.name
        item["status"] |= _condition(machine)
        self.api.create("nodes", item, "cluster")
        self._kick()
        return machine

    def lose(self, machine: Machine, *, for_good: bool) -> None:
        """A node stops answering; its pods are lost after a while, unless it is back before."""
        if not machine.ready:
            return
        self.kernel.counts["node_loss"] += 1
        self._set_ready(machine, False)
        self.kernel.after(self.kernel.jitter(*_EVICTED_AFTER), self._evict_all, machine)
        after = self.kernel.jitter(*_BACK_AFTER)
        self.kernel.after(after, self.remove if for_good else self._back, machine)

    def _set_ready(self, machine: Machine, ready: bool) -> None:
        machine.ready, machine.changed = ready, self.kernel.now
        self.api.update("nodes", machine.name, {"status": _condition(machine)}, "cluster")

    def _evict_all(self, machine: Machine) -> None:
        if not machine.ready:
            for pod in list(machine.pods.values()):
                self.evict(pod, "DeletionByTaintManager")

    def _back(self, machine: Machine) -> None:
        if machine.gone:
            return
        self._set_ready(machine, True)
        for pod in list(machine.pods.values()):
            # What came to pass on the node while nobody heard of it is told now.
            if pod.started is not None and self.kernel.now >= pod.started + pod.program.seconds:
                self._finish(pod)
            elif pod.started is None:
                self._pull(pod)
            if pod.alive and self.terminating(pod):
                self._kill(pod)
        self._kick()

    def remove(self, machine: Machine) -> None:
        """A node goes for good."""
        if machine.gone:
            return
        machine.gone, machine.changed = True, self.kernel.now
        self.api.delete("nodes", machine.name, "cluster")
        del self.machines[machine.name]
        for pod in list(machine.pods.values()):
            self.evict(pod, "DeletionByPodGC")
            self._kill(pod)

    # Pods ------------------------------------------------------------------------------------------------------

    def add(self, pod: Pod) -> None:
        """A pod object was created."""
        self.pods[pod.uid] = pod
        self._waiting[pod.uid] = pod
        self.kernel.after(self.kernel.jitter(0.002, 0.1), self._bind, pod)

    def _bind(self, pod: Pod) -> None:
        """What kube-scheduler and the kubelet do: a node that the pod may use, with room for all that it takes."""
        if pod.uid not in self._waiting:
            return
        wanted = [pod.wants] if pod.wants is not None else list(self.machines)
        machine = next((m for m in map(self.machines.get, wanted) if m is not None and _admits(m, pod)), None)
        if machine is None:
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0 nodes fit"}
            self.api.update("pods", pod.name, {"status": {"conditions": [condition]}}, "cluster")
            return
        del self._waiting[pod.uid]
        pod.machine = machine
        machine.pods[pod.uid] = pod
        machine.changed = self.kernel.now
        scheduled = {"type": "PodScheduled", "status": "True"}
        changes = {"spec": {"nodeName": machine.name}, "status": {"conditions": [scheduled]}}
        self.api.update("pods", pod.name, changes, "cluster")
        self.kernel.after(self.kernel.jitter(0.01, 0.3), self._pull, pod)

    def _kick(self) -> None:
        """Something may fit now."""
        if self._waiting and not self._kicked:
            self._kicked = True
            self.kernel.after(self.kernel.jitter(0.001, 0.05), self._bind_all)

    def _bind_all(self) -> None:
        self._kicked = False
        for pod in list(self._waiting.values()):
            self._bind(pod)

    def _pull(self, pod: Pod) -> None:
        """The kubelet pulls the image and starts the container."""
        if not pod.alive or pod.started is not None or pod.machine is None or not pod.machine.ready:
            return
        if self.terminating(pod):
            return
        if self.image_broken and pod.job is not None:
            waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
            self._show(pod, {"waiting": waiting})
            self.kernel.after(self.kernel.jitter(*_IMAGE_RETRY), self._pull, pod)
            return
        pod.started = self.kernel.now
        began = {"startedAt": timestamp(self.kernel.now)}
        self._show(pod, {"running": began}, "Running")
        self.on_start(pod)
        if pod.program.kind != "hangs":
            self.kernel.after(pod.program.seconds, self._finish, pod)

    def _finish(self, pod: Pod) -> None:
        """The program ends by itself. While its node is lost nobody hears of that."""
        if not pod.alive or pod.machine is None or not pod.machine.ready or pod.program.kind == "hangs":
            return
        program = pod.program
        reason = "OOMKilled" if program.kind == "out_of_memory" else "Error" if program.exit_code else "Completed"
        self._end(pod, program.exit_code, reason, program.last_word)

    def _end(self, pod: Pod, exit_code: int, reason: str, message: str) -> None:
        pod.ended, pod.exit_code = self.kernel.now, exit_code
        terminated: Object = {"exitCode": exit_code, "reason": reason, "finishedAt": timestamp(self.kernel.now)}
        if pod.started is not None:
            terminated["startedAt"] = timestamp(pod.started)
        if message:
            terminated["message"] = message
        self._release(pod)
        self._show(pod, {"terminated": terminated}, "Failed" if exit_code else "Succeeded")

    def _show(self, pod: Pod, state: Object, phase: str = "Pending") -> None:
        """The kubelet reports the state of the container."""
        status = {"phase": phase, "containerStatuses": [{"name": "train", "state": state}]}
        self.api.update("pods", pod.name, {"status": status}, "cluster")

    def _release(self, pod: Pod) -> None:
        self._waiting.pop(pod.uid, None)
        if pod.machine is not None and pod.machine.pods.pop(pod.uid, None) is not None:
            pod.machine.changed = self.kernel.now
            self._kick()

    # Endings that are not the pod's own ------------------------------------------------------------------------

    def waiting(self) -> list[Pod]:
        """The pods that no node has taken yet."""
        return list(self._waiting.values())

    def alive(self) -> list[Pod]:
        """The pods that have not ended."""
        bound = (pod for machine in self.machines.values() for pod in machine.pods.values())
        return [*self._waiting.values(), *bound]

    def terminating(self, pod: Pod) -> bool:
        """Whether the pod was told to end, or is gone."""
        item = self.api.objects["pods"].get(pod.name)
        return item is None or "deletionTimestamp" in item["metadata"]

    def evict(self, pod: Pod, reason: str | None) -> None:
        """Delete a pod with a grace period, and for what reason (None: somebody just deleted it)."""
        item = self.api.objects["pods"].get(pod.name)
        if item is None or self.terminating(pod):
            return
        if pod.alive:
            pod.disturbed = reason or "Deleted"
            if pod.machine is not None:
                pod.machine.lost += 1
        period = _GRACE if pod.started is not None and pod.alive else 0
        meta = {"deletionTimestamp": timestamp(self.kernel.now + period), "deletionGracePeriodSeconds": period}
        changes: dict[str, Any] = {"metadata": meta}
        if reason is not None and pod.alive:
            target = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "told to leave"}
            conditions = (item["status"].get("conditions") or []) + [target]
            changes["status"] = {"conditions": conditions}
        self.api.update("pods", pod.name, changes, "cluster")
        self.kernel.after(self.kernel.jitter(0.0, period), self._kill, pod)

    def _kill(self, pod: Pod) -> None:
        """The grace period is over. The object goes a moment later; on a lost node nothing happens."""
        if self.api.objects["pods"].get(pod.name, {"metadata": {"uid": None}})["metadata"]["uid"] != pod.uid:
            return
        machine = pod.machine
        if pod.alive and machine is not None and not machine.ready and not machine.gone:
            return
        if pod.alive and pod.started is not None:
            self._end(pod, 143, "Error", "")
            self.kernel.after(self.kernel.jitter(0.0, 1.0), self._forget, pod)
        else:
            self._forget(pod)

    def _forget(self, pod: Pod) -> None:
        item = self.api.objects["pods"].get(pod.name)
        if item is None or item["metadata"]["uid"] != pod.uid:
            return
        if pod.alive:
            pod.ended = self.kernel.now
            self._release(pod)
        self.api.delete("pods", pod.name, "cluster")


def _admits(machine: Machine, pod: Pod) -> bool:
    return machine.ready and (pod.tolerates or not machine.build.tainted) and machine.room().takes(pod.taken)


def _condition(machine: Machine) -> Object:
    return {"conditions": [{"type": "Ready", "status": "True" if machine.ready else "Unknown"}]}


def tolerates(pod: Object) -> bool:
    """Whether a pod tolerates the taint that some nodes have."""
    return any(toleration.get("key") == TAINT for toleration in pod["spec"].get("tolerations") or ())
