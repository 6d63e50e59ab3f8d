"""Slices of NVIDIA's Multi-Instance GPUs, as its device plugin offers them.

A profile such as 2g.20gb is two of a GPU's compute slices with 20 GB. With the strategy "mixed", each profile has a
resource of its own, nvidia.com/mig-2g.20gb; with "single", all GPUs of a node are cut alike and the slices are offered
as nvidia.com/gpu: the label nvidia.com/gpu.product then ends in -MIG-2g.20gb. The plugin may make replicas of slices
as well, and name these nvidia.com/mig-2g.20gb.shared.

Source: https://docs.nvidia.com/datacenter/tesla/mig-user-guide/, https://github.com/NVIDIA/k8s-device-plugin: README
("Shared Access to GPUs") and docs/gpu-feature-discovery/README.md (labels), internal/lm/resource.go (how they are made)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from tuneyard_scheduler.backends import VENDORS, Object, Pool, labels_of, memory_of, offered, timeslice
from tuneyard_scheduler.devices import Kind, amount

NAME: Final = "mig"
_MIXED: Final = re.compile(r"nvidia\.com/mig-(\d)g\.(\d+)gb(?:\.me[\w.]*?)?(\.shared)?")
_SINGLE: Final = re.compile(r"(.+)-MIG-(\d)g\.(\d+)gb(?:\.me[\w.]*?)?(?:-SHARED)?")
_SLICES: Final = 7
"""Compute slices of a GPU; an A30 has 4."""


def capacity(node: Object) -> list[Pool]:
    """The slices of a node, a pool a profile. A request gets one slice: the smallest that is enough."""
    return [*_single(node), *_mixed(node)]


def slices_of(model: str | None) -> int:
    """How many compute slices a GPU has."""
    return 4 if model is not None and "A30" in model else _SLICES


def _single(node: Object) -> Iterator[Pool]:
    labels, nvidia = labels_of(node), VENDORS["nvidia"]
    product = _SINGLE.fullmatch(labels.get(nvidia.model_label, ""))
    for name in (nvidia.resource, timeslice.SHARED):
        units = int(offered(node).get(name, 0))
        if product is not None and units:
            yield _pool(labels, name, nvidia.resource, units, product.group(1), product.group(2), product.group(3))


def _mixed(node: Object) -> Iterator[Pool]:
    labels = labels_of(node)
    model = labels.get(VENDORS["nvidia"].model_label)
    for name, units in sorted(offered(node).items()):
        profile = _MIXED.fullmatch(name)
        if profile is not None and int(units):
            labelled = name.removesuffix(".shared")
            yield _pool(labels, name, labelled, int(units), model, profile.group(1), profile.group(2))


def _pool(
    labels: Mapping[str, str], name: str, labelled: str, units: int, model: str | None, slices: str, gigabytes: str
) -> Pool:
    replicas = timeslice.replicas(labels, labelled)
    memory = memory_of(labels, f"{labelled}.memory") or int(gigabytes) * 1000**3 // 2**20
    size = min(amount(int(slices) / slices_of(model) / replicas), 0.9999)  # a slice, even if it is all there is
    return Pool(name, units, Kind(VENDORS["nvidia"].resource, model, memory // replicas, size, whole=NAME))
