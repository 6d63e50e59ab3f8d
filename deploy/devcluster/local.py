"""Tuneyard on a cluster of this machine, as `make cluster` brings it up: built, loaded and installed by Helm.

Where a Docker engine answers the cluster is kind's; else, for root on Linux, it has real nodes without Docker.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from devcluster import cluster, machine, nodes, tools
from devcluster.cluster import Cluster, ClusterError
from images import oci

ROOT: Final = Path(__file__).resolve().parents[2]
CHART: Final = ROOT / "charts" / "tuneyard"
DOCKERFILE: Final = ROOT / "deploy" / "images" / "Dockerfile"
NAME: Final = "tuneyard"  # of the kind cluster, the release and its namespace
TARGETS: Final = {"tuneyard": (), "examples": ("--target", "examples")}
"""The images, and what `docker build` is told to make them."""
_KIND: Final = "kind.json"


def up(directory: Path, *, count: int, gpus: int) -> Cluster:
    """Bring a cluster up with Tuneyard in it, or make one that is up run what the sources now say.

    Args:
        directory: The cluster's folder.
        count: How many nodes a new one gets.
        gpus: How many fake GPUs each of them has; kind's have none.

    Raises:
        ClusterError: This machine cannot, or a step failed.
        ToolsError: The binaries are missing and could not be built.
    """
    if is_kind(directory) or (not directory.exists() and docker_answers()):
        tools.ensure(tools.KUBECTL, tools.KIND, tools.HELM)
        return _up_with_kind(directory, count)
    if why := machine.obstacle():
        raise ClusterError(
            "A cluster here takes either a Docker engine that answers (`docker info` says whether one does), and none "
            f"does, or real nodes without Docker, but {why}. `make cluster-fake` needs neither: its pods are fake."
        )
    return _up_with_nodes(directory, count, gpus)


def load(directory: Path, archive: Path) -> None:
    """Put the images of an archive into all nodes of the cluster in a folder.

    Raises:
        ClusterError: There is no such cluster, or the archive is none.
    """
    if is_kind(directory):
        tools.ensure(tools.KIND)
        run(tools.path("kind"), "load", "image-archive", archive, "--name", NAME)
    else:
        cluster.connect(directory).load_image(archive)


def down(directory: Path) -> None:
    """Remove what `up` or `cluster.start` made in a folder; nothing happens where there is none."""
    if is_kind(directory):
        tools.ensure(tools.KIND)
        run(tools.path("kind"), "delete", "cluster", "--name", NAME)
    cluster.stop(directory)


def is_kind(directory: Path) -> bool:
    """Whether the cluster of a folder is kind's."""
    return (directory / _KIND).exists()


def docker_answers() -> bool:
    """Whether there is a Docker engine."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    return subprocess.run([docker, "info"], capture_output=True, timeout=30, check=False).returncode == 0


def _up_with_kind(directory: Path, count: int) -> Cluster:
    kind, kubeconfig = tools.path("kind"), directory / "kubeconfig"
    if not is_kind(directory):
        directory.mkdir(mode=0o700, parents=True)
        workers = [{"role": "worker"}] * (count - 1)
        settings = {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4"}
        (directory / _KIND).write_text(json.dumps(settings | {"nodes": [{"role": "control-plane"}, *workers]}))
        create = ("create", "cluster", "--name", NAME, "--config", directory / _KIND, "--kubeconfig", kubeconfig)
        run(kind, *create, "--wait", "120s")
    started = cluster.connect(directory)
    built = []
    for image, target in TARGETS.items():
        tag = f"tuneyard/{image}:{version()}"
        _say(f"Building {tag} ...")
        run("docker", "build", "--quiet", "--file", DOCKERFILE, "--tag", tag, *target, ROOT)
        run(kind, "load", "docker-image", tag, "--name", NAME)
        built.append(run("docker", "image", "inspect", "--format", "{{.Id}}", tag))
    _install(started, built[0])
    return started


def _up_with_nodes(directory: Path, count: int, gpus: int) -> Cluster:
    if directory.exists() and nodes.of(directory) is None:
        raise ClusterError(f"The cluster in {directory} has fake nodes only; `make cluster-down` removes it.")
    machine.ensure(directory)
    tools.ensure(tools.CONTROL_PLANE, tools.NODE, tools.HELM)
    with tempfile.TemporaryDirectory(prefix="tuneyard-images-") as scratch:
        _say("Building the images ...")
        run(sys.executable, "-m", "images", scratch, environment={"PYTHONPATH": str(ROOT / "deploy")})
        started = _running(directory, count, gpus)
        for image in TARGETS:
            started.load_image(Path(scratch, f"{image}.tar"))
        built = oci.read(Path(scratch, "tuneyard.tar")).digest
    _install(started, built)
    return started


def _running(directory: Path, count: int, gpus: int) -> Cluster:
    """The cluster of a folder, with all of its nodes; a new one where none runs."""
    found = cluster.connect(directory)
    pids = cluster.status(directory)
    dead = [name for name, pid in pids.items() if pid is None]
    real = nodes.of(directory)
    if real is not None and set(dead) <= set(real.names):
        for name in dead:
            _say(f"Starting {name} again ...")
            found.start_node(name)
        return found
    cluster.stop(directory)  # what a restart of the machine left
    _say(f"Starting {count} real node{'s' if count > 1 else ''} ...")
    return cluster.start(directory, nodes=0, real=count, gpus=gpus)


def _install(on: Cluster, built: str) -> None:
    """Install or upgrade the chart; pods of another build than `built` are replaced, though its name is the same."""
    _say("Installing the chart ...")
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAME, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    on.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(namespace))
    mark = hashlib.sha256(built.encode()).hexdigest()[:16]
    marks = [f"--set-string={part}.podAnnotations.build={mark}" for part in ("operator", "scheduler")]
    release = ["upgrade", "--install", NAME, str(CHART), "--namespace", NAME, *marks, "--wait", "--timeout", "5m"]
    try:
        run(tools.path("helm"), "--kubeconfig", on.kubeconfig, *release)
    except ClusterError as error:
        pods = on.kubectl("get", "pods", "-n", NAME, check=False).stdout
        raise ClusterError(f"{error}\n{pods}") from None


def version() -> str:
    """Tuneyard's version, the tag of its images."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def run(*command: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a program; what it says.

    Raises:
        ClusterError: It failed; the message is its own.
    """
    words: Sequence[str] = [str(word) for word in command]
    done = subprocess.run(words, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"`{' '.join(words)}` failed:\n{(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout.strip()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
