"""What Prometheus is told of studies, trials, asks and plans.

Gauges are read from the studies' states when somebody asks; a replica that does not lead has none of them.
"""

from __future__ import annotations

import time
from collections import Counter as Sums
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tuneyard_api.trial import Outcome, Phase
from tuneyard_operator.engine import Engine
from tuneyard_operator.state import StudyState
from tuneyard_operator.strategy_client import Answer, StrategyClient, StrategyError

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

ASK_SECONDS: Final = Histogram(
    "tuneyard_ask_seconds", "From asking a strategy to its configurations.", ["strategy"], buckets=_BUCKETS
)
ASK_FAILURES: Final = Counter("tuneyard_ask_failures", "Asks without an answer.", ["strategy"])
RECONCILE_SECONDS: Final = Histogram(
    "tuneyard_reconcile_seconds", "From the first news of a study until it was planned.", buckets=_BUCKETS
)
REPORTS: Final = Counter("tuneyard_reports", "Requests of training programs that report metrics.", ["code"])

SHOWN: Final = {
    "tuneyard_studies": "Studies by phase.",
    "tuneyard_trials": "Trials by phase.",
    "tuneyard_trial_retries": "Attempts beyond each trial's first.",
    "tuneyard_study_gpu_hours": "GPU-hours of the attempts that have ended.",
    "tuneyard_attempts": "Attempts that ended, by outcome.",
}
NAMES: Final = (frozenset(SHOWN) - {"tuneyard_attempts"}) | {
    "tuneyard_attempts_total",
    "tuneyard_ask_seconds",
    "tuneyard_ask_failures_total",
    "tuneyard_reconcile_seconds",
    "tuneyard_reports_total",
}
"""All that the operator shows beside what every process does, without the suffixes of histograms."""


class StateCollector(Collector):
    """Reads the engine's studies; costs a walk over the studies each time, whatever the number of trials."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def describe(self) -> Iterable[Metric]:
        """See Collector."""
        return [GaugeMetricFamily(name, text) for name, text in SHOWN.items()]

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        one = ["namespace", "study"]
        studies = _gauge("tuneyard_studies", "phase")
        trials = _gauge("tuneyard_trials", *one, "phase")
        retries = _gauge("tuneyard_trial_retries", *one)
        hours = _gauge("tuneyard_study_gpu_hours", *one)
        for state in self._engine.studies.values():
            name = [state.namespace, state.name]
            for phase in Phase:
                trials.add_metric([*name, phase], state.phases[phase])
            retries.add_metric(name, state.retries)
            hours.add_metric(name, state.gpu_seconds / 3600)
        phases = Sums(state.told_phase or "Pending" for state in self._engine.studies.values())
        for told, count in sorted(phases.items()):
            studies.add_metric([told], count)
        attempts = CounterMetricFamily("tuneyard_attempts", SHOWN["tuneyard_attempts"], labels=["outcome"])
        for outcome in Outcome:  # those that did not happen too: a rate begins with the first one
            attempts.add_metric([outcome], self._engine.outcomes[outcome])
        yield from (studies, trials, retries, hours, attempts)


class MeasuredStrategies:
    """A strategy client whose answers are timed."""

    def __init__(self, client: StrategyClient) -> None:
        self._client = client
        self.judge = client.judge
        self.check = client.check
        self.recommend = client.recommend
        self.forget = client.forget

    async def ask(self, state: StudyState, indices: list[int]) -> Answer:
        """See StrategyClient."""
        strategy, began = state.spec.strategy, time.monotonic()
        name = strategy.name if strategy.service is None else "service"
        failures = ASK_FAILURES.labels(name)
        try:
            answer = await self._client.ask(state, indices)
        except StrategyError:
            failures.inc()
            raise
        ASK_SECONDS.labels(name).observe(time.monotonic() - began)
        return answer


def _gauge(name: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, SHOWN[name], labels=labels)
