"""An engine on a stage: a world in memory that refuses, fails and changes its mind when it is told to."""

from collections.abc import Callable
from typing import Any

from operator_objects import NOW, Object, merge, study, trial

from tuneyard_operator.actions import Action, Emit, WriteStudy
from tuneyard_operator.attempts import AttemptSeen
from tuneyard_operator.engine import Engine
from tuneyard_operator.state import StudyState
from tuneyard_operator.strategy_client import Answer, InProcess, StrategyError
from tuneyard_operator.trial_state import TrialState
from tuneyard_operator.world import Conflict, WorldError


class Strategies(InProcess):
    """Strategies that may be out of order, and that may have only so many configurations."""

    broken: str | None = None
    only: int | None = None

    async def ask(self, state: StudyState, indices: list[int]) -> Answer:
        if self.broken:
            raise StrategyError(self.broken)
        found = await super().ask(state, indices)
        if self.only is None:
            return found
        kept = {index: found.configurations[index] for index in indices if index < self.only}
        return Answer(kept, exhausted=len(kept) < len(indices))


class World:
    """A world of one study. `fails` holds what the next call of a name raises; `meanwhile` happens within a call."""

    def __init__(self) -> None:
        self.time = NOW
        self.version = 100
        self.trials: dict[str, Object] = {}
        self.calls: list[tuple[str, Any]] = []
        self.fails: dict[str, WorldError] = {}
        self.meanwhile: Callable[[], None] = lambda: None
        self.template: str | None = None
        self.seen: AttemptSeen | None = None
        self.earlier: dict[str, list[Object]] = {}

    def now(self) -> float:
        return self.time

    def _called(self, name: str, what: Any) -> None:
        self.calls.append((name, what))
        self.meanwhile()
        if name in self.fails:
            raise self.fails.pop(name)

    def put(self, index: int, status: Object) -> Object:
        self.version += 1
        item = self.trials[f"s-{index}"] = trial(index, self.version, status)
        return item

    async def check_template(self, state: StudyState) -> str | None:
        self._called("check", state.generation)
        return self.template

    async def create_trials(self, state: StudyState, configurations: dict[int, Object], rungs: Any) -> list[Object]:
        self._called("create", sorted(configurations))
        return [self.put(index, {}) for index in configurations]

    async def get_trial(self, state: StudyState, name: str) -> Object | None:
        self._called("get", name)
        return self.trials.get(name)

    async def trials_of(self, state: StudyState, name: str) -> list[Object] | None:
        self._called("trials of", name)
        return self.earlier.get(name)

    async def patch_trial(self, state: StudyState, trial: TrialState, status: Object) -> Object:
        self._called("patch", trial.index)
        before = self.trials[trial.name]
        if before["metadata"]["resourceVersion"] != str(trial.version):
            raise Conflict("it has been changed")
        return self.put(trial.index, merge(before["status"], status))

    async def start_attempt(self, state: StudyState, trial: TrialState) -> None:
        self._called("start", (trial.index, trial.attempt))

    async def stop_attempt(self, state: StudyState, index: int, attempt: int) -> None:
        self._called("stop", (index, attempt))

    async def inspect_attempt(self, state: StudyState, trial: TrialState) -> AttemptSeen | None:
        self._called("inspect", trial.index)
        return self.seen

    async def read_log(self, state: StudyState, index: int, attempt: int) -> str:
        self._called("log", (index, attempt))
        return "acc 0.5\nacc 0.7\n"

    async def write_study(self, state: StudyState, status: Object) -> None:
        self._called("study", status["phase"])

    async def emit(self, state: StudyState, news: Emit) -> None:
        self._called("emit", news.reason)


class Stage:
    """An engine, its world, and one study that was checked unless said otherwise."""

    def __init__(self, *, checked: bool = True, **spec: Any) -> None:
        self.world, self.strategies = World(), Strategies()
        self.engine = Engine(self.world, self.strategies)
        self.state = self.engine.set_study(study(**spec))
        if checked:
            self.state.checked_generation = self.state.template_checked = 1

    def put(self, index: int, phase: str = "Placed", attempt: int = 0, **status: Any) -> "Stage":
        """The trial is now so in the world, and the engine has heard of it."""
        place = {"attempt": attempt, "node": "n1", "gpus": 1}
        status = {"phase": phase, "attempt": attempt, **({"placement": place} if phase == "Placed" else {}), **status}
        self.state.set_trial(self.world.put(index, status), self.world.time)
        return self

    def plan(self) -> list[Action]:
        """What is planned now, but for the study's status."""
        found = self.engine.plan(self.state)
        self.state.status_busy = False
        return [action for action in found if not isinstance(action, WriteStudy | Emit)]

    async def do(self) -> list[tuple[str, Any]]:
        """Plan and perform; the calls that the world heard."""
        self.world.calls.clear()
        for action in self.plan():
            await self.engine.perform(self.state, action)
        return self.world.calls
