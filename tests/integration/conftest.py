"""A real control plane for the tests in this folder: started by the session, or the one that KUBECONFIG names."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import tools
from devcluster.cluster import Cluster, running_cluster
from devcluster.stack import Stack, running_stack

CRDS = Path(__file__).parents[2] / "crds"
NODES = 4


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster with Tuneyard's CRDs and admission policy."""
    given = os.environ.get("TUNEYARD_TEST_KUBECONFIG") or os.environ.get("KUBECONFIG")
    if given:
        own = tools.path("kubectl")
        there = Cluster(Path(given), str(own) if own.exists() else "kubectl")
        _install_crds(there)
        yield there
        return
    if not tools.built():
        pytest.skip("the control plane's binaries are not built (run deploy/build-tools) and no KUBECONFIG is set")
    with running_cluster(nodes=NODES) as started:
        _install_crds(started)
        yield started


def _install_crds(cluster: Cluster) -> None:
    if not any(CRDS.glob("*.yaml")):
        return
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
    definitions = [
        entry["metadata"]["name"] for entry in cluster.objects("crds") if entry["spec"]["group"] == "tuneyard.dev"
    ]
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=120s", "crd", *definitions)


@pytest.fixture(scope="module")
def stack(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Operator, scheduler and strategy service, running as processes; a test that kills one starts it again.

    A module's own, since other modules make studies by hand and want them left alone.
    """
    with running_stack(cluster, tmp_path_factory.mktemp("stack")) as running:
        yield running
        said = "".join(running.log(name) for name in running.processes)
        assert "Traceback" not in said, said[said.index("Traceback") - 500 :][:3000]
