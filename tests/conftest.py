"""What the tests on a cluster share. Each folder of them has a `cluster` of its own kind."""

import os
import secrets
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import TypeVar

import pytest

from devcluster.cluster import Cluster

HERE = Path(__file__).parent
TIERS = ("integration", "e2e")
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
Kubectl = Callable[..., CompletedProcess[str]]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of a tier by the folder that they are in."""
    for item in items:
        for tier in TIERS:
            if HERE / tier in item.path.parents:
                item.add_marker(tier)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _no_skip_under_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _no_skip_under_ci((yield))


def _no_skip_under_ci(report: Report) -> Report:
    """Make a skipped test of a cluster fail under CI: it would say nothing about a real one."""
    of_a_tier = report.nodeid.startswith(tuple(f"{HERE.name}/{tier}" for tier in TIERS))
    if of_a_tier and report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        *_, reason = report.longrepr if isinstance(report.longrepr, tuple) else (report.longreprtext,)
        report.longrepr = f"{reason} (CI allows no skip of a test on a cluster)"
    return report


@pytest.fixture
def kubectl(cluster: Cluster) -> Kubectl:
    """Runs kubectl as administrator: `kubectl("get", "pods", check=False)`."""
    return cluster.kubectl


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own, ready for pods."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("wait", "--for=create", "--timeout=120s", "-n", name, "serviceaccount/default")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
