"""Least privilege: the chart's roles allow what Tuneyard does and nothing else, as the API server sees it."""

import asyncio
import contextlib
import itertools
import secrets
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml
from _dra import Lab, nvidia_class
from _rbac import Audit, account, acting_as, grants, installed, rendered, token
from _studies import Studies, study, until
from kubernetes import client, config

from devcluster import tools
from devcluster.cluster import Cluster
from devcluster.components import SYSTEM_NAMESPACE
from devcluster.stack import Stack, running_stack
from tuneyard_scheduler.kube import MERGE_PATCH, Kube, KubeError, path

Object = dict[str, Any]

REVIEWS = {"create tokenreviews.authentication.k8s.io", "create subjectaccessreviews.authorization.k8s.io"}
OPERATOR_EVERYWHERE = REVIEWS | {"get /.well-known/openid-configuration", "get /openid/v1/jwks"}
OPERATOR = {
    *(f"{verb} studies.tuneyard.dev" for verb in ("list", "watch")),
    *(f"{verb} trials.tuneyard.dev" for verb in ("create", "get", "list", "watch")),
    "patch studies.tuneyard.dev/status",
    "patch trials.tuneyard.dev/status",
    *(f"{verb} jobs.batch" for verb in ("create", "get", "delete", "deletecollection")),
    *(f"{verb} pods" for verb in ("list", "watch")),
    "get pods/log",
    *(f"{verb} events" for verb in ("create", "list")),
    "create resourceclaimtemplates.resource.k8s.io",
}
SCHEDULER_EVERYWHERE = REVIEWS | {
    *(f"{verb} {kind}" for verb in ("list", "watch") for kind in ("nodes", "pods", "gpuqueues.tuneyard.dev")),
    *(
        f"{verb} {kind}.resource.k8s.io"
        for verb in ("list", "watch")
        for kind in ("deviceclasses", "resourceslices", "resourceclaims")
    ),
    "get configs.kai.scheduler kai-config",
    "patch gpuqueues.tuneyard.dev/status",
}
HOLDS_GPUS = {"create pods", "delete pods"}
SCHEDULER = {
    *(f"{verb} studies.tuneyard.dev" for verb in ("list", "watch")),
    *(f"{verb} trials.tuneyard.dev" for verb in ("get", "list", "watch")),
    "patch trials.tuneyard.dev/status",
}
PEOPLE = {
    "view": {
        f"{verb} {kind}.tuneyard.dev"
        for verb in ("get", "list", "watch")
        for kind in ("studies", "trials", "gpuqueues")
    },
    "edit": {
        *(f"{verb} studies.tuneyard.dev" for verb in ("create", "update", "patch", "delete", "deletecollection")),
        *(f"{verb} studies.tuneyard.dev/scale" for verb in ("get", "update", "patch")),
        *(f"{verb} trials.tuneyard.dev" for verb in ("delete", "deletecollection")),
    },
    "metrics-reader": {"get /metrics"},
}
TEAM = f"team-{secrets.token_hex(4)}"
"""The namespace of a release for one namespace."""


def lease(name: str) -> set[str]:
    """What a component needs to elect a leader."""
    leases = "leases.coordination.k8s.io"
    return {f"create {leases}", f"get {leases} {name}", f"patch {leases} {name}"}


pytestmark = pytest.mark.skipif(not tools.built(tools.HELM), reason="helm is not built (run deploy/build-tools helm)")


@pytest.mark.parametrize(
    ("values", "suffix", "everywhere", "in_namespaces"),
    [
        ({}, "", {"operator": OPERATOR_EVERYWHERE | OPERATOR, "scheduler": SCHEDULER_EVERYWHERE | SCHEDULER}, {}),
        (
            {"watchNamespace": TEAM},
            f"-{SYSTEM_NAMESPACE}",
            {"operator": OPERATOR_EVERYWHERE, "scheduler": SCHEDULER_EVERYWHERE},
            {(TEAM, "tuneyard-operator"): OPERATOR, (TEAM, "tuneyard-scheduler"): SCHEDULER},
        ),
    ],
    ids=["all namespaces", "one namespace"],
)
def test_the_roles_are_these_and_no_more(
    values: dict[str, str], suffix: str, everywhere: dict[str, set[str]], in_namespaces: dict[tuple[str, str], set[str]]
) -> None:
    documents = rendered(**values)
    found = {
        (role["metadata"].get("namespace", ""), role["metadata"]["name"]): grants(role["rules"])
        for role in documents
        if role["kind"] in {"Role", "ClusterRole"}
    }
    leases = {
        (SYSTEM_NAMESPACE, f"tuneyard-{name}-lease"): lease(f"tuneyard-{name}") for name in ("operator", "scheduler")
    }
    held = f"tuneyard-reservations{suffix}"
    holding = {(held, "tuneyard-scheduler-reservations"): HOLDS_GPUS}
    cluster_wide = {("", f"tuneyard-{name}{suffix}"): granted for name, granted in (everywhere | PEOPLE).items()}
    assert found == leases | cluster_wide | in_namespaces | holding
    for binding in (document for document in documents if document["kind"].endswith("Binding")):
        component = binding["metadata"]["labels"]["app.kubernetes.io/component"]
        subject = {"kind": "ServiceAccount", "name": f"tuneyard-{component}", "namespace": SYSTEM_NAMESPACE}
        assert binding["subjects"] == [subject]
        assert binding["roleRef"]["name"].startswith(f"tuneyard-{component}")


