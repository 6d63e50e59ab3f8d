"""The Study: a search over a space towards objectives."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from tuneyard_api.common import OBJECT_NAME, Conditions, Duration, MetricValues, Model, ObjectName, Time
from tuneyard_api.rule import matches
from tuneyard_api.space import Configuration, Parameter
from tuneyard_api.template import SchemaOf, Template

MetricName = Annotated[
    str,
    StringConstraints(max_length=63),
    matches("^[A-Za-z_][A-Za-z0-9_./-]*$", "write letters, digits and _ . / -, beginning with a letter or _"),
]
STRATEGIES = ("auto", "manual", "grid", "random", "sobol", "tpe", "bayesian")
"""The strategies that are built; the schema refuses every other name."""


class Objective(Model):
    """A metric to minimise or maximise (goal), or one to keep within a bound (atMost, atLeast)."""

    metric: MetricName = Field(description="The metric's name, as the training program reports it.")
    goal: Literal["minimize", "maximize"] | None = Field(
        default=None, description="Which way is better. Exactly one metric of a study has a goal."
    )
    target: float | None = Field(
        default=None, description="The study is complete as soon as a trial is this good. Needs a goal."
    )
    at_most: float | None = Field(
        default=None, description="A trial with a larger value cannot be the best. Instead of a goal."
    )
    at_least: float | None = Field(
        default=None, description="A trial with a smaller value cannot be the best. Instead of a goal."
    )
    log_pattern: Annotated[str, StringConstraints(min_length=7, max_length=256)] | None = Field(
        default=None,
        description="For programs that only print: a text of a log line in which {value} stands for the number, "
        "for example 'test accuracy: {value}'. The last line that has it counts.",
    )


class StrategySpec(Model):
    """What proposes the configurations."""

    name: Literal["auto", "manual", "grid", "random", "sobol", "tpe", "bayesian"] = Field(
        default="auto",
        description="auto takes the one that suits: bayesian, with tpe beside it when there are many trials. manual "
        "runs the list in initial; grid every combination of a finite space; random draws from the distributions; "
        "sobol does so with points that cover the space evenly; tpe learns from results where good trials are dense, "
        "quickly even with thousands of them; bayesian models the objective, its noise, bounds and failures, and needs "
        "the fewest trials.",
    )
    seed: int = Field(
        default=0, ge=0, le=2**53 - 1, description="The same seed and the same answers give the same study."
    )


class TrialsSpec(Model):
    """How many trials, how many at a time, and when to give up."""

    max: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="How many trials in all. manual and grid may leave it out: they end with their list. Raise it to "
        "extend a study, even a complete one.",
    )
    parallel: int = Field(
        default=1,
        ge=0,
        le=10_000,
        description="How many trials run at a time, at most; not above max. This is what kubectl scale sets. When "
        "lowered, running trials go on to their end.",
    )
    max_failed: int = Field(
        default=10,
        ge=0,
        le=100_000,
        description="The study fails as soon as more trials than this have failed, after their retries; or as soon as "
        "more than this have ended and not one gave a result.",
    )
    timeout: Duration | None = Field(
        default=None,
        description="How long one attempt may run, for example 2h. Then it is stopped and not tried again.",
    )


class GpuSpec(Model):
    """What each trial needs of GPUs: exactly one of count, fraction and memory."""

    count: int | None = Field(default=None, ge=1, le=64, description="Whole GPUs per trial.")
    fraction: float | None = Field(
        default=None, gt=0, lt=1, description="A part of one GPU; several trials share it. 0.25: a quarter."
    )
    memory: Annotated[str, matches("^[0-9]{1,9}(Mi|Gi)$", "write Mi or Gi after a number, such as 10Gi")] | None = (
        Field(default=None, max_length=20, description="Memory on one GPU, such as 10Gi; several trials share it.")
    )
    vendor: Literal["nvidia", "amd", "intel"] = Field(
        default="nvidia", description="Whose GPUs; decides the resource name that the pod asks for."
    )
    model: Annotated[str, StringConstraints(min_length=1, max_length=63)] | None = Field(
        default=None,
        description="Only nodes with this GPU model, as in the label nvidia.com/gpu.product (or "
        "amd.com/gpu.product-name, gpu.intel.com/product), for example NVIDIA-A100-SXM4-80GB.",
    )
    sharing: Literal["whole", "dra", "mig", "timeslice", "hami", "kai", "reservation"] | None = Field(
        default=None,
        description="The only way in which the GPU may be shared (see docs/sharing.md). Left out: any that the cluster "
        "has.",
    )
    packing: Literal["Pack", "Spread"] = Field(
        default="Pack",
        description="Pack: the fullest GPU and node that fit, so that whole ones stay free. Spread: the emptiest.",
    )


class BackoffSpec(Model):
    """How long to wait before a failed trial is tried again: initial, initial x factor, ... up to max."""

    initial: Duration = Field(default="10s", description="The wait before the first retry.")
    factor: float = Field(default=2.0, ge=1, le=10, description="Each wait is this many times the one before.")
    max: Duration = Field(default="5m", description="The longest wait; not below initial.")


class RetrySpec(Model):
    """What happens to a trial whose attempt failed."""

    limit: int = Field(default=3, ge=0, le=20, description="How often a trial is retried when its program fails.")
    backoff: BackoffSpec = Field(default_factory=BackoffSpec, description="The waits between the retries.")
    infrastructure_limit: int = Field(
        default=20,
        ge=0,
        le=100,
        description="How often a trial is retried when it was not the program's fault: node lost, evicted, preempted.",
    )


class StudySpec(Model):
    """What the user asks for."""

    objectives: list[Objective] = Field(
        min_length=1,
        max_length=10,
        description="The metric to optimise (the one with a goal), and metrics to keep within bounds.",
    )
    parameters: list[Parameter] = Field(
        min_length=1, max_length=100, description="The search space, one entry a dimension."
    )
    constraints: list[Annotated[str, StringConstraints(min_length=1, max_length=256)]] = Field(
        default_factory=list,
        max_length=20,
        description="Conditions that every configuration meets, for example 'layers * width <= 4096'. Numbers, "
        "parameters, + - * / // % **, comparisons, and, or, not, in, and min max abs sqrt exp log. One that "
        "mentions a parameter that a configuration does not have is not applied to it.",
    )
    strategy: StrategySpec = Field(default_factory=StrategySpec, description="What proposes the configurations.")
    initial: list[Configuration] = Field(
        default_factory=list,
        max_length=10_000,
        description="Configurations to try first, for example [{lr: 0.01, layers: 2}]; the strategy fills in the "
        "parameters left out. With strategy manual they are the whole study and must be complete.",
    )
    trials: TrialsSpec = Field(default_factory=TrialsSpec, description="How many trials, and how many at a time.")
    max_duration: Duration | None = Field(
        default=None,
        description="The study ends this long after its start, for example 24h; trials that then run are stopped.",
    )
    gpu: GpuSpec | None = Field(default=None, description="GPUs per trial. Leave it out for trials on the CPU.")
    queue: Annotated[str, StringConstraints(min_length=1, max_length=63)] | None = Field(
        default=None,
        description="The GpuQueue that the trials' GPUs are of. Left out: the one named default, which need not exist.",
    )
    priority: int = Field(
        default=0,
        ge=-1000,
        le=1000,
        description="Within a queue, trials of a study with a higher number are placed first. "
        "An hour of waiting is worth as much as one more.",
    )
    retry: RetrySpec = Field(default_factory=RetrySpec, description="What happens to failed attempts.")
    suspend: bool = Field(
        default=False, description="true: no further trial starts; those that run go on to their end."
    )
    template: Annotated[dict[str, Any], SchemaOf(Template)] = Field(
        description="A Job's pod template: metadata and spec, with at least one container. Parameters reach the "
        "program as environment variables TUNEYARD_PARAM_<name> and as ${name} in command, args and env values; write "
        "$${name} for a literal ${name}. restartPolicy is always Never."
    )


class TrialCounts(Model):
    """How many trials are in which state."""

    created: int = Field(default=0, description="Trials that exist.")
    pending: int = Field(default=0, description="Waiting for a place, or for a retry.")
    running: int = Field(default=0, description="Placed or running.")
    succeeded: int = Field(default=0, description="Ended with all metrics.")
    failed: int = Field(default=0, description="Failed after their retries.")
    infeasible: int = Field(default=0, description="Ended without usable metrics, out of memory or out of time.")
    stopped: int = Field(default=0, description="Stopped because the study ended.")
    retries: int = Field(default=0, description="Attempts that were retries.")


class BestTrial(Model):
    """The best trial so far."""

    trial: str = Field(max_length=253, description="The Trial's name.")
    index: int = Field(description="Its number within the study.")
    value: float = Field(description="The objective's value.")
    metrics: MetricValues = Field(default_factory=dict, description="All its metrics.")
    parameters: Configuration = Field(default_factory=dict, description="Its configuration.")


class StudyStatus(Model):
    """What Tuneyard observed; of constant size, whatever the number of trials."""

    phase: Literal["Pending", "Running", "Suspended", "Blocked", "Complete", "Failed"] | None = Field(
        default=None, description="The state in a word; conditions say more."
    )
    progress: str | None = Field(default=None, max_length=32, description="Ended trials of all, for example 12/50.")
    reason: str | None = Field(default=None, max_length=128, description="Why the study is in this phase.")
    observed_generation: int | None = Field(default=None, description="The generation of the spec that this is about.")
    start_time: Time | None = Field(default=None, description="When the first trial was created (RFC 3339).")
    completion_time: Time | None = Field(default=None, description="When the study ended (RFC 3339).")
    trials: TrialCounts | None = Field(default=None, description="Trials by state.")
    best: BestTrial | None = Field(default=None, description="The best trial so far.")
    replicas: int | None = Field(default=None, description="Trials placed or running (for kubectl scale).")
    selector: str | None = Field(default=None, max_length=256, description="Label selector of the trials' pods.")
    gpus: float | None = Field(default=None, description="GPUs in use; a part of one counts as a part.")
    gpu_hours: float | None = Field(default=None, description="GPU-hours used so far.")
    eta: Time | None = Field(default=None, description="When the study may end at its present pace (RFC 3339).")
    message: str | None = Field(default=None, max_length=4096, description="A sentence about the present state.")
    conditions: Conditions = Field(
        default_factory=list,
        max_length=16,
        description="Complete, Failed, Suspended, Valid and Blocked, with reason and message.",
    )


NAME_LIMIT = 52
"""Characters of a study's name: its Jobs are <name>-<trial>-<attempt>, and a Job's name has 63."""


class StudyMeta(Model):
    """What Tuneyard reads of a Study's metadata."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, OBJECT_NAME]
    namespace: ObjectName = "default"
    uid: str | None = None
    generation: int | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Study(Model):
    """A search for the best hyperparameters of a training program."""

    metadata: StudyMeta
    spec: StudySpec
