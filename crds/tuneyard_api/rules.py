"""What the fields of one object must fulfil together: each rule once for the API server (CEL) and once for Python.

A rule here belongs to a model; rules on a single text stand in its annotation. The generator writes the CEL into the
CRD wherever the model appears; `validation` calls `holds` on each object of the model. Rules that name the parameters
to blame, or whose cost the API server refuses in a CRD, are in `policy`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from tuneyard_api.common import DURATION_PATTERN, seconds
from tuneyard_api.fidelity import NEEDS_FIDELITY, FidelitySpec
from tuneyard_api.gpuqueue import GpuQueueSpec
from tuneyard_api.rule import Rule, unique
from tuneyard_api.service import ServiceSpec
from tuneyard_api.space_rules import SPACE_RULES
from tuneyard_api.study import (
    MOST_GOALS,
    NAME_LIMIT,
    POPULATION,
    QUANTILE,
    BackoffSpec,
    GpuSpec,
    Objective,
    RetrySpec,
    StrategySpec,
    Study,
    StudySpec,
    TrialsSpec,
)
from tuneyard_api.template import PodSpec
from tuneyard_api.trial import TrialSpec
from tuneyard_api.warmstart import WarmStart


def rules_of(model: type[BaseModel]) -> list[Rule]:
    """The rules of a model and of the models that it extends."""
    return [rule for ancestor in reversed(model.__mro__) for rule in RULES.get(ancestor, ())]


def _is_log_pattern(text: str) -> bool:
    before, *after = text.split("{value}")
    return len(after) == 1 and before.strip() != ""


_STUDY = (
    Rule(
        f"size(self.metadata.name) <= {NAME_LIMIT}",
        lambda study: len(study.metadata.name) <= NAME_LIMIT,
        f"metadata.name must have at most {NAME_LIMIT} characters, because trial and attempt numbers follow it in the "
        "names of Jobs; choose a shorter one",
        ".metadata.name",
    ),
    Rule(
        "!self.metadata.name.contains('.')",
        lambda study: "." not in study.metadata.name,
        "metadata.name must not contain a dot, because pods are named after it; write - instead",
        ".metadata.name",
    ),
    Rule(
        "!has(self.spec.warmStart) || !self.spec.warmStart.exists(w, has(w.study) && w.study == self.metadata.name)",
        lambda study: all(source.study != study.metadata.name for source in study.spec.warm_start),
        "a study cannot be its own warm start; name an earlier one",
        ".spec.warmStart",
    ),
)

NOT_LEARNING = ("manual", "grid", "random", "sobol", "hyperband", "pbt")
"""Strategies to which trials of another study say nothing."""
ENDING = ("manual", "grid", "pbt")
"""Strategies that come to an end by themselves."""
ONE_GOAL = ("cmaes", *NEEDS_FIDELITY)
"""Strategies that know one objective with a goal only."""

_MEMBERS = f"(has(self.strategy.population) ? self.strategy.population : {POPULATION})"

_STUDY_SPEC = (
    Rule(
        "self.objectives.exists(o, has(o.goal))",
        lambda spec: any(o.goal is not None for o in spec.objectives),
        "one of the objectives must have a goal; give a metric goal: maximize or goal: minimize",
        ".objectives",
    ),
    Rule(
        f"self.objectives.filter(o, has(o.goal)).size() <= {MOST_GOALS}",
        lambda spec: sum(o.goal is not None for o in spec.objectives) <= MOST_GOALS,
        f"at most {MOST_GOALS} of the objectives can have a goal; give the others a bound instead, atMost or atLeast",
        ".objectives",
    ),
    Rule(
        f"!(self.strategy.name in {list(ONE_GOAL)}) || self.objectives.filter(o, has(o.goal)).size() <= 1",
        lambda spec: spec.strategy.name not in ONE_GOAL or sum(o.goal is not None for o in spec.objectives) <= 1,
        "strategies cmaes, asha, hyperband, bohb and pbt can have one objective with a goal only; choose auto, "
        "bayesian or tpe, or give the others a bound instead, atMost or atLeast",
        ".strategy.name",
    ),
    Rule(
        "!has(self.earlyStopping) || self.objectives.filter(o, has(o.goal)).size() <= 1",
        lambda spec: spec.early_stopping is None or sum(o.goal is not None for o in spec.objectives) <= 1,
        "earlyStopping compares trials by one objective; leave it out, or give the other objectives a bound instead, "
        "atMost or atLeast",
        ".earlyStopping",
    ),
    Rule(
        "self.objectives.all(o, self.objectives.exists_one(p, p.metric == o.metric))",
        lambda spec: unique(o.metric for o in spec.objectives),
        "the metrics of objectives must differ; write each metric once",
        ".objectives",
    ),
    Rule(
        "self.parameters.all(p, self.parameters.exists_one(q, q.name == p.name))",
        lambda spec: unique(p.name for p in spec.parameters),
        "the names of parameters must differ; write each name once",
        ".parameters",
    ),
    Rule(
        f"self.strategy.name in {list(ENDING)} || has(self.trials.max)",
        lambda spec: spec.strategy.name in ENDING or spec.trials.max is not None,
        "only strategies manual, grid and pbt have an end of their own; write trials.max, for example 50",
        ".trials.max",
    ),
    Rule(
        "self.strategy.name != 'manual' || (has(self.initial) && size(self.initial) > 0)",
        lambda spec: spec.strategy.name != "manual" or bool(spec.initial),
        "strategy manual runs the list in initial; write at least one configuration there",
        ".initial",
    ),
    Rule(
        f"!has(self.warmStart) || size(self.warmStart) == 0 || !(self.strategy.name in {list(NOT_LEARNING)})",
        lambda spec: not spec.warm_start or spec.strategy.name not in NOT_LEARNING,
        "strategies manual, grid, random, sobol, hyperband and pbt do not learn from other studies; leave warmStart "
        "out, or use strategy auto",
        ".warmStart",
    ),
    Rule(
        f"!(self.strategy.name in {list(NEEDS_FIDELITY)}) || has(self.fidelity)",
        lambda spec: spec.strategy.name not in NEEDS_FIDELITY or spec.fidelity is not None,
        "strategies asha, hyperband, bohb and pbt need to know what trials can be given less of; write for example "
        "fidelity: {parameter: epochs, min: 1, max: 81}, or use another strategy",
        ".fidelity",
    ),
    Rule(
        "self.strategy.name != 'pbt' || !has(self.fidelity) || (self.fidelity.resume && has(self.checkpoints))",
        lambda spec: (
            spec.strategy.name != "pbt"
            or spec.fidelity is None
            or (spec.fidelity.resume and spec.checkpoints is not None)
        ),
        "strategy pbt hands the state of a program on to others; have the program save it in "
        "tuneyard.checkpoint_dir(), and write resume: true in fidelity and checkpoints: {claim: NAME}",
        ".checkpoints",
    ),
    Rule(
        "self.strategy.name != 'pbt' || !has(self.checkpoints) || !has(self.checkpoints.keep) || "
        f"self.checkpoints.keep >= 2 * {_MEMBERS}",
        lambda spec: (
            spec.strategy.name != "pbt"
            or spec.checkpoints is None
            or spec.checkpoints.keep is None
            or spec.checkpoints.keep >= 2 * (spec.strategy.population or POPULATION)
        ),
        "members of the population continue one another's checkpoints; write at least twice strategy.population "
        f"(which is {POPULATION} where it is left out), or leave keep out",
        ".checkpoints.keep",
    ),
    Rule(
        "self.strategy.name != 'pbt' || !has(self.earlyStopping)",
        lambda spec: spec.strategy.name != "pbt" or spec.early_stopping is None,
        "strategy pbt replaces the members that do badly itself; leave earlyStopping out",
        ".earlyStopping",
    ),
    Rule(
        "!has(self.fidelity) || !self.parameters.exists(p, p.name == self.fidelity.parameter)",
        lambda spec: spec.fidelity is None or all(p.name != spec.fidelity.parameter for p in spec.parameters),
        "fidelity.parameter is one of parameters, too; leave it out there, since the strategy gives it its values",
        ".fidelity.parameter",
    ),
    Rule(
        "!has(self.strategy.sampler) || self.strategy.name in ['asha', 'bohb']",
        lambda spec: spec.strategy.sampler is None or spec.strategy.name in {"asha", "bohb"},
        "sampler is a setting of strategies asha and bohb; leave it out, or write name: asha",
        ".strategy.sampler",
    ),
    Rule(
        f"self.strategy.name != 'pbt' || !has(self.initial) || size(self.initial) <= {_MEMBERS}",
        lambda spec: spec.strategy.name != "pbt" or len(spec.initial) <= (spec.strategy.population or POPULATION),
        "with strategy pbt each entry of initial is the beginning of a member; raise population, or write fewer",
        ".initial",
    ),
)

_FIDELITY = (
    Rule(
        "self.min < self.max",
        lambda fidelity: fidelity.min < fidelity.max,
        "min must be below max; swap them, or leave fidelity out",
        ".min",
    ),
)

_OBJECTIVE = (
    Rule(
        "has(self.goal) != (has(self.atMost) || has(self.atLeast))",
        lambda o: (o.goal is not None) != (o.at_most is not None or o.at_least is not None),
        "an objective has either a goal (maximize or minimize) or a bound (atMost, atLeast); write one of the two",
    ),
    Rule(
        "!has(self.target) || has(self.goal)",
        lambda o: o.target is None or o.goal is not None,
        "target needs a goal; add goal: maximize or goal: minimize, or leave target out",
        ".target",
    ),
    Rule(
        "!has(self.atMost) || !has(self.atLeast) || self.atLeast <= self.atMost",
        lambda o: o.at_most is None or o.at_least is None or o.at_least <= o.at_most,
        "atLeast must not be above atMost; swap them",
        ".atLeast",
    ),
    Rule(
        "!has(self.logPattern) || (self.logPattern.split('{value}').size() == 2 "
        "&& self.logPattern.split('{value}')[0].trim() != '')",
        lambda o: o.log_pattern is None or _is_log_pattern(o.log_pattern),
        "logPattern must contain {value} once, after some text; write for example 'test accuracy: {value}'",
        ".logPattern",
    ),
)

_TRIALS = (
    Rule(
        "!has(self.max) || self.parallel <= self.max",
        lambda t: t.max is None or t.parallel <= t.max,
        "parallel must not be above max; lower parallel, or raise max",
        ".parallel",
    ),
)

WHOLE = ("whole", "dra", "hami")

_GPU = (
    Rule(
        "!has(self.sharing) || (has(self.count) ? self.sharing in ['whole', 'dra', 'hami'] : self.sharing != 'whole')",
        lambda gpu: gpu.sharing is None or (gpu.sharing in WHOLE if gpu.count else gpu.sharing != "whole"),
        "gpu.sharing must be whole, dra or hami with gpu.count, and another than whole with fraction or memory; "
        "leave it out for any",
    ),
)

_WARM_START = (
    Rule(
        "has(self.study) != has(self.observations)",
        lambda source: (source.study is None) != (source.observations is None),
        "an entry of warmStart is either a study or observations; write one of the two",
    ),
)

_STRATEGY = (
    Rule(
        "!has(self.service) || self.name == 'auto'",
        lambda strategy: strategy.service is None or strategy.name == "auto",
        "a strategy is either one of ours or a service; leave name out, or service",
        ".name",
    ),
    Rule(
        "self.name == 'pbt' || (!has(self.population) && !has(self.quantile) && !has(self.resampleProbability))",
        lambda strategy: (
            strategy.name == "pbt"
            or (strategy.population is None and strategy.quantile is None and strategy.resample_probability is None)
        ),
        "population, quantile and resampleProbability are settings of strategy pbt; leave them out, or write name: pbt",
        ".name",
    ),
    Rule(
        f"(has(self.population) ? double(self.population) : {POPULATION}.0) "
        f"* (has(self.quantile) ? self.quantile : {QUANTILE}) >= 1.0",
        lambda strategy: (strategy.population or POPULATION) * (strategy.quantile or QUANTILE) >= 1,
        "quantile of population is less than one member, so that none would go on from a better one; raise either",
        ".population",
    ),
)

_SERVICE = (
    Rule(
        f"!self.timeout.matches('{DURATION_PATTERN}') || duration(self.timeout) <= duration('10m')",
        lambda service: seconds(service.timeout) <= 600,
        "timeout must be at most 10m: a study does not go on while it waits for an answer",
        ".timeout",
    ),
)

_BACKOFF = (
    Rule(
        # has(), although both have defaults: the default {} of backoff itself is checked before it is filled in
        f"!has(self.max) || !has(self.initial) || duration(self.max) >= duration(self.initial) "
        # and where one is no duration, its own rule speaks
        f"|| !self.max.matches('{DURATION_PATTERN}') || !self.initial.matches('{DURATION_PATTERN}')",
        lambda backoff: seconds(backoff.max) >= seconds(backoff.initial),
        "max must not be below initial; raise max, or lower initial",
        ".max",
    ),
)

_RETRY = (
    Rule(  # no minimum: of a whole number the API server compares the whole part alone, so that 1 would pass 1.2
        "!has(self.memoryGrowth) || self.memoryGrowth >= 1.2",
        lambda retry: retry.memory_growth is None or retry.memory_growth >= 1.2,
        "memoryGrowth must be at least 1.2; write for example 1.5, or leave it out",
        ".memoryGrowth",
    ),
    Rule(
        "!has(self.maxMemory) || has(self.memoryGrowth)",
        lambda retry: retry.max_memory is None or retry.memory_growth is not None,
        "maxMemory needs memoryGrowth; write for example memoryGrowth: 1.5, or leave maxMemory out",
        ".maxMemory",
    ),
)

_POD = (
    Rule(
        "!has(self.restartPolicy) || self.restartPolicy == 'Never'",
        lambda pod: pod.restart_policy in {None, "Never"},
        "restartPolicy is always Never, since a failed trial is tried again as a new attempt; leave it out",
        ".restartPolicy",
    ),
    Rule(
        "self.containers.all(c, self.containers.exists_one(d, d.name == c.name))",
        lambda pod: unique(container.name for container in pod.containers),
        "the names of containers must differ; write each name once",
        ".containers",
    ),
)

_TRIAL_SPEC = (
    Rule(
        "self.study == oldSelf.study && self.index == oldSelf.index && self.parameters == oldSelf.parameters "
        "&& has(self.rung) == has(oldSelf.rung) && (!has(self.rung) || self.rung == oldSelf.rung)",
        lambda _: True,
        "the spec of a trial never changes; delete the trial, or make a new study",
    ),
)

_GPU_QUEUE_SPEC = (
    Rule(
        "!has(self.guaranteed) || !has(self.limit) || self.guaranteed <= self.limit",
        lambda queue: queue.guaranteed is None or queue.limit is None or queue.guaranteed <= queue.limit,
        "guaranteed must not be above limit; lower guaranteed, or raise limit",
        ".guaranteed",
    ),
)

RULES: Mapping[type, tuple[Rule, ...]] = SPACE_RULES | {
    Study: _STUDY,
    StudySpec: _STUDY_SPEC,
    Objective: _OBJECTIVE,
    TrialsSpec: _TRIALS,
    GpuSpec: _GPU,
    StrategySpec: _STRATEGY,
    ServiceSpec: _SERVICE,
    WarmStart: _WARM_START,
    FidelitySpec: _FIDELITY,
    BackoffSpec: _BACKOFF,
    RetrySpec: _RETRY,
    PodSpec: _POD,
    TrialSpec: _TRIAL_SPEC,
    GpuQueueSpec: _GPU_QUEUE_SPEC,
}

FROZEN = ("objectives", "parameters", "constraints", "strategy", "initial", "warmStart", "fidelity")
"""Fields of a study's spec that cannot change once it has started: finished trials would answer another question."""


def frozen_message(field: str) -> str:
    """What to say to a change of a frozen field."""
    return f"{field} cannot change once the study has started; make a new study, or delete this one first"
