"""The failure table."""

from collections import Counter
from typing import Any

import pytest

from tuneyard_api.study import BackoffSpec, RetrySpec
from tuneyard_api.trial import Outcome, Phase
from tuneyard_scheduler.retry import GiveUp, Retry, decide

NOW = 1000.0
SPEC = RetrySpec(limit=3, infrastructure_limit=5, backoff=BackoffSpec(initial="10s", factor=2, max="30s"))
LETTERS = {"P": Outcome.PROGRAM_FAILED, "I": Outcome.INFRASTRUCTURE, "B": Outcome.BLOCKED, "G": Outcome.PREEMPTED}


def after(history: str, *, seed: int = 0, index: int = 0, spec: RetrySpec = SPEC) -> Retry | GiveUp:
    """The decision after these attempts, a letter each, the last one having just ended."""
    attempts: list[dict[str, Any]] = [
        {"number": number, "outcome": str(LETTERS[letter])} for number, letter in enumerate(history)
    ]
    return decide(outcome=LETTERS[history[-1]], attempts=attempts, retry=spec, seed=seed, index=index, now=NOW)


@pytest.mark.parametrize(
    ("history", "wait"),
    [("P", 10), ("PP", 20), ("PPP", 30), ("IP", 10), ("PIIIP", 20), ("PBP", 20)],
    ids=str,
)
def test_a_failed_program_waits_longer_each_time(history: str, wait: float) -> None:
    verdict = after(history)
    assert isinstance(verdict, Retry)
    assert verdict.not_before - NOW == pytest.approx(wait, rel=0.1)
    assert verdict.not_before - NOW != wait, "jittered"


@pytest.mark.parametrize(
    "history", ["I", "IIIII", "PI", "PPPI", "B", "PPPB", "BBBBBBBBB", "GGGGGGGGG", "PPPG", "IIIIIG"]
)
def test_what_was_not_the_programs_fault_is_tried_again_at_once(history: str) -> None:
    assert after(history) == Retry(NOW)


@pytest.mark.parametrize(
    ("history", "reason", "says"),
    [
        ("PPPP", "ProgramFailed", "the program failed 4 times; retry.limit is 3"),
        ("PIPPIP", "ProgramFailed", "4 times"),
        ("IIIIII", "InfrastructureFailed", "lost 6 times by no fault of its own; retry.infrastructureLimit is 5"),
        ("IPIIIII", "InfrastructureFailed", "6 times"),
        ("IGIGIGIIGI", "InfrastructureFailed", "6 times"),
    ],
)
def test_gives_up_after_the_limit(history: str, reason: str, says: str) -> None:
    verdict = after(history)
    assert isinstance(verdict, GiveUp)
    assert (verdict.phase, verdict.reason) == (Phase.FAILED, reason)
    assert says in verdict.message


def test_no_retries() -> None:
    verdict = after("P", spec=RetrySpec(limit=0))
    assert verdict == GiveUp(Phase.FAILED, "ProgramFailed", "the program failed once; retry.limit is 0")


@pytest.mark.parametrize(
    ("outcome", "phase"),
    [
        (Outcome.SUCCEEDED, Phase.SUCCEEDED),
        (Outcome.OUT_OF_MEMORY, Phase.INFEASIBLE),
        (Outcome.BAD_METRICS, Phase.INFEASIBLE),
        (Outcome.TIMED_OUT, Phase.INFEASIBLE),
        (Outcome.STOPPED, Phase.STOPPED),
    ],
)
def test_ends_at_once(outcome: Outcome, phase: Phase) -> None:
    verdict = decide(outcome=outcome, attempts=[], retry=SPEC, seed=0, index=0, now=NOW)
    assert isinstance(verdict, GiveUp)
    assert verdict.phase is phase


def test_every_outcome_has_a_verdict() -> None:
    for outcome in Outcome:
        attempts = [{"outcome": str(outcome)}]
        assert decide(outcome=outcome, attempts=attempts, retry=SPEC, seed=0, index=0, now=NOW)


def test_the_same_decision_is_the_same_and_others_are_spread() -> None:
    waits = [after("P", seed=seed, index=index) for seed in range(5) for index in range(40)]
    assert waits == [after("P", seed=seed, index=index) for seed in range(5) for index in range(40)]
    seconds = [verdict.not_before - NOW for verdict in waits if isinstance(verdict, Retry)]
    assert min(seconds) >= 9
    assert max(seconds) <= 11
    assert len(set(seconds)) == 200
    assert max(Counter(int(10 * second) for second in seconds).values()) < 30, "evenly spread over the 20 tenths"
