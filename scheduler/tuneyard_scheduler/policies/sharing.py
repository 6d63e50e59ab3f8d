"""Which queue is served next: whoever is below its guarantee, then whoever borrows least for its weight.

Of those below, the ones first that still are within it with their next trial: a large one, borrowed in part, takes
nothing that others are guaranteed. Where that is equal it is whoever had a turn longest ago, so that queues of which
only one fits at a time go by turns.
"""

from __future__ import annotations

from tuneyard_scheduler.devices import amount
from tuneyard_scheduler.queues import QueueBook


def by_guarantee_then_weight(queue: QueueBook, needs: float) -> tuple[float, ...]:
    """Sort key of a queue, whose next trial needs so many GPUs, among those of the same parent."""
    if queue.used < queue.guaranteed:
        within = amount(queue.used + needs) <= queue.guaranteed
        return 0.0 if within else 1.0, queue.used / queue.guaranteed, queue.used, queue.last_place
    return 2.0, queue.borrowed / queue.weight, queue.used, queue.last_place
