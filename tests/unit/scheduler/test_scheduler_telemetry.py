"""What Prometheus is told, as it would be scraped."""

from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio import client
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from tuneyard_scheduler import telemetry
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.kube import Kube, KubeError, path
from tuneyard_scheduler.telemetry import StateCollector, count_placements, resource_of, showing
from tuneyard_scheduler.views import QueueView

GPU = "nvidia.com/gpu"


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize(
    ("url_path", "resource"),
    [
        (path("trials", "ns", "a-1", "status"), "trials/status"),
        (path("trials", "ns"), "trials"),
        (path("nodes"), "nodes"),
        (path("gpuqueues", name="q", sub="status"), "gpuqueues/status"),
        (path("pods", "ns", "p", "log"), "pods/log"),
        ("/apis/authentication.k8s.io/v1/tokenreviews", "tokenreviews"),
        ("/apis/tuneyard.dev/v1alpha1", ""),
        ("/.well-known/openid-configuration", ""),
        ("/openid/v1/jwks", ""),
    ],
)
def test_requests_are_told_apart_by_kind_and_not_by_name(url_path: str, resource: str) -> None:
    assert resource_of(url_path) == resource


def test_gpus_are_of_trials_of_others_idle_or_out_of_reach(bench: Any) -> None:
    bench.node("n1", 8)
    bench.node("n2", 8, schedulable=False)
    bench.state.set_queue(QueueView("team", limit=6, guaranteed=3))
    bench.study("ns/a", 2, trials=2, queue="team")
    bench.study("ns/b", 0, trials=1)
    bench.study("ns/c", 1, trials=3, parallel=0)
    bench.pod("stranger", "n1", 1)
    bench.cycle()
    registry = CollectorRegistry()
    registry.register(StateCollector(bench.state))

    def shown(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    gpus = {state: shown("tuneyard_gpus", resource=GPU, state=state) for state in ("trials", "others", "idle")}
    assert gpus == {"trials": 4, "others": 1, "idle": 3}
    assert shown("tuneyard_gpus", resource=GPU, state="closed") == 8
    assert shown("tuneyard_queue_gpus", queue="team") == 4
    assert shown("tuneyard_queue_limit_gpus", queue="team") == 6
    assert shown("tuneyard_queue_limit_gpus", queue="default") is None
    assert shown("tuneyard_queue_guaranteed_gpus", queue="team") == 3
    assert shown("tuneyard_queue_guaranteed_gpus", queue="default") == 0
    assert shown("tuneyard_queue_pending_trials", queue="team") == 0
    assert shown("tuneyard_queue_pending_trials", queue="default") == 3


def test_studies_that_wait_are_told_apart_by_their_reason(bench: Any) -> None:
    bench.node("n1", 2)
    bench.study("ns/a", 4, trials=2)
    bench.study("ns/b", 8, trials=1)
    bench.study("ns/c", 1, trials=3, parallel=1)
    waiting = schedule(bench.state, 0.0).waiting
    registry = CollectorRegistry()
    registry.register(StateCollector(bench.state, lambda: waiting))
    found = {
        reason: registry.get_sample_value("tuneyard_waiting_studies", {"reason": reason})
        for reason in ("NoNodeFits", "ParallelLimit", "Suspended")
    }
    assert found == {"NoNodeFits": 2, "ParallelLimit": 1, "Suspended": 0}


def test_waiting_counts_from_when_a_trial_could_start(bench: Any) -> None:
    bench.node("n1", 8)
    bench.study("ns/a", 1, queue=None)
    bench.trial(0, since=100.0)
    bench.trial(1, attempt=1, since=100.0, not_before=130.0)
    bench.trial(2)
    total, count = value("tuneyard_trial_wait_seconds_sum", queue="default"), value("tuneyard_placements_total")
    count_placements(bench.state, schedule(bench.state, 140.0).placements, 140.0)
    assert value("tuneyard_trial_wait_seconds_sum", queue="default") - total == 40 + 10
    assert value("tuneyard_placements_total") - count == 3


async def test_each_request_is_counted_by_its_answer() -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"reason": "TooManyRequests", "message": "later"}, status=429)

    app = web.Application()
    app.router.add_get("/{any:.*}", refuse)
    async with TestServer(app) as server:
        kube = Kube(client.Configuration(host=str(server.make_url("")).rstrip("/")), "ns")
        labels = {"verb": "GET", "resource": "trials", "code": "429"}
        before = value("tuneyard_api_requests_total", **labels)
        async with kube:
            with pytest.raises(KubeError):
                await kube.request("GET", path("trials", "ns"))
        assert value("tuneyard_api_requests_total", **labels) == before + 1


def test_all_names_are_shown_and_no_other(bench: Any) -> None:
    with showing(StateCollector(bench.state)):
        families = {
            family.name + ("_total" if family.type == "counter" else "")
            for family in REGISTRY.collect()
            if family.name.startswith("tuneyard_")
        }
        assert b"tuneyard_gpus" in generate_latest()
    assert families >= telemetry.NAMES
    assert {name for name in families if name.startswith(("tuneyard_queue", "tuneyard_gpu"))} <= telemetry.NAMES
    assert b"tuneyard_gpus" not in generate_latest(), "a replica that does not lead knows nothing of them"
