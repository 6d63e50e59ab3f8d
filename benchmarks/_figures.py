"""What the benchmarks share: a table on the screen, flat figures in benchmarks/results/NAME.json."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; numbers are set right."""
    cells = [[_text(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(header), *cells]) for column in range(len(header))]
    print(f"\n{title}\n")
    for line in [list(header), ["-" * width for width in widths], *cells]:
        print("  " + "  ".join(_set(cell, width) for cell, width in zip(line, widths, strict=True)))
    print()


def save(name: str, figures: Mapping[str, float | int | str]) -> None:
    """Write figures, ours and the reference's, as one flat JSON object."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(dict(figures), indent=2) + "\n")
    print(f"figures: benchmarks/results/{path.name}")


def _text(cell: object) -> str:
    return (
        f"{cell:.3g}"
        if isinstance(cell, float) and abs(cell) < 100
        else f"{cell:.0f}"
        if isinstance(cell, float)
        else str(cell)
    )


def _set(cell: str, width: int) -> str:
    return cell.rjust(width) if cell[:1].isdigit() or cell[:1] in "-." else cell.ljust(width)
