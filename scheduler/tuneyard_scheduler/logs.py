"""How a process of the cluster logs: lines for people, or JSON for machines, each with what it is about.

python-json-logger writes the JSON, since it takes the lines of libraries (kopf, uvicorn) as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_FIELDS: Final = ("timestamp", "levelname", "name", "message")
_RENAMED: Final = {"timestamp": "time", "levelname": "level", "name": "logger", "exc_info": "error"}

_subject: ContextVar[dict[str, str]] = ContextVar("subject", default={})  # noqa: B039 - never changed in place


@contextmanager
def about(**subject: str) -> Iterator[None]:
    """Put what the block is about on each of its lines, and on those of the tasks that it starts.

    Example:
        with about(namespace="team", study="digits", trial="digits-3"):
            logger.info("attempt %d started", 0)
    """
    token = _subject.set(_subject.get() | subject)
    try:
        yield
    finally:
        _subject.reset(token)


def setup(level: str, form: str) -> None:
    """Log to standard error.

    Args:
        level: debug, info, warning or error.
        form: text or json.
    """
    handler = logging.StreamHandler()
    handler.addFilter(_name_subject)
    handler.setFormatter(_json() if form == "json" else logging.Formatter(TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("aiohttp.access", "asyncio", "kopf"):
        logging.getLogger(chatty).setLevel(max(logging.INFO, logging.getLevelName(level.upper())))


def _name_subject(record: logging.LogRecord) -> bool:
    record.__dict__.update(_subject.get())
    return True


def _json() -> logging.Formatter:
    from pythonjsonlogger.core import RESERVED_ATTRS  # noqa: PLC0415 - only for who wants it
    from pythonjsonlogger.json import JsonFormatter  # noqa: PLC0415

    left_out = [*RESERVED_ATTRS, "color_message"]  # uvicorn's, for terminals
    return JsonFormatter(
        _FIELDS, rename_fields=_RENAMED, reserved_attrs=left_out, timestamp=True, exc_info_as_array=True
    )
