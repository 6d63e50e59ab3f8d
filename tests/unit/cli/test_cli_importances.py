"""`tuneyard importances`, for a study on this machine and for one in a cluster."""

from __future__ import annotations

import json
from typing import Any, Self

import pytest

from tuneyard_operator.worlds.store import Store
from tuneyard_scheduler import kube
from tuneyard_strategy.contract import StudyDefinition
from tuneyard_strategy.registry import create

Object = dict[str, Any]

SPEC: Object = {
    "objectives": [{"metric": "score", "goal": "maximize"}],
    "parameters": [
        {"name": "rate", "double": {"min": 0, "max": 1}},
        {"name": "kind", "categorical": {"values": ["a", "b"]}},
    ],
    "strategy": {"name": "sobol"},
    "trials": {"max": 100},
    "template": {"spec": {"containers": [{"name": "main", "image": "i", "command": ["true"]}]}},
}


def trials(count: int) -> list[Object]:
    """Trials whose score is the rate, and a tenth of it more for kind b."""
    definition = StudyDefinition.model_validate({key: SPEC[key] for key in ("objectives", "parameters", "strategy")})
    found = []
    for s in create(definition).suggest(range(count)):
        score = s.parameters["rate"] + (0.1 if s.parameters["kind"] == "b" else 0.0)
        status = {"phase": "Succeeded", "attempt": 0, "observation": {"metrics": {"score": score}}, "value": score}
        spec = {"study": "toy", "index": s.index, "parameters": s.parameters}
        found.append({"metadata": {"name": f"toy-{s.index}"}, "spec": spec, "status": status})
    return found


@pytest.fixture
def toy(cli: Any) -> Any:
    """A study of 20 trials in this machine's store."""
    store = Store(cli.home)
    study = store.create_study("toy", {}, SPEC)
    store.create_trials(study["metadata"]["uid"], trials(20))
    store.close()
    return cli


def test_the_parameter_that_matters_comes_first(toy: Any) -> None:
    status, out, err = toy("importances", "toy")
    assert (status, err) == (0, "")
    header, first, second, _, last = out.splitlines()
    assert header.split() == ["PARAMETER", "IMPORTANCE", "ALONE"]
    assert (first.split()[0], second.split()[0]) == ("rate", "kind")
    assert float(first.split()[1]) > 0.9
    assert last.startswith("of score, by 20 trials; the model explains ")


def test_as_json_it_is_what_the_service_says(toy: Any) -> None:
    found = json.loads(toy("importances", "toy", "-o", "json")[1])
    assert found["metric"] == "score"
    assert found["observations"] == 20
    assert [each["name"] for each in found["importances"]] == ["rate", "kind"]
    assert [each["index"] for each in found["predictions"]] == list(range(20))


def test_what_is_expected_of_each_trial(toy: Any) -> None:
    header, *rows = toy("importances", "toy", "--trials")[1].splitlines()
    assert header.split() == ["TRIAL", "OBSERVED", "EXPECTED", "+-"]
    assert len(rows) == 20
    _, observed, expected, _ = rows[3].split()
    assert float(observed) == pytest.approx(float(expected), abs=0.1)


def test_too_few_trials_no_such_metric_no_such_study(cli: Any) -> None:
    store = Store(cli.home)
    study = store.create_study("toy", {}, SPEC)
    store.create_trials(study["metadata"]["uid"], trials(4))
    store.close()
    said = "tuneyard: study toy: 10 trials with a result are needed for a model of 2 parameters; there are 4 so far\n"
    assert cli("importances", "toy") == (1, "", said)
    status, _, err = cli("importances", "toy", "--metric", "loss")
    assert (status, err) == (1, "tuneyard: study toy: the study has no metric loss: choose one of score\n")
    assert cli("importances", "tyo")[2] == "tuneyard: there is no study tyo; did you mean toy?\n"


class Cluster:
    """A cluster with one study, whose trials come in pages."""

    namespace = "default"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def request(self, method: str, url_path: str, **options: Any) -> Object:
        if url_path == kube.path("studies", "team-a", "toy"):
            return {"metadata": {"name": "toy", "uid": "u"}, "spec": SPEC}
        if url_path != kube.path("trials", "team-a"):
            raise kube.KubeError(404, "NotFound", f"there is no {url_path}")
        first = int(options["params"].get("continue", 0))
        items = [
            {**item, "metadata": {**item["metadata"], "uid": "t", "resourceVersion": "1", "creationTimestamp": STAMP}}
            for item in trials(20)[first : first + 8]
        ]
        return {"items": items, "metadata": {"continue": str(first + 8) if first + 8 < 20 else ""}}


STAMP = "2026-01-01T00:00:00Z"


def test_a_study_in_a_cluster(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(kubeconfig: str | None = None) -> Cluster:
        assert kubeconfig is None
        return Cluster()

    monkeypatch.setattr(kube.Kube, "connect", connect)
    status, out, _ = cli("importances", "toy", "-n", "team-a")
    assert status == 0
    assert "by 20 trials" in out
    status, _, err = cli("importances", "toy", "-n", "team-b")
    assert status == 1
    assert err.startswith("tuneyard: there is no ")
