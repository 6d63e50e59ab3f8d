"""CPU seconds and API requests of a stretch of time."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from devcluster.cluster import Cluster, status

_TICKS = os.sysconf("SC_CLK_TCK")
_REQUESTS = re.compile(r"^apiserver_request_total\{([^}]*)\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Reading:
    """What the meters show at one moment: CPU seconds by process, requests that the API server has answered."""

    cpu: dict[str, float]
    requests: float

    def __sub__(self, before: Self) -> "Reading":
        cpu = {name: seconds - before.cpu.get(name, 0.0) for name, seconds in self.cpu.items()}
        return Reading(cpu, self.requests - before.requests)


def read(cluster: Cluster, processes: dict[str, int]) -> Reading:
    """Read the meters of the control plane and of the given processes (pid by name)."""
    pids = {name: pid for name, pid in status(cluster.kubeconfig.parent).items() if pid is not None} | processes
    return Reading({name: _cpu_seconds(pid) for name, pid in pids.items()}, _requests(cluster))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS  # utime and stime: proc(5)


def _requests(cluster: Cluster) -> float:
    metrics = cluster.kubectl("get", "--raw", "/metrics").stdout
    return sum(float(value) for labels, value in _REQUESTS.findall(metrics) if 'verb="WATCH"' not in labels)
