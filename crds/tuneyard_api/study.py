"""The Study: a search over a space towards objectives."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from tuneyard_api.common import OBJECT_NAME, Duration, Model, ObjectName
from tuneyard_api.fidelity import CheckpointsSpec, EarlyStoppingSpec, FidelitySpec
from tuneyard_api.rule import matches
from tuneyard_api.service import ServiceSpec
from tuneyard_api.space import Configuration, Parameter
from tuneyard_api.template import SchemaOf, Template
from tuneyard_api.warmstart import WarmStart

MetricName = Annotated[
    str,
    StringConstraints(max_length=63),
    matches("^[A-Za-z_][A-Za-z0-9_./-]*$", "write letters, digits and _ . / -, beginning with a letter or _"),
]
STRATEGIES = (
    "auto", "manual", "grid", "random", "sobol", "tpe", "bayesian", "cmaes", "asha", "hyperband", "bohb", "pbt"
)  # fmt: skip
"""The strategies that are built; the schema refuses every other name."""

POPULATION, QUANTILE, RESAMPLE_PROBABILITY = 20, 0.25, 0.25
"""What strategy pbt takes where a study says nothing."""

MOST_GOALS = 4
"""Metrics that can be optimised at once."""


class Objective(Model):
    """A metric to minimise or maximise (goal), or one to keep within a bound (atMost, atLeast)."""

    metric: MetricName = Field(description="The metric's name, as the training program reports it.")
    goal: Literal["minimize", "maximize"] | None = Field(
        default=None,
        description="Which way is better. A study has one metric with a goal, or up to four: then it looks for the "
        "trials that no other one beats in all of them.",
    )
    target: float | None = Field(
        default=None,
        description="The study is complete as soon as a trial is this good; if several have targets, as soon as one "
        "trial reaches them all. Needs a goal.",
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

    @property
    def sign(self) -> float:
        """What a value is multiplied by so that smaller is better."""
        return -1.0 if self.goal == "maximize" else 1.0

    def is_reached_by(self, value: float) -> bool:
        """Whether a value is as good as the target."""
        return self.target is not None and self.sign * value <= self.sign * self.target

    def is_kept_by(self, value: float) -> bool:
        """Whether a value keeps within the bounds; any does where there are none."""
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)


class StrategySpec(Model):
    """What proposes the configurations."""

    name: Literal[
        "auto", "manual", "grid", "random", "sobol", "tpe", "bayesian", "cmaes", "asha", "hyperband", "bohb", "pbt"
    ] = Field(
        default="auto",
        description="auto takes the one that suits: bayesian, with tpe beside it when there are many trials. manual "
        "runs the list in initial; grid every combination of a finite space; random draws from the distributions; "
        "sobol does so with points that cover the space evenly; tpe learns from results where good trials are dense, "
        "quickly even with thousands of them; bayesian models the objective, its noise, bounds and failures, and needs "
        "the fewest trials; cmaes moves a normal distribution, and suits many trials of numbers that depend on each "
        "other. asha, hyperband and bohb need a fidelity: they give most trials little of it, and the best ones all of "
        "it. pbt needs one and checkpoints: it changes configurations during training.",
    )
    sampler: Literal["sobol", "tpe", "bayesian"] | None = Field(
        default=None,
        description="With strategies asha and bohb: what proposes the configurations that they try. "
        "Left out: bayesian.",
    )
    population: int | None = Field(
        default=None,
        ge=2,
        le=10_000,
        description=f"With strategy pbt: how many members are trained side by side. Left out: {POPULATION}.",
    )
    quantile: float | None = Field(
        default=None,
        gt=0,
        le=0.5,
        description="With strategy pbt: the worst part of the population, which goes on from members of the best part, "
        f"as large. Left out: {QUANTILE}.",
    )
    resample_probability: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="With strategy pbt: how probably a parameter of a member that goes on from another one is drawn "
        f"anew, instead of being changed a little. Left out: {RESAMPLE_PROBABILITY}.",
    )
    seed: int = Field(
        default=0, ge=0, le=2**53 - 1, description="The same seed and the same answers give the same study."
    )
    service: ServiceSpec | None = Field(
        default=None, description="Instead of a name: a service of your own that proposes the configurations."
    )


class TrialsSpec(Model):
    """How many trials, how many at a time, and when to give up."""

    max: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="How many trials in all. manual, grid and pbt may leave it out: they end with their list, or when "
        "the population is trained. Raise it to extend a study, even a complete one.",
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
        description="The study fails as soon as more trials than this have failed, after their retries.",
    )
    pause_after: int = Field(
        default=5,
        ge=0,
        le=100_000,
        description="The study pauses (Blocked) as soon as this many trials have failed and not one has succeeded, so "
        "that a mistake in the program does not burn all of them. It goes on when its spec is changed. 0: never.",
    )
    timeout: Duration | None = Field(
        default=None,
        description="How long one attempt may run, for example 2h. Then it is stopped and not tried again.",
    )


class GpuSpec(Model):
    """What each trial needs of GPUs: exactly one of count, fraction and memory."""

    count: int | None = Field(default=None, ge=1, le=64, description="Whole GPUs per trial.")
    fraction: float | str | None = Field(
        default=None,
        description="A part of one GPU, above 0 and below 1; several trials share it. 0.25: a quarter. auto: found "
        "out, by what the first trials use of a whole one (see docs/failures.md).",
    )
    memory: (
        Annotated[str, matches("^([0-9]{1,9}(Mi|Gi)|auto)$", "write Mi or Gi after a number, such as 10Gi, or auto")]
        | None
    ) = Field(
        default=None,
        max_length=20,
        description="Memory on one GPU, such as 10Gi; several trials share it. auto: found out.",
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

    @property
    def auto(self) -> bool:
        """Whether the size is found out."""
        return "auto" in {self.fraction, self.memory}


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
    memory_growth: float | None = Field(
        default=None,
        le=8,
        description="A trial that ran out of memory is tried again with this many times as much: of a shared GPU, up "
        "to a whole one; or of the memory of its container, up to maxMemory. Left out: it is infeasible at once.",
    )
    max_memory: Annotated[str, matches("^[0-9]{1,9}(Mi|Gi)$", "write Mi or Gi after a number, such as 64Gi")] | None = (
        Field(
            default=None,
            max_length=20,
            description="The most memory that a container may be given because of memoryGrowth. Left out: four times "
            "the template's.",
        )
    )


class StudySpec(Model):
    """What the user asks for."""

    objectives: list[Objective] = Field(
        min_length=1,
        max_length=10,
        description="The metrics to optimise, those with a goal, and metrics to keep within bounds.",
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
    warm_start: list[WarmStart] = Field(
        default_factory=list,
        max_length=10,
        description="What the strategy learns from before the first trial. It is not counted towards trials.max, and "
        "never the best: name the best one in initial to have it run.",
    )
    fidelity: FidelitySpec | None = Field(
        default=None,
        description="How much of it a trial can be given: epochs, steps, trees. asha, hyperband, bohb and pbt need it.",
    )
    early_stopping: EarlyStoppingSpec | None = Field(
        default=None, description="A rule by which trials that do badly are stopped, whatever the strategy."
    )
    checkpoints: CheckpointsSpec | None = Field(
        default=None, description="A volume for the state of programs: see tuneyard.checkpoint_dir()."
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
