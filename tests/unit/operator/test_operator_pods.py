"""What pods, as kubelets and controllers leave them, show of an attempt."""

import copy
from typing import Any

import pytest
from operator_objects import Object

from tuneyard_api.common import ATTEMPT_LABEL, INDEX_LABEL, TRIAL_UID_LABEL, UID_LABEL, epoch_seconds
from tuneyard_api.trial import Outcome
from tuneyard_operator import pods
from tuneyard_operator.attempts import AttemptSeen, classify

T0, T1, T2 = "2026-03-01T10:00:00Z", "2026-03-01T10:00:05Z", "2026-03-01T10:01:00Z"
LABELS = {UID_LABEL: "u-s", TRIAL_UID_LABEL: "u-3", INDEX_LABEL: "3", ATTEMPT_LABEL: "1"}


def pod(
    phase: str, *containers: Object, init: tuple[Object, ...] = (), meta: Object | None = None, **more: Any
) -> Object:
    """A pod on node n1 whose containers have these states."""
    status: Object = {"phase": phase, "startTime": T0, **more}
    for field, states in (("containerStatuses", containers), ("initContainerStatuses", init)):
        if states:
            status[field] = [{"name": f"c{number}", "state": state} for number, state in enumerate(states)]
    annotations = {"tuneyard.dev/generation": "4"}
    return {"metadata": {"name": "p", "annotations": annotations, **(meta or {})}, "spec": {"nodeName": "n1"},
            "status": status}  # fmt: skip


def terminated(code: int, reason: str = "Error", message: str | None = None, at: str = T2) -> Object:
    end: Object = {"exitCode": code, "reason": reason, "startedAt": T1, "finishedAt": at}
    return {"terminated": end | ({"message": message} if message else {})}


def waiting(reason: str, message: str | None = None) -> Object:
    return {"waiting": {"reason": reason} | ({"message": message} if message else {})}


def condition(kind: str, reason: str, message: str, status: str = "True") -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message}


RUNS: Object = {"running": {"startedAt": T1}}
DRAINED = condition("DisruptionTarget", "EvictionByEvictionAPI", "Eviction API: evicting")
DELETED: Object = {"deletionTimestamp": T2, "deletionGracePeriodSeconds": 30}


@pytest.mark.parametrize(
    ("item", "state", "reason", "message"),
    [
        (pod("Pending"), "waiting", None, None),
        (pod("Pending", waiting("ContainerCreating")), "waiting", None, None),
        (pod("Pending", waiting("PodInitializing"), init=(RUNS,)), "waiting", None, None),
        (pod("Pending", waiting("ImagePullBackOff", 'Back-off pulling image "x"')), "waiting", "ImagePullBackOff",
         'Back-off pulling image "x"'),
        (pod("Pending", waiting("PodInitializing"), init=(waiting("ErrImagePull", "no"),)), "waiting", "ErrImagePull",
         "no"),
        (pod("Pending", RUNS, waiting("CreateContainerConfigError", 'secret "a" not found')), "waiting",
         "CreateContainerConfigError", 'secret "a" not found'),
        (pod("Pending", conditions=[condition("PodScheduled", "Unschedulable", "0/3 nodes", "False")]), "waiting",
         "Unschedulable", "0/3 nodes"),
        (pod("Pending", conditions=[condition("PodScheduled", "SchedulingGated", "", "False")]), "waiting", None, None),
        (pod("Running", RUNS), "running", None, None),
        (pod("Running", RUNS, waiting("CrashLoopBackOff")), "running", None, None),
        ({"metadata": {}}, "waiting", None, None),
    ],
)  # fmt: skip
def test_pods_that_have_not_ended(item: Object, state: str, reason: str | None, message: str | None) -> None:
    found = pods.seen(item, 1)
    assert (found.attempt, found.state, found.reason, found.message) == (1, state, reason, message)
    assert found.disrupted is False


def test_what_a_running_pod_shows() -> None:
    assert pods.seen(pod("Running", RUNS), 1) == AttemptSeen(1, "running", "n1", epoch_seconds(T1), generation=4)
    # The main container may have ended before the one beside it: then the pod's own start has to do.
    assert pods.seen(pod("Running", terminated(0), RUNS), 1).started == epoch_seconds(T0)


