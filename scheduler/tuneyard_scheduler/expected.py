"""When what runs is expected to end."""

from __future__ import annotations

from tuneyard_scheduler.books import StudyBook, TrialBook


def seconds(study: StudyBook, share: float, ran: float = 0.0) -> float | None:
    """How long an attempt of a study runs in all, by this quantile, after it has run so long; None: not known.

    No longer than the study's time-out, which is all that is known before the first attempt has ended.
    """
    total = study.durations.total(share, ran)
    limit = study.view.timeout if study.view is not None else None
    if total is None or limit is None:
        return limit if total is None else total
    return min(total, limit)


def end(study: StudyBook, trial: TrialBook, now: float, share: float) -> float | None:
    """When a trial that has a place gives it back, by this quantile; not before now. None: not known."""
    view = trial.view
    begun = now if trial.assumed is not None else view.started or view.since if view is not None else 0.0
    total = seconds(study, share, max(0.0, now - begun)) if begun else None
    return None if total is None else max(now, begun + total)
