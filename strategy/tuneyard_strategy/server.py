"""The process of the strategy service."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuneyard_strategy.process import AdvisorProcess


def create_token(token_file: Path) -> None:
    """Write a random token for its owner's eyes only; one that is there already stays.

    Raises:
        ValueError: the file cannot be written.
    """
    new = token_file.with_name(f".{token_file.name}.new")
    try:
        new.touch(mode=0o600)
        new.write_text(secrets.token_urlsafe(32), encoding="utf-8")
        with suppress(FileExistsError):
            os.link(new, token_file)  # whole or not at all: callers may look at any moment
        new.unlink()
    except OSError as error:
        raise ValueError(f"the token file {token_file} cannot be written: {error.strerror}") from error


def serve(host: str, port: int, token_file: Path) -> None:
    """Serve until a signal ends the process.

    Args:
        host: the address to listen on.
        port: the port.
        token_file: holds the token that callers must present; it is read for each request, so that it can be rotated.

    Raises:
        ValueError: the token file cannot be read, or is empty.
    """

    def token() -> str:
        return token_file.read_text(encoding="utf-8").strip()

    try:
        empty = not token()
    except OSError as error:
        raise ValueError(f"the token file {token_file} cannot be read: {error.strerror}") from error
    if empty:
        raise ValueError(f"the token file {token_file} is empty: write a random text into it")
    from tuneyard_strategy.process import AdvisorProcess  # noqa: PLC0415

    # Without an advisor this process ends as well, and whoever looks after it starts it anew.
    def ended() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    advisor, explainer = AdvisorProcess(ended), AdvisorProcess(ended)
    try:
        _listen(advisor, explainer, host, port, token)
    finally:
        explainer.close()  # before the other one, whose connection it has inherited and holds open
        advisor.close()


def _listen(advisor: AdvisorProcess, explainer: AdvisorProcess, host: str, port: int, token: Callable[[], str]) -> None:
    import uvicorn  # noqa: PLC0415

    from tuneyard_strategy.service import create_app  # noqa: PLC0415

    uvicorn.run(create_app(advisor, token, explainer), host=host, port=port, access_log=False, log_config=None)
