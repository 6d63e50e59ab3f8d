"""Which queue is served next: whoever is below its guarantee, then whoever borrows least for its weight.

Where that is equal it is whoever had a turn longest ago, so that queues of which only one fits at a time go by turns.
"""

from __future__ import annotations

from tuneyard_scheduler.queues import QueueBook


def by_guarantee_then_weight(queue: QueueBook) -> tuple[float, ...]:
    """Sort key of a queue among those of the same parent."""
    if queue.used < queue.guaranteed:
        return 0.0, queue.used / queue.guaranteed, queue.used, queue.last_place
    return 1.0, queue.borrowed / queue.weight, queue.used, queue.last_place
