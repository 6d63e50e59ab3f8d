"""The control groups of a cluster's nodes, under version 1 and version 2."""

import os
import time
from pathlib import Path
from typing import Final

from devcluster.processes import ClusterError

ROOT: Final = Path("/sys/fs/cgroup")
CONTROLLERS: Final = ("cpu", "cpuset", "memory", "pids", "io", "hugetlb")
PATIENCE: Final = 10.0


def hierarchies(root: Path = ROOT) -> list[Path]:
    """The roots of all hierarchies: one under version 2, one a controller under version 1."""
    if (root / "cgroup.controllers").exists():
        return [root]
    return sorted({path.resolve() for path in root.iterdir() if (path / "cgroup.procs").exists()})


def create(name: str, root: Path = ROOT) -> None:
    """Create a group such as "tuneyard200/node-1" everywhere, with all controllers that there are.

    Raises:
        ClusterError: It is not allowed here.
    """
    try:
        for hierarchy in hierarchies(root):
            _create(hierarchy, name)
    except OSError as error:
        raise ClusterError(
            f"Real nodes need control groups below {root}, and none can be made here: {error}."
        ) from None


def _create(hierarchy: Path, name: str) -> None:
    group = hierarchy / name
    group.mkdir(parents=True, exist_ok=True)
    control = hierarchy / "cgroup.controllers"
    offered = control.read_text().split() if control.exists() else []
    for above in reversed(group.relative_to(hierarchy).parents):
        for controller in sorted(set(CONTROLLERS) & set(offered)):
            (hierarchy / above / "cgroup.subtree_control").write_text(f"+{controller}")


def remove(name: str, root: Path = ROOT) -> None:
    """Remove a group and all below it, as soon as its last process is gone.

    Raises:
        ClusterError: There are still processes in it after some seconds.
    """
    deadline = time.monotonic() + PATIENCE
    for hierarchy in hierarchies(root):
        for folder, _, _ in os.walk(hierarchy / name, topdown=False):
            while not _removed(folder):
                if time.monotonic() > deadline:
                    raise ClusterError(f"The control group {folder} is still in use.")
                time.sleep(0.05)


def _removed(folder: str) -> bool:
    try:
        os.rmdir(folder)  # noqa: PTH106 - os.walk names it
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
