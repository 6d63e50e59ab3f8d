"""What get, best and logs print."""

from __future__ import annotations

import json
import os
import re
import subprocess

import yaml

SCRIPT = (
    'echo "hello from $TUNEYARD_INDEX, attempt $TUNEYARD_ATTEMPT"; '
    '[ "$TUNEYARD_INDEX$TUNEYARD_ATTEMPT" != 10 ] || exit 1; '
    'echo "{\\"score\\": ${x}, \\"loss\\": 0.25}" >"$TUNEYARD_TERMINATION_FILE"'
)


def run(cli, script=SCRIPT, **spec):
    retry = {"limit": 1, "backoff": {"initial": "1s"}}
    assert cli("run", cli.write(script, retry=retry, **spec))[0] == 0


def test_run_prints_a_line_for_each_event_and_the_result(cli):
    status, out, err = cli("run", cli.write(SCRIPT, retry={"limit": 1, "backoff": {"initial": "1s"}}))
    assert (status, err) == (0, "")
    assert out.count(" started") == 4
    assert out.count("trial 1 is tried again in 0:0") == 1
    assert "exit code 1" in out
    assert "the best so far" in out
    assert "Study toy is complete: all 3 trials have ended" in out
    assert "For your shell: tuneyard best toy -o env" in out


def test_get_studies(cli):
    assert cli("get", "studies") == (0, "", "there are no studies yet; start a study: tuneyard run FILE\n")
    run(cli)
    _, out, _ = cli("get", "studies")
    header, row = out.splitlines()
    assert header.split() == ["NAME", "PHASE", "PROGRESS", "BEST", "RUNNING", "GPUS", "AGE"]
    assert row.split()[:3] == ["toy", "Complete", "3/3"]
    assert "STRATEGY" in cli("get", "studies", "-o", "wide")[1]


def test_get_trials(cli):
    run(cli)
    _, out, _ = cli("get", "trials", "toy")
    header, *rows = out.splitlines()
    assert header.split() == ["NAME", "PHASE", "ATTEMPT", "VALUE", "AGE", "PARAMETERS"]
    assert [row.split()[0] for row in rows] == ["toy-0", "toy-1", "toy-2"]
    assert "x=0." in rows[0]
    assert ageless(out) == ageless(cli("get", "trials")[1])


def ageless(table: str) -> str:
    """A table whose rows may have grown a second older."""
    return re.sub(r"\s+\d+s\s+", " AGE ", table)


def test_objects_are_printed_as_the_api_server_would(cli):
    run(cli)
    study = yaml.safe_load(cli("get", "studies", "toy", "-o", "yaml")[1])
    assert (study["kind"], study["metadata"]["name"], study["status"]["phase"]) == ("Study", "toy", "Complete")
    trials = json.loads(cli("get", "trials", "toy", "-o", "json")[1])
    assert trials["kind"] == "List"
    assert [trial["spec"]["index"] for trial in trials["items"]] == [0, 1, 2]


def test_best_in_every_form(cli):
    run(cli)
    trials = json.loads(cli("get", "trials", "toy", "-o", "json")[1])["items"]
    best = max(trials, key=lambda trial: trial["status"]["value"])
    want = {
        "trial": best["metadata"]["name"],
        "value": best["status"]["value"],
        "metrics": {"score": best["status"]["value"], "loss": 0.25},
        "parameters": best["spec"]["parameters"],
    }
    assert json.loads(cli("best", "toy", "-o", "json")[1]) == want
    assert yaml.safe_load(cli("best", "toy", "-o", "yaml")[1]) == want
    table = cli("best", "toy")[1]
    assert "score (maximize)" in table
    assert str(want["parameters"]["x"]) in table


def test_what_is_recommended_is_told_where_it_is_another_trial(cli):
    noisy = 'echo "{\\"score\\": $TUNEYARD_INDEX, \\"loss\\": 1}" >"$TUNEYARD_TERMINATION_FILE"'
    objectives = [{"metric": "score", "goal": "maximize"}]
    cli(
        "run", cli.write(noisy, objectives=objectives, strategy={"name": "bayesian"}, trials={"max": 12, "parallel": 4})
    )
    study = json.loads(cli("get", "study", "toy", "-o", "json")[1])
    best, other = study["status"]["best"], study["status"]["recommended"]
    assert best["index"] == 11
    assert other["parameters"].keys() == {"x", "kind"}
    told = "Recommended if results are noisy: trial" in cli("best", "toy")[1]
    assert told is (other["index"] != best["index"])
    shown = json.loads(cli("best", "toy", "--recommended", "-o", "json")[1])
    assert (shown["trial"], shown["value"]) == (other["trial"], other["expected"])
    assert cli("best", "toy", "--recommended", "-o", "env")[0] == 0


def test_of_few_trials_nothing_is_recommended(cli):
    run(cli)
    status, _, err = cli("best", "toy", "--recommended")
    assert (status, err.startswith("tuneyard: no trial of study toy is recommended: ")) == (1, True)


def test_best_as_environment_is_for_a_shell(cli):
    run(cli, initial=[{"x": 1, "kind": "it's a"}])
    script = cli("best", "toy", "-o", "env")[1] + 'printf "%s|%s" "$TUNEYARD_PARAM_x" "$TUNEYARD_PARAM_kind"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout in {"1|it's a", "1.0|it's a"}


