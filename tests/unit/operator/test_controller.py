"""The controller's own rules: what it makes of pods that nobody ends."""

import asyncio
import time
from typing import Any

import pytest
from operator_objects import Object, Yard, trial
from prometheus_client import REGISTRY

from tuneyard_api.common import ATTEMPT_LABEL, INDEX_LABEL, TRIAL_UID_LABEL, UID_LABEL, timestamp
from tuneyard_api.trial import Outcome
from tuneyard_operator import pods
from tuneyard_operator.attempts import classify
from tuneyard_operator.controller import Controller, _Runner

LABELS = {UID_LABEL: "u-s", TRIAL_UID_LABEL: "u-0", INDEX_LABEL: "0", ATTEMPT_LABEL: "0"}


def terminating(**meta: Any) -> Object:
    """The pod of trial 0, told to end just now."""
    told = {"deletionTimestamp": timestamp(time.time())}
    whole = {"name": "p", "namespace": "ns", "uid": "pod-1", "labels": LABELS, **told, **meta}
    return {"metadata": whole, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}


@pytest.fixture
def yard() -> Yard:
    return Yard().runs(0, 1)


@pytest.fixture
def controller(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> Controller:
    monkeypatch.setattr(pods, "_OVERDUE_SECONDS", 0.05)
    made = Controller(None, None, report_url=None, keep_jobs=0)  # type: ignore[arg-type]
    made.engine.studies["u-s"] = yard.state
    made._runners["u-s"] = _Runner(made, yard.state, 0.0)
    return made


async def test_a_trial_does_not_wait_for_a_node_that_never_answers(controller: Controller, yard: Yard) -> None:
    controller._on_pod("MODIFIED", terminating())
    assert yard.state.trials[0].seen.state == "running"
    assert "pod-1" in controller.running_pods
    await asyncio.sleep(1.2)  # deletion timestamps are of whole seconds
    seen = yard.state.trials[0].seen
    assert seen.state == "ended"
    assert classify(seen).outcome is Outcome.INFRASTRUCTURE
    assert "pod-1" not in controller.running_pods, "what it still says is not taken"


async def test_a_pod_that_ends_in_time_is_judged_by_its_end(controller: Controller, yard: Yard) -> None:
    controller._on_pod("MODIFIED", terminating())
    over = terminating()
    over["status"] = {"phase": "Succeeded", "containerStatuses": [{"name": "c", "state": {"terminated": {
        "exitCode": 0, "finishedAt": timestamp(time.time() - 60)}}}]}  # fmt: skip
    controller._on_pod("MODIFIED", over)
    await asyncio.sleep(1.2)
    assert classify(yard.state.trials[0].seen).outcome is Outcome.SUCCEEDED


async def test_labels_that_somebody_wrote_in_another_namespace_count_for_nothing(
    controller: Controller, yard: Yard
) -> None:
    seen, parameters = yard.state.trials[0].seen, yard.state.trials[0].parameters
    elsewhere = {"namespace": "mallory", "labels": LABELS}
    for kind in ("ADDED", "DELETED"):
        controller._on_pod(kind, terminating(**elsewhere))
        forged = trial(0, 99, {"phase": "Succeeded", "value": 0.0}, **elsewhere)
        controller._on_trial(kind, forged | {"spec": {"study": "s", "index": 0, "parameters": {"lr": "rm -rf"}}})
        assert controller.running_pods == {}, "nor may that pod report"
    assert yard.state.trials[0].seen is seen
    assert yard.state.trials[0].parameters == parameters


async def test_what_is_forged_before_its_study_is_known_counts_for_nothing(controller: Controller, yard: Yard) -> None:
    runner = controller._runners.pop("u-s")
    real = trial(7, 90, {}, namespace="ns", labels=LABELS)
    controller._on_trial("ADDED", real)
    controller._on_trial("ADDED", trial(7, 99, {}, uid="forged", namespace="mallory", labels=LABELS))
    held = controller._trials["u-s"].values()
    assert [item["metadata"]["uid"] for item in held if runner.may_have(item)] == ["u-7"]


async def test_what_is_known_is_planned_and_timed_from_its_first_news(controller: Controller, yard: Yard) -> None:
    def sample(suffix: str) -> float:
        return REGISTRY.get_sample_value(f"tuneyard_reconcile_seconds_{suffix}") or 0.0

    runner, count, total = controller._runners["u-s"], sample("count"), sample("sum")
    runner.wake.set()
    await asyncio.sleep(0.05)
    runner.wake.set()
    yard.state.status_busy = runner._supplying = True
    task = asyncio.create_task(runner.run())
    await asyncio.sleep(0.05)
    controller.engine.studies.clear()
    runner.wake.set()
    await task
    assert sample("count") == count + 1
    assert sample("sum") - total >= 0.05


async def test_an_ask_that_fails_in_an_unforeseen_way_is_not_tried_again_at_once(
    controller: Controller, yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    yard.state.status_busy = True
    task = asyncio.create_task(controller._runners["u-s"].run())
    await asyncio.sleep(0.3)
    controller.engine.studies.clear()
    await task
    assert caplog.text.count("unexpected: 'NoneType' object has no attribute 'ask'") == 1
