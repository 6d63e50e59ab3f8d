"""The chart on a real API server: all that it renders is taken, its pods are restricted, and studies outlive it."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from _chart import CHART, CLUSTER_WIDE, VALUES, Objects, program

from devcluster import tools
from devcluster.cluster import Cluster

Helm = Callable[..., str]

RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


@pytest.fixture
def restricted(cluster: Cluster, namespace: str) -> str:
    """A namespace that takes restricted pods only."""
    cluster.kubectl("label", "namespace", namespace, RESTRICTED)
    return namespace


@pytest.fixture
def helm(cluster: Cluster, restricted: str, tmp_path: Path) -> Helm:
    """Runs helm in that namespace."""
    path = program("helm", tools.HELM)
    homes = {f"HELM_{kind}_HOME": str(tmp_path / kind) for kind in ("CACHE", "CONFIG", "DATA")}

    def run(*arguments: str) -> str:
        command = [path, *arguments, "--kubeconfig", str(cluster.kubeconfig), "--namespace", restricted]
        done = subprocess.run(command, env={**os.environ, **homes}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(params=sorted(VALUES.glob("*.yaml")), ids=lambda path: path.stem)
def objects(helm: Helm, restricted: str, request: pytest.FixtureRequest) -> Objects:
    """What the chart makes of each set of values, for the test's namespace."""
    watched = yaml.safe_load(request.param.read_text()).get("watchNamespace")
    options = [f"--set=watchNamespace={restricted}"] if watched else []
    text = helm("template", "tuneyard", str(CHART), "--values", str(request.param), *options)
    documents = [document for document in yaml.safe_load_all(text) if document]
    return Objects(item for item in documents if not item["apiVersion"].startswith("monitoring.coreos.com/"))


def test_the_api_server_takes_all_of_it(cluster: Cluster, objects: Objects) -> None:
    # The pod of helm test needs an account that is there; the next test judges it.
    judged = [item for item in objects if item["kind"] != "Pod"]
    manifest = "\n---\n".join(json.dumps(item) for item in judged)
    options = ("--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "--warnings-as-errors")
    # What a dry run makes is not there for what comes after it, so the namespaces of the chart are made for its time.
    there = {item["metadata"]["name"] for item in cluster.objects("namespaces")}
    named = {item["metadata"].get("namespace") for item in judged} - {None}
    made = sorted(name for name in named - there)
    for name in made:
        cluster.kubectl("create", "namespace", name)
    try:
        done = cluster.kubectl("apply", *options, "-f", "-", stdin=manifest)
    finally:
        for name in made:
            cluster.kubectl("delete", "namespace", name, "--wait=false")
    assert done.stdout.count("serverside-applied") == len(judged)


def test_its_pods_are_restricted(cluster: Cluster, restricted: str, objects: Objects) -> None:
    for name, pod in objects.pods():
        labels = pod["metadata"].get("labels", {})
        # The account is left out: it need not exist for this to be judged.
        spec = {key: value for key, value in pod["spec"].items() if key != "serviceAccountName"}
        bare = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "labels": labels}, "spec": spec}
        done = cluster.kubectl("create", "-n", restricted, "--dry-run=server", "-f", "-", stdin=json.dumps(bare))
        assert "created" in done.stdout, name


def test_a_pod_that_is_not_restricted_is_refused(cluster: Cluster, restricted: str) -> None:
    spec = {"containers": [{"name": "x", "image": "x"}]}
    bare = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
    arguments = ("create", "-n", restricted, "--dry-run=server", "-f", "-")
    assert "violates PodSecurity" in cluster.kubectl(*arguments, stdin=json.dumps(bare), check=False).stderr


@pytest.fixture
def study(cluster: Cluster, restricted: str) -> str:
    """A study in the test's namespace."""
    name = "outlives"
    container = {"name": "train", "image": "example.test/train:1"}
    spec = {
        "objectives": [{"metric": "loss", "goal": "minimize"}],
        "parameters": [{"name": "x", "double": {"min": 0, "max": 1}}],
        "trials": {"max": 2},
        "template": {"spec": {"containers": [container]}},
    }
    metadata = {"name": name, "namespace": restricted}
    cluster.create({"apiVersion": "tuneyard.dev/v1alpha1", "kind": "Study", "metadata": metadata, "spec": spec})
    return name


@pytest.fixture
def release(cluster: Cluster, helm: Helm) -> Iterator[str]:
    """An installed release; nobody waits for its pods, which are fake here."""
    # The tests' session has installed the definitions already: that is what --take-ownership is for.
    helm("install", "tuneyard", str(CHART), "--take-ownership", "--force-conflicts")
    yield "tuneyard"
    cluster.kubectl("delete", "clusterrole,clusterrolebinding", "-l", "app.kubernetes.io/instance=tuneyard")


def test_a_release_is_upgraded_and_removed_and_studies_stay(
    cluster: Cluster, helm: Helm, release: str, restricted: str, study: str
) -> None:
    definition = cluster.objects("crd", "studies.tuneyard.dev")[0]
    assert definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    helm("upgrade", release, str(CHART), "--set=operator.replicas=1,podDisruptionBudget.enabled=false")
    assert cluster.objects("-n", restricted, "deployment", "tuneyard-operator")[0]["spec"]["replicas"] == 1
    assert cluster.objects("-n", restricted, "pdb") == []
    helm("rollback", release, "1")
    assert cluster.objects("-n", restricted, "deployment", "tuneyard-operator")[0]["spec"]["replicas"] == 2
    helm("uninstall", release)
    # A namespace goes when all that was in it has gone.
    left = [item for item in helm_owned(cluster, restricted) if "deletionTimestamp" not in item["metadata"]]
    assert {item["kind"] for item in left} <= {
        "CustomResourceDefinition",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }
    kept = cluster.objects("crd", "studies.tuneyard.dev")[0]["metadata"]
    assert kept["uid"] == definition["metadata"]["uid"]
    assert cluster.objects("-n", restricted, "study", study)[0]["metadata"]["name"] == study


def helm_owned(cluster: Cluster, namespace: str) -> Objects:
    """Objects of the release, of all kinds that the chart has."""
    here = "deployment,service,serviceaccount,role,rolebinding,pdb,networkpolicy,configmap,pod"
    wide = ",".join(sorted(CLUSTER_WIDE)).lower()
    label = ("-l", "app.kubernetes.io/instance=tuneyard,app.kubernetes.io/managed-by=Helm")
    return Objects([*cluster.objects("-n", namespace, here, *label), *cluster.objects(wide, *label)])