def test_without_sharing_the_scheduler_makes_no_pods() -> None:
    roles = [role for role in rendered(**{"gpuSharing.backend": "none"}) if role["kind"] in {"Role", "ClusterRole"}]
    assert not [role for role in roles if grants(role["rules"]) & HOLDS_GPUS]


def test_people_get_nothing_where_nobody_wants_it() -> None:
    assert "aggregate-to" in yaml.safe_dump_all(rendered())
    assert "aggregate-to" not in yaml.safe_dump_all(rendered(**{"rbac.aggregate": "false"}))
    assert {document["kind"] for document in rendered(**{"rbac.create": "false"})} == {"Namespace", "ServiceAccount"}


class Access:
    """Asks the API server who may do what."""

    def __init__(self, cluster: Cluster) -> None:
        self._api = client.AuthorizationV1Api(config.new_client_from_config(str(cluster.kubeconfig)))

    def may(self, user: str, verb: str, what: str, namespace: str | None) -> bool:
        """Whether a user may do VERB to WHAT, such as jobs.batch or trials.tuneyard.dev/status."""
        whole, _, sub = what.partition("/")
        kind, _, group = whole.partition(".")
        attributes = client.V1ResourceAttributes(
            verb=verb, group=group, resource=kind, subresource=sub or None, namespace=namespace
        )
        spec = client.V1SubjectAccessReviewSpec(
            user=user, groups=["system:authenticated"], resource_attributes=attributes
        )
        review = self._api.create_subject_access_review(client.V1SubjectAccessReview(spec=spec))
        return bool(review.status.allowed)


@pytest.fixture(scope="module")
def access(cluster: Cluster) -> Iterator[Access]:
    """Two releases: `tuneyard` for all namespaces, `team` for one namespace; people with the usual roles there."""
    bindings = [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"test-{role}", "namespace": TEAM},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": f"a-{role}", "apiGroup": "rbac.authorization.k8s.io"}],
        }
        for role in ("view", "edit", "admin")
    ]
    cluster.kubectl("create", "namespace", TEAM)
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(bindings))
    asking = Access(cluster)
    with installed(cluster), installed(cluster, "team", watchNamespace=TEAM):
        until(lambda: asking.may("a-view", "get", "studies.tuneyard.dev", TEAM), "roles are aggregated")
        until(lambda: asking.may("a-admin", "create", "studies.tuneyard.dev", TEAM), "roles are aggregated")
        yield asking
    cluster.kubectl("delete", "namespace", TEAM, "--wait=false")


MIGHTY = [
    *((verb, "secrets") for verb in ("get", "list", "watch", "create")),
    *((verb, "configmaps") for verb in ("get", "list", "create", "update")),
    *((verb, "pods") for verb in ("get", "create", "update", "patch", "delete")),
    *(("create", f"pods/{sub}") for sub in ("exec", "attach", "portforward", "eviction", "ephemeralcontainers")),
    *((verb, "serviceaccounts") for verb in ("get", "create", "impersonate")),
    ("create", "serviceaccounts/token"),
    *(("impersonate", kind) for kind in ("users", "groups")),
    *((verb, "nodes") for verb in ("update", "patch", "delete")),
    ("get", "nodes/proxy"),
    *((verb, "roles.rbac.authorization.k8s.io") for verb in ("create", "bind", "escalate")),
    ("create", "rolebindings.rbac.authorization.k8s.io"),
    *((verb, "deployments.apps") for verb in ("create", "patch")),
    *((verb, "jobs.batch") for verb in ("update", "patch", "list", "watch")),
    *((verb, "studies.tuneyard.dev") for verb in ("create", "update", "patch", "delete")),
    *((verb, "trials.tuneyard.dev") for verb in ("update", "patch", "delete")),
    *(
        (verb, f"{kind}.resource.k8s.io")
        for verb in ("create", "update", "patch", "delete")
        for kind in ("deviceclasses", "resourceslices", "resourceclaims")
    ),
    *((verb, "resourceclaimtemplates.resource.k8s.io") for verb in ("get", "list", "update", "patch", "delete")),
    *((verb, "gpuqueues.tuneyard.dev") for verb in ("create", "update", "patch", "delete")),
    *((verb, "leases.coordination.k8s.io") for verb in ("list", "update", "delete")),
    *((verb, "namespaces") for verb in ("list", "watch", "create")),
    *((verb, "customresourcedefinitions.apiextensions.k8s.io") for verb in ("list", "watch", "update")),
    ("update", "validatingadmissionpolicies.admissionregistration.k8s.io"),
    ("*", "*.*"),
]
"""What neither operator nor scheduler may do, whatever their roles say."""


