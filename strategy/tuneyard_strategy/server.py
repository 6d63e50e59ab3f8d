"""The process of the strategy service."""

from __future__ import annotations

import os
from pathlib import Path

ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


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
    for variable in ONE_THREAD:  # read when numpy is loaded: matrices here are small, and threads only get in their way
        os.environ.setdefault(variable, "1")

    import uvicorn  # noqa: PLC0415

    from tuneyard_strategy.advisor import Advisor  # noqa: PLC0415
    from tuneyard_strategy.service import create_app  # noqa: PLC0415

    uvicorn.run(create_app(Advisor(), token), host=host, port=port, access_log=False)
