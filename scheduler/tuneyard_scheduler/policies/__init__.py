"""The rules of the cycle, one a file.

A policy is a function of one of these kinds: a `Sharing` says which queue is served next, an `Order` which study of it,
a `Gate` whether that study may have another place at all, a `Chooser` which place, and a `Reclaimer` who gives way to
those that got none. A cycle asks them anew for every place that it gives, so they may look at all that the state knows,
the places given a moment ago included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tuneyard_scheduler.books import StudyBook, TrialBook
from tuneyard_scheduler.policies import backoff, caps, holds, nodes, ordering, quota, reclaim, sharing
from tuneyard_scheduler.queues import QueueBook
from tuneyard_scheduler.reasons import Refusal
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Preempt, StudyView, Waiting

Sharing = Callable[[QueueBook], tuple[float, ...]]
"""A sort key: of the queues of one parent, the one with the smallest is served next."""
Order = Callable[[StudyBook, StudyView, float], tuple[float, ...]]
"""A sort key: of the studies of one queue, the one with the smallest is served next."""
Gate = Callable[[ClusterState, StudyBook, StudyView], Refusal | None]
"""None: the study may have another place. Else it gets none in this cycle, for this reason."""
Chooser = Callable[[ClusterState, StudyView, TrialBook], nodes.Spot | Refusal | None]
"""The node and GPUs for the trial; None where it may run anywhere."""
Reclaimer = Callable[[ClusterState, list[Waiting], int | None], list[Preempt]]
"""Whom to stop for those that got no place, at most so many; the state knows of them at once."""


@dataclass(frozen=True, slots=True)
class Policies:
    """The rules of a cycle. Gates are asked in order, and the first refusal is the reason that people see."""

    share: Sharing = sharing.by_guarantee_then_weight
    order: Order = ordering.by_priority_then_share
    gates: tuple[Gate, ...] = (holds.gate, backoff.gate, caps.gate, quota.gate)
    choose: Chooser = nodes.fullest_that_fits
    reclaim: Reclaimer = reclaim.least_advanced_borrowers


DEFAULT = Policies()
