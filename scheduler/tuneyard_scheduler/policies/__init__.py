"""The rules of the cycle, one a file.

A policy is a function of one of these kinds: a `Sharing` says which queue is served next, an `Order` which study of it,
a `Gate` whether that study may have another place at all, a `Chooser` which place, a `Reclaimer` who gives way to those
that got none, a `Reserver` for whom of these a node is kept, and a `Backfiller` who may use that one meanwhile. A cycle
asks them anew for every place that it gives, so they may look at all that the state knows, the places given a moment
ago included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tuneyard_scheduler.books import Reservation, StudyBook, TrialBook
from tuneyard_scheduler.policies import backoff, caps, holds, nodes, ordering, quota, reclaim, reservation, sharing
from tuneyard_scheduler.policies.nodes import Spot
from tuneyard_scheduler.queues import QueueBook
from tuneyard_scheduler.reasons import Refusal
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Preempt, StudyView, Waiting

Sharing = Callable[[QueueBook, float], tuple[float, ...]]
"""A sort key of a queue whose next trial needs so many GPUs: of those of one parent the smallest is served next."""
Order = Callable[[StudyBook, StudyView, float], tuple[float, ...]]
"""A sort key: of the studies of one queue, the one with the smallest is served next."""
Gate = Callable[[ClusterState, StudyBook, StudyView], Refusal | None]
"""None: the study may have another place. Else it gets none in this cycle, for this reason."""
Chooser = Callable[[ClusterState, StudyView, TrialBook], nodes.Spot | Refusal | None]
"""The node and GPUs for the trial; None where it may run anywhere."""
Reclaimer = Callable[[ClusterState, list[Waiting], int | None], list[Preempt]]
"""Whom to stop for those that got no place, at most so many; the state knows of them at once."""
Reserver = Callable[[ClusterState, list[Waiting], float], Reservation | None]
"""Of those that got no place, in the order of the line: for whom a node is kept from now on; None: for nobody."""
Backfiller = Callable[[ClusterState, Reservation, StudyBook, Spot, float], bool]
"""Whether a trial of this study may have this spot, on the node that is kept for another one."""


@dataclass(frozen=True, slots=True)
class Policies:
    """The rules of a cycle. Gates are asked in order, and the first refusal is the reason that people see."""

    share: Sharing = sharing.by_guarantee_then_weight
    order: Order = ordering.by_priority_then_share
    gates: tuple[Gate, ...] = (holds.gate, backoff.gate, caps.gate, quota.gate)
    choose: Chooser = nodes.fullest_that_fits
    reclaim: Reclaimer = reclaim.least_advanced_borrowers
    reserve: Reserver = reservation.for_the_first_that_fits_nowhere
    backfill: Backfiller = reservation.is_no_delay


DEFAULT = Policies()
