"""Values: each is described, has a default and is checked; what is no value is refused by name."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from _chart import CHART, VALUES, Helm, Object

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())


def resolved(schema: Object) -> Object:
    name = schema.get("$ref", "").rpartition("/")[2]
    return SCHEMA["definitions"][name] if name else schema


def leaves(schema: Object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths that values.yaml must have: down to maps and lists, which have values of their own below them."""
    for name, below in schema["properties"].items():
        structured = "$ref" not in below and "properties" in below
        if structured or below.get("$ref", "").endswith("/serviceAccount"):
            yield from leaves(resolved(below), (*path, name))
        elif name != "global":  # Helm's own
            yield (*path, name)


def test_the_schema_and_the_defaults_have_the_same_values() -> None:
    def given(value: Object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        for name, below in value.items():
            deeper = isinstance(below, dict) and (*path, name) not in wanted
            yield from given(below, (*path, name)) if deeper else [(*path, name)]

    wanted = list(leaves(SCHEMA))
    assert sorted(given(DEFAULTS)) == sorted(wanted)


def test_every_value_is_described_in_the_readme() -> None:
    rows = [line.split(" | ") for line in (CHART / "README.md").read_text().splitlines() if line.startswith("| `")]
    described = {row[0].strip("| `"): row[2].rstrip(" |") for row in rows}
    assert list(described) == [".".join(path) for path in leaves_as_written()]
    assert all(described.values())


def leaves_as_written() -> list[tuple[str, ...]]:
    """The values in the order of values.yaml."""

    def position(path: tuple[str, ...]) -> tuple[int, ...]:
        level, found = DEFAULTS, []
        for name in path:
            found.append(list(level).index(name))
            level = level[name]
        return tuple(found)

    return sorted(leaves(SCHEMA), key=position)


def test_the_sets_of_values_change_every_value() -> None:
    """So that the golden files show what each does."""
    sets = [yaml.safe_load(path.read_text()) for path in VALUES.glob("*.yaml")]

    def changed(path: tuple[str, ...]) -> bool:
        for level in sets:
            value, default = level, DEFAULTS
            for name in path:
                value, default = value.get(name) if isinstance(value, dict) else None, default[name]
            if value is not None and value != default:
                return True
        return False

    assert [".".join(path) for path in leaves(SCHEMA) if not changed(path)] == []


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("operator.replica=3", "at '/operator': additional properties 'replica' not allowed"),
        ("crd.enabled=false", "additional properties 'crd' not allowed"),
        ("metrics.servicemonitor.enabled=true", "additional properties 'servicemonitor' not allowed"),
        ("operator.replicas=two", "at '/operator/replicas': got string, want integer"),
        ("operator.replicas=-1", "at '/operator/replicas'"),
        ("crds.enabled=yes", "at '/crds/enabled': got string, want boolean"),
        ("log.level=loud", "at '/log/level': value must be one of 'debug', 'info', 'warning', 'error'"),
        ("log.format=xml", "at '/log/format': value must be one of 'json', 'text'"),
        ("image.pullPolicy=Sometimes", "at '/image/pullPolicy'"),
        ("image.tag=a:b", "at '/image/tag'"),
        ("image.digest=sha256:1234", "at '/image/digest'"),
        ("image.repository=Tuneyard", "at '/image/repository'"),
        ("operator.keepJobs=soon", "at '/operator/keepJobs': 'soon' does not match"),
        ("operator.keepJobs=", "at '/operator/keepJobs'"),
        ("watchNamespace=Team_A", "at '/watchNamespace'"),
        ("operator.serviceAccount.create=false", "at '/operator/serviceAccount/name': minLength"),
        ("scheduler.tolerations[0].efect=NoSchedule", "at '/scheduler/tolerations/0'"),
        ("scheduler.affinity.podAntiAfinity.x=1", "at '/scheduler/affinity'"),
        ("operator.resources.limit.memory=1Gi", "at '/operator/resources': additional properties 'limit'"),
        (
            "operator.topologySpreadConstraints[0].topologyKey=zone",
            "at '/operator/topologySpreadConstraints/0': missing",
        ),
        ("operator.extraArgs[0]=debug", "at '/operator/extraArgs/0'"),
        ("operator.extraEnv[0].value=x", "at '/operator/extraEnv/0': missing property 'name'"),
        ("podSecurityContext.runAsNonroot=true", "at '/podSecurityContext'"),
        ("networkPolicy.reportsFrom[0].podselector.x=1", "at '/networkPolicy/reportsFrom/0'"),
        ("networkPolicy.egress.apiServerPorts[0]=0", "at '/networkPolicy/egress/apiServerPorts/0'"),
        ("imagePullSecrets[0]=mirror", "at '/imagePullSecrets/0': got string, want object"),
        ("commonLabels.tier=1", "at '/commonLabels/tier': got number, want string"),
        ("listenHost=localhost", "at '/listenHost'"),
        ("test.timeout=5", "at '/test/timeout'"),
        ("metrics.serviceMonitor.interval=30", "at '/metrics/serviceMonitor/interval': got number, want string"),
        ("metrics.dashboard.labels.x=7", "at '/metrics/dashboard/labels/x': got number, want string"),
    ],
)
def test_mistakes_are_refused(helm: Helm, setting: str, says: str) -> None:
    done = helm("template", "tuneyard", str(CHART), "--set", setting, check=False)
    assert done.returncode != 0
    assert says in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--set=operator.serviceAccount.create=false,operator.serviceAccount.name=mine",),
        ('--set-json=podSecurityContext={"runAsUser":null,"runAsGroup":null,"fsGroup":null}',),
        ("--set=operator.resources.limits.cpu=2,operator.resources.limits.memory=1Gi",),
        ("--set=operator.replicas=0",),
        ("--set=global.anything=goes",),
    ],
)
def test_unusual_values_are_taken(helm: Helm, options: tuple[str, ...]) -> None:
    helm("template", "tuneyard", str(CHART), *options)


def test_lint(helm: Helm, values: Path) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), "--values", str(values)).stdout
