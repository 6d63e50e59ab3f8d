"""`python -m tuneyard_strategy.openapi [--check] [FILE]`: write, or check, the committed OpenAPI document."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tuneyard_strategy.advisor import Advisor
from tuneyard_strategy.service import create_app

DOCUMENT = Path("docs/openapi-strategy.json")


def document() -> str:
    """The OpenAPI document of the strategy service, as it is committed."""
    return json.dumps(create_app(Advisor(), str).openapi(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Write or check the file; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tuneyard_strategy.openapi", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=DOCUMENT, help="default: %(default)s")
    parser.add_argument("--check", action="store_true", help="only say whether the file is up to date")
    given = parser.parse_args(arguments)
    if not given.check:
        given.file.write_text(document(), encoding="utf-8")
        return 0
    if given.file.exists() and given.file.read_text(encoding="utf-8") == document():
        return 0
    print(f"{given.file} is out of date: run python -m tuneyard_strategy.openapi", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
