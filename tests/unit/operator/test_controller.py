"""The controller's own rules: what it makes of pods that nobody ends."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from operator_objects import Object, Yard

from tuneyard_api.common import ATTEMPT_LABEL, INDEX_LABEL, TRIAL_UID_LABEL, UID_LABEL, timestamp
from tuneyard_api.trial import Outcome
from tuneyard_operator import pods
from tuneyard_operator.attempts import classify
from tuneyard_operator.controller import Controller

LABELS = {UID_LABEL: "u-s", TRIAL_UID_LABEL: "u-0", INDEX_LABEL: "0", ATTEMPT_LABEL: "0"}


def terminating(**meta: Any) -> Object:
    """The pod of trial 0, told to end just now."""
    told = {"deletionTimestamp": timestamp(time.time())}
    return {"metadata": {"name": "p", "uid": "pod-1", "labels": LABELS, **told, **meta}, "spec": {"nodeName": "n1"},
            "status": {"phase": "Running"}}  # fmt: skip


@pytest.fixture
def yard() -> Yard:
    return Yard().runs(0, 1)


@pytest.fixture
def controller(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> Controller:
    monkeypatch.setattr(pods, "_OVERDUE_SECONDS", 0.05)
    made = Controller(None, None, report_url=None, keep_jobs=0)  # type: ignore[arg-type]
    made.engine.studies["u-s"] = yard.state
    made._runners["u-s"] = SimpleNamespace(state=yard.state, wake=asyncio.Event())  # type: ignore[assignment]
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
