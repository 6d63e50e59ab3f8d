"""`tuneyard verify` against an API server that plays a study's life."""

from __future__ import annotations

from typing import Any

import pytest

from tuneyard.cli import main, verify
from tuneyard_scheduler.kube import Kube, KubeError, path

Object = dict[str, Any]

STUDY = "kind: Study\nmetadata: {name: probe}\nspec: {}\n"
URL = path("studies", "lab", "probe")
RUNNING = {"phase": "Running", "progress": "0/2"}
COMPLETE = {"phase": "Complete", "progress": "2/2", "trials": {"created": 2}}
GOOD = {"phase": "Succeeded", "curve": [{"step": 0, "metrics": {"score": 1}}]}


class OneStudy(Kube):
    """Answers each GET of the study with the next of `life`, then with the last of it for ever."""

    def __init__(self) -> None:
        self.namespace = "lab"
        self.life: list[Object | KubeError] = [RUNNING, COMPLETE]
        self.trials: list[Object] = [GOOD, GOOD]
        self.there = False
        self.requests: list[str] = []

    async def close(self) -> None:
        return

    async def request(self, method: str, url_path: str, **_: Any) -> Object:
        self.requests.append(f"{method} {url_path}")
        if method == "POST":
            self.there = True
            return {}
        if url_path.startswith(path("trials", "lab")):
            return {"status": self.trials[int(url_path.rpartition("-")[2])]}
        assert url_path == URL
        if not self.there:
            raise KubeError(404, "NotFound", "studies.tuneyard.dev probe not found")
        if method == "DELETE":
            self.there = False
            return {}
        now = self.life.pop(0) if len(self.life) > 1 else self.life[0]
        if isinstance(now, KubeError):
            raise now
        return {"status": now}


@pytest.fixture
def kube(monkeypatch):
    api = OneStudy()

    async def connect(_: str | None) -> OneStudy:
        return api

    monkeypatch.setattr(verify.Kube, "connect", connect)
    monkeypatch.setattr(verify, "_POLL_SECONDS", 0.01)
    return api


@pytest.fixture
def said(kube, tmp_path, capsys):
    """Runs the command: its exit status, and all that it said."""

    def run(*options: str) -> tuple[int, str]:
        file = tmp_path / "study.yaml"
        file.write_text(STUDY)
        status = main(["verify", str(file), *options])
        out, err = capsys.readouterr()
        return status, out + err

    return run


def test_a_study_that_completes_is_removed(kube, said):
    status, text = said()
    assert (status, text) == (
        0,
        "study lab/probe: Running, 0/2\nstudy lab/probe: Complete, 2/2\nthe reports of 2 trials arrived\n",
    )
    assert not kube.there


def test_what_an_earlier_run_left_is_removed_first(kube, said):
    kube.there = True
    status, _ = said("--namespace", "lab")
    assert status == 0
    assert kube.requests.index(f"DELETE {URL}") < kube.requests.index(f"POST {path('studies', 'lab')}")


def test_a_blink_of_the_api_server_is_borne(kube, said):
    kube.life = [KubeError(0, "Unreachable", "connection reset"), RUNNING, COMPLETE]
    assert said()[0] == 0


@pytest.mark.parametrize(
    ("life", "trials", "says"),
    [
        ([{"phase": "Failed"}], [{"phase": "Failed", "message": "exit code 1"}], "trial 0: Failed, exit code 1"),
        ([RUNNING], [{"phase": "Pending", "message": "no node has room"}], "trial 0: Pending, no node has room"),
        ([{}], [{}], "is the operator running, and does it watch this namespace?"),
        ([COMPLETE], [GOOD, {"phase": "Failed", "message": "exit code 1"}], "trial 1 did not succeed: Failed, exit"),
        ([COMPLETE], [GOOD, {"phase": "Succeeded"}], "trial 1 ended well, but none of its reports arrived"),
    ],
    ids=["failed", "too-slow", "nobody-cares", "one-failed", "no-reports"],
)
def test_trouble_is_told_and_the_study_left_for_a_look(kube, said, life, trials, says):
    kube.life, kube.trials = life, trials
    status, text = said("--timeout", "1s")
    assert status == 1
    assert says in text
    assert "kubectl describe study,trials -n lab" in text
    assert kube.there


def test_a_refusal_is_told_as_the_api_server_says_it(kube, said):
    kube.life = [KubeError(403, "Forbidden", "user robot cannot get studies")]
    assert said() == (1, "tuneyard: user robot cannot get studies\n")


def test_what_cannot_be_removed_is_told(kube, said, monkeypatch):
    monkeypatch.setattr(verify, "_REMOVAL_SECONDS", 0.0)
    kube.there = True
    status, text = said()
    assert status == 1
    assert "cannot be removed: look at its finalizers" in text


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "write one study with a metadata.name"), ("kind: Study\n", "write one study"), ("a: [", "line 1, column 5")],
)
def test_a_file_without_a_study_is_bad_input(tmp_path, capsys, text, says):
    file = tmp_path / "study.yaml"
    file.write_text(text)
    assert main(["verify", str(file)]) == 2
    assert says in capsys.readouterr().err
