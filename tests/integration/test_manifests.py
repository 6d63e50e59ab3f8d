"""Tuneyard's API on a real API server: what it refuses and with which sentence, what it shows, selects and scales."""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from kubernetes import client, config
from study_table import entries, manifest

from devcluster.cluster import Cluster
from tuneyard_api.common import GROUP, VERSION, micro_timestamp, timestamp
from tuneyard_api.kinds import KINDS
from tuneyard_api.validation import validate_study

CRDS = Path(__file__).parents[2] / "crds"
POLICY = "studies.tuneyard.dev"
DEADLINE = 60.0

Manifest = dict[str, Any]
Kubectl = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="session")
def studies(cluster: Cluster) -> Iterator["Studies"]:
    """The API of studies, once the admission policy counts."""
    with config.new_client_from_config(str(cluster.kubeconfig)) as connection:
        api = Studies(client.CustomObjectsApi(connection))
        unknown_parent = {"name": "x", "int": {"min": 1, "max": 2}, "when": {"y": [1]}}
        probe = manifest({"name": "probe", "spec": {"parameters": [unknown_parent]}})
        deadline = time.monotonic() + DEADLINE
        while not api.refusal(probe):
            assert time.monotonic() < deadline, "the admission policy does not work"
            time.sleep(0.2)
        yield api


class Studies:
    """Creates studies for show: the API server does all but store them."""

    def __init__(self, api: client.CustomObjectsApi) -> None:
        self._api = api

    def create(self, study: Manifest) -> Manifest:
        """The study as it would be stored."""
        created: Manifest = self._api.create_namespaced_custom_object(
            GROUP, VERSION, "default", "studies", study, dry_run="All", field_validation="Strict"
        )
        return created

    def refusal(self, study: Manifest) -> str:
        """What the API server says against the study; nothing where it takes it."""
        try:
            self.create(study)
        except client.ApiException as error:
            if error.status not in {400, 422}:
                raise
            return str(json.loads(error.body)["message"])
        return ""


@pytest.mark.parametrize("entry", entries("good", judge="server"))
def test_good_studies_are_accepted(studies: Studies, entry: Manifest) -> None:
    stored = studies.create(manifest(entry))
    assert stored["spec"]["trials"]["parallel"] >= 0
    validate_study(stored)


@pytest.mark.parametrize("entry", entries("bad", judge="server"))
def test_bad_studies_are_refused_with_a_sentence_about_the_field(studies: Studies, entry: Manifest) -> None:
    said = studies.refusal(manifest(entry))
    assert entry["says"] in said
    assert re.search(rf'(^|[\s"[]){re.escape(entry["field"])}[^\w.]', said), said


def test_a_study_of_the_largest_size_is_not_refused_for_its_size(studies: Studies) -> None:
    values = {"categorical": {"values": list(range(1000))}}
    conditional = {"when": {f"p{i}": [0, 500, 999] for i in range(4)}}
    parameters = [{"name": f"p{i}", **values, **(conditional if i >= 4 else {})} for i in range(100)]
    initial = [{f"p{i}": i for i in range(4)}] * 10_000
    assert studies.refusal(manifest({"name": "large", "spec": {"parameters": parameters, "initial": initial}})) == ""


def at_the_limit(**last: Any) -> list[Manifest]:
    """100 parameters whose `when` has as many values as the policy compares, the last of them with further fields."""
    first = {"name": "p0", "categorical": {"values": list(range(1000))}}
    others = [{"name": f"p{i}", "int": {"min": 1, "max": 2}, "when": {"p0": [999]}} for i in range(1, 99)]
    return [first, *others, {"name": "p99", "int": {"min": 1, "max": 2}, **last}]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"parameters": at_the_limit(when={"p0": [1000]})}, "spec.parameters[99].when: "),
        (
            {"parameters": at_the_limit(), "initial": [{f"p{i}": 1 for i in range(100)}] * 49 + [{"p100": 1}]},
            "spec.initial[49]: ",
        ),
        ({"parameters": at_the_limit()[:1], "initial": [{"p1": i} for i in range(5000)]}, "spec.initial[0]: "),
        ({"parameters": at_the_limit()[:1], "initial": [{"p0": True} for i in range(5000)]}, "spec.initial[0]: "),
    ],
    ids=["when", "wide-initial", "long-initial", "long-initial-of-truths"],
)
def test_the_policy_has_time_for_the_largest_study_that_it_looks_at(
    studies: Studies, spec: Manifest, says: str
) -> None:
    assert says in studies.refusal(manifest({"name": "limit", "spec": spec}))


