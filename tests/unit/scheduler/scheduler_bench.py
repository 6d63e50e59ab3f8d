"""Short makers of views, so that a test reads as its table."""

from typing import Any

from tuneyard_api.trial import Phase, Placement
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.devices import GpuRequest, Kind
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import AttemptKey, Node, PodView, QueueView, StudyView, Taken, TrialView

GPU = "nvidia.com/gpu"


class Bench:
    """A state and the makers that fill it."""

    def __init__(self) -> None:
        self.state = ClusterState()

    def node(
        self,
        name: str,
        gpus: int = 8,
        *,
        model: str | None = None,
        memory: int | None = None,
        parts: str | None = None,
        **more: Any,
    ) -> None:
        kinds = {GPU: Kind(GPU, model, memory, parts=parts)}
        self.state.set_node(Node(name, {GPU: gpus} if gpus else {}, kinds=kinds, **more))

    def study(
        self,
        key: str = "ns/a",
        gpus: int = 1,
        *,
        trials: int = 0,
        model: str | None = None,
        share: float | None = None,
        memory: int | None = None,
        backend: str | None = None,
        spread: bool = False,
        **more: Any,
    ) -> None:
        part = {"share": share, "memory": memory, "backend": backend, "spread": spread}
        request = GpuRequest(GPU, 0 if share or memory else gpus, model, **part) if gpus else None
        values: dict[str, Any] = {"uid": f"uid-{key}", "namespace": key.partition("/")[0], "parallel": 1000, **more}
        self.state.set_study(StudyView(key, gpu=request, **values))
        for index in range(trials):
            self.trial(index, key)

    def queue(self, name: str, **fields: Any) -> None:
        self.state.set_queue(QueueView(name, **fields))

    def trial(self, index: int, key: str = "ns/a", phase: Phase = Phase.PENDING, attempt: int = 0, **more: Any) -> bool:
        return self.state.set_trial(TrialView(key, index, Phase(phase), attempt, **more))

    def placed(
        self, index: int, node: str | None, gpus: int = 1, *, key: str = "ns/a", attempt: int = 0, **more: Any
    ) -> bool:
        place = Placement(attempt=attempt, node=node, gpus=gpus, resource=GPU if gpus else None)
        return self.trial(index, key, Phase.PLACED, attempt, placement=place, **more)

    def pod(
        self, uid: str, node: str | None, gpus: int = 1, *, of: tuple[str, int, int] | None = None, **more: Any
    ) -> bool:
        attempt = AttemptKey(*of) if of else None
        return self.state.set_pod(PodView(uid, node, Taken({GPU: gpus} if gpus else {}), attempt, **more))

    def cycle(self, now: float = 0.0) -> list[tuple[str, int, str | None]]:
        return [(place.study, place.index, place.node) for place in schedule(self.state, now).placements]

    def preempted(self, now: float = 0.0) -> list[str]:
        """The trials that are told to make room, each with the trial that gets it."""
        return [f"{told.study}-{told.index} for {told.trial}" for told in schedule(self.state, now).preempt]

    def reasons(self, now: float = 0.0) -> dict[str, str]:
        return {waiting.study: waiting.reason for waiting in schedule(self.state, now).waiting}

    def used(self, node: str) -> float:
        return self.state.inventory.used(node, GPU)

    def attempts(self, key: str = "ns/a") -> int:
        study = self.state.study(key)
        return study.attempts if study is not None else 0