SEVERAL = [{"metric": "score", "goal": "maximize"}, {"metric": "cost", "goal": "minimize"}]
TRADE_OFF = 'echo "{\\"score\\": ${x}, \\"cost\\": ${x}}" >"$TUNEYARD_TERMINATION_FILE"'


def test_several_objectives(cli):
    status, out, err = cli("run", cli.write(TRADE_OFF, objectives=SEVERAL))
    assert (status, err) == (0, "")
    assert out.count(", on the front") == 3
    assert "3 trials that no other one beats: tuneyard pareto toy" in out
    header, row = cli("get", "studies")[1].splitlines()
    assert header.split() == ["NAME", "PHASE", "PROGRESS", "FRONT", "RUNNING", "GPUS", "AGE"]
    assert row.split()[3] == "3"
    assert "cost=" in cli("get", "trials", "-o", "wide")[1]
    header, *rows = cli("pareto", "toy")[1].splitlines()
    assert header.split() == ["TRIAL", "score", "(max)", "cost", "(min)", "PARAMETERS"]
    front = json.loads(cli("pareto", "toy", "-o", "json")[1])
    assert front["size"] == len(rows) == 3
    scores = [trial["metrics"]["score"] for trial in front["trials"]]
    assert scores == sorted(scores, reverse=True)
    assert yaml.safe_load(cli("pareto", "toy", "-o", "yaml")[1]) == front
    status, _, err = cli("best", "toy")
    assert (status, err.count("no trial that is best in all of them")) == (2, 1)
    assert "tuneyard pareto toy" in err


def test_a_study_with_one_objective_has_no_front(cli):
    run(cli)
    assert "has one objective, score, and so a best trial; see tuneyard best toy" in cli("pareto", "toy")[2]


def test_logs(cli):
    run(cli)
    assert cli("logs", "toy/0")[1] == "hello from 0, attempt 0\n"
    assert cli("logs", "toy/1")[1] == "hello from 1, attempt 1\n"
    assert cli("logs", "toy/1", "--attempt", "0")[1] == "hello from 1, attempt 0\n"
    assert cli("logs", "toy-2")[1] == "hello from 2, attempt 0\n"
    assert "study toy has no trial 7; it has trials 0 to 2" in cli("logs", "toy/7")[2]
    assert "trial 1 of study toy has no attempt 5; it has 0, 1" in cli("logs", "toy/1", "--attempt", "5")[2]


def test_a_home_on_the_command_line_is_in_what_is_suggested(cli):
    home = cli.folder / "elsewhere"
    _, out, _ = cli("run", cli.write(), "--home", home)
    assert f"tuneyard best toy -o env --home {home}" in out
    assert cli("get", "studies")[1] == ""
    assert "toy" in cli("get", "studies", "--home", home)[1]


def test_notes_say_what_a_laptop_leaves_out(cli):
    path = cli.write()
    study = yaml.safe_load(path.read_text())
    study["spec"]["template"]["spec"]["containers"].append({"name": "sidecar", "image": "x"})
    path.write_text(yaml.safe_dump(study))
    assert "note: only the first container, main, runs on a laptop; left out: sidecar" in cli("run", path)[2]


POPULATION: dict[str, object] = {
    "strategy": {"name": "pbt", "population": 2, "quantile": 0.5},
    "fidelity": {"parameter": "epochs", "min": 2, "max": 5, "resume": True},
    "checkpoints": {"claim": "states"},
    "trials": {"parallel": 1},
}


def test_schedule_shows_what_a_trial_was_trained_with(cli):
    cli("run", cli.write(**POPULATION))
    header, *rows = cli("schedule", "toy")[1].splitlines()
    assert header.split() == ["TRIAL", "epochs", "score", "PARAMETERS"]
    assert [row.split()[1:4] for row in rows] == [["0", "to", "2"], ["2", "to", "4"], ["4", "to", "5"]]
    best = json.loads(cli("best", "toy", "-o", "json")[1])
    assert rows[-1].split()[0] == best["trial"]
    code, out, _ = cli("schedule", f"toy/{best['trial'].partition('-')[2]}", "-o", "json")
    parts = json.loads(out)
    assert code == 0
    assert [(part["from"], part["to"]) for part in parts] == [(0, 2), (2, 4), (4, 5)]
    assert parts[-1]["parameters"] == best["parameters"]
    assert yaml.safe_load(cli("schedule", "toy/0", "-o", "yaml")[1])[0]["trial"] == "toy-0"
    assert "CONTINUES" in cli("get", "trials", "toy", "-o", "wide")[1]


def test_schedule_says_what_there_is_instead(cli):
    cli("run", cli.write(name="plain", trials={"max": 1, "parallel": 1}))
    assert "study plain has no fidelity, so that no trial of it goes on from another; see tuneyard best plain" in cli(
        "schedule", "plain"
    )[2].replace(f" --home {cli.home}", "")
    failing = cli.write("exit 1", **POPULATION, retry={"limit": 0})
    cli("run", failing)
    assert "no trial of study toy has succeeded yet" in cli("schedule", "toy")[2]
    assert "study toy has no trial 99" in cli("schedule", "toy/99")[2]
    assert "write STUDY/INDEX" in cli("schedule", "toy/best")[2]
