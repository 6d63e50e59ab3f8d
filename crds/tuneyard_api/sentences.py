"""From pydantic's errors to sentences that name the field as it is written and say what to write instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tuneyard_api.schema import Schema

Location = tuple[str | int, ...]

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "finite_number": "a finite number",
}

_BOUNDS = {
    "greater_than": ("gt", "must be above {}"),
    "greater_than_equal": ("ge", "must be at least {}"),
    "less_than": ("lt", "must be below {}"),
    "less_than_equal": ("le", "must be at most {}"),
    "string_too_short": ("min_length", "must have at least {} characters"),
    "string_too_long": ("max_length", "must have at most {} characters"),
    "too_short": ("min_length", "must have at least {} entries"),
    "too_long": ("max_length", "must have at most {} entries"),
}


def sentences(error: ValidationError, document: object, schema: Schema, at: Location = ()) -> list[str]:
    """One sentence for each field that is wrong, in the order of the document.

    Args:
        error: what pydantic found in the document.
        document: what was validated.
        schema: its structural schema, for the names that exist.
        at: where the document stands in the manifest.
    """
    by_path: dict[Location, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False, include_context=True):
        by_path.setdefault(_location(details, document), []).append(details)
    return [f"{path_text((*at, *path))}: {_sentence(path, found, schema)}" for path, found in by_path.items()]


def path_text(location: Location) -> str:
    """A location as the API server writes it, such as spec.parameters[2].double.min."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A question that ends a sentence about an unknown name, or nothing where no name is close."""
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def unknown_field(name: str, known: Sequence[str]) -> str:
    """What to say of a field that does not exist."""
    return f"there is no such field{did_you_mean(name, known) or '; the fields are ' + ', '.join(known)}"


def _location(details: ErrorDetails, document: object) -> Location:
    """The error's location within the document, without the names that pydantic gives the members of a union."""
    path: list[str | int] = []
    value: Any = document
    for part in details["loc"]:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            if details["type"] != "missing":
                break
        path.append(part)
    return tuple(path)


def _sentence(path: Location, found: list[ErrorDetails], schema: Schema) -> str:
    """What is wrong at a path; a union gives one error for each of its members."""
    expected = list(dict.fromkeys(_EXPECTED[error["type"]] for error in found if error["type"] in _EXPECTED))
    if {"a number", "a text"} <= set(expected):  # a value of a configuration: true and 1 are none, or are meant by it
        expected = ["a number", "a text"]
    precise = [error for error in found if error["type"] not in _EXPECTED]
    if precise:
        return _precise(path, precise[0], schema)
    return f"write {' or '.join(expected)} instead of {_shown(found[0]['input'])}"


def _precise(path: Location, error: ErrorDetails, schema: Schema) -> str:
    kind, context, given = error["type"], error.get("ctx", {}), error["input"]
    if kind == "missing":
        return "is required; write it"
    if kind == "extra_forbidden":
        return unknown_field(str(path[-1]), list(_below(schema, path[:-1]).get("properties", ())))
    if kind == "literal_error":
        allowed = [str(value) for value in _below(schema, path).get("enum", ())]
        return f"write one of {', '.join(allowed)} instead of {_shown(given)}{did_you_mean(str(given), allowed)}"
    if kind in _BOUNDS:
        key, sentence = _BOUNDS[kind]
        return f"{sentence.format(context[key])}, not {_shown(given)}"
    return f"{error['msg']}, instead of {_shown(given)}"


def _below(schema: Schema, path: Location) -> Schema:
    """The part of a structural schema that describes what stands at a path."""
    for part in path:
        if isinstance(part, int):
            schema = schema.get("items", {})
        else:
            schema = schema.get("properties", {}).get(part) or schema.get("additionalProperties", {})
    return schema


def _shown(value: object) -> str:
    """A wrong value as the user may have written it, cut where it is long."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return "a mapping"
    text = f"'{value}'" if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "...'"
