"""The Trial: one configuration of a study, and what became of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from tuneyard_api.common import Conditions, MetricValues, Model, Time
from tuneyard_api.fidelity import Rung
from tuneyard_api.space import Configuration


class Phase(StrEnum):
    """Where a trial is in its life."""

    PENDING = "Pending"
    """Waits for the scheduler (or for its backoff to pass)."""
    PLACED = "Placed"
    """Has a placement; its attempt starts."""
    RUNNING = "Running"
    """Its attempt's pod runs."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    INFEASIBLE = "Infeasible"
    STOPPED = "Stopped"

    @property
    def terminal(self) -> bool:
        """Whether the trial has ended for good."""
        return self is not Phase.PENDING and not self.has_place

    @property
    def has_place(self) -> bool:
        """Whether the trial has a place, and has not ended."""
        return self is Phase.PLACED or self is Phase.RUNNING


class Outcome(StrEnum):
    """How an attempt ended: the rows of the failure table."""

    SUCCEEDED = "Succeeded"
    PROGRAM_FAILED = "ProgramFailed"
    INFRASTRUCTURE = "Infrastructure"
    OUT_OF_MEMORY = "OutOfMemory"
    BAD_METRICS = "BadMetrics"
    TIMED_OUT = "TimedOut"
    STOPPED = "Stopped"
    BLOCKED = "Blocked"
    PREEMPTED = "Preempted"
    EARLY_STOPPED = "EarlyStopped"


class TrialSpec(Model):
    """What to run: the durable intent, never changed."""

    study: str = Field(max_length=253, description="The Study's name.")
    index: int = Field(ge=0, description="The trial's number within its study, from 0.")
    parameters: Configuration = Field(description="The configuration.")
    rung: Rung | None = Field(
        default=None, description="For how much of the fidelity it runs. Left out: for all of it, unless it is stopped."
    )


class Needs(Model):
    """What the trial needs beyond what its study asks for, because it ran out of memory."""

    memory: int | None = Field(default=None, ge=1, description="MiB of memory for its container.")
    gpu_memory: int | None = Field(default=None, ge=1, description="MiB of memory on one GPU.")
    gpu_fraction: float | None = Field(default=None, gt=0, le=1, description="A part of one GPU; 1: a whole one.")


class Reclaim(Model):
    """Why a placement is taken back: the attempt is stopped, and the trial runs again later."""

    queue: str = Field(max_length=253, description="The GpuQueue that is guaranteed the GPUs.")
    trial: str = Field(
        default="",
        max_length=317,
        description="Namespace and name of the trial that is to have them; empty: no node came for this one.",
    )
    gpus: float = Field(default=0, ge=0, description="GPUs that are kept for it on the node.")
    time: Time | None = Field(default=None, description="When it was decided (RFC 3339).")


class CapacityRequest(Model):
    """So much of one capacity of a device."""

    name: str = Field(max_length=128, description="The capacity's name, as its driver publishes it.")
    amount: str = Field(max_length=64, description="A quantity, such as 20Gi.")


class DeviceClaim(Model):
    """What the ResourceClaim of the pod asks for, where GPUs are handed out by claims (DRA)."""

    device_class: str = Field(max_length=253, description="The DeviceClass.")
    count: int = Field(ge=1, le=64, description="So many devices.")
    selector: str | None = Field(
        default=None, max_length=10240, description="A CEL expression that holds for these devices only."
    )
    capacity: list[CapacityRequest] | None = Field(
        default=None, max_length=32, description="What is taken of each device that several claims may share."
    )


