"""What Prometheus and Grafana are told: targets, alerts and the dashboard fit what the processes show."""

import json
import re
from collections.abc import Callable, Iterator
from typing import get_args

import promql_parser
import pytest
from _chart import CHART, VALUES, Helm, Object, Objects, selects

from tuneyard_api.study_status import StudyStatus
from tuneyard_api.trial import Outcome, Phase
from tuneyard_operator import telemetry as operator
from tuneyard_scheduler import telemetry as scheduler

Render = Callable[..., Objects]

DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
NAMES = operator.NAMES | scheduler.NAMES
PROCESS = {"up", "process_start_time_seconds", "process_resident_memory_bytes", "process_cpu_seconds_total"}
"""What each target has without our doing."""
KINDS = {
    "serviceMonitor": [("ServiceMonitor", "tuneyard-operator"), ("ServiceMonitor", "tuneyard-scheduler")],
    "prometheusRule": [("PrometheusRule", "tuneyard")],
    "dashboard": [("ConfigMap", "tuneyard-dashboard")],
}


@pytest.fixture(scope="module")
def everything(render: Render) -> Objects:
    return render("--values", str(VALUES / "everything.yaml"))


@pytest.fixture(scope="module")
def rules(render: Render) -> list[Object]:
    groups = render("--set=metrics.prometheusRule.enabled=true").one("PrometheusRule", "tuneyard")["spec"]["groups"]
    names = [group["name"] for group in groups]
    assert sorted(set(names)) == sorted(names)
    return [rule for group in groups for rule in group["rules"]]


def asked() -> Iterator[str]:
    """The expressions of the dashboard, with what Grafana would put in."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "2m")


def variables() -> Iterator[str]:
    """The selectors of the dashboard's variables."""
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.*), \w+\)", variable["query"]["query"])
            assert found, variable["name"]
            yield found[1]


@pytest.fixture(scope="module")
def expressions(rules: list[Object]) -> list[str]:
    return [*(rule["expr"] for rule in rules), *asked(), *variables()]


@pytest.mark.parametrize("value", KINDS)
def test_each_part_is_there_when_it_is_wanted(render: Render, value: str) -> None:
    ours = {kind for kinds in KINDS.values() for kind in kinds}
    options = ("--set", f"metrics.{value}.enabled=true")
    assert [key for key in keys(render()) if key in ours] == []
    assert sorted(key for key in keys(render(*options)) if key in ours) == KINDS[value]
    labelled = render(*options, "--set", f"metrics.{value}.labels.found=here")
    for kind, name in KINDS[value]:
        assert labelled.one(kind, name)["metadata"]["labels"]["found"] == "here"


def keys(objects: Objects) -> list[tuple[str, str]]:
    return [(item["kind"], item["metadata"]["name"]) for item in objects]


def test_each_service_of_metrics_has_its_monitor(everything: Objects) -> None:
    services = [item for item in everything.of("Service") if "tuneyard.dev/metrics" in item["metadata"]["labels"]]
    monitors = everything.of("ServiceMonitor")
    assert len(services) == len(monitors) == 2
    for monitor in monitors:
        selector = monitor["spec"]["selector"]["matchLabels"]
        (service,) = [item for item in everything.of("Service") if selects(selector, item["metadata"]["labels"])]
        assert service in services
        assert service["metadata"]["namespace"] == monitor["metadata"]["namespace"]
        (endpoint,) = monitor["spec"]["endpoints"]
        (port,) = service["spec"]["ports"]
        assert (endpoint["port"], endpoint["scheme"]) == (port["name"], port["appProtocol"])
        assert endpoint["honorLabels"] is True
        assert endpoint["interval"] == "15s"


def test_alerts_know_the_targets_by_the_names_of_their_services(everything: Objects) -> None:
    """The Prometheus operator makes `job` the Service's name, and `namespace` its namespace."""
    services = {item["metadata"]["name"] for item in everything.of("Service")}
    (rule,) = everything.of("PrometheusRule")
    for each in (each for group in rule["spec"]["groups"] for each in group["rules"]):
        selectors = re.findall(r"\{([^{}]*)\}", each["expr"])
        assert selectors
        for selector in selectors:
            (namespace,), (job,) = (re.findall(rf'\b{name}="([^"]*)"', selector) for name in ("namespace", "job"))
            assert namespace == "tuneyard-system"
            assert job in services
            assert job.endswith(f"-{each['labels']['component']}-metrics")


