"""Optuna as a strategy service of Tuneyard: `python service.py [PORT]`, where `pip install optuna` was run.

It is told of a study and its trials, and answers with configurations, worked out anew from what it was told each time,
so that the same question gets the same answer. Constraints are beyond it, and `check` says so.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

optuna.logging.set_verbosity(optuna.logging.ERROR)
STATES = {"succeeded": TrialState.COMPLETE, "pending": TrialState.RUNNING, "running": TrialState.RUNNING}
studies = {}  # for each: its definition, its trials by index, and how many records of them it was told


def distribution(parameter):
    if "categorical" in parameter:
        return CategoricalDistribution(parameter["categorical"]["values"])
    kind, spec = (IntDistribution, parameter["int"]) if "int" in parameter else (FloatDistribution, parameter["double"])
    step = {"step": spec["step"]} if "step" in spec else {}
    return kind(spec["min"], spec["max"], log=spec["scale"] == "log", **step)


def suggest(trial, parameters, space):
    found = {}
    for name, when in ((p["name"], p.get("when", {})) for p in parameters):
        if all(found.get(parent) in values for parent, values in when.items()):
            d = space[name]
            if isinstance(d, CategoricalDistribution):
                found[name] = trial.suggest_categorical(name, d.choices)
            else:
                draw = trial.suggest_int if isinstance(d, IntDistribution) else trial.suggest_float
                found[name] = draw(name, d.low, d.high, step=d.step, log=d.log)
    return found


def propose(definition, trials, index):
    """A configuration that no trial has; None after many tries."""
    goal = next(o for o in definition["objectives"] if o.get("goal"))
    space = {p["name"]: distribution(p) for p in definition["parameters"]}
    past = []
    for _, trial in sorted(trials.items()):
        state, params = STATES.get(trial["state"], TrialState.FAIL), trial["parameters"]
        value = trial["metrics"][goal["metric"]] if state == TrialState.COMPLETE else None
        distributions = {name: space[name] for name in params}
        past.append(create_trial(state=state, params=params, distributions=distributions, value=value))
    settings = definition["strategy"]["service"].get("settings", {})  # of the sampler: {multivariate: true}, say
    for attempt in range(300):
        seed = (definition["strategy"]["seed"] * 1_000_003 + index * 1009 + attempt) % 2**32
        if attempt < 10:
            sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True, **settings)
        else:  # a small space, of which TPE proposes the same again and again
            sampler = optuna.samplers.RandomSampler(seed)
        study = optuna.create_study(direction=goal["goal"], sampler=sampler)
        study.add_trials(past if attempt < 10 else [])
        found = suggest(study.ask(), definition["parameters"], space)
        if found not in [trial["parameters"] for trial in trials.values()]:
            return found
    return None


def ask(question):
    if question["since"] == 0:
        studies[question["study"]] = (question["definition"], {}, 0)
    definition, trials, told = studies.get(question["study"], (None, {}, -1))
    if told != question["since"]:
        return 409, {"need": "history", "have": 0}
    trials.update((record["index"], record) for record in question["records"])
    studies[question["study"]] = (definition, trials, question["revision"])
    answer, supposed = [], dict(trials)
    for index in question["indices"]:
        parameters = propose(definition, supposed, index)
        if parameters is None:
            return 200, {"configurations": answer, "exhausted": True, "message": "nothing new was found"}
        answer.append({"index": index, "parameters": parameters})
        supposed[index] = {"state": "pending", "parameters": parameters}
    return 200, {"configurations": answer, "exhausted": False}


def check(definition):
    return 200, {"problems": ["constraints: this service knows none"] if definition.get("constraints") else []}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, answer = {"/v1/ask": ask, "/v1/check": check}[self.path](body)
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


if __name__ == "__main__":
    HTTPServer(("", int(sys.argv[1]) if len(sys.argv) > 1 else 8080), Handler).serve_forever()
