"""From the syntax tree of a constraint to functions on columns, with a check that it means something."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
from lark import Token, Transformer_NonRecursive, Tree
from lark.exceptions import VisitError
from numpy.typing import NDArray

from tuneyard_strategy.errors import ExpressionError

Category: TypeAlias = int | str
Columns = Mapping[str, NDArray[Any]]
Evaluate = Callable[[Columns], Any]
"""Gives an array of shape (n,), or a scalar where the columns play no part."""
Binary = Callable[[Any, Any], Any]

MAX_DEPTH = 40
"""How deep operators may nest."""


class Kind(Enum):
    """What a part of an expression stands for."""

    NUMBER = "a number"
    TEXT = "a text"
    MIXED = "sometimes a text"
    CONDITION = "a condition"


@dataclass(frozen=True)
class Node:
    """A part of an expression, compiled."""

    kind: Kind
    start: int
    end: int
    """Where it stands in the text."""
    evaluate: Evaluate
    names: frozenset[str] = frozenset()
    depth: int = 0
    literal: Category | float | None = None
    categories: Sequence[Category] | None = None
    """The values of the categorical parameter that it is."""


def compile_tree(tree: Tree[Token], text: str, parameters: Mapping[str, Sequence[Category] | None]) -> Node:
    """Compile the tree of a constraint.

    Raises:
        ExpressionError: it names what does not exist, mixes numbers and texts, or is no condition.
    """
    try:
        node: Node = _Compiler(text, parameters).transform(tree)
    except VisitError as error:
        raise error.orig_exc from None
    if node.kind is not Kind.CONDITION:
        raise ExpressionError(
            f"{_quoted(text)} is {node.kind.value}, not a condition: compare it, for example {text.strip()} "
            f"{'<= 100' if node.kind is Kind.NUMBER else '!= ...'}"
        )
    if not node.names:
        raise ExpressionError(f"{_quoted(text)} names no parameter, so it says nothing about a configuration")
    return node


# Arithmetic: what is undefined is NaN ------------------------------------------------------------------------------


def _where(defined: Any, value: Any) -> Any:
    return np.where(defined, value, np.nan)


def _divide(a: Any, b: Any) -> Any:
    return _where(b != 0, np.divide(a, b))


def _floor_divide(a: Any, b: Any) -> Any:
    return _where(b != 0, np.floor_divide(a, b))


def _modulo(a: Any, b: Any) -> Any:
    return _where(b != 0, np.mod(a, b))


def _power(a: Any, b: Any) -> Any:
    return _where((a != 0) | (b >= 0), np.power(a, b))


def _logarithm(a: Any) -> Any:
    return _where(a > 0, np.log(a))


_ARITHMETIC: dict[str, Binary] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": _divide,
    "//": _floor_divide,
    "%": _modulo,
}
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {"abs": np.abs, "sqrt": np.sqrt, "exp": np.exp, "log": _logarithm}
_REDUCTIONS: dict[str, Binary] = {"min": np.minimum, "max": np.maximum}
_COMPARISONS: dict[str, Binary] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}

# Conditions: 1 true, 0 false, NaN unknown (Kleene) -----------------------------------------------------------------


def _and(a: Any, b: Any) -> Any:
    return np.where((a == 0) | (b == 0), 0.0, a * b)


def _not(a: Any) -> Any:
    return 1.0 - a


def _or(a: Any, b: Any) -> Any:
    return _not(_and(_not(a), _not(b)))


def _compared(compare: Binary, left: Node, right: Node) -> Evaluate:
    def evaluate(columns: Columns) -> Any:
        a, b = left.evaluate(columns), right.evaluate(columns)
        result = np.asarray(compare(a, b), dtype=np.float64)
        for node, value in ((left, a), (right, b)):
            if node.kind is Kind.NUMBER:
                result = np.where(np.isnan(value), np.nan, result)
        return result

    return evaluate


class _Compiler(Transformer_NonRecursive[Token, Node]):
    """One method a rule of the grammar, called from the leaves up."""

    def __init__(self, text: str, parameters: Mapping[str, Sequence[Category] | None]) -> None:
        super().__init__()
        self._text = text
        self._parameters = parameters

    # Leaves

    def number(self, children: list[Token]) -> Node:
        value = np.float64(children[0])
        return self._leaf(children, Kind.NUMBER, lambda _: value, literal=float(value))

    def signed_number(self, children: list[Token]) -> Node:
        value = -np.float64(children[1])
        return self._leaf(children, Kind.NUMBER, lambda _: value, literal=float(value))

    def text(self, children: list[Token]) -> Node:
        value = str(children[0])[1:-1]
        return self._leaf(children, Kind.TEXT, lambda _: value, literal=value)

    def parameter(self, children: list[Token]) -> Node:
        name = str(children[0])
        if name not in self._parameters:
            raise ExpressionError(self._unknown(children[0]))
        categories = self._parameters[name]
        kinds = {type(value) for value in categories or ()}
        kind = Kind.NUMBER if str not in kinds else Kind.TEXT if kinds == {str} else Kind.MIXED
        return self._leaf(children, kind, lambda columns: columns[name], names=frozenset([name]), categories=categories)

    def _leaf(self, tokens: list[Token], kind: Kind, evaluate: Evaluate, **more: Any) -> Node:
        start, end = tokens[0].start_pos, tokens[-1].end_pos
        assert start is not None
        assert end is not None
        return Node(kind, start, end, evaluate, **more)

    # Numbers

    def signed(self, children: list[Any]) -> Node:
        sign, operand = children
        self._expect(Kind.NUMBER, operand, str(sign))
        if sign == "+":
            return operand  # type: ignore[no-any-return]
        return self._inner([operand], Kind.NUMBER, lambda columns: -operand.evaluate(columns), start=sign.start_pos)

    def total(self, children: list[Any]) -> Node:
        operands: list[Node] = children[0::2]
        signs = [str(sign) for sign in children[1::2]]
        for operand, sign in zip(operands, [signs[0], *signs], strict=True):
            self._expect(Kind.NUMBER, operand, sign)
        steps = [(_ARITHMETIC[sign], operand.evaluate) for sign, operand in zip(signs, operands[1:], strict=True)]
        first = operands[0].evaluate

        def evaluate(columns: Columns) -> Any:
            value = first(columns)
            for combine, operand in steps:
                value = combine(value, operand(columns))
            return value

        return self._inner(operands, Kind.NUMBER, evaluate)

    product = total

    def power(self, children: list[Node]) -> Node:
        base, exponent = children
        self._expect(Kind.NUMBER, base, "**")
        self._expect(Kind.NUMBER, exponent, "**")
        return self._inner(
            children, Kind.NUMBER, lambda columns: _power(base.evaluate(columns), exponent.evaluate(columns))
        )

    def call(self, children: list[Any]) -> Node:
        name, arguments = str(children[0]), children[1:]
        if name not in _FUNCTIONS and name not in _REDUCTIONS:
            known = ", ".join([*_REDUCTIONS, *_FUNCTIONS])
            raise ExpressionError(f"{self._at(children[0])}: there is no function '{name}'; there are {known}")
        for argument in arguments:
            self._expect(Kind.NUMBER, argument, name)
        if name in _FUNCTIONS and len(arguments) != 1:
            raise ExpressionError(f"{self._at(children[0])}: {name} takes one number, not {len(arguments)}")
        if name in _REDUCTIONS and len(arguments) < 2:
            raise ExpressionError(f"{self._at(children[0])}: {name} takes two numbers or more")
        function = _FUNCTIONS.get(name, lambda value: value)
        combine = _REDUCTIONS.get(name, np.minimum)

        def evaluate(columns: Columns) -> Any:
            return function(reduce(combine, [argument.evaluate(columns) for argument in arguments]))

        return self._inner(arguments, Kind.NUMBER, evaluate, start=children[0].start_pos)

    # Conditions

    def comparison(self, children: list[Any]) -> Node:
        operands: list[Node] = children[0::2]
        signs = [str(sign) for sign in children[1::2]]
        for sign, left, right in zip(signs, operands, operands[1:], strict=False):
            self._check_comparison(sign, left, right)
        pairs = [
            _compared(_COMPARISONS[sign], left, right)
            for sign, left, right in zip(signs, operands, operands[1:], strict=False)
        ]
        return self._inner(operands, Kind.CONDITION, lambda columns: reduce(_and, [pair(columns) for pair in pairs]))

    def one_of(self, children: list[Node]) -> Node:
        value, literals = children[0], children[1:]
        for literal in literals:
            self._check_comparison("in", value, literal)
        pairs = [_compared(operator.eq, value, literal) for literal in literals]
        return self._inner(children, Kind.CONDITION, lambda columns: reduce(_or, [pair(columns) for pair in pairs]))

    def none_of(self, children: list[Any]) -> Node:
        value, _, *literals = children
        inside = self.one_of([value, *literals])
        return self._inner([inside], Kind.CONDITION, lambda columns: _not(inside.evaluate(columns)))

    def negated(self, children: list[Any]) -> Node:
        word, operand = children
        self._expect(Kind.CONDITION, operand, "not")
        return self._inner(
            [operand], Kind.CONDITION, lambda columns: _not(operand.evaluate(columns)), start=word.start_pos
        )

    def conjunction(self, children: list[Node]) -> Node:
        return self._joined(children, "and", _and)

    def disjunction(self, children: list[Node]) -> Node:
        return self._joined(children, "or", _or)

    def _joined(self, children: list[Node], word: str, join: Binary) -> Node:
        for child in children:
            self._expect(Kind.CONDITION, child, word)
        return self._inner(
            children, Kind.CONDITION, lambda columns: reduce(join, [child.evaluate(columns) for child in children])
        )

    def _inner(self, children: list[Node], kind: Kind, evaluate: Evaluate, start: int | None = None) -> Node:
        depth = 1 + max(child.depth for child in children)
        if depth > MAX_DEPTH:
            raise ExpressionError(f"{_quoted(self._text)} nests too deep: split it into several constraints")
        names = frozenset[str]().union(*(child.names for child in children))
        begin = children[0].start if start is None else start
        return Node(kind, begin, children[-1].end, evaluate, names, depth)

    # Sentences

    def _expect(self, kind: Kind, node: Node, sign: str) -> None:
        if node.kind is not kind:
            raise ExpressionError(
                f"{_quoted(self._text)}, column {node.start + 1}: {_quoted(self._source(node))} is "
                f"{node.kind.value}; '{sign}' works on {kind.value.removeprefix('a ')}s"
            )

    def _check_comparison(self, sign: str, left: Node, right: Node) -> None:
        for node in (left, right):
            if node.kind is Kind.CONDITION:
                raise ExpressionError(
                    f"{_quoted(self._text)}, column {node.start + 1}: {_quoted(self._source(node))} is a condition and "
                    f"cannot be compared; join conditions with and, or, not"
                )
            if sign in {"<", "<=", ">", ">="}:
                self._expect(Kind.NUMBER, node, sign)
        kinds = {left.kind, right.kind}
        if kinds == {Kind.NUMBER, Kind.TEXT}:
            raise ExpressionError(
                f"{_quoted(self._text)}, column {left.start + 1}: {_quoted(self._source(left))} is {left.kind.value} "
                f"and {_quoted(self._source(right))} is {right.kind.value}; they are never equal"
            )
        self._check_category(left, right)
        self._check_category(right, left)

    def _check_category(self, parameter: Node, literal: Node) -> None:
        """Refuse to compare a categorical parameter with a value that it cannot have: surely a slip."""
        values, value = parameter.categories, literal.literal
        if values is None or value is None or value in values:
            return
        hint = _did_you_mean(str(value), [str(other) for other in values])
        raise ExpressionError(
            f"{_quoted(self._text)}, column {literal.start + 1}: {self._source(parameter)} never is "
            f"{self._source(literal)}{hint}; its values are {_listed([str(other) for other in values])}"
        )

    def _unknown(self, token: Token) -> str:
        name, known = str(token), list(self._parameters)
        problem = f"{self._at(token)}: there is no parameter '{name}'"
        for owner, values in self._parameters.items():
            if values is not None and name in values:
                return f"{problem}; for the value of {owner} write '{name}' in quotes"
        return f"{problem}{_did_you_mean(name, known)}; there are {_listed(known)}"

    def _at(self, token: Token) -> str:
        return f"{_quoted(self._text)}, column {token.column}"

    def _source(self, node: Node) -> str:
        return self._text[node.start : node.end]


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    close = get_close_matches(word, known, n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def _listed(words: Sequence[str]) -> str:
    shown = ", ".join(words[:10])
    return shown if len(words) <= 10 else f"{shown} and {len(words) - 10} more"


def _quoted(text: str) -> str:
    return f'"{text}"' if "'" in text else f"'{text}'"
