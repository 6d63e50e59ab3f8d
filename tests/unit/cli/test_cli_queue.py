"""`tuneyard queue`, of a cluster and of this machine."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tuneyard.cli import main, queue
from tuneyard_api.common import timestamp
from tuneyard_scheduler.kube import Kube, KubeError, path

Object = dict[str, Any]


def gpuqueue(name: str, spec: Object, **status: Any) -> Object:
    conditions = status.pop("conditions", [{"type": "Ready", "status": "True", "reason": "Usable"}])
    return {"metadata": {"name": name}, "spec": spec, "status": {**status, "conditions": conditions}}


def study(
    name: str, gpu: Object | None = None, queue: str | None = None, namespace: str = "lab", **status: Any
) -> Object:
    spec = ({"gpu": gpu} if gpu else {}) | ({"queue": queue} if queue else {})
    return {"kind": "Study", "metadata": {"name": name, "namespace": namespace}, "spec": spec, "status": status}


def waits(
    position: int | None, trials: int = 3, reason: str = "NoNodeFits", queue: str = "default", **more: Any
) -> Object:
    where = {"position": position} if position is not None else {}
    return {"queue": queue, "trial": "x-0", "trials": trials, "reason": reason, "message": "why", **where, **more}


class Cluster(Kube):
    def __init__(self) -> None:
        self.queues: list[Object] = []
        self.studies: list[Object] = []
        self.error: KubeError | None = None
        self.asked: list[str] = []

    async def close(self) -> None:
        return

    async def request(self, method: str, url_path: str, **_: Any) -> Object:
        assert method == "GET"
        self.asked.append(url_path)
        if self.error is not None:
            raise self.error
        return {"items": self.queues if url_path == path("gpuqueues") else self.studies}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Cluster:
    api = Cluster()

    async def connect(_: str | None) -> Cluster:
        return api

    monkeypatch.setattr(queue.Kube, "connect", connect)
    config = tmp_path / "kubeconfig"
    config.write_text("")
    monkeypatch.setenv("KUBECONFIG", str(config))
    return api


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[list[str]], str]:
    status = main(["queue", *arguments])
    captured = capsys.readouterr()
    return status, [line.split() for line in captured.out.splitlines()], captured.err


def test_queues_and_the_line(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    bad = [{"type": "Ready", "status": "False", "reason": "ParentCycle"}]
    cluster.queues = [
        gpuqueue("vision", {"guaranteed": 8, "limit": 16}, guaranteed=8.0, used=10.5, borrowed=2.5, pending=7),
        gpuqueue("lost", {"parent": "nowhere"}, guaranteed=0, used=0, borrowed=0, pending=0, conditions=bad),
    ]
    soon = timestamp(time.time() + 725)
    cluster.studies = [
        study("b", {"count": 2, "model": "A100"}, "vision", waiting=waits(2, queue="vision")),
        study("a", {"count": 1}, "vision", waiting=waits(1, 4, queue="vision", expectedStart=soon)),
        study("held", {"fraction": 0.5}, waiting=waits(None, 1, "Suspended"), gpus=0, trials={"pending": 1}),
        study("busy", {"memory": "10Gi"}, gpus=1.5, trials={"pending": 2}),
    ]
    status, lines, err = run(capsys)
    assert (status, err) == (0, "")
    assert lines == [
        ["QUEUE", "PARENT", "GUARANTEED", "LIMIT", "USED", "BORROWED", "PENDING", "PROBLEM"],
        ["default", "0", "1.5", "1.5", "3"],
        ["lost", "nowhere", "0", "0", "0", "0", "ParentCycle"],
        ["vision", "8", "16", "10.5", "2.5", "7"],
        [],
        ["POSITION", "QUEUE", "STUDY", "TRIALS", "NEEDS", "START", "REASON", "MESSAGE"],
        ["default", "held", "1", "0.5", "GPU", "Suspended", "why"],
        ["1", "vision", "a", "4", "1", "GPU", "in", "12m", "NoNodeFits", "why"],
        ["2", "vision", "b", "3", "2", "GPUs", "(A100)", "NoNodeFits", "why"],
    ]


def test_as_json(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.studies = [study("a", {"count": 1}, waiting=waits(1), gpus=2, trials={"pending": 3})]
    assert main(["queue", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "queues": [{"name": "default", "guaranteed": 0, "used": 2, "borrowed": 2, "pending": 3}],
        "waiting": [
            {
                "study": "a", "namespace": "lab", "queue": "default", "trial": "x-0", "trials": 3, "position": 1,
                "reason": "NoNodeFits", "message": "why", "gpu": {"count": 1},
            }
        ],
        "studies": 1,
    }  # fmt: skip


def test_namespaces(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.studies = [study("a", waiting=waits(1)), study("a", namespace="other", waiting=waits(2))]
    _, lines, _ = run(capsys)
    assert [line[2] for line in lines[-2:]] == ["lab/a", "other/a"]
    run(capsys, "--namespace", "lab")
    assert cluster.asked[-1] == path("studies", "lab")


def test_where_there_is_nothing(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    def last(*arguments: str) -> str:
        return " ".join(run(capsys, *arguments)[1][-1])

    assert last() == "there are no studies in the cluster; start one: kubectl apply -f FILE"
    assert last("--namespace", "lab") == "there are no studies in namespace lab; start one: kubectl apply -f FILE"
    cluster.studies = [study("a", gpus=2, trials={"pending": 1})]
    assert last() == "no study waits for a place"
    cluster.studies, cluster.queues = [], [gpuqueue("q", {})]
    assert last().startswith("there are no studies")


@pytest.mark.parametrize(
    ("error", "arguments", "said"),
    [
        (KubeError(404, "NotFound", "gone"), [], "Tuneyard is not installed in it"),
        (KubeError(403, "Forbidden", "you may not"), [], "you may not; --namespace NAME"),
        (KubeError(0, "Unreachable", "connection refused"), [], "connection refused"),
        (None, ["--here", "--namespace", "x"], "--here and --home are about this machine"),
    ],
)
def test_what_goes_wrong_is_said(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], error: KubeError | None, arguments: list[str], said: str
) -> None:
    cluster.error = error
    status, lines, err = run(capsys, *arguments)
    assert (status, lines) == (2 if error is None else 1, [])
    assert said in err


def test_this_machine(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cli.folder / "none"))
    nothing = (0, "no study runs on this machine; start one: tuneyard run FILE\n", "")
    assert cli("queue") == nothing
    assert cli("run", cli.write())[0] == 0
    assert cli("queue", "--here") == nothing, "it has ended"


def test_a_study_that_runs_on_this_machine(cli: Any, until: Any) -> None:
    script = '[ "$TUNEYARD_INDEX" != 0 ] || exit 1; sleep 60'
    retry = {"limit": 1, "backoff": {"initial": "100s"}}
    process = cli.start("run", cli.write(script, retry=retry, trials={"max": 1, "parallel": 1}))
    until(lambda: '"Backoff"' in cli("queue", "--here", "-o", "json")[1])
    found = json.loads(cli("queue", "--here", "-o", "json")[1])
    assert found["queues"][0]["name"] == queue.HERE
    assert [(each["study"], each["queue"], each["reason"]) for each in found["waiting"]] == [
        ("toy", queue.HERE, "Backoff")
    ]
    assert "expectedStart" in found["waiting"][0]
    process.kill()


@pytest.mark.parametrize(
    ("gpu", "want"),
    [
        (None, "no GPU"),
        ({"count": 1}, "1 GPU"),
        ({"count": 4, "model": "H100"}, "4 GPUs (H100)"),
        ({"fraction": 0.25}, "0.25 GPU"),
        ({"fraction": "auto"}, "auto GPU"),
        ({"memory": "10Gi"}, "10Gi of a GPU"),
    ],
)
def test_needs(gpu: Object | None, want: str) -> None:
    assert queue.needs(gpu) == want
