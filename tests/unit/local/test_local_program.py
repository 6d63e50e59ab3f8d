"""The same template runs here and in a pod: parameters, environment, and what cannot be had on a laptop."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tuneyard_api.study import StudySpec
from tuneyard_operator.worlds import program


def spec(container: dict, **pod: object) -> StudySpec:
    return StudySpec.model_validate(
        {
            "objectives": [{"metric": "score", "goal": "maximize"}],
            "parameters": [{"name": "lr", "double": {"min": 0, "max": 1}}],
            "strategy": {"name": "random"},
            "trials": {"max": 1},
            "template": {"spec": {"containers": [{"name": "main", **container}], **pod}},
        }
    )


def made(container: dict, parameters: dict | None = None, cwd: Path = Path("/")) -> program.Program:
    return program.program(spec(container), "toy", 3, 1, {"lr": 0.5} if parameters is None else parameters, cwd)


def test_parameters_reach_arguments_and_environment():
    what = made({"command": ["sh", "-c"], "args": ["${lr}", "$${lr}"], "env": [{"name": "RATE", "value": "${lr}!"}]})
    assert what.argv[1:] == ["-c", "0.5", "${lr}"]
    assert what.argv[0].endswith("/sh")
    assert what.env["RATE"] == "0.5!"
    assert what.env["TUNEYARD_PARAM_lr"] == "0.5"
    assert (what.env["TUNEYARD_TRIAL"], what.env["TUNEYARD_ATTEMPT"]) == ("toy-3", "1")


def test_variables_are_expanded_as_kubernetes_does():
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(C)"}, {"name": "C", "value": "3"}]
    what = made({"command": ["sh", "$(B) $(TUNEYARD_INDEX) $$(A) $$ $A $(nope"], "env": env})
    assert what.env["B"] == "1$(C)"
    assert what.argv[1] == "1$(C) 3 $(A) $ $A $(nope"


def test_the_users_environment_is_inherited_but_not_an_outer_trial(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    monkeypatch.setenv("TUNEYARD_PARAM_momentum", "0.9")
    monkeypatch.setenv("TUNEYARD_REPORT_URL", "http://elsewhere")
    what = made({"command": ["sh"], "env": [{"name": "WANDB_API_KEY", "valueFrom": {"secretKeyRef": {}}}]})
    assert what.env["WANDB_API_KEY"] == "secret"
    assert not {"TUNEYARD_PARAM_momentum", "TUNEYARD_REPORT_URL"} & what.env.keys()


def test_python_is_the_one_that_runs_tuneyard():
    assert Path(made({"command": ["python"]}).argv[0]).parent == Path(sys.executable).parent


def test_a_relative_command_counts_from_the_manifests_folder(tmp_path):
    script = tmp_path / "train.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    assert made({"command": ["./train.sh"]}, cwd=tmp_path).argv == [str(tmp_path / "train.sh")]


@pytest.mark.parametrize(
    ("container", "pod", "said"),
    [
        ({}, {}, "containers[0].command: is missing"),
        ({"args": ["x"]}, {}, "containers[0].command: is missing"),
        ({"command": ["no-such-program"]}, {}, "there is no program no-such-program on the PATH"),
        ({"command": ["./train.sh"]}, {}, "there is no program ./train.sh"),
        ({"command": ["sh", "${rate}"]}, {}, "spec.template.spec.containers[0]: ${rate} is no parameter"),
        (
            {"command": ["sh"], "env": [{"name": "TOKEN", "valueFrom": {}}]},
            {},
            "TOKEN comes out of a cluster (valueFrom); give it here first: export TOKEN=",
        ),
        ({"command": ["sh"]}, {"initContainers": [{"name": "fetch"}]}, "spec.template.spec.initContainers: only the"),
    ],
)
def test_what_cannot_run_here_is_said(container, pod, said, tmp_path):
    (problem,) = program.problems(spec(container, **pod), tmp_path)
    assert said in problem


@pytest.mark.parametrize("command", [["sh"], ["${lr}"], [sys.executable]])
def test_what_can_run_here_has_no_problems(command, tmp_path):
    assert list(program.problems(spec({"command": command}), tmp_path)) == []


def test_what_is_left_out_is_noted():
    assert list(program.notes(spec({"command": ["sh"]}))) == []
    both = spec({"command": ["sh"], "envFrom": [{}]})
    both.template["spec"]["containers"].append({"name": "sidecar"})
    sidecar, variables = program.notes(both)
    assert "left out: sidecar" in sidecar
    assert "envFrom" in variables
