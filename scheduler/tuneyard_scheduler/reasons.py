"""Why a trial waits: one PascalCase word for machines, one sentence for people."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Reason(StrEnum):
    """The words."""

    SUSPENDED = "Suspended"
    STUDY_BLOCKED = "StudyBlocked"
    STUDY_ENDED = "StudyEnded"
    BACKOFF = "Backoff"
    PARALLEL_LIMIT = "ParallelLimit"
    QUEUE_NOT_FOUND = "QueueNotFound"
    QUEUE_NOT_ALLOWED = "QueueNotAllowed"
    QUEUE_NOT_READY = "QueueNotReady"
    QUEUE_HAS_PARTS = "QueueHasParts"
    QUEUE_LIMIT = "QueueLimit"
    NO_GPU_NODES = "NoGpuNodes"
    NO_NODE_FITS = "NoNodeFits"
    HELD = "HeldForBiggerTrial"
    NODES_AVOIDED = "NodesAvoided"


class QueueReason(StrEnum):
    """Why a queue is not as it should be."""

    PARENT_NOT_FOUND = "ParentNotFound"
    PARENT_CYCLE = "ParentCycle"
    PARENT_NOT_READY = "ParentNotReady"
    ABOVE_PARENT = "AboveParent"
    ABOVE_LIMIT = "AboveLimit"
    ABOVE_CAPACITY = "AboveCapacity"


class Refusal(NamedTuple):
    """A policy's no, or what is wrong with a queue."""

    reason: Reason | QueueReason
    message: str
