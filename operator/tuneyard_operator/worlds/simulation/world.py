"""The simulated world: the port through which the engine acts on the simulated API server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tuneyard_api.common import UID_LABEL
from tuneyard_operator import pods, render
from tuneyard_operator.actions import Emit
from tuneyard_operator.attempts import AttemptSeen
from tuneyard_operator.state import StudyState
from tuneyard_operator.trial_state import TrialState
from tuneyard_operator.world import NO_RUNGS, Conflict, WorldError
from tuneyard_operator.worlds.simulation.apiserver import AlreadyExists, NotFound, Object, VersionConflict
from tuneyard_operator.worlds.simulation.process import Process, Unanswered

OPERATOR = "operator"


class SimulationWorld:
    """Implements the World port. A call takes effect at some later moment, if at all, and is answered later still."""

    def __init__(self, process: Process, log_of: Callable[[str], str]) -> None:
        self._process = process
        self._api = process.api
        self._log_of = log_of

    def now(self) -> float:
        """See World."""
        return self._process.kernel.now

    async def _call(self, name: str, effect: Callable[[], Any]) -> Any:
        try:
            return await self._process.call(name, effect)
        except VersionConflict as error:
            raise Conflict(str(error)) from error
        except (Unanswered, NotFound, AlreadyExists) as error:
            raise WorldError(str(error)) from error

    async def check_template(self, state: StudyState) -> str | None:
        """See World."""
        problem: str | None = await self._call(
            "check template", lambda: next(render.unknown_references(state.spec), None)
        )
        return problem

    async def create_trials(
        self, state: StudyState, configurations: dict[int, Object], rungs: Mapping[int, Object] = NO_RUNGS
    ) -> list[Object]:
        """See World. All are on their way at once: an error for one does not keep the others from being created."""

        def create(index: int, parameters: Object) -> Object:
            item = render.trial(state, index, parameters, rungs.get(index))
            try:
                return self._api.create("trials", item, OPERATOR)
            except AlreadyExists:
                existing = self._own_trial(state, item["metadata"]["name"])
                if existing is None:
                    raise WorldError(f"trial {index} is one of an earlier study") from None
                return existing

        def create_all() -> list[Object]:
            created: list[Object] = []
            problem: WorldError | None = None
            for index, parameters in configurations.items():
                try:
                    created.append(create(index, parameters))
                except WorldError as error:
                    problem = error
            if problem is not None:
                raise problem
            return created

        made: list[Object] = await self._call(f"create trials {sorted(configurations)}", create_all)
        return made

    def _own_trial(self, state: StudyState, name: str, *, stale: bool = False) -> Object | None:
        try:
            item = self._api.stale("trials", name) if stale else self._api.get("trials", name)
        except NotFound:
            return None
        return item if any(owner["uid"] == state.uid for owner in item["metadata"]["ownerReferences"]) else None

    async def get_trial(self, state: StudyState, name: str) -> Object | None:
        """See World."""

        def read() -> Object | None:
            stale = self._process.kernel.chance(self._process.faults.stale_read)
            self._process.kernel.counts["stale_read"] += stale
            return self._own_trial(state, name, stale=stale)

        item: Object | None = await self._call(f"get {name}", read)
        return item

    async def trials_of(self, state: StudyState, name: str) -> list[Object] | None:
        """See World."""

        def read() -> list[Object] | None:
            study = self._api.objects["studies"].get(name)
            if study is None:
                return None
            uid = study["metadata"]["uid"]
            trials = self._api.objects["trials"].values()
            return [item for item in trials if item["metadata"]["labels"][UID_LABEL] == uid]

        found: list[Object] | None = await self._call(f"trials of {name}", read)
        return found

    async def patch_trial(self, state: StudyState, trial: TrialState, status: Object) -> Object:
        """See World."""
        name, version = trial.name, trial.version
        try:
            item: Object = await self._call(
                f"patch {name} v{version}", lambda: self._api.patch_status("trials", name, status, version, OPERATOR)
            )
        except WorldError as error:
            if isinstance(error.__cause__, NotFound):
                raise Conflict("the trial is gone") from error
            raise
        return item

    async def start_attempt(self, state: StudyState, trial: TrialState) -> None:
        """See World."""
        job = render.job(state, trial, None)
        name = job["metadata"]["name"]

        def start() -> None:
            try:
                self._api.create("jobs", job, OPERATOR)
            except AlreadyExists:
                key = pods.key(self._api.get("jobs", name))
                if key is None or key.trial_uid != trial.uid:
                    raise WorldError(f"Job {name} is not this trial's") from None

        await self._call(f"start {name}", start)

    async def stop_attempt(self, state: StudyState, index: int, attempt: int) -> None:
        """See World."""
        name = render.job_name(state.name, index, attempt)
        await self._call(f"stop {name}", lambda: self._delete_job(name))

    def _delete_job(self, name: str) -> None:
        if name in self._api.objects["jobs"]:
            self._api.delete("jobs", name, OPERATOR)

    async def inspect_attempt(self, state: StudyState, trial: TrialState) -> AttemptSeen | None:
        """See World."""
        name = render.job_name(state.name, trial.index, trial.attempt)
        job: Object | None = await self._call(f"inspect {name}", lambda: self._api.objects["jobs"].get(name))
        key = pods.key(job) if job is not None else None
        if key is not None and key.trial_uid != trial.uid:
            job = None
        return pods.job_without_pod(job, trial.attempt, self.now(), None)

    async def read_log(self, state: StudyState, index: int, attempt: int) -> str:
        """See World."""
        name = render.job_name(state.name, index, attempt)
        text: str = await self._call(f"log of {name}", lambda: self._log_of(name))
        return text

    async def write_study(self, state: StudyState, status: Object) -> None:
        """See World."""

        def write() -> None:
            item = self._api.objects["studies"].get(state.name)
            if item is not None and item["metadata"]["uid"] == state.uid:
                self._api.replace_status("studies", state.name, status, OPERATOR)

        await self._call(f"write status of {state.name}", write)

    async def emit(self, state: StudyState, news: Emit) -> None:
        """See World."""
        await self._call(f"emit {news.reason} for {state.name}", lambda: None)

    async def delete_jobs(self, trials: Iterable[str]) -> None:
        """Delete the Jobs of trials that have ended, as the Kubernetes world does."""
        ended = set(trials)

        def delete() -> None:
            for name, job in list(self._api.objects["jobs"].items()):
                key = pods.key(job)
                if key is not None and key.trial_uid in ended:
                    self._delete_job(name)

        await self._call(f"delete Jobs of {len(ended)} trials", delete)
