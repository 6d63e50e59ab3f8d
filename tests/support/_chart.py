"""What the tests of the chart share: where it is, and questions to ask what it renders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Final

import pytest
import yaml

from devcluster import tools

ROOT: Final = Path(__file__).resolve().parents[2]
CHART: Final = ROOT / "charts" / "tuneyard"
VALUES: Final = ROOT / "tests" / "unit" / "chart" / "values"
CLUSTER_WIDE: Final = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Namespace",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}

Object = dict[str, Any]
Helm = Callable[..., CompletedProcess[str]]


def program(name: str, group: str) -> str:
    """A tool's path; without it the test is skipped, but never under CI."""
    found = str(tools.path(name)) if tools.built(group) else shutil.which(name)
    if found is None:
        said = f"there is no {name}; build it: deploy/build-tools {group}"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(said)
    return found


class Objects(list[Object]):
    """Rendered objects."""

    def of(self, *kinds: str) -> list[Object]:
        """Those of some kinds."""
        return [item for item in self if item["kind"] in kinds]

    def one(self, kind: str, name: str) -> Object:
        """The one of a kind and name."""
        [found] = [item for item in self.of(kind) if item["metadata"]["name"] == name]
        return found

    def pods(self) -> Iterator[tuple[str, Object]]:
        """Each pod that comes of the release, helm test's trials among them: a name for it, and metadata with spec."""
        for item in self:
            name = f"{item['kind']}/{item['metadata']['name']}"
            if item["kind"] == "Pod":
                yield name, item
            elif item["kind"] == "Deployment":
                yield name, item["spec"]["template"]
        yield "trial", {"metadata": {}, **self.study()["spec"]["template"]}

    def study(self) -> Object:
        """The study of helm test."""
        [found] = [item for item in self.of("ConfigMap") if "study.yaml" in item["data"]]
        study: Object = yaml.safe_load(found["data"]["study.yaml"])
        return study


def containers(pod: Object) -> list[Object]:
    """A pod's containers and sidecars."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def selects(selector: Object, labels: Object) -> bool:
    """Whether a map of labels selects an object."""
    return selector.items() <= labels.items()
