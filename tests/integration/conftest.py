"""A real control plane for the tests in this folder: started by the session, or the one that KUBECONFIG names."""

import os
import secrets
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import TypeVar

import pytest

from devcluster import tools
from devcluster.cluster import Cluster, running_cluster
from devcluster.stack import Stack, running_stack

HERE = Path(__file__).parent
CRDS = HERE.parents[1] / "crds"
NODES = 4
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
Kubectl = Callable[..., CompletedProcess[str]]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("integration")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _no_skip_under_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _no_skip_under_ci((yield))


def _no_skip_under_ci(report: Report) -> Report:
    """Make a skipped integration test fail under CI: it would say nothing about a real API server."""
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        *_, reason = report.longrepr if isinstance(report.longrepr, tuple) else (report.longreprtext,)
        report.longrepr = f"{reason} (CI allows no skip of an integration test)"
    return report


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
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", *definitions)


@pytest.fixture(scope="module")
def stack(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Operator, scheduler and strategy service, running as processes; a test that kills one starts it again.

    A module's own, since other modules make studies by hand and want them left alone.
    """
    with running_stack(cluster, tmp_path_factory.mktemp("stack")) as running:
        yield running
        said = "".join(running.log(name) for name in running.processes)
        assert "Traceback" not in said, said[said.index("Traceback") - 500 :][:3000]


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