@pytest.mark.parametrize("name", ["tuneyard-operator", "tuneyard-scheduler", "team-tuneyard-operator"])
def test_what_no_component_may_do(access: Access, name: str) -> None:
    allowed = [
        f"{verb} {what}"
        for verb, what in MIGHTY
        for namespace in (TEAM, SYSTEM_NAMESPACE, "kube-system", None)
        if access.may(account(name), verb, what, namespace)
    ]
    assert allowed == []


@pytest.mark.parametrize(
    ("who", "verb", "what", "where", "allowed"),
    [
        ("tuneyard-operator", "create", "jobs.batch", TEAM, True),
        ("tuneyard-operator", "create", "jobs.batch", "elsewhere", True),
        ("tuneyard-operator", "patch", "gpuqueues.tuneyard.dev/status", None, False),
        ("tuneyard-operator", "list", "nodes", None, False),
        ("tuneyard-scheduler", "create", "jobs.batch", TEAM, False),
        ("tuneyard-scheduler", "delete", "jobs.batch", TEAM, False),
        ("tuneyard-scheduler", "create", "trials.tuneyard.dev", TEAM, False),
        ("tuneyard-scheduler", "patch", "studies.tuneyard.dev/status", TEAM, False),
        ("tuneyard-scheduler", "get", "pods/log", TEAM, False),
        ("tuneyard-scheduler", "create", "events", TEAM, False),
        ("tuneyard-scheduler", "create", "pods", "tuneyard-reservations", True),
        ("tuneyard-scheduler", "delete", "pods", "tuneyard-reservations", True),
        ("tuneyard-scheduler", "patch", "pods", "tuneyard-reservations", False),
        ("tuneyard-scheduler", "create", "pods/exec", "tuneyard-reservations", False),
        ("tuneyard-operator", "create", "pods", "tuneyard-reservations", False),
        ("team-tuneyard-scheduler", "create", "pods", "tuneyard-reservations", False),
        ("tuneyard-scheduler", "patch", "trials.tuneyard.dev/status", "elsewhere", True),
        ("tuneyard-scheduler", "create", "leases.coordination.k8s.io", TEAM, False),
        ("team-tuneyard-operator", "create", "jobs.batch", TEAM, True),
        ("team-tuneyard-operator", "create", "jobs.batch", "elsewhere", False),
        ("team-tuneyard-operator", "create", "jobs.batch", SYSTEM_NAMESPACE, False),
        ("team-tuneyard-operator", "list", "pods", None, False),
        ("team-tuneyard-operator", "list", "studies.tuneyard.dev", None, False),
        ("team-tuneyard-scheduler", "list", "pods", None, True),
        ("team-tuneyard-scheduler", "list", "trials.tuneyard.dev", None, False),
        ("team-tuneyard-scheduler", "patch", "trials.tuneyard.dev/status", TEAM, True),
        ("team-tuneyard-scheduler", "patch", "trials.tuneyard.dev/status", "elsewhere", False),
    ],
)
def test_what_a_component_may_do_where(
    access: Access, who: str, verb: str, what: str, where: str | None, allowed: bool
) -> None:
    assert access.may(account(who), verb, what, where) is allowed


