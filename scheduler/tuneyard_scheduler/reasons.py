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
    QUEUE_LIMIT = "QueueLimit"
    NO_GPU_NODES = "NoGpuNodes"
    NO_NODE_FITS = "NoNodeFits"


class Refusal(NamedTuple):
    """A policy's no."""

    reason: Reason
    message: str
