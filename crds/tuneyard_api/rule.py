"""A rule: one demand, checked alike by the API server and by Python."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

VALIDATIONS = "x-kubernetes-validations"


@dataclass(frozen=True)
class Rule:
    """One demand on a value: on an object of a model (see `rules`), or on a text by standing in its annotation.

    Attributes:
        cel: the demand as the API server evaluates it on `self`; empty where the schema itself says it.
        holds: the same in Python. A rule on a change (`oldSelf`) always holds there: an object has no past.
        message: one sentence that names the field and says what to write instead.
        field: the field to blame, as a path from `self`; empty for the value as a whole.
    """

    cel: str
    holds: Callable[[Any], bool]
    message: str
    field: str = ""

    def validation(self) -> dict[str, str]:
        """This rule as an entry of x-kubernetes-validations."""
        path = {"fieldPath": self.field} if self.field else {}
        return {"rule": self.cel, "message": self.message, **path}

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), VALIDATIONS: [self.validation()]}

    def _check(self, value: object) -> object:
        if not self.holds(value):
            raise PydanticCustomError("rule", "{message}", {"message": self.message})
        return value


def matches(pattern: str, message: str) -> Rule:
    """The rule that a text matches a pattern, told by a sentence instead of the pattern."""
    compiled = re.compile(pattern)
    return Rule(f"self.matches(r'{pattern}')", lambda text: compiled.fullmatch(text) is not None, message)


def unique(values: Iterable[object]) -> bool:
    """Whether no value is there twice; 1 and '1' are two values."""
    typed = [(type(value), value) for value in values]
    return len(set(typed)) == len(typed)
