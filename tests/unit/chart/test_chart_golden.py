"""The whole of what the chart renders, to be read in reviews. After a change that is wanted:

TUNEYARD_WRITE_GOLDEN=1 pytest tests/unit/chart
"""

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from _chart import CHART, Object, Objects, program

from devcluster import tools

GOLDEN = Path(__file__).parent / "golden"
LONGEST = 2000
"""Longer texts, such as dashboards, are left out of the golden files."""


def compare(path: Path, text: str) -> None:
    """Compare with a committed file, or write it where that is wanted."""
    if os.environ.get("TUNEYARD_WRITE_GOLDEN"):
        path.write_text(text)
    assert path.read_text() == text


def shown(item: Object) -> Object:
    """An object without what is generated elsewhere."""
    if item["kind"].startswith(("CustomResourceDefinition", "ValidatingAdmissionPolicy")):
        return {**item, "spec": "as in crds/"}
    if item["kind"] == "ConfigMap":
        data = {key: text if len(text) <= LONGEST else "..." for key, text in item["data"].items()}
        return {**item, "data": data}
    return item


def test_golden(objects: Objects, values: Path) -> None:
    ordered = sorted(objects, key=lambda item: (item["kind"], item["metadata"]["name"]))
    text = yaml.safe_dump_all([shown(item) for item in ordered], sort_keys=True, width=120)
    compare(GOLDEN / values.name, text)


@pytest.fixture
def helm_docs() -> str:
    return program("helm-docs", tools.CHART_DOCS)


def test_the_readme_is_generated(helm_docs: str) -> None:
    command = [helm_docs, "--chart-search-root", str(CHART), "--sort-values-order", "file", "--dry-run"]
    done = subprocess.run([*command, "--log-level", "warning"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    compare(CHART / "README.md", done.stdout.rstrip() + "\n")
