"""The test bed itself: fake GPU nodes run Jobs for real schedulers and controllers, and end as their pods script it."""

import base64
import json
from typing import Any

import pytest
from _studies import until

from devcluster.cluster import Cluster


@pytest.fixture(autouse=True)
def _fake_nodes(cluster: Cluster) -> None:
    annotations = [node["metadata"].get("annotations", {}) for node in cluster.objects("nodes")]
    if not any(entry.get("kwok.x-k8s.io/node") == "fake" for entry in annotations):
        pytest.skip("the cluster that KUBECONFIG names has no fake nodes")


def job(
    name: str, namespace: str, *, gpus: int = 1, env: dict[str, str] | None = None, **script: str
) -> dict[str, Any]:
    """A Job of one pod; `script` are the annotations of deploy/kwok/stages.yaml, by name with underscores."""
    container = {
        "name": "main",
        "image": "example.com/train:1",
        "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
        "resources": {"limits": {"nvidia.com/gpu": str(gpus)}},
    }
    annotations = {f"kwok.tuneyard.dev/{key.replace('_', '-')}": value for key, value in script.items()}
    template = {"metadata": {"annotations": annotations}, "spec": {"restartPolicy": "Never", "containers": [container]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"backoffLimit": 0, "template": template},
    }


def ended_pod(cluster: Cluster, name: str, namespace: str) -> dict[str, Any]:
    """The Job's pod, once the Job has ended by itself."""

    def ended() -> bool:  # kubectl wait would refuse a Job that has two conditions by the time it looks
        jobs = cluster.objects("jobs", "-n", namespace)
        [job] = [each for each in jobs if each["metadata"]["name"] == name]
        return any(each["status"] == "True" for each in job["status"].get("conditions", []))

    until(ended, f"the Job {name} has ended")
    return only_pod(cluster, name, namespace)


def wait_for_job(cluster: Cluster, name: str, namespace: str, field: str) -> None:
    """Until the Job says `field` 1 (active: its pod is created; ready: it runs): the pod can then be waited for."""
    cluster.kubectl("wait", "-n", namespace, f"job/{name}", f"--for=jsonpath={{.status.{field}}}=1", "--timeout=120s")


def only_pod(cluster: Cluster, name: str, namespace: str) -> dict[str, Any]:
    [pod] = cluster.objects("pods", "-n", namespace, "-l", f"job-name={name}")
    return pod


def terminated(pod: dict[str, Any]) -> dict[str, Any]:
    [status] = pod["status"]["containerStatuses"]
    return dict(status["state"]["terminated"])


def test_nodes_carry_gpus(cluster: Cluster) -> None:
    assert {node["status"]["allocatable"]["nvidia.com/gpu"] for node in cluster.objects("nodes")} == {"8"}


def test_job_succeeds(cluster: Cluster, namespace: str) -> None:
    cluster.create(job("plain", namespace, gpus=8))
    pod = ended_pod(cluster, "plain", namespace)
    assert pod["status"]["phase"] == "Succeeded"
    assert json.loads(terminated(pod)["message"]) == {"accuracy": 0.5, "loss": 0.1}
    assert terminated(pod)["reason"] == "Completed"
    [finished] = cluster.objects("job", "plain", "-n", namespace)
    assert finished["status"]["succeeded"] == 1


def test_message_is_scripted_from_the_environment(cluster: Cluster, namespace: str) -> None:
    message = '{"loss": $(RATE), "note": "it\'s \\"fine\\""}'
    cluster.create(job("scripted", namespace, env={"RATE": "0.25"}, message=message, duration_ms="10"))
    pod = ended_pod(cluster, "scripted", namespace)
    assert json.loads(terminated(pod)["message"]) == {"loss": 0.25, "note": 'it\'s "fine"'}


def test_job_fails(cluster: Cluster, namespace: str) -> None:
    script = {"exit_code": "137", "reason": "OOMKilled", "message": "no memory", "duration_ms": "10"}
    cluster.create(job("failing", namespace, **script))
    pod = ended_pod(cluster, "failing", namespace)
    assert pod["status"]["phase"] == "Failed"
    ending = terminated(pod)
    assert (ending["exitCode"], ending["reason"], ending["message"]) == (137, "OOMKilled", "no memory")


