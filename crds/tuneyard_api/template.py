"""The parts of a trial's pod template that Tuneyard itself demands; Kubernetes checks the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from tuneyard_api.common import Model, ObjectName


@dataclass(frozen=True)
class SchemaOf:
    """Gives a free-form field the JSON schema of a model, while its value stays the plain dict."""

    model: type[BaseModel]

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(self.model.__pydantic_core_schema__)


class _Open(Model):
    """An object with more fields than those named here."""

    model_config = ConfigDict(extra="allow")


class Container(_Open):
    """A container of the pod, as in Kubernetes."""

    name: ObjectName = Field(description="The container's name: lower-case letters, digits and -, for example train.")


class PodSpec(_Open):
    """A pod's spec, as in Kubernetes."""

    containers: list[Container] = Field(
        min_length=1,
        max_length=32,
        description="The pod's containers, as in Kubernetes. The first one trains: its end is the trial's.",
    )
    restart_policy: str | None = Field(default=None, max_length=16, description="Leave it out: it is always Never.")


class Template(_Open):
    """A Job's pod template, as in Kubernetes."""

    metadata: dict[str, Any] | None = Field(
        default=None, description="Labels and annotations for the pods, as in Kubernetes."
    )
    spec: PodSpec = Field(description="The pod's spec, as in Kubernetes.")
