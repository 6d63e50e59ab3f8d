"""From a template to what runs.

The whole Job of a GPU trial is in golden/job.yaml. After a change that is wanted, write it anew and read the diff:

TUNEYARD_WRITE_GOLDEN=1 pytest tests/unit/operator/test_render.py
"""

import copy
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from operator_objects import Object, Yard

from tuneyard_operator import checkpoints, pods, render
from tuneyard_operator.pods import AttemptKey

GOLDEN = Path(__file__).parent / "golden" / "job.yaml"


def job(url: str | None = None, *, node: str | None = None, gpus: int = 0, **pod: object) -> Object:
    """The Job of a study whose template has this pod spec (besides a container)."""
    spec: Object = {"containers": [{"name": "train", "image": "train:1"}], **pod}
    yard = Yard(template={"spec": spec}).placed(3, attempt=1, node=node, gpus=gpus)
    before = copy.deepcopy(yard.state.spec.template)
    found = render.job(yard.state, yard.state.trials[3], url)
    assert yard.state.spec.template == before, "the study's own template is not to be changed"
    return found


def main_of(found: Object) -> Object:
    container: Object = found["spec"]["template"]["spec"]["containers"][0]
    return container


def env(container: Object) -> dict[str, str]:
    names = [entry["name"] for entry in container["env"]]
    assert len(names) == len(set(names)), "a name that is there twice"
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


def test_the_whole_job() -> None:
    template = {
        "metadata": {"labels": {"team": "vision"}, "annotations": {"note": "kept"}},
        "spec": {
            "serviceAccountName": "trainer",
            "nodeSelector": {"zone": "a"},
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
            "initContainers": [{"name": "fetch", "image": "fetch:1", "args": ["--lr=${lr}"]}],
            "containers": [
                {
                    "name": "train",
                    "image": "train:1",
                    "command": ["python", "train.py"],
                    "args": ["--lr", "${lr}", "--momentum=${momentum}", "--literal=$${lr}"],
                    "env": [{"name": "OUT", "value": "/out/$(TUNEYARD_TRIAL)/${lr}"}],
                    "resources": {"limits": {"memory": "8Gi"}, "requests": {"cpu": "2"}},
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                },
                {"name": "side", "image": "side:1"},
            ],
        },
    }
    yard = Yard(template=template, gpu={"count": 2}).placed(3, attempt=1, gpus=2)
    found = render.job(yard.state, yard.state.trials[3], "http://operator.tuneyard:8080/v1/reports")
    text = yaml.safe_dump(found, sort_keys=False)
    if os.environ.get("TUNEYARD_WRITE_GOLDEN"):
        GOLDEN.write_text(text)
    assert found == yaml.safe_load(GOLDEN.read_text())
    assert text == GOLDEN.read_text(), "the order of what people read counts too"


def test_a_job_and_its_pods_are_known_by_their_labels() -> None:
    found = job()
    assert found["metadata"]["name"] == "s-3-1"
    (owner,) = found["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("Trial", "u-3", True)
    key = AttemptKey("u-s", "u-3", 3, 1)
    assert pods.key(found) == pods.key(found["spec"]["template"]) == key


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (False, "false"), (64, "64"), (0.1, "0.1"), (1e-05, "1e-05"), ("adam", "adam"), (1.0, "1.0")],
)
def test_values_as_text(value: object, text: str) -> None:
    assert render.text(value) == text
    if isinstance(value, float):
        assert float(text) == value


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("--lr=${lr}", "--lr=0.1"),
        ("${lr}${lr}", "0.10.1"),
        ("${momentum}", ""),
        ("$${lr}", "${lr}"),
        ("$$${lr}", "$${lr}"),
        ("$lr $(lr) ${ lr } ${1}", "$lr $(lr) ${ lr } ${1}"),
        ("${tricky}", "${lr}"),
    ],
)
def test_references(template: str, filled: str) -> None:
    assert render.substitute(template, {"lr": 0.1, "tricky": "${lr}"}) == filled


def test_the_environment() -> None:
    found = env(main_of(job()))
    assert json.loads(found.pop("TUNEYARD_PARAMETERS")) == {"lr": 0.1}
    assert found == {
        "TUNEYARD_STUDY": "s", "TUNEYARD_TRIAL": "s-3", "TUNEYARD_INDEX": "3", "TUNEYARD_ATTEMPT": "1",
        "TUNEYARD_PARAM_lr": "0.1", "TUNEYARD_TERMINATION_FILE": "/dev/termination-log",
    }  # fmt: skip


