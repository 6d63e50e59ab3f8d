"""The life of an installation: its own test, a leader that dies, an upgrade, an uninstall."""

import json
import time
from collections.abc import Callable

import pytest
from _e2e import IMAGE, RESTRICTED, real_study
from _release import Release
from _studies import Studies, until
from _witness import Witness, witness

from devcluster.cluster import Cluster
from tuneyard_operator import telemetry as operator
from tuneyard_scheduler import telemetry as scheduler

FAILOVER_SECONDS = 15.0


def test_the_charts_own_test_passes(release: Release) -> None:
    release.helm("test", release.name, "--timeout", "4m")


def test_pods_are_restricted(release: Release, cluster: Cluster) -> None:
    """The namespace takes nothing else, and warns of nothing."""
    labels = cluster.objects("namespace", release.namespace)[0]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert [pod["status"]["phase"] for pod in release.pods()] == ["Running"] * 4


def test_a_pod_s_token_is_good_for_reports_only(studies: Studies) -> None:
    """What a trial's program can do with what it finds in its container."""
    program = """\
import json, os, ssl, urllib.error, urllib.request, tuneyard
from pathlib import Path
assert not Path("/var/run/secrets/kubernetes.io").exists(), "the service account's own token is mounted"
token = Path(os.environ["TUNEYARD_TOKEN_FILE"]).read_text()
host = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
request = urllib.request.Request(f"{host}/api/v1/namespaces", headers={"Authorization": f"Bearer {token}"})
try:
    urllib.request.urlopen(request, context=ssl._create_unverified_context(), timeout=10)
    code = 200
except urllib.error.HTTPError as error:
    code = error.code
tuneyard.report(step=0, loss=code)
"""
    studies.apply(real_study("thief", program, trials={"max": 1, "parallel": 1}))
    assert studies.wait("thief", timeout=300)["best"]["value"] == 401


def test_the_operator_s_pod_is_deleted_in_the_middle_of_a_study(
    release: Release, cluster: Cluster, studies: Studies
) -> None:
    with witness(cluster, studies.namespace) as seen:
        studies.apply(real_study("orphan", steps=3, trials={"max": 16, "parallel": 3}))
        until(lambda: studies.status("orphan").get("trials", {}).get("succeeded", 0) >= 2, "two trials succeed", 120)
        for component in ("operator", "scheduler"):
            release.kubectl("delete", "pod", release.leader(component), "--grace-period=0", "--force")
        status = studies.wait("orphan", timeout=360)
    assert status["trials"]["succeeded"] == 16
    once(seen, "orphan", 16, parallel=3)


@pytest.mark.parametrize("component", ["operator", "scheduler"])
def test_another_leads_soon_after_the_leader_s_node_lost_it(
    release: Release, cluster: Cluster, component: str, record_property: Callable[[str, object], None]
) -> None:
    leader = release.leader(component)
    began = time.monotonic()
    release.kubectl("delete", "pod", leader, "--grace-period=0", "--force")
    until(lambda: release.leader(component) not in {leader, ""}, "another leads", 30)
    elapsed = time.monotonic() - began
    record_property("seconds", round(elapsed, 1))
    assert elapsed < FAILOVER_SECONDS
    release.wait_ready()


def test_an_upgrade_in_the_middle_of_a_study_loses_nothing(
    release: Release, cluster: Cluster, studies: Studies
) -> None:
    with witness(cluster, studies.namespace) as seen:
        studies.apply(real_study("upgraded", steps=3, trials={"max": 16, "parallel": 3}))
        until(lambda: studies.status("upgraded").get("trials", {}).get("succeeded", 0) >= 2, "two trials succeed", 120)
        before = {pod["metadata"]["uid"] for pod in release.pods()}
        release.upgrade("--set", "log.level=debug")
        until(lambda: not before & {pod["metadata"]["uid"] for pod in release.pods()}, "all pods are new", 60)
        status = studies.wait("upgraded", timeout=360)
    assert status["trials"]["succeeded"] == 16
    once(seen, "upgraded", 16, parallel=3)


