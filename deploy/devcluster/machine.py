"""What a machine must be and have to run real nodes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from devcluster import tools
from devcluster.processes import ClusterError

PROGRAMS: Final = {
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "catatonit": "catatonit",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
}
"""The Debian packages of the programs that are not built from Go modules."""
CNI: Final = ("/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin")
CNI_PACKAGE: Final = "containernetworking-plugins"
HIDDEN: Final = ("/run", "/var/run", "/var/lib", "/var/log", "/proc", "/sys")
"""What a node has its own of, so that nothing outside is seen below."""


def cni() -> str | None:
    """The folder of the CNI plugins."""
    return next(
        (folder for folder in CNI if Path(folder, "ptp").exists() and Path(folder, "host-local").exists()), None
    )


def missing() -> list[str]:
    """The Debian packages of what this machine lacks."""
    packages = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    return sorted({*packages, *([] if cni() else [CNI_PACKAGE])})


def obstacle() -> str | None:
    """Why this machine can have no real nodes whatever is installed; None if it can."""
    if sys.platform != "linux":
        return f"they need Linux, and this is {sys.platform}"
    if os.geteuid() != 0:
        return "they need root, and you are not (try `sudo make cluster`)"
    return None


def ensure(directory: Path) -> None:
    """Make sure that real nodes can run; what is missing is installed where apt-get does that.

    Args:
        directory: The cluster's folder.

    Raises:
        ClusterError: They cannot; the message says what to do.
    """
    if why := obstacle():
        raise ClusterError(f"There can be no real nodes here: {why}.")
    for path in (directory, tools.cache(), Path(sys.prefix), Path(__file__)):
        if any(path.resolve().is_relative_to(hidden) for hidden in HIDDEN):
            raise ClusterError(
                f"Real nodes cannot see {path}: they have their own {', '.join(HIDDEN)}. Move it elsewhere."
            )
    if packages := missing():
        install(packages)


def install(packages: list[str]) -> None:
    """Install Debian packages.

    Raises:
        ClusterError: It cannot be done; the message says which are needed.
    """
    command = f"apt-get install --no-install-recommends {' '.join(packages)}"
    if shutil.which("apt-get") is None:
        raise ClusterError(f"Real nodes need programs that are not here; Debian's packages are {', '.join(packages)}.")
    sys.stderr.write(f"Installing what real nodes need: {command}\n")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["apt-get", "update", "-q"], [*command.split(), "--yes", "-q", "-o", "DPkg::Lock::Timeout=300"]):
        done = subprocess.run(step, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ClusterError(f"Real nodes need {', '.join(packages)}, and `{command}` failed: {done.stderr.strip()}")
