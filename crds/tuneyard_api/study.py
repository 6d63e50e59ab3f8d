"""The Study: a search over a space towards objectives."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from tuneyard_api.common import OBJECT_NAME, Conditions, Duration, MetricValues, Model, ObjectName, Time
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
        description="With strategy asha: what proposes the configurations that it tries. Left out: tpe.",
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


class TrialCounts(Model):
    """How many trials are in which state."""

    created: int = Field(default=0, description="Trials that exist.")
    pending: int = Field(default=0, description="Waiting for a place, or for a retry.")
    running: int = Field(default=0, description="Placed or running.")
    succeeded: int = Field(default=0, description="Ended with all metrics.")
    failed: int = Field(default=0, description="Failed after their retries.")
    infeasible: int = Field(default=0, description="Ended without usable metrics, out of memory or out of time.")
    stopped: int = Field(default=0, description="Stopped early, or because the study ended.")
    retries: int = Field(default=0, description="Attempts that were retries.")


class Sizing(Model):
    """What was found out about the GPU memory of the trials, where gpu.fraction or gpu.memory is auto."""

    trials: int = Field(default=0, ge=0, description="Trials that told how much they used.")
    peak: int | None = Field(default=None, ge=0, description="The most that one of them used, in MiB.")
    peak_fraction: float | None = Field(default=None, ge=0, description="The same as a part of its GPU.")
    memory: int | None = Field(default=None, ge=1, description="MiB that each trial gets; absent: a whole GPU.")
    fraction: float | None = Field(default=None, gt=0, le=1, description="The part of a GPU that each trial gets.")


class BestTrial(Model):
    """The best trial so far."""

    trial: str = Field(max_length=253, description="The Trial's name.")
    index: int = Field(description="Its number within the study.")
    value: float = Field(description="The objective's value.")
    metrics: MetricValues = Field(default_factory=dict, description="All its metrics.")
    parameters: Configuration = Field(default_factory=dict, description="Its configuration.")
    fidelity: int | None = Field(
        default=None, description="For how much of the fidelity it ran; left out: for all of it."
    )


class StudyWaiting(Model):
    """What the study's next trial waits for; there is none where it has as many as it may have at a time."""

    queue: str = Field(max_length=253, description="The GpuQueue in whose line it stands.")
    trial: str = Field(max_length=253, description="The Trial that is next.")
    trials: int = Field(ge=0, description="Trials that wait for a place, those in their backoff included.")
    position: int | None = Field(
        default=None,
        ge=1,
        description="The study's place in the line of its queue: 1 is served next. Absent where it does not stand in "
        "line, because it is held up by something other than a lack of GPUs.",
    )
    reason: str = Field(max_length=128, description="Why it waits, in a word.")
    message: str | None = Field(default=None, max_length=1024, description="Why it waits, in a sentence.")
    expected_start: Time | None = Field(
        default=None,
        description="When the next trial may start, by how long trials took before (RFC 3339). Absent where that is "
        "not known.",
    )


class FrontTrial(Model):
    """A trial on the Pareto front."""

    trial: str = Field(max_length=253, description="The Trial's name.")
    index: int = Field(description="Its number within the study.")
    metrics: MetricValues = Field(default_factory=dict, description="The metrics that the study's objectives name.")
    parameters: Configuration = Field(default_factory=dict, description="Its configuration.")


class ParetoFront(Model):
    """Trials that no other one beats: none is as good in every objective and better in one."""

    size: int = Field(description="How many there are.")
    trials: list[FrontTrial] = Field(
        max_length=20,
        description="Those that together dominate the most, in the order of the first objective.",
    )


class RecommendedTrial(Model):
    """The trial to use: the one that a model of all trials expects most of, which need not be the luckiest one."""

    trial: str = Field(max_length=253, description="The Trial's name.")
    index: int = Field(description="Its number within the study.")
    expected: float = Field(description="The objective's value as it is expected to be, without its noise.")
    deviation: float = Field(description="How sure that is: a standard deviation.")
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
    best: BestTrial | None = Field(
        default=None,
        description="The best trial so far, of those that ran for most of the fidelity; none that was stopped early. "
        "Absent where there are several objectives: see front.",
    )
    front: ParetoFront | None = Field(
        default=None, description="Where there are several objectives: the trials that no other one beats."
    )
    recommended: RecommendedTrial | None = Field(
        default=None,
        description="Once the study has ended: the trial to use, by the model of strategies that have one (auto and "
        "bayesian). It differs from best where results are noisy. Absent where there are several objectives.",
    )
    replicas: int | None = Field(default=None, description="Trials placed or running (for kubectl scale).")
    selector: str | None = Field(default=None, max_length=256, description="Label selector of the trials' pods.")
    gpus: float | None = Field(default=None, description="GPUs in use, parts of one included.")
    sizing: Sizing | None = Field(
        default=None, description="How much of a GPU the trials get, where that is found out."
    )
    gpu_hours: float | None = Field(default=None, description="GPU-hours used so far.")
    gpu_hours_to_come: float | None = Field(
        default=None,
        description="GPU-hours that the trials still to come, and the rest of those that run, will take, if they take "
        "as long as those that succeeded did on average. Absent where that is not known.",
    )
    eta: Time | None = Field(
        default=None,
        description="When the study may end at its present pace (RFC 3339). Absent where that is not known, because no "
        "trial has succeeded yet, or none runs.",
    )
    waiting: StudyWaiting | None = Field(default=None, description="What the study's next trial waits for.")
    message: str | None = Field(default=None, max_length=4096, description="A sentence about the present state.")
    conditions: Conditions = Field(
        default_factory=list,
        max_length=16,
        description="Complete, Failed, Suspended, Valid, Blocked, WarmStarted and StrategyAvailable, with reason and "
        "message; and Degraded, if another model proposes than the strategy's own because that takes too long.",
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
