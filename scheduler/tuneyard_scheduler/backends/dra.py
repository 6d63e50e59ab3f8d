"""GPUs that drivers publish in ResourceSlices and that pods get by ResourceClaims (DRA, resource.k8s.io/v1).

Whole GPUs, slices that are there already (MIG), and parts of GPUs that several claims may share: those that publish
`allowMultipleAllocations` and a `memory` capacity to consume (KEP-5075). Of GPUs that publish partitions which are made
on demand (shared counters, KEP-4815), only whole ones are given; one of which somebody has a partition is taken.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/ and the types of
k8s.io/api/resource/v1. Attributes: https://github.com/NVIDIA/k8s-dra-driver-gpu (cmd/gpu-kubelet-plugin/deviceinfo.go),
https://github.com/ROCm/k8s-gpu-dra-driver, https://github.com/intel/intel-resource-drivers-for-kubernetes
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tuneyard_scheduler import quantity
from tuneyard_scheduler.backends import VENDORS, Object, Pool, mig
from tuneyard_scheduler.devices import ClaimForm, Kind, Part, Sizes, amount

NAME: Final = "dra"
API: Final = "resource.k8s.io/v1"
DRIVERS: Final = {"gpu.nvidia.com": "nvidia", "gpu.amd.com": "amd", "gpu.intel.com": "intel"}
_WHOLE_TYPES: Final = frozenset({None, "gpu", "amdgpu"})
_CLOSING: Final = frozenset({"NoSchedule", "NoExecute"})
_IDENTITIES: Final = ("uuid", "resource.kubernetes.io/pciBusID")
_PROFILE: Final = re.compile(r"(\d)g\.\d+gb.*")
_TYPE_IN_CEL: Final = re.compile(r"\.type\s*==\s*['\"]([\w-]+)['\"]")
_POD_CLAIM: Final = "tuneyard-gpu"
_MIB: Final = 2**20

Key = tuple[str, str]
"""A device: the pool in which it is published, and its name."""


@dataclass(frozen=True, slots=True)
class Supply:
    """What one driver offers on one node."""

    pools: tuple[Pool, ...] = ()
    takes: Mapping[Key, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """The GPUs, by resource and name, of which something is taken when a device is allocated."""
    totals: Mapping[Key, Mapping[str, float]] = field(default_factory=dict)
    """What there is to consume of devices that several claims may share."""

    def parts(self, result: Mapping[str, Any]) -> Iterator[Part]:
        """What one result of an allocation takes. Access of administrators takes nothing."""
        key = result["pool"], result["device"]
        if result.get("adminAccess") or key not in self.takes:
            return
        share, totals = 1.0, self.totals.get(key)
        if totals and "consumedCapacity" in result:
            consumed = result["consumedCapacity"]
            of = [quantity.parse(consumed[name]) / total for name, total in totals.items() if name in consumed]
            share = min(amount(max(of, default=1.0)), 1.0)
        for resource, name in self.takes[key]:
            yield Part(resource, name, share)


class Device(NamedTuple):
    """A device as it is published, with the name of its pool."""

    pool: str
    raw: Mapping[str, Any]

    @property
    def key(self) -> Key:
        """Pool and name."""
        return self.pool, self.raw["name"]

    def attribute(self, name: str) -> str | int | None:
        """An attribute that is text or a number."""
        value = (self.raw.get("attributes") or {}).get(name) or {}
        found: str | int | None = value.get("string", value.get("int"))
        return found

    @property
    def type(self) -> str | None:
        """Such as gpu or mig."""
        found = self.attribute("type")
        return None if found is None else str(found)

    @property
    def capacity(self) -> Mapping[str, Any]:
        """By name, as published."""
        return self.raw.get("capacity") or {}

    @property
    def open(self) -> bool:
        """Whether pods get it that tolerate nothing."""
        return not any(taint.get("effect") in _CLOSING for taint in self.raw.get("taints") or ())

    @property
    def shared(self) -> bool:
        """Whether several claims may have it at a time."""
        return bool(self.raw.get("allowMultipleAllocations"))

    @property
    def counters(self) -> set[Key]:
        """What it consumes of counters that it shares with others, each with the set that it is in."""
        sets = self.raw.get("consumesCounters") or ()
        return {(each["counterSet"], name) for each in sets for name in each.get("counters") or ()}


class _Sort(NamedTuple):
    """What GPUs have in common that are handed out alike."""

    type: str | None
    profile: str | None
    kind: Kind
    capacity: tuple[tuple[str, str], ...]


def is_gpu_driver(driver: str) -> bool:
    """Whether its devices are GPUs."""
    return driver in DRIVERS


def supply(
    driver: str, node: str, devices: Iterable[Device], classes: Mapping[str, str], given: Iterable[str]
) -> Supply:
    """What a driver's devices on a node offer.

    Args:
        driver: Its name.
        node: The node's.
        devices: Those that are on the node.
        classes: The DeviceClasses: the text of their selectors by name.
        given: The DeviceClasses to use, where several select a driver's devices.
    """
    devices = sorted(devices, key=lambda device: device.key)
    sorts: defaultdict[_Sort, list[Device]] = defaultdict(list)
    for device in devices:
        sort = _sort(driver, device) if device.open else None
        if sort is not None:
            sorts[sort].append(device)
    pools: dict[str, Pool] = {}
    names: dict[Key, tuple[str, str]] = {}
    alike = [sort.type for sort in sorts]
    for sort, members in sorts.items():
        chosen, pin = class_of(driver, sort.type, classes, given), _pin(sort.type, devices)
        if chosen is None or (pin is None and alike.count(sort.type) > 1):
            continue  # without either, a pod might get another GPU than it asks for
        resource = chosen if alike.count(sort.type) == 1 and sort.profile is None else f"{chosen}/{_slug(sort)}"
        if resource in pools:
            resource = f"{resource}-{len(pools)}"
        own = tuple(name if pool == node else f"{pool}/{name}" for pool, name in (each.key for each in members))
        names |= {each.key: (resource, name) for each, name in zip(members, own, strict=True)}
        form = _form(driver, chosen, sort, pin, members, own)
        pools[resource] = Pool(resource, len(members), sort.kind, own, form)
    totals = {device.key: _totals(device) for device in devices if device.shared}
    return Supply(tuple(pools.values()), _takes(devices, names), totals)


def class_of(driver: str, type_: str | None, classes: Mapping[str, str], given: Iterable[str]) -> str | None:
    """The DeviceClass for a driver's devices of a type: a given one, that of the driver's name, or else the first."""
    fit = [name for name, text in classes.items() if names_driver(text, driver) and _selects(text, type_)]
    return min(fit, key=lambda name: (name not in set(given), name != driver, name), default=None)


def names_driver(text: str, driver: str) -> bool:
    """Whether the selectors of a DeviceClass name a driver."""
    return any(f"{quote}{driver}{quote}" in text for quote in "'\"")


def _selects(text: str, type_: str | None) -> bool:
    """Whether the selectors, as far as they look at the type, want this one."""
    types = _TYPE_IN_CEL.findall(text)
    return not types or type_ in types


def _sort(driver: str, device: Device) -> _Sort | None:
    """What kind of GPU it is; None: nothing that trials get."""
    vendor = DRIVERS[driver]
    family, memory = VENDORS[vendor].resource, _memory(driver, device)
    mib = int(quantity.parse(device.capacity[memory]["value"]) // _MIB) if memory else None
    product = device.attribute("productName") or device.attribute("model")
    # As the vendors' node labels write it.
    model = str(product).replace(" ", "-" if vendor == "nvidia" else "_") if product else None
    if device.type == "mig":
        profile = _PROFILE.fullmatch(str(device.attribute("profile")))
        if profile is None or device.counters:
            return None
        size = min(amount(int(profile.group(1)) / mig.slices_of(model)), 0.9999)
        return _Sort(device.type, profile.group(0), Kind(family, model, mib, size, whole=NAME), ())
    if device.type not in _WHOLE_TYPES:
        return None
    if not device.shared:
        return _Sort(device.type, None, Kind(family, model, mib, whole=NAME), ())
    return _divisible(device, Kind(family, model, mib, whole=NAME), memory)


def _divisible(device: Device, kind: Kind, memory: str | None) -> _Sort | None:
    """A GPU that several claims may have: whoever wants all of it has to say so for each capacity."""
    capacity = {
        name: each["value"] for name, each in sorted(device.capacity.items(), key=lambda item: item[0] != memory)
    }
    policies = {name: each.get("requestPolicy") or {} for name, each in device.capacity.items()}
    whole = all(_all_at_once(quantity.parse(capacity[name]), policy) for name, policy in policies.items())
    sizes = _sizes(policies.pop(memory)) if memory else None
    free = not any("validValues" in policy or "validRange" in policy for policy in policies.values())
    parts = NAME if sizes is not None and free else None
    if not capacity or not (whole or parts):
        return None
    kind = Kind(
        kind.family, kind.model, kind.memory, whole=NAME if whole else None, parts=parts, sizes=sizes if parts else None
    )
    return _Sort(device.type, None, kind, tuple(capacity.items()))


def _memory(driver: str, device: Device) -> str | None:
    return next((name for name in ("memory", f"{driver}/memory") if name in device.capacity), None)


def _all_at_once(total: float, policy: Mapping[str, Any]) -> bool:
    """Whether one claim may consume all of a capacity."""
    values = [quantity.parse(value) for value in policy.get("validValues") or ()]
    bounds = {name: quantity.parse(value) for name, value in (policy.get("validRange") or {}).items()}
    if values:
        return total in values
    least, step = bounds.get("min", 0.0), bounds.get("step", 0.0)
    return bounds.get("max", total) >= total and (not step or (total - least) % step == 0)


def _sizes(policy: Mapping[str, Any]) -> Sizes | None:
    """In what amounts memory is handed out; None where these are no whole MiB."""
    values = [quantity.parse(value) / _MIB for value in policy.get("validValues") or ()]
    bounds = {name: quantity.parse(value) / _MIB for name, value in (policy.get("validRange") or {}).items()}
    if any(not number.is_integer() for number in (*values, *bounds.values())):
        return None
    most = int(bounds["max"]) if "max" in bounds else None
    return Sizes(tuple(map(int, values)), int(bounds.get("min", 0)), int(bounds.get("step", 0)), most)


def _pin(type_: str | None, devices: Iterable[Device]) -> str | None:
    """The attribute that is another for each of the node's devices of a type."""
    name: str
    alike = [device for device in devices if device.type == type_]
    names = {name for device in alike for name in device.raw.get("attributes") or ()}
    for name in (*_IDENTITIES, *sorted(names.difference(_IDENTITIES))):
        found = [device.attribute(name) for device in alike]
        if None not in found and len(set(found)) == len(found):
            return name
    return None


