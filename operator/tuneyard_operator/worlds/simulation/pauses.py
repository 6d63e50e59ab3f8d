"""Whether a study in which nothing works is paused in time, and stays so until somebody changes it."""

from __future__ import annotations

from collections import Counter
from typing import Final

from tuneyard_api.trial import Phase
from tuneyard_operator.render import GENERATION_ANNOTATION
from tuneyard_operator.worlds.simulation.apiserver import ApiServer, Object
from tuneyard_operator.worlds.simulation.faults import Faults
from tuneyard_operator.worlds.simulation.kernel import Kernel, Violation
from tuneyard_operator.worlds.simulation.programs import BROKEN

REASON: Final = "NoTrialSucceeds"
_LATE: Final = 15.0
"""Seconds for which attempts of a paused study may still begin: they were on their way, or the pause was lifted."""
_LOST: Final = 20
"""Jobs that misfortunes may cost on top."""


class Pauses:
    """Sees Jobs and studies."""

    def __init__(self, kernel: Kernel, api: ApiServer, faults: Faults) -> None:
        self._kernel = kernel
        self._api = api
        self._certain = faults.node_loss == 0 and faults.user_action == 0
        """Attempts on a lost node seem to last, and speak for the program; a deleted trial does not count any more."""
        self._since: dict[str, float] = {}
        self._burnt: Counter[str] = Counter()

    def study_changed(self, study: Object) -> None:
        """Note since when it is paused."""
        uid, status = study["metadata"]["uid"], study.get("status") or {}
        current = status.get("observedGeneration") == study["metadata"]["generation"]
        if status.get("reason") == REASON and status["phase"] == "Blocked" and current:
            self._since.setdefault(uid, self._kernel.now)
        else:
            self._since.pop(uid, None)

    def job_created(self, job: Object, study: Object) -> None:
        """Judge an attempt that begins.

        Raises:
            Violation: it should not, by what is known of the study.
        """
        uid, template = study["metadata"]["uid"], job["spec"]["template"]
        generation = str(study["metadata"]["generation"])
        if template["metadata"]["annotations"][GENERATION_ANNOTATION] == generation and uid in self._since:
            paused = self._kernel.now - self._since[uid]
            if paused > _LATE:
                raise Violation(f"{job['metadata']['name']} was started {paused:.0f} s after its study was paused")
        if template["spec"]["containers"][0]["image"] != BROKEN or not self._certain:
            return
        self._burnt[uid] += 1
        spec = study["spec"]
        parallel, most = spec["trials"]["parallel"], spec["trials"].get("pauseAfter", 5)
        bound = (max(parallel, most) + 1) * (spec["retry"]["limit"] + 1) + parallel + _LOST
        if self._burnt[uid] > bound and not self._some_trial_succeeded(uid):
            raise Violation(f"{self._burnt[uid]} Jobs of {study['metadata']['name']} were burnt, and none succeeded")

    def _some_trial_succeeded(self, study: str) -> bool:
        return any(
            (trial.get("status") or {}).get("phase") == Phase.SUCCEEDED
            for trial in self._api.objects["trials"].values()
            if trial["metadata"]["ownerReferences"][0]["uid"] == study
        )
