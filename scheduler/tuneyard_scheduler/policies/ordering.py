"""Whose turn it is: higher priority first, then the older study."""

from __future__ import annotations

from tuneyard_scheduler.books import StudyBook
from tuneyard_scheduler.views import StudyView


def by_priority_then_age(study: StudyBook, view: StudyView) -> tuple[float, ...]:
    """Sort key of a study that has trials waiting."""
    del study  # a fair share would look at what it takes already
    return -view.priority, view.created