@pytest.mark.parametrize("meta", [{"deletionTimestamp": T2}, None])
def test_a_pod_that_is_told_to_end_is_disrupted(meta: Object | None) -> None:
    conditions = [] if meta else [DRAINED]
    for phase, state in (("Running", RUNS), ("Pending", waiting("ContainerCreating"))):
        assert pods.seen(pod(phase, state, meta=meta, conditions=conditions), 1).disrupted


@pytest.mark.parametrize(
    ("item", "outcome", "reason", "said"),
    [
        (pod("Succeeded", terminated(0, "Completed", '{"accuracy": 0.9}')), Outcome.SUCCEEDED, "Completed", ""),
        (pod("Succeeded", terminated(0, "Completed"), conditions=[DRAINED]), Outcome.SUCCEEDED, "Completed", ""),
        (pod("Failed", terminated(3, "Error", "boom")), Outcome.PROGRAM_FAILED, "ProgramFailed", "exit code 3: boom"),
        (pod("Failed", terminated(137, "OOMKilled")), Outcome.OUT_OF_MEMORY, "HostOutOfMemory", "on node n1"),
        (pod("Failed", terminated(1, "Error", "RuntimeError: CUDA out of memory")), Outcome.OUT_OF_MEMORY,
         "GpuOutOfMemory", "CUDA out of memory"),
        (pod("Failed", terminated(0), terminated(2, "Error", "side broke")), Outcome.PROGRAM_FAILED, "ProgramFailed",
         "exit code 2: side broke"),
        (pod("Failed", terminated(3, "Error", "boom"), init=(terminated(143, "Error", "sidecar"),)),
         Outcome.PROGRAM_FAILED, "ProgramFailed", "exit code 3: boom"),
        (pod("Failed", waiting("PodInitializing"), init=(terminated(7, "Error", "no data"),)), Outcome.PROGRAM_FAILED,
         "ProgramFailed", "exit code 7: no data"),
        (pod("Failed", terminated(137), reason="Evicted", message="low on resource: memory",
             conditions=[condition("DisruptionTarget", "TerminationByKubelet", "low")]),
         Outcome.INFRASTRUCTURE, "Evicted", "low on resource: memory"),
        (pod("Failed", reason="Evicted", message="The node had condition: [DiskPressure]"), Outcome.INFRASTRUCTURE,
         "Evicted", "DiskPressure"),
        (pod("Failed", reason="UnexpectedAdmissionError", message="Allocate failed: no GPU"), Outcome.INFRASTRUCTURE,
         "UnexpectedAdmissionError", "no GPU"),
        (pod("Failed", reason="NodeAffinity", message="Pod was rejected"), Outcome.INFRASTRUCTURE, "NodeAffinity",
         "rejected"),
        (pod("Failed", terminated(143), conditions=[DRAINED]), Outcome.INFRASTRUCTURE, "EvictionByEvictionAPI",
         "Eviction API"),
        (pod("Failed", terminated(143), conditions=[{**DRAINED, "status": "False"}]), Outcome.PROGRAM_FAILED,
         "ProgramFailed", "143"),
        (pod("Failed", terminated(137), meta=DELETED), Outcome.INFRASTRUCTURE, "PodDeleted", "while it ran"),
        (pod("Failed", terminated(1, at=T1), meta=DELETED), Outcome.PROGRAM_FAILED, "ProgramFailed", "exit code 1"),
        (pod("Failed", reason="NodeShutdown", message="Pod was terminated"), Outcome.INFRASTRUCTURE, "NodeShutdown",
         "terminated"),
        (pod("Failed"), Outcome.INFRASTRUCTURE, "PodFailed", "the pod failed on node n1"),
    ],
)  # fmt: skip
def test_pods_that_have_ended(item: Object, outcome: Outcome, reason: str, said: str) -> None:
    found = pods.seen(item, 1)
    assert found.state == "ended"
    end = classify(found)
    assert (end.outcome, end.reason) == (outcome, reason)
    assert said in end.message
    assert pods.gone(item, 1, epoch_seconds(T2) + 99) == found, "the end stays what it was when the pod is deleted"


