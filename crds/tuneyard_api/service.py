"""A strategy of the user's own: a service that answers the same questions over HTTP as ours."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from tuneyard_api.common import Duration, Model
from tuneyard_api.rule import matches

_PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HOST = r"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
_URL = f"^https?://{_HOST}(:{_PORT})?(/[A-Za-z0-9._~/-]*)?$"


class ServiceSpec(Model):
    """Where the service is, and what it is told."""

    url: Annotated[
        str,
        StringConstraints(max_length=512),
        matches(
            _URL,
            "write http:// or https://, a host, and a port and a path if need be, such as "
            "http://optimizer.my-namespace.svc:8080, without credentials, query or fragment",
        ),
    ] = Field(description="The service: questions go to <url>/v1/ask. An administrator must have allowed it.")
    settings: dict[str, Any] = Field(
        default_factory=dict,
        max_length=100,
        description="What the service is told beside the study; whatever it understands.",
    )
    timeout: Duration = Field(default="30s", description="How long to wait for one answer; at most 10m.")
    on_failure: Literal["Wait", "Sobol"] = Field(
        default="Wait",
        description="What happens while it does not answer, or answers what is no configuration: Wait until it does, "
        "or let Sobol propose meanwhile.",
    )
