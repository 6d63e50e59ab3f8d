"""The kinds of the API: their names, how kubectl shows them, what can be selected and scaled."""

from __future__ import annotations

from dataclasses import dataclass

from tuneyard_api.common import Model
from tuneyard_api.gpuqueue import GpuQueueSpec, GpuQueueStatus
from tuneyard_api.rule import Rule
from tuneyard_api.rules import FROZEN, RULES, frozen_message
from tuneyard_api.study import Study, StudySpec
from tuneyard_api.study_status import StudyStatus
from tuneyard_api.trial import TrialSpec, TrialStatus


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; a wide one is shown with -o wide only."""

    name: str
    path: str
    type: str
    description: str
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of the API and what its CustomResourceDefinition says beside the schema."""

    kind: str
    plural: str
    short_name: str
    namespaced: bool = True
    description: str
    spec: type[Model]
    status: type[Model]
    columns: tuple[Column, ...]
    selectable: tuple[str, ...] = ()
    scale: dict[str, str] | None = None
    rules: tuple[Rule, ...] = ()


AGE = Column("Age", ".metadata.creationTimestamp", "date", "Time since it was created.")


def _unchanged_once_started(field: str) -> Rule:
    new, old = f"self.spec.{field}", f"oldSelf.spec.{field}"
    return Rule(
        f"!has(oldSelf.status) || !has(oldSelf.status.startTime) || (has({new}) == has({old}) "
        f"&& (!has({new}) || {new} == {old}))",
        lambda _: True,
        frozen_message(field),
        f".spec.{field}",
    )


STUDY = Kind(
    kind="Study",
    plural="studies",
    short_name="sty",
    description="A search for the best hyperparameters of a training program.",
    spec=StudySpec,
    status=StudyStatus,
    columns=(
        Column("Phase", ".status.phase", "string", "The state in a word."),
        Column("Progress", ".status.progress", "string", "Ended trials of all."),
        Column("Best", ".status.best.value", "number", "The best value of the objective so far."),
        Column("Front", ".status.front.size", "integer", "Trials that no other one beats in all objectives."),
        Column("Running", ".status.replicas", "integer", "Trials placed or running."),
        Column("GPUs", ".status.gpus", "number", "GPUs in use."),
        AGE,
        Column("Strategy", ".spec.strategy.name", "string", "What proposes the configurations.", wide=True),
        Column("Failed", ".status.trials.failed", "integer", "Trials that failed.", wide=True),
        Column("ETA", ".status.eta", "string", "When it may end at its present pace.", wide=True),
        Column("Reason", ".status.reason", "string", "Why it is in this phase.", wide=True),
    ),
    selectable=(".status.phase", ".spec.queue", ".spec.strategy.name", ".spec.suspend"),
    scale={
        "specReplicasPath": ".spec.trials.parallel",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    },
    rules=(*RULES[Study], *map(_unchanged_once_started, FROZEN)),
)

TRIAL = Kind(
    kind="Trial",
    plural="trials",
    short_name="trl",
    description="One configuration of a study, and what became of it.",
    spec=TrialSpec,
    status=TrialStatus,
    columns=(
        Column("Phase", ".status.phase", "string", "Where the trial is in its life."),
        Column("Attempt", ".status.attempt", "integer", "The number of the current attempt, or of the next."),
        Column("Node", ".status.placement.node", "string", "Where the current attempt runs."),
        Column("Value", ".status.value", "number", "The objective's value."),
        AGE,
        Column("Fidelity", ".spec.rung.fidelity", "integer", "Up to how much of the fidelity it runs.", wide=True),
        Column("Continues", ".spec.rung.continues", "integer", "The trial from which it goes on.", wide=True),
        Column("Metrics", ".status.observation.metrics", "string", "The final metrics.", wide=True),
        Column("Reason", ".status.reason", "string", "Why it is in this phase.", wide=True),
        Column("Message", ".status.message", "string", "A sentence about the present state.", wide=True),
    ),
    selectable=(".spec.study", ".status.phase", ".status.placement.node"),
)

GPU_QUEUE = Kind(
    kind="GpuQueue",
    plural="gpuqueues",
    short_name="gpuq",
    namespaced=False,
    description="A share of the cluster's GPUs.",
    spec=GpuQueueSpec,
    status=GpuQueueStatus,
    columns=(
        Column("Guaranteed", ".status.guaranteed", "number", "GPUs that it is guaranteed."),
        Column("Used", ".status.used", "number", "GPUs in use."),
        Column("Borrowed", ".status.borrowed", "number", "GPUs in use beyond the guarantee."),
        Column("Pending", ".status.pending", "integer", "Trials that wait for a place."),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status', "string", "Whether its trials may start."),
        AGE,
        Column("Limit", ".spec.limit", "number", "GPUs that its studies may use together.", wide=True),
        Column("Weight", ".spec.weight", "number", "Its part of what is idle beyond the guarantees.", wide=True),
        Column("Parent", ".spec.parent", "string", "The queue that it is a part of.", wide=True),
    ),
    rules=(
        Rule(
            "!has(self.spec.parent) || self.spec.parent != self.metadata.name",
            lambda _: True,
            "a queue is not a part of itself; name another parent, or leave parent out",
            ".spec.parent",
        ),
    ),
)

KINDS = (STUDY, TRIAL, GPU_QUEUE)
