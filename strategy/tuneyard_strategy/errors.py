"""What can go wrong, each said in one sentence that a user can act on.

StrategyError
├── ExpressionError    a constraint that does not parse, or that means nothing
├── DefinitionError    a study whose space, constraints or initial configurations do not fit together
├── NoFeasiblePoint    no configuration was found that meets the constraints
└── NeedHistory        the advisor has not heard all that the question builds on (the caller's cue, not a user's)
"""

from __future__ import annotations

from collections.abc import Sequence


class StrategyError(Exception):
    """Base of all errors of this package; the text is a sentence for users."""


class ExpressionError(StrategyError):
    """A constraint that cannot be read."""


class DefinitionError(StrategyError):
    """A study definition that cannot be searched.

    Attributes:
        problems: one sentence each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)

    def __reduce__(self) -> tuple[type[DefinitionError], tuple[list[str]]]:  # for its way between processes
        return DefinitionError, (self.problems,)


class NoFeasiblePoint(StrategyError):
    """No configuration meets the constraints, as far as could be found."""


class NeedHistory(StrategyError):
    """The advisor does not hold the history that a question builds on: send definition and records from 0.

    Attributes:
        have: how many records of the study's history the advisor holds.
    """

    def __init__(self, have: int) -> None:
        super().__init__(
            f"The strategy service holds {have} records of this study: send the definition and all records."
        )
        self.have = have

    def __reduce__(self) -> tuple[type[NeedHistory], tuple[int]]:
        return NeedHistory, (self.have,)
