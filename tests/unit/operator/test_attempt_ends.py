"""What the end of an attempt means: the failure table."""

from typing import Any

import pytest

from tuneyard_api.trial import Outcome
from tuneyard_operator.attempts import AttemptSeen, classify

OOM_TRACE = "Traceback (most recent call last):\n  ...\ntorch.OutOfMemoryError: CUDA out of memory"


@pytest.mark.parametrize(
    ("seen", "outcome", "reason", "said"),
    [
        ({"exit_code": 0}, Outcome.SUCCEEDED, "Completed", ""),
        ({"exit_code": 0, "disrupted": True}, Outcome.SUCCEEDED, "Completed", ""),
        (
            {"exit_code": 137, "disrupted": True, "reason": "EvictionByEvictionAPI", "message": "drained"},
            Outcome.INFRASTRUCTURE, "EvictionByEvictionAPI", "drained",
        ),
        ({"disrupted": True}, Outcome.INFRASTRUCTURE, "PodGone", "the pod was lost on node n1"),
        ({"exit_code": 1, "reason": "Evicted"}, Outcome.INFRASTRUCTURE, "Evicted", "the pod was lost on node n1"),
        ({"exit_code": 137, "reason": "NodeLost"}, Outcome.INFRASTRUCTURE, "NodeLost", "the pod was lost on node n1"),
        ({"reason": "UnexpectedAdmissionError", "message": "no GPU"}, Outcome.INFRASTRUCTURE,
         "UnexpectedAdmissionError", "no GPU"),
        ({}, Outcome.INFRASTRUCTURE, "PodFailed", "the pod failed on node n1"),
        ({"exit_code": 137, "reason": "OOMKilled"}, Outcome.OUT_OF_MEMORY, "HostOutOfMemory", "out of memory on node"),
        ({"exit_code": 1, "termination": OOM_TRACE}, Outcome.OUT_OF_MEMORY, "GpuOutOfMemory", "CUDA out of memory"),
        ({"exit_code": 134, "termination": "std::bad_alloc"}, Outcome.OUT_OF_MEMORY, "HostOutOfMemory", "bad_alloc"),
        ({"exit_code": 1, "termination": "MemoryError"}, Outcome.OUT_OF_MEMORY, "HostOutOfMemory", "MemoryError"),
        ({"exit_code": 1, "termination": "InMemoryErrors: 3"}, Outcome.PROGRAM_FAILED, "ProgramFailed", "code 1: In"),
        ({"exit_code": 3}, Outcome.PROGRAM_FAILED, "ProgramFailed", "the program ended with exit code 3"),
        ({"exit_code": 137}, Outcome.PROGRAM_FAILED, "ProgramFailed", "137 (SIGKILL: the kernel kills so when memory"),
        ({"exit_code": -9}, Outcome.PROGRAM_FAILED, "ProgramFailed", "-9 (SIGKILL"),
        ({"exit_code": 1, "reason": "Error", "termination": "1\n2\n3\n4\n"}, Outcome.PROGRAM_FAILED, "ProgramFailed",
         "exit code 1: 2 | 3 | 4"),
    ],
)  # fmt: skip
def test_the_failure_table(seen: dict[str, Any], outcome: Outcome, reason: str, said: str) -> None:
    end = classify(AttemptSeen(0, "ended", node="n1", **seen))
    assert (end.outcome, end.reason) == (outcome, reason)
    assert said in end.message
    assert bool(said) == bool(end.message)


def test_a_long_last_word_is_cut_to_its_end() -> None:
    message = classify(AttemptSeen(0, "ended", exit_code=1, termination="x" * 5000 + "the end")).message
    assert message.endswith("the end")
    assert len(message) < 600


@pytest.mark.parametrize(
    ("reason", "message", "said"),
    [
        ("ImagePullBackOff", "no such tag", "the image cannot be pulled (ImagePullBackOff): no such tag"),
        ("Unschedulable", None, "no node takes the pod (Unschedulable): no message"),
        ("Strange", "?", "the pod waits (Strange): ?"),
    ],
)
def test_what_it_waits_for_is_a_sentence(reason: str, message: str | None, said: str) -> None:
    assert AttemptSeen(0, "waiting", reason=reason, message=message).waits_for == said