def test_duration_is_scripted(cluster: Cluster, namespace: str) -> None:
    cluster.create(job("long", namespace, duration_ms="600000"))
    cluster.create(job("short", namespace, duration_ms="10"))
    wait_for_job(cluster, "long", namespace, "ready")
    ended_pod(cluster, "short", namespace)
    assert only_pod(cluster, "long", namespace)["status"]["phase"] == "Running"


def test_image_that_cannot_be_pulled(cluster: Cluster, namespace: str) -> None:
    cluster.create(job("stuck", namespace, image_pull="fail", duration_ms="10"))
    wait_for_job(cluster, "stuck", namespace, "active")
    reason = "jsonpath={.status.containerStatuses[0].state.waiting.reason}=ImagePullBackOff"
    cluster.kubectl("wait", "-n", namespace, "pod", "-l", "job-name=stuck", f"--for={reason}", "--timeout=120s")
    pod = only_pod(cluster, "stuck", namespace)
    assert pod["status"]["phase"] == "Pending"
    assert "example.com/train:1" in pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"]


def test_deleted_job_takes_its_running_pod_along(cluster: Cluster, namespace: str) -> None:
    cluster.create(job("doomed", namespace, duration_ms="600000"))
    wait_for_job(cluster, "doomed", namespace, "ready")
    cluster.kubectl("delete", "job", "doomed", "-n", namespace)
    cluster.kubectl("wait", "pod", "-n", namespace, "-l", "job-name=doomed", "--for=delete", "--timeout=120s")


def test_evicted_pod_fails_as_a_disruption(cluster: Cluster, namespace: str) -> None:
    cluster.create(job("evicted", namespace, duration_ms="600000"))
    wait_for_job(cluster, "evicted", namespace, "ready")
    name = only_pod(cluster, "evicted", namespace)["metadata"]["name"]
    # without a finalizer of the test's own the pod would be gone before it can be looked at
    cluster.kubectl("patch", "pod", "-n", namespace, name, "-p", '{"metadata": {"finalizers": ["tuneyard.dev/test"]}}')
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
    cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    cluster.kubectl("wait", "pod", name, "-n", namespace, "--for=jsonpath={.status.phase}=Failed", "--timeout=120s")
    pod = only_pod(cluster, "evicted", namespace)
    assert terminated(pod)["exitCode"] == 143
    conditions = {entry["type"]: entry["status"] for entry in pod["status"]["conditions"]}
    assert conditions["DisruptionTarget"] == "True"
    cluster.kubectl(
        "patch", "pod", "-n", namespace, name, "--type=json", "-p", '[{"op": "remove", "path": "/metadata/finalizers"}]'
    )
    cluster.kubectl("wait", "pod", name, "-n", namespace, "--for=delete", "--timeout=120s")


def test_more_gpus_than_a_node_has_stay_unscheduled(cluster: Cluster, namespace: str) -> None:
    cluster.create(job("huge", namespace, gpus=9))
    wait_for_job(cluster, "huge", namespace, "active")
    unschedulable = "jsonpath={.status.conditions[?(@.type=='PodScheduled')].reason}=Unschedulable"
    cluster.kubectl("wait", "-n", namespace, "pod", "-l", "job-name=huge", f"--for={unschedulable}", "--timeout=120s")


def test_service_account_tokens_can_be_checked_offline(cluster: Cluster, namespace: str) -> None:
    token = cluster.kubectl("create", "token", "default", "-n", namespace, "--audience=tuneyard").stdout
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2])
    keys = json.loads(cluster.kubectl("get", "--raw", "/openid/v1/jwks").stdout)["keys"]
    discovered = json.loads(cluster.kubectl("get", "--raw", "/.well-known/openid-configuration").stdout)
    assert header["kid"] in {key["kid"] for key in keys}
    assert (claims["aud"], claims["iss"]) == (["tuneyard"], discovered["issuer"])
