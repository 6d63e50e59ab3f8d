"""Studies with a fidelity on this machine: trials are stopped while they run, or continued on the next rung."""

from __future__ import annotations

import time

from tuneyard_operator.local_runner import Ending

EPOCHS = """
python - <<'END'
import json, os, time
x, epochs = float(os.environ["TUNEYARD_PARAM_x"]), int(os.environ["TUNEYARD_PARAM_epochs"])
for step in range(epochs):
    line = json.dumps({"step": step, "metrics": {"score": x - 1 / (step + 1)}})
    open(os.environ["TUNEYARD_REPORT_FILE"], "a").write(line + "\\n")
    open(os.environ["TUNEYARD_TERMINATION_FILE"], "w").write(json.dumps({"score": x - 1 / (step + 1)}))
    time.sleep(PAUSE)
END
"""
FIDELITY = {"parameter": "epochs", "min": 1, "max": 9}
INITIAL = [{"x": 0.9}, {"x": 0.2}, {"x": 0.1}, {"x": 0.3}]


async def test_asha_stops_the_worse_trials_and_their_processes(laptop):
    study = laptop.create(
        EPOCHS.replace("PAUSE", "3 if x < 0.5 and step == 0 else 0"),
        strategy={"name": "asha"},
        fidelity=FIDELITY,
        initial=INITIAL,
        trials={"max": 4, "parallel": 1, "maxFailed": 0},
    )
    begun = time.monotonic()
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
    assert time.monotonic() - begun < 3 * 3 + 3, "none of them slept to its end and then ran on"


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
    assert best["value"] == max(x[at] for at, rung in enumerate(rungs) if rung["fidelity"] == 3) - 1 / 3
