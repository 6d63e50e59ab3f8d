"""Studies with a fidelity on this machine: trials are stopped while they run, or continued on the next rung."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tuneyard_api.common import epoch_seconds
from tuneyard_operator.local_runner import Ending

EPOCHS = r"""
awk -v x=${x} -v n=${epochs} 'BEGIN {
  for (step = 0; step < n; step++) {
    score = sprintf("%.6f", x - 1 / (step + 1))
    print "{\"step\": " step ", \"metrics\": {\"score\": " score "}}" >>ENVIRON["TUNEYARD_REPORT_FILE"]
    fflush()
    print "{\"score\": " score "}" >ENVIRON["TUNEYARD_TERMINATION_FILE"]
    close(ENVIRON["TUNEYARD_TERMINATION_FILE"])
    if (step == 0 && x < 0.5 && PAUSE) system("sleep " PAUSE)
  }
}'
"""
"""A program of so many epochs, the worse ones of which take a while after the first."""
FIDELITY = {"parameter": "epochs", "min": 1, "max": 9}
INITIAL = [{"x": 0.9}, {"x": 0.2}, {"x": 0.1}, {"x": 0.3}]


async def test_asha_stops_the_worse_trials_and_their_processes(laptop):
    study = laptop.create(
        EPOCHS.replace("PAUSE", "5"),
        strategy={"name": "asha"},
        fidelity=FIDELITY,
        initial=INITIAL,
        trials={"max": 4, "parallel": 1, "maxFailed": 0},
    )
    assert await laptop.run(study) is Ending.COMPLETE
    assert laptop.phases(study) == ["Succeeded", "Stopped", "Stopped", "Stopped"]
    stopped = laptop.trials(study)[1]["status"]
    assert stopped["reason"] == "EarlyStopped"
    assert stopped["message"].startswith("-0.8 at fidelity 1 is number 2 of the 2 trials that came so far")
    assert (stopped["judged"], stopped["value"]) == (1, -0.8)
    assert stopped["attempts"][0]["outcome"] == "EarlyStopped"
    assert laptop.status(study)["best"]["index"] == 0
    assert laptop.status(study)["trials"]["failed"] == 0
    assert len(laptop.starts) == 4
    took = [epoch_seconds(a["finished"]) - epoch_seconds(a["started"]) for a in stopped["attempts"]]
    assert took[0] < 5, "it was not left to sleep to its end"


async def test_hyperband_gives_the_program_its_rung(laptop):
    study = laptop.create(
        EPOCHS.replace("PAUSE", "0"),
        strategy={"name": "hyperband"},
        fidelity={"parameter": "epochs", "min": 1, "max": 3},
        trials={"max": 9, "parallel": 2},
    )
    assert await laptop.run(study) is Ending.COMPLETE
    trials = laptop.trials(study)
    rungs = [trial["spec"]["rung"] for trial in trials]
    places = [(rung["bracket"], rung["level"], rung["fidelity"]) for rung in rungs]
    assert (places.count((0, 0, 1)), places.count((0, 1, 3)), places.count((1, 0, 3))) == (3, 1, 2)
    x = [trial["spec"]["parameters"]["x"] for trial in trials]
    promoted = places.index((0, 1, 3))
    first = [at for at, place in enumerate(places) if place == (0, 0, 1)]
    assert x[promoted] == x[rungs[promoted]["continues"]] == max(x[at] for at in first)
    best = laptop.status(study)["best"]
    assert best["fidelity"] == 3
    highest = max(x[at] for at, rung in enumerate(rungs) if rung["fidelity"] == 3)
    assert best["value"] == pytest.approx(highest - 1 / 3, abs=1e-6)


RESUMES = r"""
[ -d "$TUNEYARD_CHECKPOINT_DIR" ] || cp -r "${TUNEYARD_CHECKPOINT_FROM:-/nowhere}" "$TUNEYARD_CHECKPOINT_DIR" ||
mkdir -p "$TUNEYARD_CHECKPOINT_DIR"
cd "$TUNEYARD_CHECKPOINT_DIR" && touch done
awk -v x=${x} -v n=${epochs} -v begun="$(wc -l <done)" 'BEGIN {
  for (step = begun; step < n; step++) print step >>"done"
  printf "{\"score\": %.6f}", x - 1 / n >ENVIRON["TUNEYARD_TERMINATION_FILE"]
  print x, n - begun >>(ENVIRON["TUNEYARD_REPORT_FILE"] ".trained")
}'
"""


async def test_asha_that_resumes_goes_on_from_the_checkpoint(laptop):
    study = laptop.create(
        RESUMES,
        strategy={"name": "asha", "sampler": "sobol"},
        fidelity={**FIDELITY, "resume": True},
        trials={"max": 10, "parallel": 1},
    )
    assert await laptop.run(study) is Ending.COMPLETE
    trials = laptop.trials(study)
    went_on = [trial for trial in trials if trial["spec"]["rung"].get("continues") is not None]
    assert went_on
    for trial in went_on:
        assert trial["spec"]["parameters"] == trials[trial["spec"]["rung"]["continues"]]["spec"]["parameters"]
    trained = [1, 2, 6]
    for trial in trials:
        folder = laptop.home.attempt(study["metadata"]["uid"], trial["spec"]["index"], 0)
        (_, epochs) = (folder / "reports.jsonl.trained").read_text().split()
        assert int(epochs) == trained[trial["spec"]["rung"]["level"]], "none was trained twice"


LEARNS = """
import json, sys, tuneyard

