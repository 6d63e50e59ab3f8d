"""A cluster in memory whose trials share GPUs: API server, kubelets, operator, and a scheduler that may die."""

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tuneyard_api.trial import Phase, Placement
from tuneyard_scheduler.backends import reservation
from tuneyard_scheduler.backends.reservation import Reservation
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.devices import GpuRequest, Kind, Part
from tuneyard_scheduler.reservations import Action, Create, Delete, Lose, Reservations, Tell
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import AttemptKey, Node, Place, PodView, StudyView, Taken, TrialView

GPU = "nvidia.com/gpu"


@dataclass
class Trial:
    """A trial's object, and its pod if that runs."""

    study: str
    index: int
    share: float | None
    phase: Phase = Phase.PENDING
    attempt: int = 0
    version: int = 0
    placement: Placement | None = None
    runs_on: str | None = None
    """The uuid of the GPU that its pod uses."""
    losses: int = 0


@dataclass
class Cluster:
    """All that there is outside of the scheduler's process, and what that was told so far."""

    nodes: dict[str, int]
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    now: float = 1000.0
    trials: dict[tuple[str, int], Trial] = field(default_factory=dict)
    pods: dict[str, Reservation] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    """Who the kubelet gave a GPU to, by the GPU's uuid."""
    queue: list[Action] = field(default_factory=list)
    news: list[Any] = field(default_factory=list)
    made: Counter[str] = field(default_factory=Counter)
    shares: dict[str, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.start()

    # The scheduler's process

    def start(self) -> None:
        """Begin anew, from what the API server has."""
        self.state, self.queue, self.news = ClusterState(), [], []
        self.planner = Reservations(self.state)
        for name, gpus in self.nodes.items():
            self.state.set_node(Node(name, {GPU: gpus}, kinds={GPU: Kind(GPU, parts=reservation.NAME)}))
        for key, share in self.shares.items():
            self._tell_study(key, share)
        for trial in self.trials.values():
            self._tell(trial)
        for pod in self.pods.values():
            self.news.append(pod)
        self.hear(everything=True)

    def _tell_study(self, key: str, share: float | None) -> None:
        gpu = GpuRequest(GPU, 0 if share else 1, share=share)
        self.state.set_study(StudyView(key, key, "ns", parallel=1000, gpu=gpu))

    def study(self, key: str, trials: int, share: float | None) -> None:
        self.shares[key] = share
        self._tell_study(key, share)
        for index in range(trials):
            self.trials[key, index] = Trial(key, index, share)
            self._tell(self.trials[key, index])

    def cycle(self) -> None:
        """Decide and write, as the controller does."""
        self.queue += self.planner.plan(self.now, self.hurry())
        for place in schedule(self.state, self.now).placements:
            trial = self.trials[place.study, place.index]
            known = self.state.trial(place.study, place.index)
            assert known is not None
            assert known.view is not None
            if known.view.version != str(trial.version):
                self.state.forget(place)
                continue
            trial.phase = Phase.PLACED
            trial.placement = self._placement(place)
            self._changed(trial)
        self.queue += self.planner.plan(self.now, self.hurry())

    def _placement(self, place: Place) -> Placement:
        return place.placement(self.now).model_copy(update={"uuid": self.planner.uuid(place)})

    def hurry(self) -> set[str]:
        return {GPU} if any(t.phase is Phase.PENDING and t.share is None for t in self.trials.values()) else set()

    def act(self) -> None:
        """Do one of the actions that were planned, in any order."""
        if not self.queue:
            return
        action = self.queue.pop(self.rng.randrange(len(self.queue)))
        match action:
            case Create():
                name = reservation.name(action.slot)
                if name not in self.pods:
                    self.made[name] += 1
                    self._pod(Reservation(action.slot, name, f"{name}/{self.made[name]}", "waiting"))
            case Delete():
                pod = self.pods.get(action.name)
                if pod is not None and pod.uid == action.uid:
                    self._pod(pod._replace(deleting=True))
            case Tell() | Lose():
                trial = self.trials[action.study, action.index]
                if trial.placement is None or trial.attempt != action.attempt:
                    return
                said = {"uuid": action.uuid} if isinstance(action, Tell) else {"lost": action.message}
                trial.placement = trial.placement.model_copy(update=said)
                self._changed(trial)

    def hear(self, *, everything: bool = False) -> None:
        """Take in some of the news, in order."""
        for _ in range(len(self.news) if everything else self.rng.randint(0, len(self.news))):
            item = self.news.pop(0)
            match item:
                case TrialView():
                    self.state.set_trial(item)
                case PodView():
                    self.state.set_pod(item)
                case Reservation():
                    self.planner.take(item)
                case ("reservation", uid):
                    self.planner.remove(uid)
                case uid:
                    self.state.remove_pod(uid)

    # Everybody else

    def _changed(self, trial: Trial) -> None:
        trial.version += 1
        self._tell(trial, pod=False)

    def _tell(self, trial: Trial, *, pod: bool = True) -> None:
        view = TrialView(
            trial.study, trial.index, trial.phase, trial.attempt, trial.placement, uid=f"{trial.study}-{trial.index}",
            version=str(trial.version),
        )  # fmt: skip
        self.news.append(view)
        if pod and trial.runs_on is not None:
            self._tell_pod(trial)

    def _tell_pod(self, trial: Trial) -> None:
        place = trial.placement
        assert place is not None
        taken = Taken({GPU: 1})
        if trial.share is not None:
            taken = Taken(parts=(Part(GPU, (place.devices or [""])[0], trial.share),))
        key = AttemptKey(trial.study, trial.index, trial.attempt)
        self.news.append(PodView(self.uid(trial), place.node, taken, key))

    def uid(self, trial: Trial) -> str:
        return f"{trial.study}-{trial.index}-{trial.attempt}"

    def _pod(self, pod: Reservation) -> None:
        self.pods[pod.name] = pod
        self.news.append(pod)

    def free(self, node: str) -> list[str]:
        """The GPUs of a node that the kubelet can give."""
        return [uuid for n in range(self.nodes[node]) if (uuid := f"{node}/{n}") not in self.owners]

    def kubelets(self) -> None:
        """Start, refuse and end the pods that hold GPUs."""
        for pod in list(self.pods.values()):
            if pod.deleting:
                self.gone(pod)
            elif pod.stage == "waiting":
                free = self.free(pod.slot.node)
                if free:
                    uuid = self.rng.choice(free)
                    self.owners[uuid] = pod.uid
                    self._pod(pod._replace(stage="running", uuid=uuid, refused=False))
                elif not pod.refused:
                    self._pod(pod._replace(refused=True, trouble="Insufficient nvidia.com/gpu"))

    def gone(self, pod: Reservation) -> None:
        del self.pods[pod.name]
        self.owners = {uuid: owner for uuid, owner in self.owners.items() if owner != pod.uid}
        self.news.append(("reservation", pod.uid))

    def operator(self) -> None:
        """Start trials that have a place; stop those that lost it, then record that."""
        for trial in self.trials.values():
            place = trial.placement
            if place is None or trial.phase is not Phase.PLACED:
                continue
            if place.lost is not None:
                self._stop(trial)
                trial.phase, trial.placement, trial.attempt = Phase.PENDING, None, trial.attempt + 1
                trial.losses += 1
                self._changed(trial)
            elif trial.runs_on is None and trial.share is None:
                assert place.node is not None
                free = self.free(place.node)
                if free:
                    trial.runs_on = free[0]
                    self.owners[free[0]] = self.uid(trial)
                    self._tell_pod(trial)
            elif trial.runs_on is None and place.uuid is not None:
                trial.runs_on = place.uuid
                self._tell_pod(trial)

    def _stop(self, trial: Trial) -> None:
        if trial.runs_on is not None:
            if trial.share is None:
                del self.owners[trial.runs_on]
            trial.runs_on = None
            self.news.append(self.uid(trial))

    def finish(self) -> None:
        """One of the trials that run is done."""
        running = [trial for trial in self.trials.values() if trial.runs_on is not None]
        if running:
            trial = self.rng.choice(running)
            self._stop(trial)
            trial.phase = Phase.SUCCEEDED
            self._changed(trial)

    def wait(self) -> None:
        self.now += self.rng.choice([0.1, 1.0, 6.0, 15.0, 70.0])

    # What must be so

    def check(self) -> None:
        """A GPU is never given twice, and sharers are on one that is held for them."""
        taken: Counter[str] = Counter()
        for trial in self.trials.values():
            if trial.runs_on is None:
                continue
            taken[trial.runs_on] += round(10_000 * (trial.share or 1))
            if trial.share is not None:
                owner = self.owners.get(trial.runs_on)
                holds = [pod for pod in self.pods.values() if pod.uid == owner]
                assert holds, f"{self.uid(trial)} runs on {trial.runs_on}, which is {owner}'s"
                assert trial.placement is not None
                assert holds[0].slot.device in (trial.placement.devices or [])
        assert all(total <= 10_000 for total in taken.values()), taken

    def settle(self, rounds: int = 400) -> None:
        """Nothing goes wrong any more: all trials come to an end, and every GPU is given back."""
        for number in range(rounds):
            self.hear(everything=True)
            self.cycle()
            while self.queue:
                self.act()
            self.kubelets()
            self.operator()
            self.hear(everything=True)
            self.check()
            if number % 3 == 2:
                self.finish()
            self.now += 3.0
            if self.done:
                return
        left = {key: (t.phase, t.placement) for key, t in self.trials.items() if t.phase is not Phase.SUCCEEDED}
        raise AssertionError(f"not done: {left}, {self.pods}")

    @property
    def done(self) -> bool:
        return not self.pods and all(trial.phase is Phase.SUCCEEDED for trial in self.trials.values())