def test_uninstall_keeps_studies_and_an_install_goes_on_with_them(
    release: Release, cluster: Cluster, studies: Studies
) -> None:
    studies.apply(real_study("kept", steps=2, trials={"max": 6, "parallel": 1}))
    until(lambda: studies.status("kept").get("trials", {}).get("succeeded"), "a first trial succeeds", 120)
    release.helm("uninstall", release.name, "--wait")
    assert studies.objects("study", "kept")[0]["metadata"]["name"] == "kept"
    assert len(cluster.objects("crds")) >= 3
    until(lambda: not release.pods(), "no pod is left", 60)
    leftovers = cluster.kubectl(
        "get", "clusterroles,clusterrolebindings", "-o", "name", "-l", f"app.kubernetes.io/instance={release.name}"
    ).stdout
    assert leftovers == ""
    release.install()
    assert studies.wait("kept", timeout=300)["trials"]["succeeded"] == 6


def test_logs_are_json_and_name_the_study(release: Release, studies: Studies) -> None:
    studies.apply(real_study("told", trials={"max": 1, "parallel": 1}))
    studies.wait("told", timeout=300)
    for component, containers in (("operator", ("operator", "strategy")), ("scheduler", ("scheduler",))):
        for container in containers:
            lines = release.kubectl("logs", release.leader(component), "-c", container).splitlines()
            parsed = [json.loads(line) for line in lines]
            about = [line for line in parsed if line.get("study") == "told"]
            assert container == "strategy" or any(line.get("trial") == "told-0" for line in about)
            assert all(line["namespace"] == studies.namespace for line in about)


def test_prometheus_reads_the_metrics_of_those_who_lead(
    release: Release, cluster: Cluster, studies: Studies, request: pytest.FixtureRequest
) -> None:
    studies.apply(real_study("measured", trials={"max": 2, "parallel": 2}))
    studies.wait("measured", timeout=300)
    release.kubectl("create", "serviceaccount", "prometheus")
    reader = f"{release.name}-metrics-reader"
    subject = f"{release.namespace}:prometheus"
    cluster.kubectl("create", "clusterrolebinding", reader, f"--clusterrole={reader}", f"--serviceaccount={subject}")
    request.addfinalizer(lambda: cluster.kubectl("delete", "clusterrolebinding", reader))
    for component, names in (("operator", operator.NAMES), ("scheduler", scheduler.NAMES)):
        [pod] = release.objects("pod", release.leader(component))
        shown = scrape(release, f"scrape-{component}", f"https://{pod['status']['podIP']}:8443/metrics")
        assert sorted(name for name in names if f"# TYPE {name} " not in shown) == []
        assert "tuneyard_leader 1.0" in shown
        if component == "operator":
            ours = f'namespace="{studies.namespace}",phase="Succeeded",study="measured"'
            assert f"tuneyard_trials{{{ours}}} 2.0" in shown


def scrape(release: Release, name: str, url: str) -> str:
    """What a pod of Prometheus' account gets from a URL."""
    program = """\
import ssl, sys, urllib.request
token = open("/var/run/secrets/kubernetes.io/serviceaccount/token").read()
request = urllib.request.Request(sys.argv[1], headers={"Authorization": f"Bearer {token}"})
print(urllib.request.urlopen(request, context=ssl._create_unverified_context(), timeout=10).read().decode())
"""
    container = {
        "name": "scrape",
        "image": IMAGE,
        "command": ["python", "-c", program, url],
        "securityContext": RESTRICTED,
    }
    spec = {"serviceAccountName": "prometheus", "restartPolicy": "Never", "containers": [container]}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    release.cluster.kubectl("-n", release.namespace, "create", "-f", "-", stdin=json.dumps(manifest))
    release.kubectl("wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s")
    return release.kubectl("logs", name)


def once(seen: Witness, study: str, trials: int, *, parallel: int) -> None:
    """Each trial ran once and ended once, and never too many at a time."""
    assert seen.outcomes == {"Succeeded": trials}
    assert seen.changed_after_end == []
    assert [job for job, uids in seen.jobs.items() if len(uids) > 1] == []
    assert sorted(seen.jobs) == sorted(f"{study}-{index}-0" for index in range(trials))
    assert seen.most_alive <= parallel
