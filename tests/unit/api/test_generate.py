"""The generated files: up to date, and structural schemas in which everything is described and bounded."""

import pytest
import yaml
from study_table import entries, manifest

from tuneyard_api import generate
from tuneyard_api.authors import JOB_FIELDS
from tuneyard_api.gpuqueue import GpuQueueSpec
from tuneyard_api.kinds import KINDS
from tuneyard_api.policy import POLICY_RULES
from tuneyard_api.rules import RULES
from tuneyard_api.schema import structural_schema
from tuneyard_api.study import STRATEGIES
from tuneyard_api.trial import Needs, TrialSpec
from tuneyard_api.validation import InvalidStudy, validate_study

FREE_FORM = "x-kubernetes-preserve-unknown-fields"


def nodes(schema, path=""):
    """Each node of a structural schema with its path."""
    yield path, schema
    for name, below in schema.get("properties", {}).items():
        yield from nodes(below, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


@pytest.fixture(params=KINDS, ids=lambda kind: kind.kind)
def schema(request):
    return generate.object_schema(request.param)


def study_spec():
    return generate.object_schema(KINDS[0])["properties"]["spec"]["properties"]


def test_the_committed_files_are_what_the_models_say():
    assert generate.main(["--check"]) == 0


def test_a_stale_file_fails_the_check_and_is_rewritten(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generate, "DIRECTORIES", (tmp_path / "crds", tmp_path / "chart"))
    for directory in generate.DIRECTORIES:
        directory.mkdir()
    assert generate.main(["--check"]) == 1
    assert "chart/study-policy.yaml is not what the models say" in capsys.readouterr().err
    assert not list(tmp_path.glob("*/*"))
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    (tmp_path / "chart" / "study-policy.yaml").write_text("{}")
    assert generate.main(["--check"]) == 1


def test_every_field_is_described(schema):
    silent = [
        f"{path}.{name}"
        for path, node in nodes(schema)
        for name, below in node.get("properties", {}).items()
        if not below.get("description") and f"{path}.{name}" != ".metadata"
    ]
    assert silent == []


def test_every_text_list_and_map_is_bounded(schema):
    unbounded = [
        path
        for path, node in nodes(schema)
        if path != ".metadata.name"
        and (
            (node.get("type") == "string" and "maxLength" not in node and "enum" not in node)
            or (node.get("x-kubernetes-int-or-string") and "maxLength" not in node)
            or (node.get("type") == "array" and "maxItems" not in node)
            or ("additionalProperties" in node and "maxProperties" not in node)
        )
    ]
    assert unbounded == []


def test_only_what_a_structural_schema_may_have(schema):
    for path, node in nodes(schema):
        assert {"$ref", "$defs", "title", "anyOf", "allOf", "const", "pattern"}.isdisjoint(node), path
        assert "type" in node or FREE_FORM in node or "x-kubernetes-int-or-string" in node, path
        assert not isinstance(node.get("exclusiveMinimum"), float | int) or node["exclusiveMinimum"] is True, path
        assert node.get("default", ...) is not None, path
        assert not (FREE_FORM in node and "additionalProperties" in node), path


def test_the_schema_of_what_pydantic_says_otherwise():
    spec = study_spec()
    parameter = spec["parameters"]["items"]["properties"]
    values = parameter["categorical"]["properties"]["values"]
    assert values["x-kubernetes-list-type"] == "set"
    assert values["items"] == {"x-kubernetes-int-or-string": True, "minLength": 1, "maxLength": 128}
    assert spec["initial"]["items"]["type"] == "object"
    assert spec["initial"]["items"][FREE_FORM] is True
    assert spec["gpu"]["properties"]["fraction"][FREE_FORM] is True
    needed = structural_schema(Needs)["properties"]["gpuFraction"]
    assert (needed["minimum"], needed["exclusiveMinimum"], needed["maximum"]) == (0, True, 1)
    assert spec["trials"]["default"] == spec["retry"]["default"] == {}
    assert "default" not in spec["gpu"]
    assert spec["strategy"]["properties"]["name"]["enum"] == list(STRATEGIES)


def test_the_template_is_free_form_but_for_its_containers():
    template = study_spec()["template"]
    pod = template["properties"]["spec"]
    containers = pod["properties"]["containers"]
    assert template["required"] == ["spec"]
    assert pod["required"] == ["containers"]
    assert containers["minItems"] == 1
    assert template[FREE_FORM] is pod[FREE_FORM] is containers["items"][FREE_FORM] is True
    assert template["properties"]["metadata"][FREE_FORM] is True


def test_conditions_are_kept_by_type(schema):
    conditions = schema["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_columns_and_selectable_fields_exist(schema):
    paths = {path for path, _ in nodes(schema)}
    kind = next(kind for kind in KINDS if kind.description == schema["description"])
    shown = [column.path.partition("[")[0] for column in kind.columns if not column.path.startswith(".metadata")]
    assert {*shown, *kind.selectable, *(kind.scale or {}).values()} <= paths


def test_messages_are_one_sentence_each():
    rules = [rule for _, node in all_nodes() for rule in node.get("x-kubernetes-validations", ())]
    messages = [rule["message"] for rule in rules] + [rule.message for rule in POLICY_RULES]
    assert len(messages) > 40
    for message in messages:
        assert "\n" not in message
        assert not message.endswith(".")
        assert len(message.split()) >= 5, message


def all_nodes():
    for kind in KINDS:
        yield from nodes(generate.object_schema(kind))


def test_every_rule_is_broken_by_a_study_of_the_table():
    said = []
    for parameter in entries("bad", judge="python"):
        with pytest.raises(InvalidStudy) as refused:
            validate_study(manifest(parameter.values[0]))
        said += refused.value.problems
    rules = [rule for model, rules in RULES.items() if model not in {GpuQueueSpec, TrialSpec} for rule in rules]
    rules += [rule for rule in POLICY_RULES if rule.offenders is not None]
    silent = [rule.message for rule in rules if not any(rule.message in problem for problem in said)]
    # what Python says of a dot before it comes to the rules: names have letters, digits and -
    assert silent == ["metadata.name must not contain a dot, because pods are named after it; write - instead"]


@pytest.mark.parametrize("name", ["study-policy.yaml", "author-policy.yaml"])
def test_a_policy_is_two_documents_that_belong_together(name):
    policy, binding = yaml.safe_load_all(generate.files()[name])
    assert policy["spec"]["failurePolicy"] == "Fail"
    assert binding["spec"] == {"policyName": policy["metadata"]["name"], "validationActions": ["Deny"]}


def test_each_field_of_a_study_either_makes_other_jobs_or_does_not():
    which = {"objectives", "constraints", "strategy", "warmStart", "trials", "maxDuration", "queue", "priority"}
    which |= {"retry", "suspend", "earlyStopping"}
    assert {*JOB_FIELDS} | which == {*study_spec()}
    assert which.isdisjoint(JOB_FIELDS)
