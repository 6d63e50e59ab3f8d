"""The whole validation of a Study in Python: for the laptop, and for clusters without the rules of the API server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_snake

from tuneyard_api.common import API_VERSION
from tuneyard_api.initial import initial_problems
from tuneyard_api.policy import POLICY_RULES
from tuneyard_api.rules import FROZEN, frozen_message, rules_of
from tuneyard_api.schema import structural_schema
from tuneyard_api.sentences import Location, path_text, sentences, unknown_field
from tuneyard_api.study import Study, StudyMeta, StudySpec
from tuneyard_api.template import Template

M = TypeVar("M", bound=BaseModel)

TOP_LEVEL = ("apiVersion", "kind", "metadata", "spec", "status")


class InvalidStudy(ValueError):
    """A manifest that is no valid study.

    Attributes:
        problems: one sentence for each, beginning with the path of the field.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def validate_study(manifest: Mapping[str, Any]) -> Study:
    """Parses a Study and checks all that the API server would, and what only Python can: the values in initial.

    References in the template and constraint expressions are not looked into here.

    Args:
        manifest: the study as read from YAML or from the API server; its status is ignored.

    Raises:
        InvalidStudy: with every problem found.
    """
    problems = list(_header_problems(manifest))
    metadata = _parse(StudyMeta, manifest.get("metadata"), ("metadata",), problems)
    spec = _parse(StudySpec, manifest.get("spec"), ("spec",), problems)
    template = _parse_template(manifest.get("spec"), problems)
    if metadata is None or spec is None or template is None:
        raise InvalidStudy(problems)
    study = Study(metadata=metadata, spec=spec)
    problems += _broken_rules(study, ())
    problems += _broken_rules(template, ("spec", "template"))
    problems += _offenders(spec)
    problems += initial_problems(spec)
    if problems:
        raise InvalidStudy(problems)
    return study


def immutable_changes(old: StudySpec, new: StudySpec) -> list[str]:
    """One sentence for each field that differs and cannot change once a study has started."""
    changed = [name for name in FROZEN if getattr(old, to_snake(name)) != getattr(new, to_snake(name))]
    return [f"spec.{name}: {frozen_message(name)}" for name in changed]


def _header_problems(manifest: Mapping[str, Any]) -> Iterator[str]:
    if manifest.get("apiVersion") != API_VERSION:
        yield f"apiVersion: write {API_VERSION}"
    if manifest.get("kind") != "Study":
        yield "kind: write Study"
    for name in manifest:
        if name not in TOP_LEVEL:
            yield f"{name}: {unknown_field(name, TOP_LEVEL)}"


def _parse(model: type[M], value: object, at: Location, problems: list[str]) -> M | None:
    """The value as a model, by its names in the API and without any conversion; or None, and what is wrong with it."""
    if not isinstance(value, Mapping):
        problems.append(f"{path_text(at)}: is required; write it as a mapping")
        return None
    try:
        return model.model_validate(value, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        problems += sentences(error, value, structural_schema(model), at)
        return None


def _parse_template(spec: object, problems: list[str]) -> Template | None:
    """The template within a spec, which may be wrong elsewhere: the spec itself says where there is none."""
    template = spec.get("template") if isinstance(spec, Mapping) else None
    return _parse(Template, template, ("spec", "template"), problems) if isinstance(template, Mapping) else None


def _broken_rules(model: BaseModel, at: Location) -> Iterator[str]:
    """What the rules find wrong with a model and with those within it."""
    for rule in rules_of(type(model)):
        if not rule.holds(model):
            path = path_text(at) + (rule.field if at else rule.field.removeprefix("."))
            yield f"{path}: {rule.message}" if path else rule.message
    for name, field in type(model).model_fields.items():
        yield from _broken_below(getattr(model, name), (*at, field.alias or name))


def _broken_below(value: object, at: Location) -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield from _broken_rules(value, at)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _broken_below(item, (*at, index))


def _offenders(spec: StudySpec) -> Iterator[str]:
    """What the rules of the admission policy find."""
    for rule in POLICY_RULES:
        if rule.offenders is not None:
            yield from (f"{path}: {rule.message}" for path in dict.fromkeys(rule.offenders(spec)))
