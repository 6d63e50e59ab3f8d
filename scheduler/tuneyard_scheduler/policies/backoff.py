"""Failed trials wait for their backoff to pass."""

from __future__ import annotations

from tuneyard_api.common import timestamp
from tuneyard_scheduler.books import StudyBook
from tuneyard_scheduler.reasons import Reason, Refusal
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import StudyView


def gate(state: ClusterState, study: StudyBook, view: StudyView) -> Refusal | None:
    """Refuse while all waiting trials of the study are in backoff."""
    del state, view
    if study.ready:
        return None
    index = study.pending.smallest()
    until = study.trials[index].share.pending if index is not None else None
    return Refusal(Reason.BACKOFF, f"tried again after {timestamp(until or 0.0)}, because its last attempt failed")