config, file = tuneyard.parameters(), tuneyard.checkpoint_dir() / "state.json"
state = json.loads(file.read_text()) if file.exists() else {"done": 0, "score": 0.0, "had": []}
if config["x"] > 0.9 and not state["had"]:
    sys.exit("too fast to begin with")
while state["done"] < config["epochs"]:
    state["done"] += 1
    state["score"] += 1 - abs(config["x"] - 0.1 * state["done"])  # each epoch wants another x
    state["had"].append(config["x"])
    tuneyard.report(step=state["done"] - 1, score=state["score"])
    (file.parent / "new").write_text(json.dumps(state))
    (file.parent / "new").rename(file)
"""
"""A program that keeps, besides its score, which x it was trained with."""


def population(laptop: Any, *, keep: int | None = None, **spec: Any) -> Any:
    """A study of four members that train by LEARNS."""
    program = laptop.folder / "learns.py"
    program.write_text(LEARNS)
    return laptop.create(
        f"exec {sys.executable} {program}",
        strategy={"name": "pbt", "population": 4, "seed": 2},
        checkpoints={"claim": "for-a-cluster"} | ({} if keep is None else {"keep": keep}),
        **spec,
    )


async def test_pbt_hands_checkpoints_on_and_each_trial_keeps_its_own(laptop):
    study = population(
        laptop,
        fidelity={"parameter": "epochs", "min": 2, "max": 6, "resume": True},
        initial=[{"x": 0.05}, {"x": 0.95}, {"x": 0.4}, {"x": 0.6}],
        retry={"limit": 0},
        trials={"parallel": 1},  # so that all others are known when the worst one decides
    )
    assert await laptop.run(study) is Ending.COMPLETE
    status = laptop.status(study)
    assert status["reason"] == "SpaceExhausted"
    assert "population" in status["message"]
    assert (status["trials"]["failed"], status["best"]["fidelity"]) == (1, 6)
    trials = {trial["spec"]["index"]: trial for trial in laptop.trials(study)}
    begun = sorted(trials.values(), key=lambda trial: trial["status"]["attempts"][0]["started"])
    levels = [trial["spec"]["rung"]["level"] for trial in begun]
    assert levels == sorted(levels), "nobody of a generation waits for those who are ahead"
    changed, uid = 0, study["metadata"]["uid"]
    for index, trial in trials.items():
        if trial["status"]["phase"] == "Failed":
            continue
        (folder,) = laptop.home.checkpoints(uid).glob(f"{index}-*")
        state, had = json.loads((folder / "state.json").read_text()), schedule(trials, index)
        assert state["had"] == had, "what it was trained with is the schedule that its trials say"
        assert state["score"] == pytest.approx(trial["status"]["value"])
        changed += len(set(had)) > 1
    assert changed, "of four the worst one, in each generation"


def schedule(trials: dict[int, Any], index: int) -> list[float]:
    """Which x each epoch of a trial had, those of the trials that it continues included."""
    had: list[float] = []
    at: int | None = index
    while at is not None:
        spec = trials[at]["spec"]
        before: int | None = spec["rung"].get("continues")
        begun = 0 if before is None else trials[before]["spec"]["rung"]["fidelity"]
        had = [spec["parameters"]["x"]] * (spec["rung"]["fidelity"] - begun) + had
        at = before
    return had


async def test_checkpoints_that_nobody_goes_on_from_are_deleted(laptop):
    study = population(
        laptop,
        fidelity={"parameter": "epochs", "min": 1, "max": 6, "resume": True},
        keep=8,
        trials={"parallel": 2},
    )
    assert await laptop.run(study) is Ending.COMPLETE
    trials = {trial["spec"]["index"]: trial for trial in laptop.trials(study)}
    states = {
        int(folder.name.partition("-")[0]): json.loads((folder / "state.json").read_text())
        for folder in laptop.home.checkpoints(study["metadata"]["uid"]).iterdir()
    }
    assert laptop.status(study)["best"]["index"] in states
    assert len(states) <= 2 * 8 + 2 * 3 < len(trials) == 24, "who may go on, the best, who runs, whom they continue"
    for index, state in states.items():
        assert state["had"] == schedule(trials, index), "nobody had to begin anew"
