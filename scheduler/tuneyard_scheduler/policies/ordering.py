"""Whose turn it is within a queue: higher priority first, then who holds least, then who had a turn longest ago.

Who holds least goes first so that a study of thousands of trials leaves room for one of ten; and who had no turn for
longest, so that studies of which only one fits at a time go by turns. A study that gets nothing for long rises: none of
a lower priority waits for ever.
"""

from __future__ import annotations

from typing import Final

from tuneyard_scheduler.books import StudyBook
from tuneyard_scheduler.views import StudyView

AGING: Final = 3600.0
"""Seconds of waiting that are worth as much as one more point of priority."""


def by_priority_then_share(study: StudyBook, view: StudyView, now: float) -> tuple[float, ...]:
    """Sort key of a study that has trials waiting."""
    return -rank(study, view, now), study.gpus or study.attempts, study.last_place, view.created


def rank(study: StudyBook, view: StudyView, now: float) -> float:
    """The study's priority, with what it has gained by waiting."""
    return view.priority + waited(study, now) // AGING


def waited(study: StudyBook, now: float) -> float:
    """For how long the study's next trial could have had a place, and none of its trials got one."""
    turn = study.ready.smallest()
    trial = study.trials[turn[1]].view if turn is not None else None
    if trial is None or not trial.since:
        return 0.0
    return max(0.0, now - max(trial.since, trial.not_before or 0.0, study.last_place))
