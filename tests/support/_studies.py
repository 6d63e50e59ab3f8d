"""What the tests of whole studies share: manifests, waiting, and reading what came of it."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from devcluster.cluster import Cluster

Object = dict[str, Any]
LOSS_IS_X = '{"loss": $(TUNEYARD_PARAM_x)}'
"""kwok's pods 'train' like this: the metric is the parameter."""


def study(name: str, *, annotations: dict[str, str] | None = None, **spec: Any) -> Object:
    """A study of x in [0, 1] whose fake pods run for 0.2 s and report x as the loss; fields of `spec` replace ours."""
    pod = {
        "metadata": {"annotations": {f"kwok.tuneyard.dev/{k}": v for k, v in _scripted(annotations or {}).items()}},
        "spec": {"containers": [{"name": "trial", "image": "example.test/trial:1"}]},
    }
    ours: Object = {
        "objectives": [{"metric": "loss", "goal": "minimize"}],
        "parameters": [{"name": "x", "double": {"min": 0, "max": 1}}],
        "strategy": {"name": "random", "seed": 3},
        "trials": {"max": 6, "parallel": 3},
        "gpu": {"count": 1},
        "template": pod,
    }
    return {"apiVersion": "tuneyard.dev/v1alpha1", "kind": "Study", "metadata": {"name": name}, "spec": ours | spec}


def _scripted(annotations: dict[str, str]) -> dict[str, str]:
    return {"duration-ms": "200", "message": LOSS_IS_X} | annotations


class Studies:
    """Studies of one namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def kubectl(self, *arguments: str, check: bool = True, stdin: str | None = None) -> str:
        """Run kubectl in the namespace; its output, and its complaints."""
        done = self.cluster.kubectl("-n", self.namespace, *arguments, check=check, stdin=stdin)
        return done.stdout + done.stderr

    def tuneyard(self, command: str) -> str:
        """What a `tuneyard` command prints about a study of the namespace, which it reads from the API server."""
        where = ["--namespace", self.namespace, "--kubeconfig", str(self.cluster.kubeconfig)]
        run = [sys.executable, "-m", "tuneyard.cli", *command.split(), *where]
        done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def claim(self, name: str, folder: str) -> None:
        """Make a claim of that name, whose volume is a folder that all nodes have."""
        size, modes, volume = {"storage": "1Gi"}, ["ReadWriteMany"], f"{name}-{self.namespace}"
        spec = {"resources": {"requests": size}, "accessModes": modes, "storageClassName": "", "volumeName": volume}
        claimed = {"name": name, "namespace": self.namespace}
        given = {"capacity": size, "accessModes": modes, "hostPath": {"path": folder}, "claimRef": claimed}
        self.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec})
        self.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume}, "spec": given})

    def apply(self, manifest: Object) -> str:
        """Apply a manifest."""
        return self.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def patch(self, name: str, **spec: Any) -> None:
        """Merge into a study's spec."""
        self.kubectl("patch", "study", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def wait(self, name: str, condition: str = "Complete", timeout: int = 300) -> Object:
        """Wait for a condition of a study; its status then."""
        try:
            self.kubectl("wait", f"--for=condition={condition}", f"study/{name}", f"--timeout={timeout}s")
        except Exception as error:
            shown = json.dumps(self.status(name), indent=1)
            raise AssertionError(f"{error}\n{shown}\n{self.kubectl('get', 'trials,jobs,pods')}") from None
        return self.status(name)

    def status(self, name: str) -> Object:
        """A study's status."""
        found: Object = self.objects("study", name)[0].get("status", {})
        return found

    def objects(self, *arguments: str) -> list[Object]:
        """What kubectl get lists."""
        return self.cluster.objects("-n", self.namespace, *arguments)

    def until_running(self, name: str, count: int) -> None:
        """Wait until just so many trials of a study run, and their pods, too.

        The status counts a trial once it has its place: its pod is bound, and its claim allocated, after that.
        kube-scheduler may refuse a place that is free (docs/sharing.md): then the trial gets another after a minute.
        """

        def run() -> bool:
            pods = self.objects("pods", "-l", f"tuneyard.dev/study={name}")
            counted = self.status(name).get("trials", {}).get("running", 0)
            return counted == count == sum(pod["status"].get("phase") == "Running" for pod in pods)

        until(run, f"{count} trials of {name} run", 150)

    def trials(self, name: str) -> list[Object]:
        """A study's trials in the order of their index."""
        found = self.objects("trials", "-l", f"tuneyard.dev/study={name}")
        return sorted(found, key=lambda trial: int(trial["spec"]["index"]))


def until(condition: Callable[[], Any], what: str, timeout: float = 120.0) -> Any:
    """Poll until something is true; returns it."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(0.1)
    return value