def _form(
    driver: str, chosen: str, sort: _Sort, pin: str | None, members: Iterable[Device], names: Iterable[str]
) -> ClaimForm:
    """How pods ask for GPUs of this sort. In CEL, an attribute that a device lacks would end the allocation."""
    selector = f'device.driver == "{driver}"'
    if sort.type is not None:
        selector += (
            f' && "type" in device.attributes["{driver}"] && device.attributes["{driver}"].type == "{sort.type}"'
        )
    if pin is None:
        return ClaimForm(chosen, selector, capacity=sort.capacity)
    domain, _, attribute = pin.rpartition("/")
    values = f'device.attributes["{domain or driver}"]'
    identities = {name: json.dumps(member.attribute(pin)) for name, member in zip(names, members, strict=True)}
    start = f'"{attribute}" in {values} && {values}.{attribute} in '
    return ClaimForm(chosen, selector, start, identities, sort.capacity)


def _slug(sort: _Sort) -> str:
    memory = f"{sort.kind.memory}Mi" if sort.kind.memory else None
    parts = (sort.profile,) if sort.profile else (sort.kind.model, memory, "shared" if sort.capacity else None)
    return "-".join(part for part in parts if part) or "plain"


def _takes(devices: Iterable[Device], names: Mapping[Key, tuple[str, str]]) -> dict[Key, tuple[tuple[str, str], ...]]:
    """What is taken with each device: itself, and the GPUs that share counters with it."""
    users: defaultdict[tuple[str, Key], list[Device]] = defaultdict(list)
    for device in devices:
        for counter in device.counters:
            users[device.pool, counter].append(device)
    found = {}
    for device in devices:
        beside = {other.key for counter in device.counters for other in users[device.pool, counter]}
        found[device.key] = tuple(names[key] for key in sorted({device.key, *beside}) if key in names)
    return found


