"""What must hold when all is over: every study ended as it should, and everything that happened is on record."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import Final

from tuneyard_api.common import epoch_seconds, seconds
from tuneyard_api.trial import Outcome, Phase
from tuneyard_operator.sizing import ENOUGH, PEAK
from tuneyard_operator.state import StudyState
from tuneyard_operator.worlds.simulation.apiserver import ApiServer, Object
from tuneyard_operator.worlds.simulation.cluster import Cluster
from tuneyard_operator.worlds.simulation.invariants import Invariants
from tuneyard_operator.worlds.simulation.kernel import Violation, must
from tuneyard_operator.worlds.simulation.machines import Pod
from tuneyard_operator.worlds.simulation.operators import OperatorProcess
from tuneyard_operator.worlds.simulation.records import LATE
from tuneyard_operator.worlds.simulation.schedulers import SchedulerProcess
from tuneyard_operator.worlds.simulation.users import Users
from tuneyard_scheduler import quantity
from tuneyard_scheduler.memory import MIB

_OVER: Final = frozenset({"Complete", "Failed"})


def settled(
    api: ApiServer, cluster: Cluster, users: Users, operator: OperatorProcess, scheduler: SchedulerProcess
) -> bool:
    """Whether nothing will happen any more, as far as one can see from outside."""
    studies = api.objects["studies"].values()
    return (
        users.quiet
        and operator.current
        and scheduler.current
        and all(_is_over(study) for study in studies)
        and not any(pod.alive for pod in cluster.machines.pods.values())
        and not scheduler.unsettled
    )


def _is_over(study: Object) -> bool:
    status = study.get("status") or {}
    current = status.get("observedGeneration") == study["metadata"]["generation"]
    return current and status.get("phase") in _OVER and "deletionTimestamp" not in study["metadata"]


def check_end(
    api: ApiServer, cluster: Cluster, invariants: Invariants, operator: OperatorProcess, scheduler: SchedulerProcess
) -> None:
    """Check the studies, the trials' records against what happened, and the processes' memories.

    Raises:
        Violation: something is not as it should be.
    """
    by_attempt = {(pod.trial, pod.attempt): pod for pod in cluster.machines.pods.values()}
    for study in api.objects["studies"].values():
        uid = study["metadata"]["uid"]
        trials = [t for t in api.objects["trials"].values() if t["metadata"]["ownerReferences"][0]["uid"] == uid]
        _check_study(study, trials, invariants, operator.kernel.now)
        for trial in trials:
            _check_attempts(study, trial, by_attempt)
        _check_memory(operator, study, trials)
    for trial in api.objects["trials"].values():
        must(api.exists(trial["metadata"]["ownerReferences"][0]["uid"]), "a trial outlived its study")
    for book in scheduler.state.studies():
        must(book.attempts == 0 and book.gpus == 0, f"the scheduler still counts {book.attempts} attempts")
    for queue in scheduler.state.queues:
        must(queue.used == 0, f"the scheduler still counts {queue.used} GPUs of queue {queue.name}")
    must(not scheduler.state.giving.leaving, f"the scheduler still waits for {scheduler.state.giving.leaving}")
    for node in scheduler.state.inventory.nodes():
        for resource in node.capacity:
            used = scheduler.state.inventory.used(node.name, resource)
            pods = cluster.machines.machines[node.name].pods.values()
            held = sum(pod.taken.units.get(resource, 0) + sum(pod.taken.parts.values()) for pod in pods)
            must(abs(used - held) < 1e-6, f"the scheduler counts {used} GPUs of {node.name} as taken, and {held} are")


def _check_study(study: Object, trials: list[Object], invariants: Invariants, now: float) -> None:
    status, spec, name = study["status"], study["spec"], study["metadata"]["name"]
    phases = Counter(Phase(trial["status"]["phase"]) for trial in trials)
    counts = status["trials"]
    for field in ("succeeded", "failed", "infeasible", "stopped"):
        must(counts[field] == phases[Phase(field.capitalize())], f"{name}: {field} is {counts[field]}, not {phases}")
    must(counts["created"] == len(trials), f"{name}: created is {counts['created']}, not {len(trials)}")
    must(counts["pending"] == counts["running"] == status["replicas"] == status["gpus"] == 0, f"{name}: not at rest")
    conditions = {condition["type"]: condition for condition in status["conditions"]}
    over = conditions[status["phase"]]
    must(over["status"] == "True" and over["reason"] == status["reason"], f"{name}: condition {over}")
    must(bool(status.get("message")), f"{name} ended without a message")
    indices = sorted(trial["spec"]["index"] for trial in trials)
    most, size = spec["trials"]["max"], invariants.plans[name].size
    match status["reason"]:
        case "MaxTrialsReached":
            must([i for i in indices if i < most] == list(range(most)), f"{name}: {len(indices)} trials, max {most}")
        case "SpaceExhausted" if spec["strategy"]["name"] == "pbt":
            ends = [t["spec"]["rung"] for t in trials if t["status"]["phase"] == Phase.SUCCEEDED]
            done = {rung["bracket"] for rung in ends if rung["fidelity"] == spec["fidelity"]["max"]}
            must(done == set(range(spec["strategy"]["population"])), f"{name}: of its members {done} are trained")
        case "SpaceExhausted":
            must(size is not None and indices == list(range(size)), f"{name}: {indices} of a space of {size}")
        case "TooManyFailed":
            must(phases[Phase.FAILED] > spec["trials"]["maxFailed"], f"{name}: {phases[Phase.FAILED]} failed")
        case "TargetReached":
            must(status["best"]["value"] <= spec["objectives"][0]["target"], f"{name}: best is {status['best']}")
        case "MaxDurationReached":
            took = now - epoch_seconds(status["startTime"])
            must(took >= seconds(spec["maxDuration"]), f"{name} lasts for {took} s")
        case reason:
            raise Violation(f"{name} ended for the reason {reason}")
    _check_best(name, status, trials)
    _check_sizing(study, trials)


def _check_sizing(study: Object, trials: list[Object]) -> None:
    """Where the size of a share is found out, the status knows the largest peak; trials that were deleted count."""
    status, name = study["status"], study["metadata"]["name"]
    must(("sizing" in status) == ("auto" in study["spec"].get("gpu", {}).values()), f"{name}: {status.get('sizing')}")
    peaks = [t["status"]["observation"]["metrics"][PEAK] for t in trials if t["status"]["phase"] == Phase.SUCCEEDED]
    if "sizing" in status:
        found = status["sizing"]
        must(found["trials"] >= len(peaks) and found.get("peak", 0) >= max(peaks, default=0), f"{name}: {found}")
        must(("memory" in found or "fraction" in found) == (found["trials"] >= ENOUGH), f"{name}: {found}")


def _check_best(name: str, status: Object, trials: list[Object]) -> None:
    good = [t for t in trials if t["status"]["phase"] == Phase.SUCCEEDED]
    best = min(good, key=lambda t: (-_fidelity(t), t["status"]["value"], t["spec"]["index"]), default=None)
    if best is None:
        must("best" not in status, f"{name}: best is {status.get('best')} of none")
        return
    shown = status.get("best") or {}
    expected = (best["spec"]["index"], best["status"]["value"], best["spec"]["parameters"])
    must((shown.get("index"), shown.get("value"), shown.get("parameters")) == expected, f"{name}: best is {shown}")


def _fidelity(trial: Object) -> float:
    return float((trial["spec"].get("rung") or {"fidelity": math.inf})["fidelity"])


def _check_attempts(study: Object, trial: Object, pods: dict[tuple[str, int], Pod]) -> None:
    """Each recorded attempt says what became of its pod."""
    meta, status = trial["metadata"], trial["status"]
    retry = study["spec"]["retry"]
    outcomes = Counter(attempt["outcome"] for attempt in status.get("attempts") or [])
    must(outcomes[Outcome.PROGRAM_FAILED] <= retry["limit"] + 1, f"{meta['name']}: {outcomes}")
    must(outcomes[Outcome.INFRASTRUCTURE] <= retry["infrastructureLimit"] + 1, f"{meta['name']}: {outcomes}")
    must(status["phase"] != Phase.SUCCEEDED or (meta["uid"], status["attempt"]) in pods, f"{meta['name']} never ran")
    for attempt in status.get("attempts") or []:
        pod = pods.get((meta["uid"], attempt["number"]))
        outcome = Outcome(attempt["outcome"])
        must(_fits(outcome, pod, study, attempt), f"{meta['name']}: attempt {attempt} is on record, and true was {pod}")
    _check_memory_grew(study, trial, pods)
    if status["phase"] == Phase.SUCCEEDED:
        true = pods[meta["uid"], status["attempt"]].program.value
        must(status["value"] == true, f"{meta['name']}: value {status['value']}, not {true}")
    if status.get("reason") == "EarlyStopped":
        # Where an operator crashed, the first report beyond the rung that the next one heard of counts.
        program = pods[meta["uid"], status["attempt"]].program
        curve = [program.value_after(epochs) for epochs in range(status["judged"], program.epochs + 1)]
        must(status["value"] in curve, f"{meta['name']} was stopped with {status['value']}, not one of {curve}")


def _check_memory_grew(study: Object, trial: Object, pods: dict[tuple[str, int], Pod]) -> None:
    """After an attempt that ran out of memory the next has more, until there is no more to have; never one has less."""
    name, status, retry = trial["metadata"]["name"], trial["status"], study["spec"]["retry"]
    attempts = [(a, pods.get((trial["metadata"]["uid"], a["number"]))) for a in status.get("attempts") or []]
    ran = [(Outcome(attempt["outcome"]), pod) for attempt, pod in attempts if pod is not None]
    for (outcome, before), (_, after) in pairwise(ran):
        more = outcome is Outcome.OUT_OF_MEMORY and before.memory > 0
        enough = after.memory > before.memory if more else after.memory >= before.memory
        # Whoever corrects a program may take its limit away.
        must(enough or not after.memory, f"{name}: {before.memory} MiB, then {after.memory}")
    if status["phase"] == Phase.INFEASIBLE and ran[-1][0] is Outcome.OUT_OF_MEMORY and "memoryGrowth" in retry:
        had = ran[-1][1].memory
        must(not had or had == quantity.parse(retry["maxMemory"]) / MIB, f"{name} gave up with {had} MiB")


def _fits(outcome: Outcome, pod: Pod | None, study: Object, attempt: Object) -> bool:  # noqa: C901 - a table
    """Whether an attempt with this pod may be on record with this outcome."""
    if outcome is Outcome.EARLY_STOPPED:
        return pod is not None and pod.started is not None and pod.program.epochs > 0
    if pod is None:
        return outcome in {Outcome.INFRASTRUCTURE, Outcome.STOPPED, Outcome.BLOCKED, Outcome.PREEMPTED}
    kind, exit_code = pod.program.kind, pod.exit_code
    match outcome:
        case Outcome.SUCCEEDED:
            return kind == "good" and exit_code == 0
        case Outcome.PROGRAM_FAILED:
            return kind in {"fails", "kernel_killed"} and exit_code in {1, 137}
        case Outcome.OUT_OF_MEMORY:
            return kind == "out_of_memory" and exit_code == 137
        case Outcome.BAD_METRICS:
            lost_log = "logPattern" in study["spec"]["objectives"][0] and pod.disturbed is not None
            return exit_code == 0 and (kind in {"nan", "silent"} or lost_log)
        case Outcome.TIMED_OUT:
            limit = study["spec"]["trials"].get("timeout")
            # The news of an end may have been on its way still; and a pod's times are in whole seconds.
            noticed = epoch_seconds(attempt["finished"])
            ran = min(noticed, (pod.ended or noticed) + LATE) - (pod.started or noticed)
            return limit is not None and ran >= seconds(limit) - 2
        case Outcome.INFRASTRUCTURE:
            return pod.disturbed is not None
        case Outcome.PREEMPTED:
            # It may have come to its own end a moment before it was told to go, and the news was lost on its way.
            return pod.disturbed is not None or pod.ended is not None
        case Outcome.BLOCKED | Outcome.STOPPED:
            return True


def _check_memory(operator: OperatorProcess, study: Object, trials: list[Object]) -> None:
    """What the operator kept up to date event by event is what it would read from a list."""
    name = study["metadata"]["name"]
    kept = operator.engine.studies[study["metadata"]["uid"]]
    fresh = StudyState(study, 0.0)
    for trial in trials:
        fresh.set_trial(trial, 0.0)
    must(+kept.phases == +fresh.phases, f"{name}: the operator counts {kept.phases}, and there are {fresh.phases}")
    must(kept.retries == fresh.retries and kept.ran == fresh.ran, f"{name}: retries {kept.retries}, {fresh.retries}")
    must(abs(kept.gpu_seconds - fresh.gpu_seconds) < 1e-3, f"{name}: GPU seconds {kept.gpu_seconds}")
    must(not kept.busy and not kept.stuck and not kept.active, f"{name}: {kept.busy} are busy, {kept.stuck} stuck")
