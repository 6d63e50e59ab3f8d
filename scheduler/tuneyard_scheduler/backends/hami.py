"""GPUs that HAMi divides: memory and compute of each pod are limited inside its container by HAMi's library.

HAMi's device plugin offers a GPU many times under nvidia.com/gpu and says on the node which GPUs there are. Its webhook
hands pods that ask for them to HAMi's own scheduler, which keeps to the GPUs that an annotation of the pod names: so
the places are ours. The names of its resources and of its scheduler are taken to be the default ones.

Source: https://github.com/Project-HAMi/HAMi: docs/develop/protocol.md (node and pod annotations),
examples/nvidia/example.yaml, use_exclusive_card.yaml and specify_uuid_to_use.yaml (what pods ask for),
pkg/device/devices.go (DeviceInfo, the form that annotations have today), pkg/device/nvidia/device.go
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from tuneyard_scheduler.backends import VENDORS, Object, Pool, labels_of, offered, whole
from tuneyard_scheduler.devices import Kind, Part, Sizes

NAME: Final = "hami"
_REGISTER: Final = "hami.io/node-nvidia-register"
_ALLOCATED: Final = "hami.io/vgpu-devices-allocated"
_SCHEDULER: Final = "hami-scheduler"
_USE: Final = "nvidia.com/use-gpuuuid"
_MEMORY: Final = "nvidia.com/gpumem"
_PERCENT: Final = "nvidia.com/gpumem-percentage"
_CORES: Final = "nvidia.com/gpucores"
_RESOURCE: Final = VENDORS["nvidia"].resource


class _Gpu(NamedTuple):
    """As registered; memory in MiB."""

    uuid: str
    pods: int
    """How many pods may have a part of it."""
    memory: int
    model: str
    healthy: bool
    mode: str


def capacity(node: Object) -> list[Pool]:
    """The GPUs of a node that HAMi looks after. Those that it cuts by MIG are left out: it rounds to its profiles."""
    text = (node["metadata"].get("annotations") or {}).get(_REGISTER)
    if not text or not int(offered(node).get(_RESOURCE, 0)):
        return []
    gpus = [gpu for gpu in _registered(text) if gpu.healthy and gpu.mode != "mig" and gpu.memory > 0 and gpu.pods > 0]
    if not gpus:
        return []
    memory = min(gpu.memory for gpu in gpus)
    models = {gpu.model.removeprefix("NVIDIA-").replace(" ", "-") for gpu in gpus}
    model = labels_of(node).get(VENDORS["nvidia"].model_label) or (models.pop() if len(models) == 1 else None)
    least = -(-memory // min(gpu.pods for gpu in gpus))
    kind = Kind(_RESOURCE, model, memory, whole=NAME, parts=NAME, sizes=Sizes(least=least))
    return [Pool(_RESOURCE, len(gpus), kind, tuple(sorted(gpu.uuid for gpu in gpus)))]


def render(placement: Mapping[str, Any], template: Object, container: Object) -> None:
    """Make a pod ask for its GPUs, in place."""
    devices, share = placement["devices"], placement["gpus"] / len(placement["devices"])
    asked = {_PERCENT: "100", _CORES: "100"}
    if placement.get("memory"):
        asked = {_MEMORY: str(placement["memory"]), _CORES: str(max(1, int(share * 100 + 1e-6)))}
    for name, amount in {_RESOURCE: str(len(devices)), **asked}.items():
        whole.ask(container, name, int(amount))
    template.setdefault("metadata", {}).setdefault("annotations", {})[_USE] = ",".join(devices)


def said(pod: Object) -> tuple[Part, ...]:
    """The GPUs that somebody else's pod has parts of. How much is not known without the node: each counts whole."""
    if pod["spec"].get("schedulerName") != _SCHEDULER:
        return ()
    containers = (pod["metadata"].get("annotations") or {}).get(_ALLOCATED, "").split(";")
    uuids = {device.split(",")[0] for each in containers for device in each.split(":") if "," in device}
    return tuple(Part(_RESOURCE, uuid, 1.0) for uuid in sorted(uuids))


def _registered(text: str) -> Iterator[_Gpu]:
    """From JSON, or from the form of earlier versions: id,split count,memory,cores,type,numa,health[,index,mode]:..."""
    if text.startswith("["):
        for each in json.loads(text):
            yield _Gpu(
                each["id"], each.get("count", 0), each.get("devmem", 0), each.get("type", ""),
                each.get("health", False), each.get("mode", ""),
            )  # fmt: skip
        return
    for entry in filter(None, text.split(":")):
        uuid, pods, memory, _cores, model, _numa, health, *more = entry.split(",")
        yield _Gpu(uuid, int(pods), int(memory), model, health == "true", more[1] if len(more) > 1 else "")
