"""`validate_study` judges the table of manifests as the API server does, and says what to write instead."""

import copy
import math

import pytest
from study_table import TABLE, entries, manifest, merge

from tuneyard_api.study import StudySpec
from tuneyard_api.validation import InvalidStudy, immutable_changes, validate_study


def problems(study):
    with pytest.raises(InvalidStudy) as refused:
        validate_study(study)
    return refused.value.problems


def base(**spec):
    return manifest({"name": "base", "spec": spec})


@pytest.mark.parametrize("entry", entries("good", judge="python"))
def test_good_studies_are_accepted(entry):
    study = manifest(entry)
    untouched = copy.deepcopy(study)
    assert validate_study(study).metadata.name == study["metadata"]["name"]
    assert study == untouched


@pytest.mark.parametrize("entry", entries("bad", judge="python"))
def test_bad_studies_are_refused_with_a_sentence_about_the_field(entry):
    wanted = entry.get("python", entry["says"])
    found = problems(manifest(entry))
    assert any(problem.startswith(entry["field"]) and wanted in problem for problem in found), found


def test_the_table_is_large_enough_to_mean_something():
    assert len(TABLE["bad"]) >= 70
    assert len(TABLE["good"]) >= 25
    names = [entry["name"] for entry in TABLE["good"] + TABLE["bad"]]
    assert len(set(names)) == len(names)


def test_every_problem_is_told_at_once():
    found = problems(
        base(
            trials={"max": 3, "parallel": 9},
            gpu={"fraction": 0.5, "count": 1},
            initial=[{"lr": 7}, {"layrs": 2}],
            template={"spec": {"restartPolicy": "Always"}},
        )
    )
    amounts = (
        "gpu needs exactly one of count, fraction and memory; write count: 1, or leave gpu out for trials on the CPU"
    )
    restart = "restartPolicy is always Never, since a failed trial is tried again as a new attempt; leave it out"
    assert found == [
        "spec.trials.parallel: parallel must not be above max; lower parallel, or raise max",
        f"spec.template.spec.restartPolicy: {restart}",
        f"spec.gpu: {amounts}",
        "spec.initial[0].lr: 7 is not a value of the parameter; write a number from 1e-05 to 0.1",
        "spec.initial[1].layrs: there is no such parameter; did you mean layers?",
    ]


def test_the_template_is_looked_into_although_the_rest_cannot_be_read():
    found = problems(base(suspend="yes", template={"spec": {"containers": []}}))
    assert [problem.split(":")[0] for problem in found] == ["spec.suspend", "spec.template.spec.containers"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"apiVersion": "tuneyard.dev/v1"}, "apiVersion: write tuneyard.dev/v1alpha1"),
        ({"kind": "Studie"}, "kind: write Study"),
        ({"metadata": None}, "metadata: is required; write it as a mapping"),
        ({"metadata": {"name": None}}, "metadata.name: is required; write it"),
        ({"spec": None}, "spec: is required; write it as a mapping"),
        ({"specs": {}}, "specs: there is no such field; did you mean spec?"),
        ({"zzz": 1}, "zzz: there is no such field; the fields are apiVersion, kind, metadata, spec, status"),
    ],
)
def test_the_frame_of_a_manifest(change, says):
    assert problems(merge(base(), change)) == [says]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_have(number):
    found = problems(base(parameters=[{"name": "x", "double": {"min": 0, "max": number}}]))
    assert found == [f"spec.parameters[0].double.max: write a finite number instead of {number}"]


def test_an_object_as_the_api_server_returns_it_is_a_study():
    stored = {
        "metadata": {"namespace": "team", "uid": "u-1", "generation": 3, "managedFields": [{"manager": "kubectl"}]},
        "status": {"phase": "Running", "anything": 1},
    }
    study = validate_study(merge(base(), stored))
    assert (study.metadata.namespace, study.metadata.uid, study.metadata.generation) == ("team", "u-1", 3)


def test_what_cannot_change_once_started():
    old = StudySpec.model_validate(base()["spec"])
    assert immutable_changes(old, old.model_copy(deep=True)) == []
    allowed = base(trials={"max": 99, "parallel": 5}, suspend=True, queue="q", template={"metadata": {"labels": {}}})
    assert immutable_changes(old, StudySpec.model_validate(allowed["spec"])) == []
    changed = base(
        strategy={"seed": 1},
        initial=[{"lr": 0.01}],
        constraints=["layers < 3"],
        parameters=[{"name": "lr", "double": {"min": 0, "max": 1}}],
        objectives=[{"metric": "accuracy", "goal": "minimize"}],
    )
    found = immutable_changes(old, StudySpec.model_validate(changed["spec"]))
    assert [problem.split(":")[0] for problem in found] == [
        "spec.objectives",
        "spec.parameters",
        "spec.constraints",
        "spec.strategy",
        "spec.initial",
    ]
    assert found[0].endswith("cannot change once the study has started; make a new study, or delete this one first")
