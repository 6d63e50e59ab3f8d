"""`python -m tuneyard_strategy`: run the strategy service."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tuneyard_strategy.server import serve


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and serve; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tuneyard_strategy", description="Run the strategy service.")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8090, help="the port (default: %(default)s)")
    parser.add_argument("--token-file", type=Path, required=True, help="the file with the token for callers")
    given = parser.parse_args(arguments)
    try:
        serve(given.host, given.port, given.token_file)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
