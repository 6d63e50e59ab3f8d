"""From pydantic models to the structural schemas that the Kubernetes API server takes.

A structural schema is one tree: no references, no unions but the one of whole number and text, no titles, no null.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from tuneyard_api.rule import VALIDATIONS
from tuneyard_api.rules import rules_of

Schema = dict[str, Any]

PRESERVE = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING = "x-kubernetes-int-or-string"


def structural_schema(model: type[BaseModel]) -> Schema:
    """The structural schema of a model, its rules included."""
    document = model.model_json_schema(by_alias=True, schema_generator=_WithRules)
    return _structural(document, document.get("$defs", {}))


class _WithRules(GenerateJsonSchema):
    """Adds each model's rules where pydantic describes the model."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        described = super().model_schema(schema)
        rules = [rule.validation() for rule in rules_of(schema["cls"]) if rule.cel]
        return {**described, VALIDATIONS: rules} if rules else described


def _structural(node: Schema, definitions: dict[str, Schema]) -> Schema:
    """The node with references inlined, unions resolved and everything below it converted."""
    if "$ref" in node:
        siblings = {key: value for key, value in node.items() if key != "$ref"}
        return _structural({**definitions[node["$ref"].removeprefix("#/$defs/")], **siblings}, definitions)
    if "anyOf" in node:
        return _structural(_without_union(node), definitions)
    schema = {key: value for key, value in node.items() if key not in {"title", "$defs", "additionalProperties"}}
    _convert_exclusive_bounds(schema)
    if "items" in schema:
        schema["items"] = _structural(schema["items"], definitions)
    if "properties" in schema:
        schema["properties"] = {
            name: _with_default(name, property_, node, _structural(property_, definitions))
            for name, property_ in schema["properties"].items()
        }
    values = node.get("additionalProperties", False)
    if values is True or (isinstance(values, dict) and PRESERVE in _structural(values, definitions)):
        schema[PRESERVE] = True  # free-form, or values of mixed type, for which a structural schema has no word
    elif values:
        schema["additionalProperties"] = _structural(values, definitions)
    return dict(sorted(schema.items(), key=lambda entry: _rank(entry[0])))


def _rank(key: str) -> int:
    """Where a key stands: what a reader wants to know first, first."""
    order = ("description", "type", "format", "enum", "default")
    last = ("required", "items", "properties", "additionalProperties", VALIDATIONS)
    return order.index(key) - len(order) if key in order else last.index(key) + 1 if key in last else 0


def _without_union(node: Schema) -> Schema:
    """The node with its anyOf replaced by what a structural schema can say.

    Raises:
        TypeError: the union is neither optional, nor of whole number and text, nor of all scalars.
    """
    siblings = {key: value for key, value in node.items() if key != "anyOf"}
    members = [member for member in node["anyOf"] if member.get("type") != "null"]
    if len(members) < len(node["anyOf"]) and siblings.get("default", ...) is None:
        del siblings["default"]
    kinds = {member.get("type") for member in members}
    if len(members) == 1:
        return {**members[0], **siblings}
    if kinds == {"integer", "string"}:
        text = next(member for member in members if member["type"] == "string")
        bounds = {key: text[key] for key in ("minLength", "maxLength") if key in text}
        return {INT_OR_STRING: True, **bounds, **siblings}
    if kinds in ({"boolean", "integer", "number", "string"}, {"number", "string"}):
        return {PRESERVE: True, **siblings}
    raise TypeError(f"a structural schema has no union of {kinds}; change the model")


def _convert_exclusive_bounds(schema: Schema) -> None:
    """From JSON Schema 2020, where an exclusive bound is a number, to OpenAPI 3.0, where it is a flag."""
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in schema:
            schema[bound], schema[exclusive] = schema[exclusive], True


def _with_default(name: str, property_: Schema, parent: Schema, schema: Schema) -> Schema:
    """Gives a section that may be left out the default {}, so that the defaults within it are filled in."""
    section = "properties" in schema and "default" not in property_ and name not in parent.get("required", ())
    return {**schema, "default": {}} if section else schema
