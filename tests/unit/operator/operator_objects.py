"""Studies, trials and what is seen of attempts, in as few words as a test needs.

A `Yard` holds one study's state and a clock. Every change that it makes is a newer object, as from an API server.
"""

import copy
from typing import Any

from tuneyard_api.common import API_VERSION, timestamp
from tuneyard_operator import planner
from tuneyard_operator.actions import Action, Emit, WriteStudy, WriteTrial
from tuneyard_operator.attempts import AttemptSeen
from tuneyard_operator.state import StudyState
from tuneyard_operator.study_end import study_end

Object = dict[str, Any]
NOW = 1_700_000_000.0
SPEC: Object = {
    "objectives": [{"metric": "accuracy", "goal": "maximize"}],
    "parameters": [{"name": "lr", "double": {"min": 0.001, "max": 1.0, "scale": "log"}}],
    "strategy": {"name": "random"},
    "trials": {"max": 10, "parallel": 2},
    "template": {"spec": {"containers": [{"name": "train", "image": "train:1"}]}},
}


def merge(into: Object, patch: Object) -> Object:
    """A JSON merge patch (RFC 7386); lists are replaced."""
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict):
            merged = into.get(key)
            into[key] = merge(merged if isinstance(merged, dict) else {}, value)
        else:
            into[key] = copy.deepcopy(value)
    return into


def study(version: int = 1, generation: int = 1, status: Object | None = None, **spec: Any) -> Object:
    """A Study object; `spec` is merged over SPEC."""
    meta = {"name": "s", "namespace": "ns", "uid": "u-s", "generation": generation, "resourceVersion": str(version)}
    meta["creationTimestamp"] = timestamp(NOW)
    whole = merge(copy.deepcopy(SPEC), spec)
    return {"apiVersion": API_VERSION, "kind": "Study", "metadata": meta, "spec": whole, "status": status or {}}


def trial(index: int, version: int, status: Object, *, uid: str | None = None, **meta: Any) -> Object:
    """A Trial object of the study that `study` makes."""
    return {
        "metadata": {
            "name": f"s-{index}",
            "uid": uid or f"u-{index}",
            "resourceVersion": str(version),
            "creationTimestamp": timestamp(NOW),
            **meta,
        },
        "spec": {"study": "s", "index": index, "parameters": {"lr": 0.1}},
        "status": status,
    }


class Yard:
    """One study, its trials and a clock."""

    def __init__(self, *, status: Object | None = None, checked: bool = True, **spec: Any) -> None:
        self.now = NOW
        self.version = 1
        self.study = study(status=status, **spec)
        self.objects: dict[int, Object] = {}
        self.state = StudyState(self.study, self.now)
        if checked:
            self.checked()

    def tick(self, seconds: float) -> "Yard":
        self.now += seconds
        return self

    def edit(self, **spec: Any) -> "Yard":
        """The user changes the spec; the operator has checked it."""
        self.version += 1
        meta = self.study["metadata"]
        meta |= {"generation": meta["generation"] + 1, "resourceVersion": str(self.version)}
        self.study = copy.deepcopy(self.study)
        merge(self.study["spec"], spec)
        self.state.set_study(self.study)
        return self.checked()

    def checked(self) -> "Yard":
        """The present spec was found to be good."""
        self.state.checked_generation = self.state.template_checked = self.state.generation
        return self

    def set(self, index: int, status: Object, **meta: Any) -> "Yard":
        """The trial now has this status."""
        self.version += 1
        self.objects[index] = trial(index, self.version, status, **meta)
        self.state.set_trial(copy.deepcopy(self.objects[index]), self.now)
        return self

    def pending(self, *indices: int, attempt: int = 0, **status: Any) -> "Yard":
        for index in indices:
            self.set(index, {"phase": "Pending", "attempt": attempt, **status})
        return self

    def placed(self, *indices: int, attempt: int = 0, node: str | None = "n1", gpus: int = 1, **status: Any) -> "Yard":
        place = {"attempt": attempt, "gpus": gpus} | ({"node": node, "resource": "nvidia.com/gpu"} if node else {})
        for index in indices:
            self.set(index, {"phase": "Placed", "attempt": attempt, "placement": place, **status})
        return self

    def ended(self, *indices: int, phase: str = "Succeeded", value: float | None = 0.5, **metrics: float) -> "Yard":
        for index in indices:
            status: Object = {"phase": phase, "message": f"trial {index} is {phase}"}
            if phase == "Succeeded":
                status |= {"value": value, "observation": {"metrics": {"accuracy": value, **metrics}}}
            self.set(index, status)
        return self

    def sees(self, index: int, kind: str, *, attempt: int = 0, **seen: Any) -> "Yard":
        what = AttemptSeen(attempt, kind, **seen)  # type: ignore[arg-type]
        self.state.set_attempt(index, what, self.now)
        return self

    def starts(self, *indices: int) -> "Yard":
        """Placed trials whose attempts have been started, and of which nothing is left to plan now."""
        self.placed(*indices)
        for index in indices:
            self.state.trials[index].started = True
        assert self.plan() == []
        return self

    def runs(self, *indices: int, gpus: int = 1, **seen: Any) -> "Yard":
        """Trials that run, and of which nothing is left to plan now."""
        self.placed(*indices, gpus=gpus)
        for index in indices:
            self.sees(index, "running", **{"started": self.now, "node": "n1", **seen})
        return self

    def actions(self) -> list[Action]:
        """All that is planned now."""
        return planner.plan(self.state, self.now)

    def plan(self) -> list[Action]:
        """What is planned now for trials and attempts; done with at once (nothing stays busy)."""
        found: list[Action] = [action for action in self.actions() if not isinstance(action, WriteStudy | Emit)]
        self.state.busy.clear()
        self.state.status_busy = False
        return found

    def write(self) -> Object:
        """The status patch of the one write that is planned now."""
        (action,) = self.plan()
        assert isinstance(action, WriteTrial)
        return action.status

    def do(self) -> Object:
        """Plan the one write, and take it as done; returns the patch."""
        (action,) = self.plan()
        assert isinstance(action, WriteTrial)
        self.set(action.index, merge(copy.deepcopy(self.objects[action.index]["status"]), action.status))
        return action.status

    def end(self) -> tuple[str, str] | None:
        """Type and reason of the study's end."""
        found = study_end(self.state, self.now)
        return (found.type, found.reason) if found else None

    def wanted(self, *, learns: bool = False) -> list[int]:
        return planner.wanted(self.state, self.now, learns=learns)