def test_what_an_ended_pod_shows() -> None:
    assert pods.seen(pod("Succeeded", terminated(0, "Completed", '{"accuracy": 0.9}')), 1) == AttemptSeen(
        1, "ended", "n1", epoch_seconds(T1), epoch_seconds(T2), 0, "Completed", None, '{"accuracy": 0.9}', 4
    )


def test_a_sidecar_that_is_stopped_at_the_end_hides_no_metrics() -> None:
    item = pod("Succeeded", terminated(0, "Completed", '{"accuracy": 0.9}'), init=(terminated(143, "Error", "TERM"),))
    found = pods.seen(item, 1)
    assert (found.exit_code, found.termination) == (0, '{"accuracy": 0.9}')


@pytest.mark.parametrize(
    ("item", "reason", "message"),
    [
        (pod("Running", RUNS), "PodGone", "the pod was deleted before it had ended"),
        (pod("Pending"), "PodGone", "the pod was deleted before it had ended"),
        (pod("Running", RUNS, conditions=[condition("DisruptionTarget", "DeletionByTaintManager", "taint")]),
         "DeletionByTaintManager", "taint"),
        ({"metadata": {}}, "PodGone", "the pod was deleted before it had ended"),
    ],
)  # fmt: skip
def test_a_pod_that_is_gone_before_its_end_was_seen(item: Object, reason: str, message: str) -> None:
    found = pods.gone(item, 1, 1e9)
    assert (found.state, found.finished, found.reason, found.message) == ("ended", 1e9, reason, message)
    assert classify(found).outcome is Outcome.INFRASTRUCTURE


@pytest.mark.parametrize(
    ("job", "event", "state", "reason"),
    [
        (None, None, "ended", "PodGone"),
        (None, "exceeded quota", "ended", "PodGone"),
        ({"status": {"conditions": [{"type": "Failed", "status": "True"}]}}, "old event", "ended", "PodGone"),
        ({"status": {"conditions": [{"type": "FailureTarget", "status": "True"}]}}, None, "ended", "PodGone"),
        ({"status": {"conditions": [{"type": "Complete", "status": "True"}]}}, None, "ended", "PodGone"),
        ({"status": {"conditions": [{"type": "Failed", "status": "False"}]}}, None, None, None),
        ({"status": {}}, "pods is forbidden: exceeded quota", "waiting", "PodsNotCreated"),
        ({}, None, None, None),
    ],
)
def test_a_job_of_which_no_pod_is_seen(
    job: Object | None, event: str | None, state: str | None, reason: str | None
) -> None:
    found = pods.job_without_pod(job, 1, 1e9, event)
    assert (found.state if found else None, found.reason if found else None) == (state, reason)
    if found is not None and state == "ended":
        assert classify(found).outcome is Outcome.INFRASTRUCTURE


@pytest.mark.parametrize(
    "change", [{}, {UID_LABEL: None}, {TRIAL_UID_LABEL: None}, {INDEX_LABEL: "x"}, {ATTEMPT_LABEL: None}]
)
def test_whose_pod_it_is(change: dict[str, str | None]) -> None:
    labels = {key: value for key, value in {**copy.copy(LABELS), **change}.items() if value is not None}
    assert pods.key({"metadata": {"labels": labels}}) == (None if change else pods.AttemptKey("u-s", "u-3", 3, 1))
    assert pods.key({"metadata": {}}) is None


@pytest.mark.parametrize(
    ("item", "due"),
    [
        (pod("Running", RUNS), None),
        (pod("Running", RUNS, meta=DELETED), epoch_seconds(T2) + 30),
        (pod("Pending", meta=DELETED), epoch_seconds(T2) + 30),
        (pod("Failed", terminated(143), meta=DELETED), None),
    ],
    ids=["nobody wants it to end", "told to end while it ran", "told to end before it ran", "it has ended"],
)
def test_when_a_pod_that_was_told_to_end_is_given_up(item: Object, due: float | None) -> None:
    assert pods.overdue(item) == due
