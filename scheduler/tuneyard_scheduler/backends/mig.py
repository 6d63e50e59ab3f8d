"""Slices of NVIDIA's Multi-Instance GPUs, as its device plugin offers them with the strategy "mixed".

A profile such as 2g.20gb is two of a GPU's compute slices with 20 GB. Source:
https://docs.nvidia.com/datacenter/tesla/mig-user-guide/ and https://github.com/NVIDIA/mig-parted
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from tuneyard_scheduler.backends import VENDORS, Object, Pool, labels_of, limits, memory_of, offered, whole
from tuneyard_scheduler.devices import Kind, amount

NAME: Final = "mig"
_PROFILE: Final = re.compile(r"nvidia\.com/mig-(\d)g\.(\d+)gb(?:\.me.*)?")
_SLICES: Final = 7
"""Compute slices of a GPU; an A30 has 4."""


def capacity(node: Object) -> list[Pool]:
    """The slices of a node, a pool a profile. A request gets one slice: the smallest that is enough."""
    labels = labels_of(node)
    model = labels.get(VENDORS["nvidia"].model_label)
    slices = 4 if model is not None and "A30" in model else _SLICES
    pools = []
    for name, units in sorted(offered(node).items()):
        profile = _PROFILE.fullmatch(name)
        if profile is None or not int(units):
            continue
        memory = memory_of(labels, f"{name}.memory") or int(profile.group(2)) * 1000**3 // 2**20
        size = min(amount(int(profile.group(1)) / slices), 0.9999)  # a slice, even if it is all there is
        pools.append(Pool(name, int(units), Kind(VENDORS["nvidia"].resource, model, memory, size, whole=NAME)))
    return pools


def render(placement: Mapping[str, Any], container: Object) -> None:
    """Make a container ask for one slice. It sees no more of the GPU than that."""
    whole.ask(container, placement["resource"], 1)
    limits.tell(placement, container)
