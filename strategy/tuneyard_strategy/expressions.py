"""Constraints between parameters: a small, safe expression language, compiled to numpy.

A constraint such as ``layers * width <= 4096 and optimizer != 'sgd'`` is parsed by a grammar (`constraints.lark`),
checked against the parameters that exist, and compiled to functions on columns: arrays of shape (n,), one element a
configuration.

Numbers are floats. What cannot be computed (division by zero, the logarithm of a negative number) is unknown, written
as NaN, and unknown conditions follow Kleene's three-valued logic: ``x == 0 or 1 / x > 2`` holds for x = 0, while a
constraint whose value stays unknown is not met. Conditions are therefore floats too: 1 true, 0 false, NaN unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneyard_strategy._compiler import Category, compile_tree
from tuneyard_strategy._syntax import parse
from tuneyard_strategy.errors import ExpressionError

MAX_LENGTH = 256
"""Characters of a constraint, at most."""

Column = NDArray[Any]
"""Values of one parameter, shape (n,): float64, or object for a categorical parameter with texts."""


@dataclass(frozen=True)
class Constraint:
    """A condition that every configuration meets.

    Example:
        >>> constraint = Constraint.parse("width % 8 == 0", {"width": None})
        >>> constraint.holds({"width": 24})
        True
    """

    text: str
    names: frozenset[str]
    """The parameters that it mentions."""
    _evaluate: Callable[[Mapping[str, Column]], Column]

    @classmethod
    def parse(cls, text: str, parameters: Mapping[str, Sequence[Category] | None]) -> Constraint:
        """Read a constraint.

        Args:
            text: the constraint, of at most 256 characters.
            parameters: the parameters that exist, with the values of categorical ones and None for numbers.

        Raises:
            ExpressionError: a sentence that says where and what is wrong, and what is expected instead.
        """
        if len(text) > MAX_LENGTH:
            raise ExpressionError(
                f"the constraint has {len(text)} characters: write at most {MAX_LENGTH}, or split it at 'and'"
            )
        node = compile_tree(parse(text), text, parameters)
        return cls(text=text, names=node.names, _evaluate=node.evaluate)

    def met(self, columns: Mapping[str, Column]) -> NDArray[np.bool_]:
        """Which rows meet the constraint.

        Args:
            columns: a column of shape (n,) for each of `names`.

        Returns:
            An array of shape (n,).
        """
        with np.errstate(all="ignore"):
            return np.asarray(self._evaluate(columns) == 1.0, dtype=np.bool_)

    def holds(self, configuration: Mapping[str, Category | float]) -> bool:
        """Whether a configuration meets the constraint; one that lacks a parameter mentioned is not concerned."""
        if not self.names <= configuration.keys():
            return True
        return bool(self.met({name: _one(configuration[name]) for name in self.names})[0])


def _one(value: Category | float) -> Column:
    return np.array([value], dtype=object if isinstance(value, str) else np.float64)