def test_the_definitions_are_accepted_without_a_warning(cluster: Cluster) -> None:
    done = cluster.kubectl(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--warnings-as-errors", "-f", str(CRDS)
    )
    assert done.stdout.count("serverside-applied") == 7
    assert done.stderr == ""


def test_the_policy_has_no_type_errors(cluster: Cluster) -> None:
    deadline = time.monotonic() + DEADLINE
    while "observedGeneration" not in (status := policy_status(cluster)):
        assert time.monotonic() < deadline, "no controller has checked the policy"
        time.sleep(0.5)
    assert not status.get("typeChecking", {}).get("expressionWarnings")


def policy_status(cluster: Cluster) -> Manifest:
    (policy,) = cluster.objects("validatingadmissionpolicy", POLICY)
    status: Manifest = policy.get("status", {})
    return status


def test_nobody_else_has_our_names(kubectl: Kubectl) -> None:
    rows = [line.split() for line in kubectl("api-resources", "--no-headers").stdout.splitlines()]
    names = Counter(name for row in rows for name in (row[0], *(row[1].split(",") if len(row) == 5 else ())))
    ours = {name for kind in KINDS for name in (kind.plural, kind.short_name)}
    assert {name: names[name] for name in ours} == dict.fromkeys(ours, 1)
    listed = kubectl("api-resources", "--categories=tuneyard", "-o", "name").stdout.split()
    assert sorted(listed) == sorted(f"{kind.plural}.{GROUP}" for kind in KINDS)


def test_defaults_are_filled_in(studies: Studies) -> None:
    spec = studies.create(manifest({"name": "defaults"}))["spec"]
    assert spec["strategy"] == {"name": "auto", "seed": 0}
    assert spec["trials"] == {"max": 10, "parallel": 1, "maxFailed": 10, "pauseAfter": 5}
    assert spec["retry"] == {
        "limit": 3,
        "infrastructureLimit": 20,
        "backoff": {"initial": "10s", "factor": 2, "max": "5m"},
    }
    assert (spec["suspend"], spec["priority"]) == (False, 0)
    assert spec["parameters"][1]["int"] == {"min": 1, "max": 3, "step": 1, "scale": "linear", "distribution": "uniform"}
    assert {"gpu", "queue", "initial", "constraints", "maxDuration"}.isdisjoint(spec)


@pytest.fixture
def created(studies: Studies, kubectl: Kubectl, namespace: str) -> Callable[[Manifest], None]:
    """Creates a study, or another object, in the test's namespace."""

    def create(what: Manifest) -> None:
        kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(what))

    return create


def patch(kubectl: Kubectl, namespace: str, name: str, change: Manifest, *more: str) -> str:
    """What kubectl says against a merge patch; nothing where it is taken."""
    what = ("patch", "-n", namespace, name, "--type=merge", "-p", json.dumps(change), *more)
    return kubectl(*what, check=False).stderr


def started(kubectl: Kubectl, namespace: str, name: str, **status: Any) -> None:
    status = {"startTime": "2026-01-01T00:00:00Z", **status}
    assert patch(kubectl, namespace, name, {"status": status}, "--subresource=status") == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("objectives", [{"metric": "accuracy", "goal": "minimize"}]),
        ("parameters", [{"name": "lr", "double": {"min": 0.1, "max": 1}}]),
        ("constraints", ["layers < 3"]),
        ("constraints", None),
        ("strategy", {"seed": 1}),
        ("initial", [{"lr": 0.02}]),
        ("initial", None),
    ],
)
def test_what_a_started_study_searches_cannot_change(
    created: Callable[[Manifest], None], kubectl: Kubectl, namespace: str, field: str, value: Any
) -> None:
    created(manifest({"name": "x", "spec": {"constraints": ["layers < 2"], "initial": [{"lr": 0.01}]}}))
    started(kubectl, namespace, "study/x")
    said = patch(kubectl, namespace, "study/x", {"spec": {field: value}})
    assert f"spec.{field}: " in said
    assert "cannot change once the study has started; make a new study, or delete this one first" in said


def test_what_a_study_searches_can_change_before_its_start_and_the_rest_always(
    created: Callable[[Manifest], None], kubectl: Kubectl, namespace: str
) -> None:
    created(manifest({"name": "x", "spec": {"initial": [{"lr": 0.01}]}}))
    assert patch(kubectl, namespace, "study/x", {"spec": {"initial": [{"lr": 0.02}], "strategy": {"seed": 1}}}) == ""
    started(kubectl, namespace, "study/x")
    container = {"name": "train", "image": "train:2"}
    changes = {"trials": {"max": 50, "parallel": 4}, "suspend": True, "template": {"spec": {"containers": [container]}}}
    assert patch(kubectl, namespace, "study/x", {"spec": {**changes, "initial": [{"lr": 0.02}]}}) == ""


