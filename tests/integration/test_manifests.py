"""Tuneyard's API on a real API server: what it refuses and with which sentence, what it shows, selects and scales."""

import json
import re
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config
from study_table import entries, manifest, merge

from devcluster.cluster import Cluster
from tuneyard_api.common import GROUP, VERSION
from tuneyard_api.policy import POLICY_RULES
from tuneyard_api.validation import validate_study

CRDS = Path(__file__).parents[2] / "crds"
POLICY = "studies.tuneyard.dev"
POLICY_DEADLINE = 60.0

Study = dict[str, Any]
Kubectl = Callable[..., Any]


@pytest.fixture(scope="session")
def studies(cluster: Cluster) -> Iterator["Studies"]:
    """The API of studies, once the admission policy counts."""
    with config.new_client_from_config(str(cluster.kubeconfig)) as connection:
        api = Studies(client.CustomObjectsApi(connection))
        unknown_parent = {"name": "x", "int": {"min": 1, "max": 2}, "when": {"y": [1]}}
        probe = manifest({"name": "probe", "spec": {"parameters": [unknown_parent]}})
        deadline = time.monotonic() + POLICY_DEADLINE
        while not api.refusal(probe):
            assert time.monotonic() < deadline, "the admission policy does not work"
            time.sleep(0.2)
        yield api


class Studies:
    """Creates studies for show: the API server does all but store them."""

    def __init__(self, api: client.CustomObjectsApi) -> None:
        self._api = api

    def create(self, study: Study) -> Study:
        """The study as it would be stored."""
        created: Study = self._api.create_namespaced_custom_object(
            GROUP, VERSION, "default", "studies", study, dry_run="All", field_validation="Strict"
        )
        return created

    def refusal(self, study: Study) -> str:
        """What the API server says against the study; nothing where it takes it."""
        try:
            self.create(study)
        except client.ApiException as error:
            assert error.status in {400, 422}, error
            return str(json.loads(error.body)["message"])
        return ""


@pytest.mark.parametrize("entry", entries("good", judge="server"))
def test_good_studies_are_accepted(studies: Studies, entry: Study) -> None:
    stored = studies.create(manifest(entry))
    assert stored["spec"]["trials"]["parallel"] >= 0
    validate_study(stored)


@pytest.mark.parametrize("entry", entries("bad", judge="server"))
def test_bad_studies_are_refused_with_a_sentence_about_the_field(studies: Studies, entry: Study) -> None:
    said = studies.refusal(manifest(entry))
    assert entry["says"] in said
    assert re.search(rf'(^|[\s"[]){re.escape(entry["field"])}[^\w.]', said), said
