"""The table of good and bad studies beside this file, read once for the API server and once for Python."""

from pathlib import Path
from typing import Any

import pytest

from tuneyard_api.manifest import load

TABLE = load(Path(__file__).with_name("studies.yaml").read_text())[0]


def merge(target: Any, patch: Any) -> Any:
    """A JSON merge patch: null removes, mappings are merged, all else is replaced."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def manifest(entry: dict[str, Any]) -> dict[str, Any]:
    """The study of an entry: the base with its patch, named after it unless it names itself."""
    patch = {key: entry[key] for key in ("metadata", "spec") if key in entry}
    study: dict[str, Any] = merge(TABLE["base"], {"metadata": {"name": entry["name"]}, **patch})
    return study


def entries(group: str, judge: str) -> list[Any]:
    """Test parameters: the entries of a group that a judge, server or python, is asked about."""
    return [pytest.param(entry, id=entry["name"]) for entry in TABLE[group] if entry.get("only", judge) == judge]
