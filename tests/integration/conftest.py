"""A real control plane for the tests in this folder: started by the session, or the one that KUBECONFIG names."""

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from devcluster import tools
from devcluster.cluster import Cluster, running_cluster

HERE = Path(__file__).parent
CRDS = HERE.parents[1] / "crds"
NODES = 4
Kubectl = Callable[..., CompletedProcess[str]]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("integration")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Under CI a skipped integration test is a failed one: it would say nothing about a real API server."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which CI does not allow: {call.excinfo and call.excinfo.value}"
    return report


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster with Tuneyard's CRDs and admission policy."""
    given = os.environ.get("TUNEYARD_TEST_KUBECONFIG") or os.environ.get("KUBECONFIG")
    if given:
        own = tools.directory() / "kubectl"
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
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", *definitions)


@pytest.fixture
def kubectl(cluster: Cluster) -> Kubectl:
    """Runs kubectl as administrator: `kubectl("get", "pods", check=False)`."""
    return cluster.kubectl


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own, ready for pods."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("wait", "--for=create", "--timeout=30s", "-n", name, "serviceaccount/default")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
