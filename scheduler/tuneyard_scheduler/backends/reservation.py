"""Whole GPUs that several trials share by trust: nothing has to be installed but NVIDIA's device plugin and runtime.

A small pod holds the GPU for as long as somebody has a part of it: `nvidia.com/gpu: 1`, so that kube-scheduler and
kubelet give it to nobody else. Its first container says by its last words which GPU that is; the kubelet keeps these in
the pod's status, and gives the second container, which waits, the same GPU. The sharers' pods ask for no GPU: the
runtime shows them the one that NVIDIA_VISIBLE_DEVICES names. Sources:
https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/docker-specialized.html (the variable) and
https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from tuneyard_api.common import GROUP
from tuneyard_scheduler.backends import Object, limits, pin
from tuneyard_scheduler.devices import Slot

NAME: Final = "reservation"
SLOT_LABEL: Final = f"{GROUP}/gpu-slot"
SLOT_ANNOTATION: Final = f"{GROUP}/reserves"
"""On the pod that holds a GPU: node, resource and slot, as JSON."""
VISIBLE: Final = "NVIDIA_VISIBLE_DEVICES"
_NOTHING: Final = "void"
"""What the runtime takes for: show it no GPU, not even where the image asks for all."""


def render(placement: Mapping[str, Any], container: Object) -> None:
    """Show a container the GPU of its place, and tell it how much of that is its own.

    Args:
        placement: As in the trial's status: gpus, memory, and the uuid of the GPU.
        container: The one that uses the GPU; changed in place.
    """
    _show(container, placement["uuid"])
    limits.tell(placement, container, of_visible=float(placement["gpus"]))


def hide_others(placement: Mapping[str, Any], pod: Object, container: Object) -> None:
    """See to it that no container of the pod has any other GPU, whatever the template says."""
    for each in (*pod["containers"], *(pod.get("initContainers") or ())):
        for kind in ("limits", "requests"):
            ((each.get("resources") or {}).get(kind) or {}).pop(placement["resource"], None)
        if each is not container:
            _show(each, _NOTHING)


def _show(container: Object, devices: str) -> None:
    env = [entry for entry in container.get("env") or () if entry["name"] != VISIBLE]
    container["env"] = [*env, {"name": VISIBLE, "value": devices}]


class Reservation(NamedTuple):
    """A pod that holds a GPU, as far as it got."""

    slot: Slot
    name: str
    uid: str
    stage: Literal["waiting", "running", "over"]
    uuid: str | None = None
    """The GPU that it was given."""
    deleting: bool = False
    refused: bool = False
    """No node takes it."""
    trouble: str = ""
    """Why it waits, or why it is over."""


def name(slot: Slot) -> str:
    """The name of the pod that holds a GPU: the same whoever makes it, so that there never are two."""
    digest = hashlib.sha256("/".join(slot).encode()).hexdigest()[:8]
    device = re.sub("[^a-z0-9]+", "-", slot.device.lower())[:12].strip("-")
    return f"gpu-{slot.node[:32].rstrip('-.')}-{device}-{digest}".replace(".", "-")


def pod(slot: Slot, template: Object, node_uid: str | None = None) -> Object:
    """The pod that is to hold a GPU.

    Args:
        slot: The GPU.
        template: A pod with one container: its image, and all that depends on the installation.
        node_uid: Of the node: its owner, as of a static pod. So it goes with the node, and can be drained.
    """
    made = copy.deepcopy(template)
    meta, spec = made.setdefault("metadata", {}), made["spec"]
    meta["name"] = name(slot)
    meta["labels"] = {**(meta.get("labels") or {}), SLOT_LABEL: slot.device}
    safe = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}
    meta["annotations"] = {**safe, **(meta.get("annotations") or {}), SLOT_ANNOTATION: json.dumps(slot._asdict())}
    if node_uid is not None:
        owner = {"apiVersion": "v1", "kind": "Node", "name": slot.node, "uid": node_uid, "controller": True}
        meta["ownerReferences"] = [owner]
    [given] = spec["containers"]
    holds = {**given, "name": "hold", "command": ["python", "-m", "tuneyard_scheduler.holding"]}
    limits_ = {**((given.get("resources") or {}).get("limits") or {}), slot.resource: "1"}
    holds["resources"] = {**(given.get("resources") or {}), "limits": limits_}
    # The runtime mounts nvidia-smi for those who ask for "utility".
    holds["env"] = [*(given.get("env") or ()), {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "utility"}]
    spec["initContainers"] = [{**holds, "name": "tell", "command": [*holds["command"], "tell"]}]
    spec["containers"] = [holds]
    spec |= {
        "restartPolicy": "Always",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        # It belongs wherever a trial was placed: the scheduler looks at taints before it gives a place.
        "tolerations": [{"operator": "Exists"}],
    }
    pin(slot.node, spec)
    return {"apiVersion": "v1", "kind": "Pod", **made}


def read(item: Object) -> Reservation:
    """A pod that `pod` made.

    Raises:
        KeyError, TypeError, ValueError: somebody else made it.
    """
    meta, status = item["metadata"], item.get("status") or {}
    slot = Slot(**json.loads(meta["annotations"][SLOT_ANNOTATION]))
    phase = status.get("phase", "Pending")
    [teller] = status.get("initContainerStatuses") or [{}]
    told = (teller.get("state") or {}).get("terminated") or {}
    uuid = (told.get("message") or "").strip() if told.get("exitCode") == 0 else ""
    unscheduled = next(
        (c for c in status.get("conditions") or () if c["type"] == "PodScheduled" and c["status"] == "False"), None
    )
    return Reservation(
        slot,
        meta["name"],
        meta["uid"],
        "over" if phase in {"Succeeded", "Failed"} else "running" if phase == "Running" else "waiting",
        uuid or None,
        deleting="deletionTimestamp" in meta,
        refused=unscheduled is not None,
        trouble=_trouble(status, unscheduled or {}, teller),
    )


def _trouble(status: Object, unscheduled: Object, teller: Object) -> str:
    """The most telling words about a pod that does not run."""
    waiting = (teller.get("state") or {}).get("waiting") or {}
    last = (teller.get("lastState") or {}).get("terminated") or (teller.get("state") or {}).get("terminated") or {}
    sources = (
        (status.get("reason"), status.get("message")),
        (unscheduled.get("reason"), unscheduled.get("message")),
        (last.get("reason"), last.get("message") if last.get("exitCode") else None),
        (waiting.get("reason"), waiting.get("message")),
    )
    return next((f"{reason or 'trouble'}: {said.strip()}" for reason, said in sources if said), "it did not start")
