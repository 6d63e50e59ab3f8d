"""pbt on a real API server: generations are Trials that continue others, and pods are told whose state they have."""

import json

import pytest
from _studies import Object, Studies, study

from devcluster.cluster import Cluster
from devcluster.stack import Stack


@pytest.fixture
def studies(cluster: Cluster, stack: Stack, namespace: str) -> Studies:
    made = Studies(cluster, namespace)
    made.claim("states", "/states")
    return made


def test_a_population_is_trained_to_its_end(studies: Studies) -> None:
    studies.apply(
        study(
            "population",
            strategy={"name": "pbt", "population": 8, "seed": 1},
            fidelity={"parameter": "epochs", "min": 2, "max": 6, "resume": True},
            checkpoints={"claim": "states", "keep": 16},
            trials={"parallel": 2},
        )
    )
    status = studies.wait("population")
    assert (status["reason"], status["progress"]) == ("SpaceExhausted", "24/24")
    trials = {trial["spec"]["index"]: trial for trial in studies.trials("population")}
    rungs = {index: trial["spec"]["rung"] for index, trial in trials.items()}
    assert sorted((r["bracket"], r["level"], r["fidelity"]) for r in rungs.values()) == [
        (member, level, 2 * level + 2) for member in range(8) for level in range(3)
    ]
    continued = {index: rung["continues"] for index, rung in rungs.items() if "continues" in rung}
    assert len(continued) == 16
    x = {index: trial["spec"]["parameters"]["x"] for index, trial in trials.items()}
    changed = [index for index, source in continued.items() if x[index] != x[source]]
    assert changed, "the worst of eight go on from the best"
    pods = {int(pod["metadata"]["labels"]["tuneyard.dev/index"]): environment(pod) for pod in studies.objects("pods")}
    for index, source in continued.items():
        assert pods[index]["TUNEYARD_CHECKPOINT_FROM"] == pods[source]["TUNEYARD_CHECKPOINT_DIR"]
        assert pods[index]["TUNEYARD_PARAM_epochs"] == str(rungs[index]["fidelity"])
        kept = pods[index]["TUNEYARD_CHECKPOINTS_KEPT"].split()
        assert pods[source]["TUNEYARD_CHECKPOINT_DIR"].rpartition("/")[2] in kept
        assert len(kept) <= 2 * 16 + 2 * 3, (
            "those that may go on, the best, and who runs or is to run, each with its source"
        )
    assert len({env["TUNEYARD_CHECKPOINT_DIR"] for env in pods.values()}) == 24, "each writes to a folder of its own"
    last = status["best"]["index"]
    shown = json.loads(studies.tuneyard(f"schedule population/{last} -o json"))
    assert [part["to"] for part in shown] == list(range(2, rungs[last]["fidelity"] + 1, 2))
    assert shown[-1]["trial"] == trials[last]["metadata"]["name"]
    assert "of loss, by " in studies.tuneyard("importances population")
    wide = studies.kubectl("get", "trials", "-o", "wide").splitlines()[0].split()
    assert wide[wide.index("FIDELITY") + 1] == "CONTINUES"


def environment(pod: Object) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in pod["spec"]["containers"][0]["env"]}
