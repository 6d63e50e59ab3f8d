"""What Tuneyard observed of a Study: its status."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tuneyard_api.common import Conditions, MetricValues, Model, Time
from tuneyard_api.space import Configuration


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
        description="Once the study has ended: the trial to use where results are noisy, by a model of all trials; "
        "where they are exact it is best. Absent where there are several objectives, fewer than 10 results (or two "
        "for each parameter), trials of different fidelity (asha, hyperband, bohb, pbt), or a service of your own.",
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
