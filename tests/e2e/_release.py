"""An installation of the chart."""

import subprocess
from pathlib import Path
from typing import Any, Final

from _e2e import ROOT

from devcluster.cluster import Cluster

CHART: Final = ROOT / "charts" / "tuneyard"


class Release:
    """A Helm release of Tuneyard in a namespace of its own that takes restricted pods only."""

    def __init__(self, cluster: Cluster, helm: Path, *, name: str = "tuneyard", namespace: str = "tuneyard") -> None:
        self.cluster = cluster
        self.name = name
        self.namespace = namespace
        self._helm = helm

    def helm(self, *arguments: str) -> str:
        """Run helm in the release's namespace; its output."""
        command = [str(self._helm), "--kubeconfig", str(self.cluster.kubeconfig), "-n", self.namespace, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl in the release's namespace."""
        return self.cluster.kubectl("-n", self.namespace, *arguments).stdout

    def objects(self, *arguments: str) -> list[dict[str, Any]]:
        """What kubectl get lists of the release's namespace."""
        return self.cluster.objects("-n", self.namespace, *arguments)

    def pods(self) -> list[dict[str, Any]]:
        """Operator and scheduler; not what the chart's test left."""
        return self.objects("pods", "-l", "app.kubernetes.io/component in (operator, scheduler)")

    def install(self, *options: str) -> None:
        """Install the chart and wait until it is ready."""
        self.helm("install", self.name, str(CHART), "--wait", "--timeout", "5m", *options)

    def upgrade(self, *options: str) -> None:
        """Upgrade, and wait until all pods are of the new revision."""
        self.helm("upgrade", self.name, str(CHART), "--wait", "--timeout", "5m", *options)

    def leader(self, component: str) -> str:
        """The pod that leads; empty while none does."""
        return str(self.objects("lease", f"{self.name}-{component}")[0]["spec"].get("holderIdentity") or "")

    def wait_ready(self) -> None:
        """Until all replicas are ready."""
        self.kubectl(
            "rollout", "status", "deployment", "--timeout=120s", "-l", f"app.kubernetes.io/instance={self.name}"
        )