class Placement(Model):
    """The node and GPUs that an attempt got; written by the scheduler."""

    attempt: int = Field(ge=0, description="The attempt that this place is for.")
    node: str | None = Field(
        default=None,
        max_length=253,
        description="The node; absent where Kubernetes may choose: it needs no GPU, or waits for a node to be added.",
    )
    gpus: float = Field(default=0, ge=0, description="GPUs; below 1: a part of one.")
    resource: str | None = Field(
        default=None, max_length=253, description="Their resource name, for example nvidia.com/gpu."
    )
    backend: str | None = Field(
        default=None, max_length=32, description="How they are handed to the pod: whole, or a way of sharing."
    )
    devices: list[Annotated[str, StringConstraints(max_length=253)]] | None = Field(
        default=None, max_length=64, description="Which of the node's GPUs, where the place is on certain ones."
    )
    memory: int | None = Field(
        default=None, ge=0, description="MiB of GPU memory that come with a part of a GPU, where that is known."
    )
    claim: DeviceClaim | None = Field(default=None, description="How the pod claims them (backend dra).")
    uuid: str | None = Field(
        default=None,
        max_length=253,
        description="The GPU as its driver names it, once that is known: for those that trials share by a reservation.",
    )
    time: Time | None = Field(default=None, description="When it was given (RFC 3339).")
    lost: str | None = Field(
        default=None, max_length=1024, description="Set once the place is no more: why the attempt runs elsewhere."
    )
    reclaim: Reclaim | None = Field(default=None, description="Set once the GPUs have to be given back.")


class Waiting(Model):
    """Where a trial stands that waits for its place, beside the reason and the message of its status."""

    position: int | None = Field(
        default=None,
        ge=1,
        description="Its study's place in the line of its queue: 1 is served next. Absent where it does not stand in "
        "line, because it is held up by something other than a lack of GPUs.",
    )
    expected_start: Time | None = Field(
        default=None,
        description="When it may start, by how long trials took before (RFC 3339). Absent where that is not known.",
    )


class AttemptStatus(Model):
    """One attempt that has ended."""

    number: int = Field(ge=0, description="0 for the first.")
    outcome: Outcome = Field(description="How it ended.")
    reason: str | None = Field(default=None, max_length=128, description="One PascalCase word.")
    message: str | None = Field(default=None, max_length=1024, description="A sentence about the end.")
    node: str | None = Field(default=None, max_length=253, description="Where it ran.")
    generation: int | None = Field(default=None, description="The generation of the study's spec that it was of.")
    gpus: float = Field(default=0, ge=0, description="The GPUs that it had.")
    gpu_memory: int | None = Field(default=None, ge=0, description="MiB of GPU memory that it had, where known.")
    started: Time | None = Field(default=None, description="When it began to run (RFC 3339).")
    finished: Time | None = Field(default=None, description="When it ended, or was given up (RFC 3339).")


class Observation(Model):
    """The final metrics."""

    metrics: MetricValues = Field(description="Each metric's last value.")


class CurvePoint(Model):
    """The metrics reported at one step."""

    step: int = Field(ge=0, description="The step, for example the epoch.")
    metrics: MetricValues = Field(description="The metrics at this step.")


class TrialStatus(Model):
    """What became of the trial."""

    phase: Phase = Field(default=Phase.PENDING, description="Where the trial is in its life.")
    attempt: int = Field(default=0, ge=0, description="The number of the current attempt, or of the next.")
    placement: Placement | None = Field(default=None, description="The place of the current attempt.")
    needs: Needs | None = Field(
        default=None, description="What its next attempts get more than the study asks for; absent: nothing."
    )
    not_before: Time | None = Field(default=None, description="No attempt before this time (RFC 3339).")
    value: float | None = Field(
        default=None, description="The objective's value; absent where there are several, see observation."
    )
    observation: Observation | None = Field(default=None, description="The final metrics.")
    curve: list[CurvePoint] = Field(
        default_factory=list, max_length=50, description="Metrics on the way, thinned out to 50 points."
    )
    judged: int | None = Field(
        default=None,
        ge=0,
        description="The fidelity at which it was last judged, and let go on or stopped.",
    )
    attempts: list[AttemptStatus] = Field(
        default_factory=list, max_length=130, description="The attempts that have ended."
    )
    reason: str | None = Field(default=None, max_length=128, description="Why the trial is in this phase.")
    message: str | None = Field(default=None, max_length=1024, description="A sentence about the present state.")
    waiting: Waiting | None = Field(
        default=None,
        description="Where the trial stands in line. On a study's next trial only, and renewed twice a minute at most.",
    )
    start_time: Time | None = Field(default=None, description="When the current attempt began to run (RFC 3339).")
    completion_time: Time | None = Field(default=None, description="When the trial ended (RFC 3339).")
    conditions: Conditions = Field(default_factory=list, max_length=8, description="Complete, once it has ended.")
