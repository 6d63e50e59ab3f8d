"""Studies that are to start nothing: suspended, blocked until somebody mends them, ended or being deleted."""

from __future__ import annotations

from tuneyard_scheduler.books import StudyBook
from tuneyard_scheduler.reasons import Reason, Refusal
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import StudyView


def gate(state: ClusterState, study: StudyBook, view: StudyView) -> Refusal | None:
    """Refuse while the study is held."""
    del state, study
    if view.deleting:
        return Refusal(Reason.STUDY_ENDED, "the study is being deleted")
    if view.phase in {"Complete", "Failed"}:
        return Refusal(Reason.STUDY_ENDED, f"the study has ended ({view.phase})")
    if view.suspended:
        return Refusal(Reason.SUSPENDED, "the study is suspended; set spec.suspend to false to go on")
    if view.phase == "Blocked":
        return Refusal(Reason.STUDY_BLOCKED, "the study is blocked; its condition Blocked or Valid says what to mend")
    return None