def _totals(device: Device) -> dict[str, float]:
    return {name: total for name, each in device.capacity.items() if (total := quantity.parse(each["value"]))}


def render(placement: Mapping[str, Any], pod: Object, container: Object, owner: str, uid: str) -> Object:
    """Make a pod claim its GPUs, in place.

    Args:
        placement: As in the trial's status, with its claim.
        pod: The pod's spec.
        container: The one that uses the GPUs.
        owner: The name that the template's begins with.
        uid: Whatever makes the template's name different from those of others with the same owner's name.

    Returns:
        The ResourceClaimTemplate that has to be there before the pod. The same claim gives the same one, under the same
        name: the trials of a study that run on the same GPUs, one after the other, share it.
    """
    claim = placement["claim"]
    exactly: Object = {"deviceClassName": claim["deviceClass"], "count": claim["count"]}
    if claim.get("selector"):
        exactly["selectors"] = [{"cel": {"expression": claim["selector"]}}]
    if claim.get("capacity"):
        exactly["capacity"] = {"requests": {each["name"]: each["amount"] for each in claim["capacity"]}}
    spec = {"spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}}}
    told = hashlib.sha256(json.dumps([uid, spec], sort_keys=True).encode()).hexdigest()[:16]
    name = f"{owner}-{told}"
    pod["resourceClaims"] = [
        *(pod.get("resourceClaims") or ()),
        {"name": _POD_CLAIM, "resourceClaimTemplateName": name},
    ]
    resources = container.setdefault("resources", {})
    resources["claims"] = [*(resources.get("claims") or ()), {"name": _POD_CLAIM}]
    return {"apiVersion": API, "kind": "ResourceClaimTemplate", "metadata": {"name": name}, "spec": spec}
