"""How many cores and how much memory this process may use: those of the machine, or fewer by its cgroup."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/sys/fs/cgroup")
_OWN: Final = Path("/proc/self/cgroup")


def cores() -> float:
    """Cores, as CPU affinity and quota leave them."""
    if sys.version_info >= (3, 13):
        usable = os.process_cpu_count() or 1
    elif sys.platform == "linux":
        usable = len(os.sched_getaffinity(0))
    else:
        usable = os.cpu_count() or 1
    return min(float(usable), *cpu_quotas())


def memory() -> int:
    """Bytes of memory."""
    return min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *memory_limits())


def cpu_quotas(root: Path = _ROOT, own: Path = _OWN) -> Iterator[float]:
    """The quotas in cores of the cgroup and of all above it, by either version of cgroups.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max) and .../scheduler/sched-bwc.html (version 1)
    """
    yield float("inf")
    for folder in _folders(root, own, "cpu"):
        whole = (
            _read(folder / "cpu.max") or f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
        )
        quota, _, period = whole.partition(" ")
        if quota.isdigit() and period.isdigit() and int(quota) and int(period):
            yield int(quota) / int(period)


def memory_limits(root: Path = _ROOT, own: Path = _OWN) -> Iterator[int]:
    """The limits in bytes of the cgroup and of all above it; what has none says so by a word, or by a huge number."""
    yield sys.maxsize
    for folder in _folders(root, own, "memory"):
        limit = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
        if limit.isdigit():
            yield int(limit)


def _folders(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """Where the files of this process's cgroup are, and of those above it; a container does not see all of them."""
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top = root
        elif controller in controllers.split(","):
            top = root / controllers if (root / controllers).is_dir() else root / controller
        else:
            continue
        inner = top / path.lstrip("/")
        yield from (folder for folder in (inner, *inner.parents) if folder == top or top in folder.parents)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