@pytest.mark.parametrize(
    ("verbs", "what", "who"),
    [
        ("get list watch", "studies.tuneyard.dev", "view edit admin"),
        ("get list watch", "trials.tuneyard.dev", "view edit admin"),
        ("create update patch delete deletecollection", "studies.tuneyard.dev", "edit admin"),
        ("get update patch", "studies.tuneyard.dev/scale", "edit admin"),
        ("delete deletecollection", "trials.tuneyard.dev", "edit admin"),
        ("create update patch", "trials.tuneyard.dev", ""),
        ("update patch", "trials.tuneyard.dev/status", ""),
        ("update patch", "studies.tuneyard.dev/status", ""),
        ("create update patch delete", "gpuqueues.tuneyard.dev", ""),
        ("update patch", "gpuqueues.tuneyard.dev/status", ""),
    ],
)
def test_what_people_may_do_in_a_namespace_that_is_theirs(access: Access, verbs: str, what: str, who: str) -> None:
    for verb in verbs.split():
        found = [role for role in ("view", "edit", "admin") if access.may(f"a-{role}", verb, what, TEAM)]
        assert found == who.split(), verb
        assert not any(access.may(f"a-{role}", verb, what, "elsewhere") for role in ("view", "edit", "admin"))


@contextmanager
def processes(cluster: Cluster, release: str, folder: Path, *further: str) -> Iterator[Stack]:
    """Operator and scheduler of a release, each with the rights of its own service account."""
    options = {}
    for component in ("operator", "scheduler"):
        name = f"{release}-{component}"
        options[component] = ["--kubeconfig", str(acting_as(cluster, name, folder)), "--lease", name, *further]
    options["operator"] += ["--keep-jobs", "1s"]
    one = f"-{SYSTEM_NAMESPACE}" if "--namespace" in further else ""
    options["scheduler"] += ["--reservation-namespace", f"{release}-reservations{one}"]
    cluster.kubectl("delete", "lease", "-n", SYSTEM_NAMESPACE, "--all")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("POD_NAMESPACE", SYSTEM_NAMESPACE)
        with running_stack(cluster, folder, **options) as running:
            yield running


@asynccontextmanager
async def disturbed(cluster: Cluster, namespace: str) -> AsyncIterator[None]:
    """For the time of the block, waiting trials change all the time: who writes to them meets conflicts."""

    async def disturb(kube: Kube) -> None:
        for number in itertools.count():
            waiting = {"fieldSelector": "status.phase=Pending"}
            for item in (await kube.request("GET", path("trials", namespace), params=waiting))["items"]:
                change = {"metadata": {"annotations": {"test/disturbed": str(number)}}}
                url = path("trials", namespace, item["metadata"]["name"])
                with contextlib.suppress(KubeError):
                    await kube.request("PATCH", url, body=change, content_type=MERGE_PATCH)
            await asyncio.sleep(0.002)

    async with await Kube.connect(str(cluster.kubeconfig)) as kube:
        task = asyncio.create_task(disturb(kube))
        yield
        task.cancel()


def answer(url: str, bearer: str, body: bytes | None = None) -> int:
    """The status of an answer to a GET, or to a POST of a body."""
    unverified = ssl._create_unverified_context()
    try:
        with urlopen(Request(url, body, {"Authorization": f"Bearer {bearer}"}), context=unverified) as response:
            return int(response.status)
    except HTTPError as error:
        with error:
            return error.code


def all_that_tuneyard_does(studies: Studies, restricted: Studies, lab: Lab, queue: str) -> None:
    """Studies that make it do whatever it ever does, each to its end."""
    one, endless = {"max": 1, "parallel": 1}, {"duration-ms": "600000"}
    printed = [{"metric": "loss", "goal": "minimize", "logPattern": "loss: {value}"}]
    retry = {"limit": 1, "backoff": {"initial": "1s"}}
    kind = {"apiVersion": "tuneyard.dev/v1alpha1", "kind": "Trial", "metadata": {"name": "taken-0"}}
    studies.apply({**kind, "spec": {"study": "taken", "index": 0, "parameters": {}}})
    studies.apply(study("taken", trials=one))
    studies.apply(study("many", trials={"max": 60, "parallel": 6}, queue=queue))
    studies.apply(study("shares", gpu={"fraction": 0.5}, trials={"max": 4, "parallel": 4}))
    studies.apply(study("fails", annotations={"exit-code": "1"}, retry=retry, trials={**one, "maxFailed": 0}))
    studies.apply(study("slow", annotations=endless, trials={**one, "timeout": "2s"}))
    studies.apply(study("prints", annotations={"message": ""}, objectives=printed, trials=one))
    studies.apply(study("deleted", annotations=endless, trials={"max": 4, "parallel": 4}))
    restricted.apply(study("refused", trials=one))
    lab.node(lab.gpu(0, shared=True))
    lab.run("claims", {"fraction": 0.5}, trials=2)

    until(lambda: studies.status("many").get("replicas"), "trials run")
    studies.patch("many", suspend=True)
    studies.wait("many", "Suspended")
    studies.patch("many", suspend=False)
    until(lambda: studies.status("deleted").get("replicas") == 4, "four trials run")
    studies.kubectl("delete", "study", "deleted")
    until(lambda: not studies.objects("pods", "-l", "tuneyard.dev/study=deleted"), "its pods are gone")
    studies.wait("fails", "Failed")
    assert studies.wait("slow")["trials"]["infeasible"] == 1
    studies.kubectl("delete", "trial", "taken-0")
    assert studies.wait("taken")["trials"]["succeeded"] == 1
    assert studies.wait("many")["trials"]["succeeded"] == 60
    assert studies.wait("shares")["trials"]["succeeded"] == 4
    restricted.wait("refused", "Blocked")
    lab.studies.until_running("claims", 2)


