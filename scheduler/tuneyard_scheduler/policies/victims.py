"""Who may be stopped for whom: trials that hold GPUs, alone or in groups, and the trial in need."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from tuneyard_scheduler.books import GivingOrder, Held
from tuneyard_scheduler.inventory import Offer
from tuneyard_scheduler.queues import QueueBook


class Victim(NamedTuple):
    """A trial that may be stopped. The smallest is the least promising; of those, the one that got its place last."""

    order: GivingOrder
    study: str
    trial: int
    attempt: int
    queue: str
    held: Held
    cpu: float = 0.0
    memory: float = 0.0

    @property
    def gpus(self) -> float:
        """What it gives back."""
        return self.held.gpus


class Group(NamedTuple):
    """Trials that are of use only together, such as all that share a GPU of which the whole is needed."""

    victims: tuple[Victim, ...]
    gives: float
    """GPUs (or of one GPU, what share) that are free without them."""

    @property
    def gpus(self) -> float:
        """What their queues hold less."""
        return sum(victim.gpus for victim in self.victims)

    @property
    def all(self) -> Amounts:
        """All that is free without them."""
        return (
            self.gives,
            self.gpus,
            sum(victim.cpu for victim in self.victims),
            sum(victim.memory for victim in self.victims),
        )


Amounts = tuple[float, float, float, float]
"""Of a node: GPUs (or of one GPU, what share); then what queues hold of GPUs; cores; bytes of memory."""
Choice = tuple[list[Group], float]
"""Who could give way, and how much of what they give is missing."""


class Site(NamedTuple):
    """A node, and who may be stopped there: the first ones first."""

    node: str
    resource: str
    victims: list[Victim]

    def order(self) -> dict[Victim, int]:
        """Who is to be stopped before whom."""
        return {victim: number for number, victim in enumerate(self.victims)}

    def by_device(self) -> dict[str, list[Victim]]:
        """Those that hold certain GPUs, or parts of such."""
        found: defaultdict[str, list[Victim]] = defaultdict(list)
        for victim in self.victims:
            for device in victim.held.devices:
                found[device].append(victim)
        return found


@dataclass(frozen=True, slots=True)
class Need:
    """A further trial of a study, and where others may give way for it."""

    queue: QueueBook
    offers: list[Offer]
    gpus: float
    """What its queue is charged for it: the same for all of these offers."""
    priority: int
    within: QueueBook | None
    """The queue above within which others give way, because of its limit; None: anywhere."""
    excess: float
    """By how much the trial would take this queue above its limit."""
    beyond: bool = False
    """Whether those may give way as well to whom there is a right only once others have, nearer to the queue."""
    partly: bool = False
    """Whether trials may give way as well that their queues only borrow in part."""
