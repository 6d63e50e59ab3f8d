"""Bad input is answered by sentences and exit code 2, never by a traceback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tuneyard_operator.worlds.store import Store

BAD_YAML = "apiVersion: tuneyard.dev/v1alpha1\nkind: Study\nmetadata: {name: toy\nspec: 3\n"


def check(answer: tuple[int, str, str], said: str) -> None:
    status, out, err = answer
    assert status == 2, err
    assert out == ""
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: COMMAND"),
        (["rnu"], "there is no 'rnu' here; did you mean run?"),
        (["fly"], "there is no 'fly' here; choose one of run, get, best"),
        (["run"], "required: FILE (see tuneyard run --help)"),
        (["run", "none.yaml"], "none.yaml cannot be read: no such file or directory"),
        (["run", "."], ". cannot be read: is a directory"),
        (["get", "studis"], "there is no 'studis' here; did you mean studies?"),
        (["get", "studies", "-o", "xml"], "there is no 'xml' here; choose one of table, wide, yaml, json"),
        (["get", "trials", "toy"], "there is no study toy, nor any other; start one: tuneyard run FILE"),
        (["best", "toy"], "there is no study toy"),
        (["logs", "toy"], "'toy' is no trial; write STUDY/INDEX, for example digits/7"),
        (["logs", "toy/one"], "'toy/one' is no trial"),
        (["logs", "toy/1", "--attempt", "x"], "argument --attempt: invalid int value: 'x'"),
        (["stop", "toy"], "there is no study toy"),
        (["delete", "toy"], "there is no study toy"),
        (
            ["operator", "--strategy-service", "optimizer:80"],
            "'optimizer:80' is no origin; write scheme, host and port",
        ),
        (["operator", "--listen", "8080"], "'8080' is no address; write HOST:PORT, for example 0.0.0.0:8080"),
        (["operator", "--keep-jobs", "soon"], "'soon' is not a duration"),
        (["operator", "--strategy-url", "http://s"], "--strategy-url needs --strategy-token-file"),
        (["strategy"], "required: --token-file"),
        (["strategy", "--token-file", "none"], "the token file none cannot be read"),
    ],
)
def test_bad_command_lines(cli, arguments, said, monkeypatch):
    monkeypatch.chdir(cli.folder)
    check(cli(*arguments), said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BAD_YAML, "bad.yaml: line 4, column 5"),
        ("", "bad.yaml: holds no study"),
        ("- 1\n", "bad.yaml: a manifest is a mapping"),
        ("a: 1\na: 2\n", "bad.yaml: line 2, column 1: 'a' is written twice"),
        ("kind: Job\n", "bad.yaml: kind: write Study"),
        ("{kind: Study}\n---\n{kind: Study}\n", "bad.yaml: holds 2 studies; write each into a file of its own"),
        ("\xff", "bad.yaml: "),
    ],
)
def test_bad_files(cli, text, said):
    path = cli.folder / "bad.yaml"
    path.write_bytes(text.encode("latin-1"))
    check(cli("run", path), said)
    assert cli("get", "studies")[1] == ""


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"trails": {"max": 3}}, "spec.trails: there is no such field; did you mean trials?"),
        ({"trials": {"max": "3"}}, "spec.trials.max: write a whole number instead of '3'"),
        ({"trials": {"max": 3, "parallel": 0}}, "spec.trials.parallel: is 0"),
        ({"suspend": True}, "spec.suspend: is true"),
        ({"constraints": ["x <"]}, "spec.constraints[0]"),
        ({"constraints": ["x > 2"]}, "spec.constraints"),
        ({"gpu": {"count": 2}}, "spec.gpu: each trial asks for 2 GPUs, and this machine has none"),
        ({"gpu": {"memory": "auto"}}, "spec.gpu: each trial asks for 1 GPU, and this machine has none"),
        ({"gpu": {"count": 1, "vendor": "amd"}}, "spec.gpu: each trial asks for 1 GPU of amd"),
    ],
)
def test_bad_studies(cli, spec, said, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    path = cli.write(**spec)
    check(cli("run", path), said)
    assert cli.starts == []
    assert cli("get", "studies")[1] == "", "a study that cannot run is not kept"


def test_all_that_is_wrong_is_said_at_once(cli):
    path = cli.write("echo ${y}", trials={"max": 3, "parallel": 0}, constraints=["x <"])
    status, _, err = cli("run", path)
    assert status == 2
    assert len(err.splitlines()) == 3


def test_a_name_that_is_nearly_right(cli):
    assert cli("run", cli.write(name="digits"))[0] == 0
    check(cli("best", "digist"), "there is no study digist; did you mean digits?")
    check(cli("best", "zebra"), "there is no study zebra; there is digits")


def test_a_study_without_a_result_yet(cli):
    cli("run", cli.write("exit 0"))
    status, _, err = cli("best", "toy")
    assert status == 1
    assert "no trial of study toy has succeeded yet; see tuneyard get trials toy -o wide" in err


def test_an_error_of_ours_goes_to_a_file(cli, monkeypatch):
    def explode(_: Store) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Store, "studies", explode)
    status, _, err = cli("get", "studies")
    assert status == 1
    log = cli.home / "errors.log"
    assert f"an error in Tuneyard itself: RuntimeError: a bug; please report it with {log}" in err
    assert "Traceback" not in err
    assert "in explode" in log.read_text()


def test_a_home_that_cannot_be_used_is_a_sentence(cli):
    (cli.folder / "file").write_text("")
    status, _, err = cli("get", "studies", "--home", cli.folder / "file" / "home")
    assert status == 1
    assert "cannot be used" in err
    assert "Traceback" not in err


def test_a_reader_that_has_seen_enough_is_no_error(cli):
    cli("run", cli.write("seq 100000"))
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "tuneyard.cli", "logs", "toy/0"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_is_instant_and_says_how_to_begin():
    code = "import sys; from tuneyard.cli.parser import create; create().print_help(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tuneyard run digits.yaml" in done.stdout
    assert not {"numpy", "pydantic", "rich", "yaml", "kopf"} & set(done.stdout.split())
