"""What the tests of permissions share: the chart's roles, who they are bound to, and what the API server noted."""

import json
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from devcluster import tools
from devcluster.cluster import Cluster
from devcluster.components import AUDIT_LOG, SYSTEM_NAMESPACE

CHART = Path(__file__).resolve().parents[2] / "charts" / "tuneyard"
KINDS = {"Namespace", "ServiceAccount", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}

Object = dict[str, Any]


def rendered(release: str = "tuneyard", **values: str) -> list[Object]:
    """The service accounts, roles and bindings of the chart."""
    settings = [f"--set={name}={value}" for name, value in ({"crds.enabled": "false"} | values).items()]
    command = [str(tools.path("helm")), "template", release, str(CHART), "--namespace", SYSTEM_NAMESPACE, "--no-hooks"]
    done = subprocess.run([*command, *settings], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document and document["kind"] in KINDS]


@contextmanager
def installed(cluster: Cluster, release: str = "tuneyard", **values: str) -> Iterator[None]:
    """The service accounts with their roles, for the time of the block."""
    manifest = yaml.safe_dump_all(rendered(release, **values))
    cluster.kubectl(
        "apply", "-f", "-", stdin=f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {SYSTEM_NAMESPACE}}}}}"
    )
    try:
        cluster.kubectl("apply", "-f", "-", stdin=manifest)
        yield
    finally:
        cluster.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=manifest)


def account(name: str, namespace: str = SYSTEM_NAMESPACE) -> str:
    """A service account as the API server calls it."""
    return f"system:serviceaccount:{namespace}:{name}"


def token(cluster: Cluster, name: str, namespace: str = SYSTEM_NAMESPACE, *options: str) -> str:
    """A token of a service account."""
    return cluster.kubectl("create", "token", name, "-n", namespace, *options).stdout.strip()


def acting_as(cluster: Cluster, name: str, folder: Path) -> Path:
    """The kubeconfig of a service account in Tuneyard's namespace."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    for user in config["users"]:
        user["user"] = {"token": token(cluster, name)}
    path = folder / f"{name}.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    return path


def grants(rules: Iterable[Object]) -> set[str]:
    """What rules allow, each as "VERB WHAT": "create jobs.batch", "get pods/log", "get leases.g y" for the lease y."""
    found = set()
    for rule in rules:
        for verb in rule["verbs"]:
            found |= {f"{verb} {path}" for path in rule.get("nonResourceURLs", ())}
            for group in rule.get("apiGroups", ()):
                for resource in rule["resources"]:
                    names = [f" {name}" for name in rule.get("resourceNames", ())] or [""]
                    found |= {f"{verb} {_qualified(group, resource)}{name}" for name in names}
    return found


def _qualified(group: str, resource: str) -> str:
    kind, slash, sub = resource.partition("/")
    return f"{kind}.{group}{slash}{sub}" if group else resource


class Audit:
    """What service accounts of Tuneyard's namespace asked the API server for, from when this was made."""

    def __init__(self, cluster: Cluster) -> None:
        self._log = cluster.kubeconfig.with_name(AUDIT_LOG)
        self._begin = self._log.stat().st_size if self._log.exists() else 0

    @property
    def kept(self) -> bool:
        """Whether this cluster notes it."""
        return self._log.exists()

    def events(self, name: str) -> list[Object]:
        """What an account asked for, and the answers."""
        with self._log.open("rb") as log:
            log.seek(self._begin)
            whole = log.read().rpartition(b"\n")[0].splitlines()
        found = [json.loads(line) for line in whole]
        return [event for event in found if event["user"]["username"] == account(name)]

    def used(self, name: str) -> set[str]:
        """What it was allowed, in the words of `grants`."""
        return {_asked(event) for event in self.events(name) if not _refused(event)}

    def refused(self, name: str) -> list[str]:
        """What it was not allowed."""
        return [f"{_asked(event)}: {event['responseStatus']}" for event in self.events(name) if _refused(event)]


def _refused(event: Object) -> bool:
    allowed = event["annotations"]["authorization.k8s.io/decision"] == "allow"
    return not allowed or event["responseStatus"]["code"] == 403


def _asked(event: Object) -> str:
    what = event.get("objectRef")
    if what is None:
        return f"{event['verb']} {event['requestURI'].partition('?')[0]}"
    sub = f"/{what['subresource']}" if "subresource" in what else ""
    name = f" {what['name']}" if what["resource"] in {"leases", "configs"} and event["verb"] != "create" else ""
    return f"{event['verb']} {_qualified(what.get('apiGroup', ''), what['resource'] + sub)}{name}"
