"""What must hold of everything that the chart renders, whatever the values."""

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from _chart import CHART, CLUSTER_WIDE, ROOT, Helm, Object, Objects, containers, selects

from tuneyard.cli.parser import create
from tuneyard_api.kinds import KINDS
from tuneyard_api.validation import validate_study
from tuneyard_operator.render import trial_name

Render = Callable[..., Objects]

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CRDS = ROOT / "crds"


def test_the_versions_agree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == VERSION
    offered = yaml.safe_load(chart["annotations"]["artifacthub.io/crds"])
    described = {kind.kind: kind.description for kind in KINDS}
    assert {crd["kind"]: crd["description"] for crd in offered} == described


def test_rendering_is_deterministic(render: Render, values: Path, objects: Objects) -> None:
    """GitOps controllers render again and again, without the cluster, and compare."""
    assert render("--values", str(values)) == objects
    code = "".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())
    assert re.findall(r"\b(lookup|rand\w+|now|gen\w*Cert|genCA|uuidv4|htpasswd|Release\.Is\w+)\b", code) == []


def test_names_are_unique_and_namespaces_named(objects: Objects) -> None:
    names = Counter((item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in objects)
    assert {name: count for name, count in names.items() if count > 1} == {}
    assert {item["kind"] for item in objects if "namespace" not in item["metadata"]} <= CLUSTER_WIDE
    assert {item["kind"] for item in objects if "namespace" in item["metadata"]}.isdisjoint(CLUSTER_WIDE)


def test_the_longest_release_name_fits(render: Render) -> None:
    objects = render(name="a" * 53)
    assert max(len(item["metadata"]["name"]) for item in objects.of("Service", "Deployment", "Pod")) <= 63


def test_a_release_name_that_is_a_number_stays_a_text(render: Render) -> None:
    for item in render(name="2024"):
        assert item["metadata"]["labels"]["app.kubernetes.io/instance"] == "2024"


def test_all_objects_are_labelled(objects: Objects) -> None:
    name = "hpo" if any(item["metadata"]["labels"].get("team") for item in objects) else "tuneyard"
    wanted = {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/instance": "tuneyard",
        "app.kubernetes.io/version": VERSION,
        "app.kubernetes.io/part-of": "tuneyard",
        "app.kubernetes.io/managed-by": "Helm",
        "helm.sh/chart": f"tuneyard-{VERSION}",
    }
    for item in objects:
        assert selects(wanted, item["metadata"]["labels"]), item["metadata"]["name"]


def test_every_pod_meets_the_restricted_standard(objects: Objects) -> None:
    """Field by field as in the Pod Security Standards; a real API server judges in the integration tests."""
    for name, pod in objects.pods():
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        assert {next(iter(set(volume) - {"name"})) for volume in spec.get("volumes", [])} <= {
            "configMap",
            "emptyDir",
            "projected",
        }, name
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
            assert not {"privileged", "runAsUser"} & context.keys()
            assert not [port for port in container.get("ports", []) if "hostPort" in port]


def test_every_container_says_what_it_needs(objects: Objects) -> None:
    for name, pod in objects.pods():
        for container in containers(pod):
            assert "cpu" in container["resources"]["requests"], (name, container["name"])
            assert "memory" in container["resources"]["limits"], (name, container["name"])


def test_all_run_from_one_image_that_is_pulled_alike(objects: Objects) -> None:
    pods = [pod for _, pod in objects.pods()]
    assert len({(c["image"], c["imagePullPolicy"]) for pod in pods for c in containers(pod)}) == 1
    assert len({str(pod["spec"].get("imagePullSecrets")) for pod in pods}) == 1


@pytest.mark.parametrize(
    ("options", "image"),
    [
        ((), f"tuneyard/tuneyard:{VERSION}"),
        (("--set=image.tag=1.2.3",), "tuneyard/tuneyard:1.2.3"),
        (("--set=image.registry=reg.example.test:5000/hub",), f"reg.example.test:5000/hub/tuneyard/tuneyard:{VERSION}"),
        (("--set=image.tag=x,image.digest=sha256:" + "0" * 64,), "tuneyard/tuneyard@sha256:" + "0" * 64),
    ],
)
def test_the_image(render: Render, options: tuple[str, ...], image: str) -> None:
    (container,) = render(*options).one("Deployment", "tuneyard-scheduler")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == image


def test_only_those_who_talk_to_the_api_server_have_a_token(objects: Objects) -> None:
    for name, pod in objects.pods():
        assert pod["spec"].get("automountServiceAccountToken", False) is False, name
        holders = {
            container["name"]
            for container in containers(pod)
            for mount in container.get("volumeMounts", [])
            if mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
        }
        assert holders <= {"operator", "scheduler", "verify"}, name
        assert bool(holders) == (name != "trial"), name
    assert all(account["automountServiceAccountToken"] is False for account in objects.of("ServiceAccount"))
    assert objects.of("Secret") == []


def test_mounts_and_volumes_belong_together(objects: Objects) -> None:
    for name, pod in objects.pods():
        mounted = {mount["name"] for container in containers(pod) for mount in container.get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in pod["spec"].get("volumes", [])}, name


def test_accounts_and_roles_that_are_named_exist(objects: Objects) -> None:
    accounts = {(item["metadata"]["namespace"], item["metadata"]["name"]) for item in objects.of("ServiceAccount")}
    accounts |= {("tuneyard-system", "hpo-operator"), ("tuneyard-system", "hpo-scheduler")}
    for name, pod in objects.pods():
        if name != "trial":
            assert ("tuneyard-system", pod["spec"]["serviceAccountName"]) in accounts, name
    for binding in objects.of("RoleBinding", "ClusterRoleBinding"):
        for subject in binding["subjects"]:
            assert (subject["namespace"], subject["name"]) in accounts, binding["metadata"]["name"]
        ref = binding["roleRef"]
        role = objects.one(ref["kind"], ref["name"])
        if ref["kind"] == "Role":
            assert role["metadata"]["namespace"] == binding["metadata"]["namespace"]


def selectors(objects: Objects) -> Iterator[tuple[Object, Object]]:
    """Each object that selects pods, and its selector."""
    for item in objects:
        if item["kind"] == "Service":
            yield item, item["spec"]["selector"]
        elif item["kind"] in {"Deployment", "PodDisruptionBudget"}:
            yield item, item["spec"]["selector"]["matchLabels"]
        elif item["kind"] == "NetworkPolicy":
            yield item, item["spec"]["podSelector"]["matchLabels"]


def test_each_selector_selects_the_pods_of_its_component(objects: Objects) -> None:
    pods = {name: pod["metadata"]["labels"] for name, pod in objects.pods() if name != "trial"}
    for item, selector in selectors(objects):
        component = item["metadata"]["labels"]["app.kubernetes.io/component"]
        selected = [name for name, labels in pods.items() if selects(selector, labels)]
        assert [name.rpartition("-")[2] for name in selected] == [component], item["metadata"]["name"]
    for name, pod in objects.pods():
        for spread in pod["spec"].get("topologySpreadConstraints", []):
            if spread["labelSelector"] != {"matchLabels": {"team": "platform"}}:
                assert selects(spread["labelSelector"]["matchLabels"], pods[name])


def test_ports_that_are_named_exist(objects: Objects) -> None:
    ports = {
        name.rpartition("-")[2]: {p["name"]: p["containerPort"] for c in containers(pod) for p in c.get("ports", [])}
        for name, pod in objects.pods()
    }
    assert ports["operator"] == {"strategy": 8090, "reports": 8080, "metrics": 8443}
    assert ports["scheduler"] == {"metrics": 8443}
    for service in objects.of("Service"):
        component = service["metadata"]["labels"]["app.kubernetes.io/component"]
        for port in service["spec"]["ports"]:
            assert ports[component][port["targetPort"]] == port["port"]
    for policy in objects.of("NetworkPolicy"):
        component = policy["metadata"]["labels"]["app.kubernetes.io/component"]
        named = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        assert named == ports[component].keys() - {"strategy"}


def test_the_command_line_takes_the_arguments(objects: Objects) -> None:
    called = {
        container["args"][0]: create().parse_args(container["args"])
        for _, pod in objects.pods()
        for container in containers(pod)
        if "args" in container
    }
    assert called.keys() == {"operator", "scheduler", "strategy", "verify"}
    operator, strategy = called["operator"], called["strategy"]
    service, namespace, _ = str(urlsplit(operator.report_url).hostname).split(".")
    assert objects.one("Service", service)["metadata"]["namespace"] == namespace
    assert urlsplit(operator.report_url).port == operator.listen[1] == 8080
    assert urlsplit(operator.strategy_url).port == strategy.listen[1] == 8090
    assert operator.strategy_token_file == strategy.token_file
    assert operator.serve[1] == called["scheduler"].serve[1] == 8443
    assert operator.lease != called["scheduler"].lease


def test_probes_ask_over_https_what_is_served(objects: Objects) -> None:
    for name, pod in objects.pods():
        for container in pod["spec"]["containers"] if name.startswith("Deployment") else []:
            asked = {key: container[key]["httpGet"] for key in ("startupProbe", "livenessProbe", "readinessProbe")}
            assert {probe["scheme"] for probe in asked.values()} == {"HTTPS"}
            assert {probe["port"] for probe in asked.values()} == {"metrics"}
            assert [probe["path"] for probe in asked.values()] == ["/healthz", "/healthz", "/readyz"]


def test_the_strategy_service_is_a_sidecar(objects: Objects) -> None:
    pods = dict(objects.pods())
    (name,) = [name for name in pods if name.endswith("-operator")]
    (sidecar,) = pods[name]["spec"]["initContainers"]
    assert (sidecar["name"], sidecar["restartPolicy"]) == ("strategy", "Always")
    assert sidecar["startupProbe"]["httpGet"] == {"path": "/healthz", "port": "strategy"}


def test_definitions_are_those_of_the_api(render: Render) -> None:
    wanted = [item for path in CRDS.glob("*.yaml") for item in yaml.safe_load_all(path.read_text())]
    rendered = {(item["kind"], item["metadata"]["name"]): item for item in render()}
    for item in wanted:
        found = rendered[item["kind"], item["metadata"]["name"]]
        assert found["spec"] == item["spec"]
        assert found["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_definitions_may_go_with_the_release_or_be_left_out(render: Render) -> None:
    kinds = {item["kind"] for item in yaml.safe_load_all((CRDS / "study-policy.yaml").read_text())}
    kinds.add("CustomResourceDefinition")
    dropped = render("--set=crds.keep=false").of(*kinds)
    assert {item["kind"] for item in dropped} == kinds
    assert not [item for item in dropped if "annotations" in item["metadata"]]
    assert render("--set=crds.enabled=false").of(*kinds) == []


def test_one_namespace_is_watched(render: Render) -> None:
    objects = render("--set=watchNamespace=team-a")
    for name in ("operator", "scheduler"):
        (container,) = objects.one("Deployment", f"tuneyard-{name}")["spec"]["template"]["spec"]["containers"]
        assert "--namespace=team-a" in container["args"]
    reports = objects.one("NetworkPolicy", "tuneyard-operator")["spec"]["ingress"][1]["from"]
    assert reports[0] == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "team-a"}}}
    assert objects.one("Role", "tuneyard-test")["metadata"]["namespace"] == "team-a"
    assert objects.one("Pod", "tuneyard-test")["metadata"]["namespace"] == "tuneyard-system"
    assert "--namespace=team-a" in objects.one("Pod", "tuneyard-test")["spec"]["containers"][0]["args"]


