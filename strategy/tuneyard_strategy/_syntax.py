"""From the text of a constraint to its tree, or to a sentence that says what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from tuneyard_strategy.errors import ExpressionError

_WORD_BEFORE = re.compile(r"""([\w.]+|'[^']*'|"[^"]*"|\*\*|//|[<>=!]=|\S)\s*$""")
_HABITS = {
    "=": "write == to compare",
    "&": "write 'and'",
    "|": "write 'or'",
    "!": "write 'not', or != for unequal",
    "^": "write ** for a power",
    "'": "a text begins and ends with the same quote",
    '"': "a text begins and ends with the same quote",
}
"""What people write in other languages, and what they would write here."""


def parse(text: str) -> Tree[Token]:
    """The syntax tree of a constraint.

    Raises:
        ExpressionError: it does not follow the grammar.
    """
    try:
        return _parser().parse(text)
    except UnexpectedInput as error:
        raise ExpressionError(_sentence(text, error)) from None


@cache
def _parser() -> Lark:
    grammar = files(__package__).joinpath("constraints.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr")


def _sentence(text: str, error: UnexpectedInput) -> str:
    if isinstance(error, UnexpectedToken):
        wanted, found = _wanted(error.accepts or error.expected), str(error.token)
        at_end = error.token.type == "$END"
    else:
        assert isinstance(error, UnexpectedCharacters)
        wanted, found, at_end = _wanted(error.allowed), error.char, False
    position = len(text) if at_end else error.pos_in_stream or 0
    before = _WORD_BEFORE.search(text[:position])
    place = f"after {_quoted(before.group(1))}" if before else "at the beginning"
    if at_end:
        return f"{_quoted(text)} ends too early: {wanted} is expected {place}"
    habit = _HABITS.get(found)
    advice = f"; {habit}" if habit else ""
    column = position + 1
    return f"{_quoted(text)}, column {column}: {wanted} is expected {place}, not {_quoted(found)}{advice}"


def _wanted(terminals: Iterable[str]) -> str:
    """What may stand here, in words.

    After an operand the parser's table also names what would close a bracket, whether or not one is open.
    """
    allowed = set(terminals)
    operand = "a number, a parameter or '('" if "NAME" in allowed else "a number or a text in quotes"
    after_operand = bool(allowed & {"COMPARE", "PLUS"}) and "NUMBER" not in allowed
    signs = {
        operand: "NUMBER" in allowed,
        "an operator": after_operand,
        "'['": "LSQB" in allowed,
        "','": "COMMA" in allowed and not after_operand,
        "')'": "RPAR" in allowed and not after_operand,
        "']'": "RSQB" in allowed,
        "'in'": allowed == {"IN"},
    }
    words = [word for word, expected in signs.items() if expected]
    return " or ".join(words) or "the end"


def _quoted(text: str) -> str:
    return f'"{text}"' if "'" in text else f"'{text}'"
