"""The rules of the cycle, one a file.

A policy is a function of the state and a study, of one of three kinds: an `Order` says whose turn it is, a `Gate`
whether the study may have another place at all, a `Chooser` which place. A cycle asks them anew for every place that it
gives, so they may look at all that the state knows, the places given a moment ago included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tuneyard_scheduler.books import StudyBook, TrialBook
from tuneyard_scheduler.policies import backoff, caps, holds, nodes, ordering, quota
from tuneyard_scheduler.reasons import Refusal
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import StudyView

Order = Callable[[StudyBook, StudyView], tuple[Any, ...]]
"""A sort key: the study with the smallest one is served next."""
Gate = Callable[[ClusterState, StudyBook, StudyView], Refusal | None]
"""None: the study may have another place. Else it gets none in this cycle, for this reason."""
Chooser = Callable[[ClusterState, StudyView, TrialBook], str | Refusal | None]
"""The node for the trial; None where it may run anywhere."""


@dataclass(frozen=True, slots=True)
class Policies:
    """The rules of a cycle. Gates are asked in order, and the first refusal is the reason that people see."""

    order: Order = ordering.by_priority_then_age
    gates: tuple[Gate, ...] = (holds.gate, backoff.gate, caps.gate, quota.gate)
    choose: Chooser = nodes.fullest_that_fits


DEFAULT = Policies()
