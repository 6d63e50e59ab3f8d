"""What Prometheus is told: of every process's requests and leadership, and of the scheduler's GPUs, queues and cycles.

Gauges are read from the state when somebody asks (`StateCollector`), so that they cost nothing an event and cannot
drift from what the scheduler acts on. A replica that does not lead has none of them.
"""

from __future__ import annotations

from collections import Counter as Sums
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tuneyard_scheduler.inventory import Inventory
from tuneyard_scheduler.reasons import Reason
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Place, Preempt, Waiting

_SHORT: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
"""Seconds; records of when a trial began to wait are whole seconds."""

LEADER: Final = Gauge("tuneyard_leader", "1 in the replica that works, 0 in one that waits for its turn.")
REQUESTS: Final = Counter(
    "tuneyard_api_requests", "Requests to the Kubernetes API server; code 0: no answer.", ["verb", "resource", "code"]
)
REQUEST_SECONDS: Final = Histogram(
    "tuneyard_api_request_seconds",
    "From a request to the API server to its answer.",
    ["verb"],
    buckets=_SHORT,
)
CYCLE_SECONDS: Final = Histogram(
    "tuneyard_scheduling_cycle_seconds", "How long a scheduling cycle computes.", buckets=_SHORT
)
PLACEMENTS: Final = Counter("tuneyard_placements", "Trials that were given a place.")
PREEMPTIONS: Final = Counter(
    "tuneyard_preemptions", "Attempts that were stopped so that a queue gets what it is guaranteed.", ["queue"]
)
WAIT_SECONDS: Final = Histogram(
    "tuneyard_trial_wait_seconds",
    "From when a trial could have started (created, or its backoff passed) to its place.",
    ["queue"],
    buckets=_LONG,
)

GAUGES: Final = {
    "tuneyard_gpus": "GPUs by who holds them: trials, others, nobody (idle), or idle on a node that takes no pods.",
    "tuneyard_avoided_nodes": "Nodes that are avoided at present, because trials were lost there.",
    "tuneyard_waiting_studies": "Studies whose next trial gets no place at present, by the reason.",
    "tuneyard_queue_pending_trials": "Trials without a place, for whatever reason, those of a queue's parts included.",
    "tuneyard_queue_gpus": "GPUs that the trials of a queue hold, those of its parts included.",
    "tuneyard_queue_guaranteed_gpus": "GPUs that a queue is guaranteed.",
    "tuneyard_queue_limit_gpus": "GPUs that the trials of a queue may hold; absent where it has no limit.",
}
NAMES: Final = frozenset(GAUGES) | {
    "tuneyard_leader",
    "tuneyard_api_requests_total",
    "tuneyard_api_request_seconds",
    "tuneyard_scheduling_cycle_seconds",
    "tuneyard_placements_total",
    "tuneyard_preemptions_total",
    "tuneyard_trial_wait_seconds",
}
"""All that the scheduler shows, without the suffixes of histograms."""


def count_request(verb: str, url_path: str, code: int, seconds: float | None = None) -> None:
    """Note a request to the API server: its answer's code (0: none) and, but for watches, how long it took."""
    REQUESTS.labels(verb, resource_of(url_path), code).inc()
    if seconds is not None:
        REQUEST_SECONDS.labels(verb).observe(seconds)


def resource_of(url_path: str) -> str:
    """The kind of object that a path of the API is about, such as trials/status; empty where it is about none."""
    parts = url_path.split("/")[1:]
    parts = parts[2:] if parts[0] == "api" else parts[3:] if parts[0] == "apis" else []
    if len(parts) > 2 and parts[0] == "namespaces":
        parts = parts[2:]
    return "/".join(parts[::2][:2])


def count_placements(state: ClusterState, placements: Iterable[Place], now: float) -> None:
    """Note what a cycle gave, and how long it was waited for."""
    for place in placements:
        PLACEMENTS.inc()
        study, trial = state.study(place.study), state.trial(place.study, place.index)
        if study is not None and trial is not None and trial.view is not None and trial.view.since:
            waited = now - max(trial.view.since, trial.view.not_before or 0.0)
            WAIT_SECONDS.labels(study.queue).observe(max(0.0, waited))


def count_preemptions(preempt: Iterable[Preempt]) -> None:
    """Note whom a cycle stopped, by the queue that gets the GPUs."""
    for told in preempt:
        PREEMPTIONS.labels(told.queue).inc()


@contextmanager
def showing(collector: Collector) -> Iterator[None]:
    """Have a collector's metrics shown for the time of the block."""
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)


class StateCollector(Collector):
    """Reads the scheduler's state; costs a walk over nodes, studies and queues each time."""

    def __init__(self, state: ClusterState, waiting: Callable[[], Iterable[Waiting]] = tuple) -> None:
        self._state = state
        self._waiting = waiting

    def describe(self) -> Iterable[Metric]:
        """The names alone: registering must not read a state that is being built."""
        return [GaugeMetricFamily(name, text) for name, text in GAUGES.items()]

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        gpus = GaugeMetricFamily("tuneyard_gpus", GAUGES["tuneyard_gpus"], labels=["resource", "state"])
        for (resource, state), count in sorted(self._gpus().items()):
            gpus.add_metric([resource, state], count)
        yield gpus
        avoided = GaugeMetricFamily("tuneyard_avoided_nodes", GAUGES["tuneyard_avoided_nodes"])
        avoided.add_metric([], len(self._state.health.avoided))
        yield avoided
        waiting = GaugeMetricFamily("tuneyard_waiting_studies", GAUGES["tuneyard_waiting_studies"], labels=["reason"])
        reasons = Sums(study.reason for study in self._waiting())
        for reason in Reason:
            waiting.add_metric([reason], reasons[reason])
        yield waiting
        pending, held, guaranteed, limits = (
            GaugeMetricFamily(f"tuneyard_queue_{name}", GAUGES[f"tuneyard_queue_{name}"], labels=["queue"])
            for name in ("pending_trials", "gpus", "guaranteed_gpus", "limit_gpus")
        )
        for queue in self._state.queues:
            pending.add_metric([queue.name], queue.pending)
            held.add_metric([queue.name], queue.used)
            guaranteed.add_metric([queue.name], queue.guaranteed)
            if queue.limit is not None:
                limits.add_metric([queue.name], queue.limit)
        yield from (pending, held, guaranteed, limits)

    def _gpus(self) -> dict[tuple[str, str], float]:
        found = gpus_by_state(self._state.inventory)
        for study in self._state.studies():
            if study.gpus and study.view is not None and study.view.gpu is not None:
                resource = study.view.gpu.resource
                found[resource, "trials"] += study.gpus
                found[resource, "others"] = max(0, found[resource, "others"] - study.gpus)
        return found


def gpus_by_state(inventory: Inventory) -> dict[tuple[str, str], float]:
    """GPUs by resource and state: held by others (whoever that is), idle, or idle on a node that is closed."""
    found: defaultdict[tuple[str, str], float] = defaultdict(float)
    for node in inventory.nodes():
        for resource, capacity in node.capacity.items():
            used = inventory.used(node.name, resource)
            free = "idle" if node.ready and node.schedulable else "closed"
            found[resource, "trials"] += 0
            found[resource, "others"] += used
            found[resource, free] += max(0, capacity - used)
    return found