def test_a_study_is_scaled_up_to_its_trials(
    created: Callable[[Manifest], None], kubectl: Kubectl, namespace: str
) -> None:
    created(manifest({"name": "x"}))
    started(kubectl, namespace, "study/x", replicas=1, selector="tuneyard.dev/study=x")
    kubectl("scale", "-n", namespace, "study/x", "--replicas=8")
    parallel = kubectl("get", "-n", namespace, "study/x", "-o", "jsonpath={.spec.trials.parallel}")
    assert parallel.stdout == "8"
    refused = kubectl("scale", "-n", namespace, "study/x", "--replicas=11", check=False)
    assert "spec.trials.parallel: " in refused.stderr
    assert "parallel must not be above max; lower parallel, or raise max" in refused.stderr


def test_kubectl_shows_selects_and_waits(created: Callable[[Manifest], None], kubectl: Kubectl, namespace: str) -> None:
    for name, phase in (("a", "Running"), ("b", "Complete")):
        created(manifest({"name": name, "spec": {"queue": f"queue-{name}"}}))
        condition = {"type": "Complete", "status": str(phase == "Complete"), "reason": "R", "message": ""}
        started(
            kubectl,
            namespace,
            f"study/{name}",
            phase=phase,
            progress="3/10",
            best={"trial": f"{name}-1", "index": 1, "value": 0.97},
            conditions=[{**condition, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        )
    table = kubectl("get", "-n", namespace, "sty").stdout.splitlines()
    assert table[0].split() == ["NAME", "PHASE", "PROGRESS", "BEST", "FRONT", "RUNNING", "GPUS", "AGE"]
    assert table[1].split()[:4] == ["a", "Running", "3/10", "0.97"]
    wide = kubectl("get", "-n", namespace, "sty", "-o", "wide").stdout.splitlines()[0].split()
    assert wide[8:] == ["STRATEGY", "FAILED", "ETA", "REASON"]
    for selector in ("status.phase=Complete", "spec.queue=queue-b"):
        selected = kubectl("get", "-n", namespace, "studies", "--field-selector", selector, "-o", "name").stdout
        assert selected == "study.tuneyard.dev/b\n"
    kubectl("wait", "-n", namespace, "--for=condition=Complete", "study/b", "--timeout=5s")


def test_trials_begin_pending_and_their_spec_never_changes(
    created: Callable[[Manifest], None], kubectl: Kubectl, namespace: str
) -> None:
    kinds = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Trial"}
    for index, study in enumerate(("x", "y")):
        spec = {"study": study, "index": index, "parameters": {"lr": 0.01, "o": "sgd", "n": 3}}
        created({**kinds, "metadata": {"name": f"{study}-{index}"}, "spec": spec})
    table = kubectl("get", "-n", namespace, "trl").stdout.splitlines()
    assert table[0].split() == ["NAME", "PHASE", "ATTEMPT", "NODE", "VALUE", "AGE"]
    assert table[1].split()[:3] == ["x-0", "Pending", "0"]
    times = {"notBefore": micro_timestamp(1_700_000_000.25), "startTime": timestamp(1_700_000_000)}
    assert patch(kubectl, namespace, "trial/x-0", {"status": times}, "--subresource=status") == ""
    refused = patch(kubectl, namespace, "trial/x-0", {"status": {"startTime": "soon"}}, "--subresource=status")
    assert "status.startTime: " in refused
    of_y = kubectl("get", "-n", namespace, "trials", "--field-selector=spec.study=y,status.phase=Pending", "-o", "name")
    assert of_y.stdout == "trial.tuneyard.dev/y-1\n"
    for change in ({"study": "z"}, {"index": 7}, {"parameters": {"lr": 0.02}}):
        assert "the spec of a trial never changes" in patch(kubectl, namespace, "trial/x-0", {"spec": change})


@pytest.mark.parametrize(
    ("path", "teaches"),
    [
        ("study", "A search for the best hyperparameters"),
        ("study.spec.parameters", "One dimension of the search space: exactly one of double, int and categorical."),
        ("study.spec.parameters.double.scale", "right for learning rates"),
        ("study.spec.template.spec.containers", "The first one trains"),
        ("trial.status.attempts.outcome", "How it ended."),
        ("gpuqueue.spec.limit", "GPUs in use by all studies of this queue"),
    ],
)
def test_kubectl_explains(cluster: Cluster, path: str, teaches: str) -> None:
    said = cluster.kubectl("explain", path, "--api-version", f"{GROUP}/{VERSION}").stdout
    assert teaches in " ".join(said.split())