def test_what_the_user_set_stays() -> None:
    given = [
        {"name": "TUNEYARD_PARAM_lr", "value": "7"},
        {"name": "TUNEYARD_REPORT_URL", "value": "http://mine"},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
    ]
    container = {"name": "train", "image": "train:1", "env": given, "terminationMessagePath": "/tmp/last",
                 "terminationMessagePolicy": "File"}  # fmt: skip
    found = main_of(job("http://ours", containers=[container]))
    assert env(found)["TUNEYARD_PARAM_lr"] == "7"
    assert env(found)["TUNEYARD_REPORT_URL"] == "http://mine"
    assert env(found)["SECRET"] == {"secretKeyRef": {"name": "a", "key": "b"}}
    assert env(found)["TUNEYARD_TERMINATION_FILE"] == "/tmp/last"
    assert found["terminationMessagePolicy"] == "File"
    names = [entry["name"] for entry in found["env"]]
    assert names.index("TUNEYARD_TRIAL") < names.index("SECRET"), "so that $(TUNEYARD_TRIAL) can be referred to"


def test_init_containers_get_the_parameters_but_no_token() -> None:
    found = job("http://ours", initContainers=[{"name": "fetch", "image": "f:1", "command": ["get", "${lr}"]}])
    (first,) = found["spec"]["template"]["spec"]["initContainers"]
    assert first["command"] == ["get", "0.1"]
    assert env(first)["TUNEYARD_PARAM_lr"] == "0.1"
    assert "volumeMounts" not in first


