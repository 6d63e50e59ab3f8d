"""What the SDK has to say to the user: at most a line of each kind, on standard error."""

from __future__ import annotations

import sys

_warned: set[str] = set()


def warn_once(kind: str, message: str) -> None:
    """Say `message` on standard error, unless something of this kind was said before."""
    if kind in _warned:
        return
    _warned.add(kind)
    try:
        print(f"tuneyard: {message}", file=sys.stderr, flush=True)
    except (OSError, ValueError, AttributeError):
        return  # standard error is closed or absent: there is nobody to tell
