"""Judges the judges: every verdict on a running trial, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tuneyard_api.fidelity import FidelitySpec
from tuneyard_operator.state import StudyState
from tuneyard_operator.worlds.simulation.apiserver import ApiServer, Object
from tuneyard_operator.worlds.simulation.cluster import Cluster
from tuneyard_operator.worlds.simulation.kernel import Kernel, must
from tuneyard_strategy.contract import TrialRecord
from tuneyard_strategy.stopping import Verdict

_LONGEST: Final = 30.0
"""Seconds for which a trial may run on after it was decided to stop it: lost writes, a crash, slow answers."""
_SOON: Final = 3.0
"""The same where nothing goes wrong."""

Key = tuple[str, int]
"""A trial's uid, and its attempt."""


class Verdicts:
    """Sees each judgement as it is made."""

    def __init__(self, kernel: Kernel, api: ApiServer, cluster: Cluster) -> None:
        self._kernel = kernel
        self._api = api
        self._cluster = cluster
        self._longest = _SOON if cluster.faults.over else _LONGEST
        self._sentences: dict[Key, float] = {}
        """Attempts that are to be stopped, and since when; one that is then let go on is none any more."""
        self._stops: set[tuple[str, int]] = set()
        """Trial uid and fidelity of all decisions to stop."""

    def judged(self, state: StudyState, running: Sequence[TrialRecord], verdicts: Sequence[Verdict]) -> None:
        """Check verdicts against the rule, with all that was known."""
        known = {record.index: record for record in [*state.history, *running]}
        for verdict in verdicts:
            trial = state.trials.get(verdict.index)
            if trial is None:
                continue
            key = (trial.uid, trial.attempt)
            if verdict.stop:
                self._stops.add((trial.uid, verdict.fidelity))
                self._sentences.setdefault(key, self._kernel.now)
            else:
                self._sentences.pop(key, None)
            if state.spec.early_stopping is None and state.spec.fidelity is not None:
                expected = _is_stopped(verdict, list(known.values()), state.spec.fidelity)
                must(verdict.stop == expected, f"{trial.name}: {verdict}, and by the rule {expected}")

    def ended(self, trial: Object) -> None:
        """A trial is on record as stopped early."""
        name, status, uid = trial["metadata"]["name"], trial["status"], trial["metadata"]["uid"]
        must((uid, status["judged"]) in self._stops, f"{name} was stopped at {status['judged']}, and nobody said so")
        value = status["observation"]["metrics"]["loss"]
        must(value == status["value"], f"{name}: value {status['value']} and observation {value}")

    def look(self) -> None:
        """Whether a trial runs on long after it was decided to stop it."""
        current = {
            (trial["metadata"]["uid"], (trial.get("status") or {}).get("attempt", 0))
            for trial in self._api.objects["trials"].values()
            if (trial.get("status") or {}).get("phase") in {"Placed", "Running"}
        }
        for pod in self._cluster.machines.alive():
            since = self._sentences.get((pod.trial, pod.attempt))
            if since is None or (pod.trial, pod.attempt) not in current or pod.machine is None or not pod.machine.ready:
                continue
            # A verdict that was lost with the operator's memory comes again with the next report.
            longest = self._longest + 2 * pod.program.seconds / max(1, pod.program.epochs)
            ran = self._kernel.now - max(since, pod.machine.changed)
            must(ran < longest, f"{pod.name} runs on {ran:.0f} s after it was decided to stop it")


def _is_stopped(verdict: Verdict, records: list[TrialRecord], fidelity: FidelitySpec) -> bool:
    """The rule of asha, by a plain count."""
    values = [
        (next(value for done, value in record.curve if done >= verdict.fidelity), record.index)
        for record in records
        if record.curve and record.curve[-1][0] >= verdict.fidelity
    ]
    better = sum(each < (verdict.value, verdict.index) for each in values)
    return better >= max(1, len(values) // fidelity.factor)