def test_alerts_say_what_to_do(rules: list[Object]) -> None:
    alerts = [(rule["alert"], rule["labels"]["component"]) for rule in rules]
    assert sorted(set(alerts)) == sorted(alerts)
    for rule in rules:
        assert re.fullmatch(r"\d+m", rule["for"]), rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"].keys() == {"summary", "description"}
        assert len(rule["annotations"]["description"]) > 100, rule["alert"]


def test_one_namespace_is_looked_into(render: Render) -> None:
    rule = render("--set=metrics.prometheusRule.enabled=true,watchNamespace=team-a").one("PrometheusRule", "tuneyard")
    assert "kubectl get studies -n team-a" in " ".join(json.dumps(rule).split())
    assert " -A" not in json.dumps(rule)


def test_expressions_are_promql(expressions: list[str]) -> None:
    for expression in expressions:
        promql_parser.parse(expression)


def test_metrics_and_their_values_exist(expressions: list[str], rules: list[Object]) -> None:
    phases = {*Phase, *get_args(get_args(StudyStatus.model_fields["phase"].annotation)[0])}
    for expression in expressions:
        for name in named(expression):
            assert name in NAMES | PROCESS or re.sub(r"_(bucket|sum|count)$", "", name) in NAMES, expression
        for label, values in re.findall(r'\b(outcome|phase|state)(?:=|!=|=~|!~)"([^"]*)"', expression):
            known = {"outcome": {*Outcome}, "phase": phases, "state": {"trials", "others", "idle", "closed"}}
            assert set(values.split("|")) <= known[label], expression
    assert {name for rule in rules for name in named(rule["expr"])} & NAMES


def named(expression: str) -> list[str]:
    """The metrics that an expression names: all words that select something, and all of ours."""
    return re.findall(r"\b(tuneyard_\w+|\w+(?=\{))", expression)


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {re.sub(r"_bucket$", "", name) for expression in asked() for name in named(expression)}
    assert NAMES - shown == set()


def test_the_dashboard_is_whole(everything: Objects) -> None:
    assert json.loads(everything.one("ConfigMap", "tuneyard-hpo-dashboard")["data"]["tuneyard.json"]) == DASHBOARD


def test_panels_are_complete() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    titles = [panel["title"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert len(set(titles)) == len(titles)
    assert all(titles)
    for panel in PANELS:
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        refs = [target["refId"] for target in panel["targets"]]
        assert refs
        assert len(set(refs)) == len(refs)


def test_panels_do_not_lie_on_one_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_alerts_name_panels_that_there_are(rules: list[Object]) -> None:
    titles = {panel["title"] for panel in PANELS}
    mentioned = {name for rule in rules for name in re.findall(r'panel "([^"]*)"', rule["annotations"]["description"])}
    assert mentioned
    assert mentioned <= titles


def test_variables_that_are_used_exist() -> None:
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"__rate_interval", "__all"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) == names


@pytest.mark.parametrize(
    ("options", "role"),
    [
        ((), "tuneyard-metrics-reader"),
        (("--set=watchNamespace=team-a",), "tuneyard-metrics-reader-ml"),
        (("--set=rbac.create=false",), None),
    ],
)
def test_the_notes_say_how_prometheus_may_read(helm: Helm, options: tuple[str, ...], role: str | None) -> None:
    install = ("install", "tuneyard", str(CHART), "--dry-run=client", "--namespace=ml", *options)
    assert "/metrics" not in helm(*install).stdout.partition("\nNOTES:\n")[2]
    done = helm(*install, "--set=metrics.serviceMonitor.enabled=true").stdout
    manifest, _, notes = done.partition("\nNOTES:\n")
    assert "allowed to get /metrics" in notes
    assert re.findall(r"--clusterrole=(\S+)", notes) == ([role] if role else [])
    assert role is None or f"kind: ClusterRole\nmetadata:\n  name: {role}\n" in manifest
