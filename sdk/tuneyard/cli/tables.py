"""Tables as kubectl prints them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

_WIDE: Final = 10_000
"""Columns of a table that is read by a program."""


class Heading(NamedTuple):
    """A column's name, whether it has numbers, and whether the name is a user's own and so stays as it is."""

    name: str
    numeric: bool = False
    verbatim: bool = False


def write(headings: Sequence[Heading], rows: Sequence[Sequence[str]]) -> None:
    """Print a table without the columns that are empty, but for the first."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    kept = [number for number in range(len(headings)) if not number or any(row[number] for row in rows)]
    for number in kept:
        heading = headings[number]
        name = heading.name if heading.verbatim else heading.name.upper()
        table.add_column(name, no_wrap=True, justify="right" if heading.numeric else "left")
    for row in rows:
        table.add_row(*(row[number] for number in kept))
    console = Console(highlight=False, markup=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = _WIDE
    with console.capture() as capture:
        console.print(table)
    sys.stdout.write("\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n")