def test_the_token_is_for_reports_only_and_only_where_reports_go() -> None:
    pod = job("http://ours", volumes=[{"name": "data"}])["spec"]["template"]["spec"]
    data, token = pod["volumes"]
    assert data == {"name": "data"}
    (source,) = token["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == render.TOKEN_AUDIENCE
    (mount,) = pod["containers"][0]["volumeMounts"]
    found = env(pod["containers"][0])
    assert found["TUNEYARD_TOKEN_FILE"].startswith(mount["mountPath"] + "/")
    assert found["TUNEYARD_REPORT_URL"] == "http://ours"
    assert pod["automountServiceAccountToken"] is False
    without = job()["spec"]["template"]["spec"]
    assert "volumes" not in without
    assert "TUNEYARD_TOKEN_FILE" not in env(without["containers"][0])
    assert job(automountServiceAccountToken=True)["spec"]["template"]["spec"]["automountServiceAccountToken"] is True


def test_gpus_and_node_are_those_of_the_placement() -> None:
    pod = job(node="n7", gpus=2)["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"]
    assert term["matchFields"] == [{"key": "metadata.name", "operator": "In", "values": ["n7"]}]
    free = job()["spec"]["template"]["spec"]
    assert "affinity" not in free
    assert "resources" not in free["containers"][0]


FIDELITY = {"parameter": "epochs", "min": 1, "max": 9}


def test_the_fidelity_is_given_as_parameters_are() -> None:
    container = {"name": "train", "image": "train:1", "args": ["--epochs=${epochs}", "--lr=${lr}"]}
    yard = Yard(fidelity=FIDELITY, template={"spec": {"containers": [container]}}).placed(0)
    trial = yard.state.trials[0]
    assert list(render.unknown_references(yard.state.spec)) == []
    for rung, epochs in ((None, 9), ({"fidelity": 3, "level": 1, "bracket": 0, "continues": 0}, 3)):
        trial.rung = rung
        main = main_of(render.job(yard.state, trial, None))
        assert main["args"] == [f"--epochs={epochs}", "--lr=0.1"]
        assert env(main)["TUNEYARD_PARAM_epochs"] == str(epochs)
        assert json.loads(env(main)["TUNEYARD_PARAMETERS"]) == {"lr": 0.1, "epochs": epochs}


def test_each_trial_has_a_folder_in_the_claim_and_is_told_that_of_the_one_it_continues() -> None:
    yard = Yard(checkpoints={"claim": "states"}, fidelity={**FIDELITY, "resume": True}).placed(0).placed(1, attempt=2)
    found = []
    for trial in (yard.state.trials[0], yard.state.trials[1]):
        trial.rung = {"fidelity": 3, "level": 1, "bracket": 0, "continues": 0} if trial.index else None
        pod = render.job(yard.state, trial, None)["spec"]["template"]["spec"]
        assert {"name": "tuneyard-checkpoints", "persistentVolumeClaim": {"claimName": "states"}} in pod["volumes"]
        [mount] = pod["containers"][0]["volumeMounts"]
        found.append(env(pod["containers"][0]))
        assert found[-1]["TUNEYARD_CHECKPOINT_DIR"].startswith(f"{mount['mountPath']}/s-u-s/")
    first, second = found
    assert "TUNEYARD_CHECKPOINT_FROM" not in first
    assert second["TUNEYARD_CHECKPOINT_FROM"] == first["TUNEYARD_CHECKPOINT_DIR"] != second["TUNEYARD_CHECKPOINT_DIR"]
    again = checkpoints.environment("", yard.state, replace(yard.state.trials[0], uid="another"))
    assert again["TUNEYARD_CHECKPOINT_DIR"] != checkpoints.environment("", yard.state, yard.state.trials[0]), (
        "made again"
    )
    assert "TUNEYARD_CHECKPOINT_DIR" not in env(main_of(job()))


def test_a_trial_whose_source_was_deleted_and_a_folder_of_ones_own() -> None:
    yard = Yard(checkpoints={"claim": "states"}, fidelity=FIDELITY).placed(1)
    trial = yard.state.trials[1]
    trial.rung = {"fidelity": 3, "level": 1, "bracket": 0, "continues": 0}
    assert list(checkpoints.environment("f", yard.state, trial)) == ["TUNEYARD_CHECKPOINT_DIR"]
    mine = {"name": "TUNEYARD_CHECKPOINT_DIR", "value": "/mine"}
    container = {"name": "train", "image": "train:1", "env": [mine]}
    yard = Yard(checkpoints={"claim": "c"}, template={"spec": {"containers": [container]}}).placed(0)
    assert env(main_of(render.job(yard.state, yard.state.trials[0], None)))["TUNEYARD_CHECKPOINT_DIR"] == "/mine"


def test_reports_come_often_where_they_may_be_a_reason_to_stop() -> None:
    yard = Yard(fidelity=FIDELITY, strategy={"name": "asha"}).placed(0)
    assert env(main_of(render.job(yard.state, yard.state.trials[0], "http://x")))["TUNEYARD_REPORT_SECONDS"] == "0.2"
    assert "TUNEYARD_REPORT_SECONDS" not in env(main_of(job("http://x")))


def test_references_to_no_parameter_are_a_sentence() -> None:
    containers = [{"name": "train", "image": "t", "args": ["${lr} $${other} ${rl}"],
                   "env": [{"name": "A", "value": "${zz}"}, {"name": "B", "valueFrom": {}}]}]  # fmt: skip
    found = list(render.unknown_references(Yard(template={"spec": {"containers": containers}}).state.spec))
    assert found == [
        f"template.spec.containers[0]: ${{{name}}} is no parameter of this study; "
        f"write one of lr, or $${{{name}}} for a literal ${{{name}}}"
        for name in ("rl", "zz")
    ]


def test_the_trial_is_owned_by_its_study() -> None:
    found = render.trial(Yard().state, 4, {"lr": 0.3})
    assert found["spec"] == {"study": "s", "index": 4, "parameters": {"lr": 0.3}}
    (owner,) = found["metadata"]["ownerReferences"]
    assert (found["metadata"]["name"], owner["kind"], owner["uid"]) == ("s-4", "Study", "u-s")


def test_what_the_pod_claims_belongs_to_the_study() -> None:
    yard = Yard(gpu={"fraction": 0.5}).placed(3)
    claim = {"deviceClass": "gpu.nvidia.com", "count": 1, "selector": "true"}
    place = {"attempt": 0, "gpus": 0.5, "node": "n1", "resource": "gpu.nvidia.com", "backend": "dra", "claim": claim}
    yard.set(3, {"phase": "Placed", "attempt": 0, "placement": place | {"devices": ["gpu-0"]}})
    template, found = render.objects(yard.state, yard.state.trials[3], None)
    owner = template["metadata"]["ownerReferences"][0]
    assert (template["kind"], template["metadata"]["namespace"]) == ("ResourceClaimTemplate", "ns")
    assert (owner["kind"], owner["uid"]) == ("Study", "u-s")
    name = template["metadata"]["name"]
    pod = found["spec"]["template"]["spec"]
    assert pod["resourceClaims"] == [{"name": "tuneyard-gpu", "resourceClaimTemplateName": name}]
    assert main_of(found)["resources"]["claims"] == [{"name": "tuneyard-gpu"}]