@pytest.fixture
def restricted(cluster: Cluster, namespace: str) -> Iterator[Studies]:
    """A namespace of the restricted Pod Security Standard."""
    name = f"{namespace}-restricted"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield Studies(cluster, name)
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def queue(cluster: Cluster) -> Iterator[str]:
    """A GpuQueue."""
    cluster.create({"apiVersion": "tuneyard.dev/v1alpha1", "kind": "GpuQueue", "metadata": {"name": "all"}, "spec": {}})
    yield "all"
    cluster.kubectl("delete", "gpuqueue", "all")


@pytest.fixture
def metrics_reader(access: Access, cluster: Cluster, namespace: str) -> Iterator[None]:
    """A service account of that name that may read metrics."""
    cluster.kubectl("create", "serviceaccount", "metrics-reader", "-n", namespace)
    role, who = "--clusterrole=tuneyard-metrics-reader", f"--serviceaccount={namespace}:metrics-reader"
    cluster.kubectl("create", "clusterrolebinding", namespace, role, who)
    yield
    cluster.kubectl("delete", "clusterrolebinding", namespace)


@pytest.fixture
def lab(cluster: Cluster, namespace: str) -> Iterator[Lab]:
    """GPUs that are handed out by claims."""
    made = Lab(cluster, namespace)
    with nvidia_class(cluster):
        yield made
        made.clean()


@pytest.fixture
def audit(cluster: Cluster) -> Audit:
    """What the API server notes from now on."""
    noted = Audit(cluster)
    if not noted.kept:
        pytest.skip("this cluster's API server does not note what it is asked")
    return noted


@pytest.mark.usefixtures("access", "metrics_reader")
async def test_what_tuneyard_does_is_allowed_and_what_is_allowed_it_does(
    cluster: Cluster, audit: Audit, namespace: str, restricted: Studies, lab: Lab, queue: str, tmp_path: Path
) -> None:
    with processes(cluster, "tuneyard", tmp_path) as stack:
        nobody, reader = token(cluster, "default", namespace), token(cluster, "metrics-reader", namespace)
        for port in stack.probe_ports.values():
            assert answer(f"https://127.0.0.1:{port}/metrics", nobody) == 403
            assert answer(f"https://127.0.0.1:{port}/metrics", reader) == 200
        assert answer(f"http://127.0.0.1:{stack.report_ports['operator']}/v1/reports", nobody, b"{}") == 401
        async with disturbed(cluster, namespace):
            await asyncio.to_thread(all_that_tuneyard_does, Studies(cluster, namespace), restricted, lab, queue)
        expected = {
            "tuneyard-operator": OPERATOR_EVERYWHERE | OPERATOR | lease("tuneyard-operator"),
            "tuneyard-scheduler": SCHEDULER_EVERYWHERE | SCHEDULER | HOLDS_GPUS | lease("tuneyard-scheduler"),
        }
        for name, granted in expected.items():
            with contextlib.suppress(AssertionError):  # Jobs go seconds after their trials, in batches
                until(lambda n=name, g=granted: g <= audit.used(n), "all rights are used")
            assert granted - audit.used(name) == set(), "rights that nothing needs"
            others = audit.used(name) - granted
            assert {asked for asked in others if not asked.startswith("get /api")} == set(), "but what anybody may"
            assert audit.refused(name) == []


@pytest.mark.usefixtures("access")
async def test_a_release_for_one_namespace_works_with_rights_in_that_namespace(
    cluster: Cluster, audit: Audit, tmp_path: Path
) -> None:
    studies = Studies(cluster, TEAM)
    with processes(cluster, "team-tuneyard", tmp_path, "--namespace", TEAM):
        await asyncio.to_thread(studies.apply, study("s"))
        assert studies.wait("s")["trials"]["succeeded"] == 6
        for name in ("team-tuneyard-operator", "team-tuneyard-scheduler"):
            assert audit.refused(name) == []