def test_the_study_of_helm_test(objects: Objects) -> None:
    study = validate_study(objects.study())
    assert study.spec.gpu is None
    assert study.spec.trials.max is not None
    (test,) = objects.of("Pod")
    assert test["metadata"]["name"] == study.metadata.name
    for role in [role for role in objects.of("Role") if role["metadata"]["name"] == study.metadata.name]:
        (names,) = [rule["resourceNames"] for rule in role["rules"] if rule["resources"] == ["trials"]]
        assert names == [trial_name(study.metadata.name, index) for index in range(study.spec.trials.max)]


def test_what_helm_test_needs_goes_with_it(objects: Objects) -> None:
    for item in objects:
        ours = item["metadata"]["labels"].get("app.kubernetes.io/component") == "test"
        assert ours == (item["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"), item["metadata"]["name"]


def test_the_notes_hold_a_study_that_works(helm: Helm, values: Path) -> None:
    install = ("install", "tuneyard", str(CHART), "--dry-run=client", "--namespace=ml", f"--values={values}")
    notes = helm(*install).stdout.partition("\nNOTES:\n")[2]
    manifest = re.search(r"<<'EOF'\n(.*)^EOF$", notes, re.DOTALL | re.MULTILINE)
    assert manifest
    validate_study(yaml.safe_load(manifest[1]))


def test_older_clusters_are_refused(helm: Helm) -> None:
    def said(version: str) -> str:
        return helm("template", "tuneyard", str(CHART), "--kube-version", version, check=False).stderr

    assert "chart requires kubeVersion: >=1.31.0-0" in said("1.30.9")
    assert said("1.31.0-eks-a1b2c3") == ""
