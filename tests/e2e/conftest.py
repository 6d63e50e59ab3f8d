"""A real cluster that runs real containers, with Tuneyard installed from its chart."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from _release import Release
from _studies import Studies

import images
from devcluster import tools
from devcluster.cluster import Cluster, running_cluster

NODES = 2
GPUS = 1


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster that TUNEYARD_E2E_KUBECONFIG names, whose nodes have the images; else one of our own."""
    given = os.environ.get("TUNEYARD_E2E_KUBECONFIG")
    if given:
        yield Cluster(Path(given), shutil.which("kubectl") or str(tools.path("kubectl")))
        return
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("real nodes need root on Linux; or name a cluster that has the images in TUNEYARD_E2E_KUBECONFIG")
    archives = images.ensure()
    with running_cluster(nodes=0, real=NODES, gpus=GPUS) as started:
        for archive in archives.values():
            started.load_image(archive)
        yield started


@pytest.fixture(scope="session")
def release(cluster: Cluster) -> Iterator[Release]:
    """Tuneyard, installed into a namespace that takes restricted pods only."""
    tools.ensure(tools.HELM)
    installed = Release(cluster, tools.path("helm"))
    cluster.kubectl("create", "namespace", installed.namespace)
    for mode in ("enforce", "warn"):
        label = f"pod-security.kubernetes.io/{mode}=restricted"
        cluster.kubectl("label", "namespace", installed.namespace, label)
    try:
        installed.install()
        yield installed
        installed.helm("uninstall", installed.name, "--wait")
    finally:
        cluster.kubectl("delete", "namespace", installed.namespace, "--wait=false")


@pytest.fixture
def studies(cluster: Cluster, release: Release, namespace: str) -> Studies:
    """Studies in a namespace of the test's own."""
    return Studies(cluster, namespace)
