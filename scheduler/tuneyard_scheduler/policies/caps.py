"""No more attempts of a study at a time than it asks for."""

from __future__ import annotations

from tuneyard_scheduler.books import StudyBook
from tuneyard_scheduler.reasons import Reason, Refusal
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import StudyView


def gate(state: ClusterState, study: StudyBook, view: StudyView) -> Refusal | None:
    """Refuse while `parallel` attempts are placed or have a pod."""
    del state
    if study.attempts < view.parallel:
        return None
    return Refusal(
        Reason.PARALLEL_LIMIT,
        f"{study.attempts} trials of the study run, and spec.trials.parallel is {view.parallel}",
    )
