"""Two replicas of operator and scheduler: one of each works, and when it dies the other goes on."""

import time
from collections.abc import Iterator

import pytest
from _studies import Studies, study, until
from _witness import witness

from devcluster.cluster import Cluster
from devcluster.stack import Stack, running_stack
from tuneyard_scheduler.lease import DURATION, RETRY

FAILOVER_SECONDS = 15.0
LEASES = {"operator": "tuneyard-operator", "scheduler": "tuneyard-scheduler"}


@pytest.fixture(scope="module")
def pair(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Operator and scheduler, each twice."""
    with running_stack(cluster, tmp_path_factory.mktemp("pair"), standby=True) as running:
        yield running
        for name in running.processes:
            assert "Traceback" not in running.log(name)
    cluster.kubectl("delete", "lease", "--ignore-not-found", *LEASES.values())


def holder(cluster: Cluster, component: str) -> str | None:
    """The process that leads."""
    found = cluster.objects("lease", LEASES[component])[0]["spec"].get("holderIdentity")
    return str(found) if found else None


@pytest.mark.parametrize("component", ["operator", "scheduler"])
def test_when_the_leader_is_killed_the_other_goes_on(
    cluster: Cluster, pair: Stack, namespace: str, component: str
) -> None:
    studies = Studies(cluster, namespace)
    with witness(cluster, namespace) as seen:
        studies.apply(study("go-on", annotations={"duration-ms": "700"}, trials={"max": 90, "parallel": 6}))
        until(lambda: len(seen.jobs) > 12, "a dozen trials start", 60)
        victim = holder(cluster, component)
        assert victim is not None
        pair.kill(victim)
        killed, before = time.monotonic(), len(seen.jobs)
        # What was placed already may still start; what comes after that is the other's doing.
        until(lambda: len(seen.jobs) > before + 12, "another dozen starts", 60)
        elapsed = time.monotonic() - killed
        assert holder(cluster, component) not in {victim, None}
        assert elapsed < FAILOVER_SECONDS
        pair.start(victim)
        status = studies.wait("go-on", timeout=300)
    assert status["trials"]["succeeded"] == 90
    assert seen.outcomes == {"Succeeded": 90}
    assert [job for job, uids in seen.jobs.items() if len(uids) > 1] == []
    assert seen.most_alive <= 6


def test_a_leader_that_is_told_to_end_hands_over_at_once(cluster: Cluster, pair: Stack) -> None:
    for component in LEASES:
        leader = until(lambda c=component: holder(cluster, c), "a leader")
        began = time.monotonic()
        pair.end(leader)
        until(lambda c=component, gone=leader: holder(cluster, c) not in {gone, None}, "another leader")
        assert time.monotonic() - began < DURATION - RETRY, "the lease was not let go, it expired"
        pair.start(leader)


def test_a_replica_that_stands_by_is_healthy(pair: Stack) -> None:
    pair.wait_ready()
