"""Keeps the state in step with DRA: devices from ResourceSlices, and who has them from ResourceClaims.

A claim that is allocated takes its devices, whoever made it, for as long as it is allocated: that is a little longer
than its pod runs. A pod of ours takes what its place says until its claim is heard of, and from then on the claim does.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, TypeVar

from tuneyard_scheduler.backends import dra
from tuneyard_scheduler.backends.dra import Device, Supply
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Node, PodView, Taken

logger = logging.getLogger(__name__)

Object = dict[str, Any]
T = TypeVar("T")

KINDS: Final = ("deviceclasses", "resourceslices", "resourceclaims")
_PoolKey = tuple[str, str]
_NOTHING: Final = Supply()


class _Slice(NamedTuple):
    pool: _PoolKey
    generation: int
    slices: int
    """How many of this generation there are."""
    devices: tuple[tuple[str, Device], ...]
    """With the node of each."""


@dataclass(frozen=True, slots=True)
class _Claim:
    uid: str
    pods: frozenset[str]
    results: tuple[Object, ...]


class Claims:
    """What is known of DeviceClasses, ResourceSlices and ResourceClaims."""

    def __init__(self, state: ClusterState, device_classes: Iterable[str] = ()) -> None:
        self._state = state
        self._given = frozenset(device_classes)
        self._classes: dict[str, str] = {}
        self._slices: dict[str, _Slice] = {}
        self._of_pool: defaultdict[_PoolKey, dict[str, _Slice]] = defaultdict(dict)
        self._devices: dict[_PoolKey, tuple[tuple[str, Device], ...]] = {}
        self._pools_on: defaultdict[tuple[str, str], set[_PoolKey]] = defaultdict(set)
        """The pools that have devices, by driver and node."""
        self._supply: dict[tuple[str, str], Supply] = {}
        self._bare: dict[str, Node] = {}
        """The nodes, as they are without these devices."""
        self._claims: dict[str, _Claim] = {}
        self._claims_on: defaultdict[_PoolKey, set[str]] = defaultdict(set)
        self._claims_of: defaultdict[str, set[str]] = defaultdict(set)
        self._booked: defaultdict[str, set[str]] = defaultdict(set)
        """What the state has of each claim."""
        self._warned: dict[str, str] = {}
        self._pods: dict[str, PodView] = {}
        """Our pods that have claims."""

    def take(self, kind: str, event: str, item: Object) -> bool:
        """Take one event of these kinds. Whether the cycle could now decide differently."""
        if kind == "resourceclaims":
            return self._take_claim(item, gone=event == "DELETED")
        if kind == "resourceslices":
            return self._take_slice(item, gone=event == "DELETED")
        return self._take_class(item, gone=event == "DELETED")

    # Nodes and pods

    def set_node(self, node: Node) -> bool:
        """The node is there, as given; its devices are added."""
        self._bare[node.name] = node
        return self._state.set_node(self._with_devices(node))

    def remove_node(self, name: str) -> bool:
        """The node is gone."""
        self._bare.pop(name, None)
        return self._state.remove_node(name)

    def set_pod(self, pod: PodView) -> bool:
        """A pod of ours that has claims is there, as given."""
        self._pods[pod.uid] = pod
        return self._state.set_pod(self._without_claimed(pod))

    def remove_pod(self, uid: str) -> bool:
        """A pod has ended or is gone. What it claimed is taken until the claim is given back."""
        self._pods.pop(uid, None)
        return self._state.remove_pod(uid)

    def _with_devices(self, node: Node) -> Node:
        """GPUs that a device plugin offers as well are the plugin's: neither side would know of the other's pods."""
        plugged = {node.kind(resource).family for resource in node.capacity}
        found = [supply for driver in dra.DRIVERS if (supply := self._supply.get((driver, node.name)))]
        pools = [pool for supply in found for pool in supply.pools if pool.kind.family not in plugged]
        if not pools:
            return node
        return replace(
            node,
            capacity={**node.capacity, **{pool.resource: pool.units for pool in pools}},
            kinds={**node.kinds, **{pool.resource: pool.kind for pool in pools}},
            devices={**node.devices, **{pool.resource: pool.devices for pool in pools}},
            claims={pool.resource: pool.claim for pool in pools if pool.claim is not None},
        )

    def _without_claimed(self, pod: PodView) -> PodView:
        if pod.uid not in self._claims_of:
            return pod
        return replace(pod, taken=replace(pod.taken, gpus=pod.taken.charge, parts=()))

    # DeviceClasses

    def _take_class(self, item: Object, *, gone: bool) -> bool:
        selectors = (item.get("spec") or {}).get("selectors") or ()
        text = " ".join((each.get("cel") or {}).get("expression", "") for each in selectors)
        name = item["metadata"]["name"]
        if gone:
            self._classes.pop(name, None)
        else:
            self._classes[name] = text
        changed = [self._resupply(*at) for at in list(self._supply)]
        return any(changed)

    # ResourceSlices

    def _take_slice(self, item: Object, *, gone: bool) -> bool:
        uid, spec = item["metadata"]["uid"], item.get("spec")
        before = self._slices.pop(uid, None)
        if before is not None:
            self._of_pool[before.pool].pop(uid, None)
        if gone:
            return before is not None and self._renew(before.pool)
        if spec is None or not dra.is_gpu_driver(spec["driver"]):
            return False
        pool = spec["pool"]
        key = spec["driver"], pool["name"]
        devices = tuple(_located(spec, key[1]))
        self._slices[uid] = _Slice(key, pool["generation"], pool["resourceSliceCount"], devices)
        self._of_pool[key][uid] = self._slices[uid]
        return self._renew(key)

    def _renew(self, key: _PoolKey) -> bool:
        """Take the latest generation of a pool for what there is, once all of it is there."""
        slices = self._of_pool[key].values()
        latest = max((each.generation for each in slices), default=0)
        current = [each for each in slices if each.generation == latest]
        if current and len(current) < max(each.slices for each in current):
            return False
        devices = tuple(found for each in current for found in each.devices)
        before, self._devices[key] = self._devices.get(key, ()), devices
        if not current:
            del self._of_pool[key], self._devices[key]
        if devices == before:
            return False
        nodes = {node for node, _ in before} | {node for node, _ in devices}
        for node in nodes:
            on = self._pools_on[key[0], node]
            on.discard(key)
            if any(node == each for each, _ in devices):
                on.add(key)
        changed = [self._resupply(key[0], node, key) for node in sorted(nodes)]
        return any(changed)

    def _resupply(self, driver: str, node: str, changed_pool: _PoolKey | None = None) -> bool:
        """Work out anew what the devices of a driver on a node offer, and what claims take of them."""
        pools = set(self._pools_on[driver, node])
        here = [device for pool in pools for on, device in self._devices[pool] if on == node]
        supply = dra.supply(driver, node, here, self._classes, self._given)
        before = self._supply.get((driver, node), _NOTHING)
        if here:
            self._supply[driver, node] = supply
        else:
            self._supply.pop((driver, node), None)
            del self._pools_on[driver, node]
        if supply == before:
            return False
        if here and not supply.pools and self._classes:
            self._warn(driver, node)
        changed = node in self._bare and self._state.set_node(self._with_devices(self._bare[node]))
        touched = pools if changed_pool is None else {*pools, changed_pool}
        uids = {uid for pool in touched for uid in self._claims_on.get(pool, ())}
        return any([changed, *(self._book(uid) for uid in sorted(uids))])

    def _warn(self, driver: str, node: str) -> None:
        """Say once why no device of a driver is of use."""
        why = "no whole GPU is free of taints, in a known form, and to be told from others"
        if not any(dra.names_driver(text, driver) for text in self._classes.values()):
            why = f"no DeviceClass has a selector that names '{driver}'"
        if self._warned.get(driver) != why:
            self._warned[driver] = why
            logger.warning("devices of %s are of no use on node %s, and maybe on others: %s", driver, node, why)

    # ResourceClaims

    def _take_claim(self, item: Object, *, gone: bool) -> bool:
        uid = item["metadata"]["uid"]
        claim = None if gone else _allocated(item)
        before = self._claims.pop(uid, None)
        if before == claim:
            if claim is not None:
                self._claims[uid] = claim
            return False
        if before is not None:
            self._index(before, known=False)
        if claim is not None:
            self._claims[uid] = claim
            self._index(claim, known=True)
        changed = self._book(uid)
        pods = {*(before.pods if before is not None else ()), *(claim.pods if claim is not None else ())}
        known = [self._pods[pod] for pod in sorted(pods) if pod in self._pods]
        return any([changed, *(self._state.set_pod(self._without_claimed(pod)) for pod in known)])

    def _index(self, claim: _Claim, *, known: bool) -> None:
        for pool in _pools(claim):
            _note(self._claims_on, pool, claim.uid, known=known)
        for pod in claim.pods:
            _note(self._claims_of, pod, claim.uid, known=known)

    def _book(self, uid: str) -> bool:
        """Let the state know what a claim takes, as if a pod took it; one for each driver and node."""
        claim, changed = self._claims.get(uid), False
        held = {}
        if claim is not None:
            for driver, node, supply in self._supplies(claim):
                ours = (result for result in claim.results if result["driver"] == driver)
                parts = [part for result in ours for part in supply.parts(result)]
                if parts:
                    name = f"claim {uid} {driver} {node}"
                    held[name] = PodView(name, node, Taken(parts=tuple(parts), gpus=0))
        for name in self._booked.pop(uid, set()) - held.keys():
            changed |= self._state.remove_pod(name)
        for pod in held.values():
            changed |= self._state.set_pod(pod)
        if held:
            self._booked[uid] = set(held)
        return changed

    def _supplies(self, claim: _Claim) -> Iterator[tuple[str, str, Supply]]:
        at = {(pool[0], node) for pool in _pools(claim) for node, _ in self._devices.get(pool, ())}
        for driver, node in sorted(at):
            yield driver, node, self._supply[driver, node]


def _located(spec: Object, pool: str) -> Iterator[tuple[str, Device]]:
    """The devices of a slice that belong to one node. Those that several nodes reach are left out."""
    for raw in spec.get("devices") or ():
        node = raw.get("nodeName") if spec.get("perDeviceNodeSelection") else spec.get("nodeName")
        if node:
            yield node, Device(pool, raw)


def _allocated(item: Object) -> _Claim | None:
    """A claim that has GPUs, and its pods."""
    meta, status = item["metadata"], item.get("status") or {}
    results = ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()
    ours = tuple(result for result in results if dra.is_gpu_driver(result["driver"]))
    if not ours:
        return None
    owners = {owner["uid"] for owner in meta.get("ownerReferences") or () if owner["kind"] == "Pod"}
    users = {user["uid"] for user in status.get("reservedFor") or () if user.get("resource") == "pods"}
    return _Claim(meta["uid"], frozenset(owners | users), ours)


def _note(index: dict[T, set[str]], key: T, uid: str, *, known: bool) -> None:
    if known:
        index[key].add(uid)
        return
    index[key].discard(uid)
    if not index[key]:
        del index[key]


def _pools(claim: _Claim) -> set[_PoolKey]:
    return {(result["driver"], result["pool"]) for result in claim.results}
