"""Search spaces that every strategy must master, as a user writes them."""

from __future__ import annotations

from typing import Any

from tuneyard_strategy.contract import StudyDefinition
from tuneyard_strategy.registry import create
from tuneyard_strategy.space import Space

LOSS = {"metric": "loss", "goal": "minimize"}
LOG_RATE = {"name": "lr", "double": {"min": 1e-5, "max": 0.1, "scale": "log"}}

MANY = 1000
"""More members than a test asks for: all of pbt's proposals are then new configurations."""

SPACES: dict[str, dict[str, Any]] = {
    "network": {
        "parameters": [
            {"name": "layers", "int": {"min": 1, "max": 3}},
            {"name": "width1", "int": {"min": 8, "max": 512, "scale": "log"}},
            {"name": "width2", "int": {"min": 8, "max": 512, "scale": "log"}, "when": {"layers": [2, 3]}},
            {"name": "width3", "int": {"min": 8, "max": 512, "scale": "log"}, "when": {"layers": [3]}},
            LOG_RATE,
        ],
        "constraints": ["width1 >= width2", "width2 >= width3", "layers * width1 <= 1024"],
    },
    "momentum": {
        "parameters": [
            {"name": "optimizer", "categorical": {"values": ["adam", "sgd"], "probabilities": [0.4, 0.6]}},
            {"name": "nesterov", "categorical": {"values": ["no", "yes"]}, "when": {"optimizer": ["sgd"]}},
            {"name": "momentum", "double": {"min": 0, "max": 0.99}, "when": {"nesterov": ["yes"]}},
            LOG_RATE,
        ],
        "constraints": ["momentum <= 0.5", "optimizer != 'adam' or lr < 0.01"],
    },
    "svm": {
        "parameters": [
            {"name": "C", "double": {"min": 1e-3, "max": 1e3, "scale": "log"}},
            {"name": "gamma", "double": {"min": 1e-5, "max": 10, "scale": "log"}},
        ],
    },
    "xgboost": {
        "parameters": [
            {"name": "max_depth", "int": {"min": 2, "max": 12}},
            {"name": "min_child_weight", "int": {"min": 1, "max": 20}},
            {"name": "eta", "double": {"min": 1e-3, "max": 1, "scale": "log"}},
            {"name": "n_estimators", "int": {"min": 10, "max": 1000, "scale": "log"}},
            {"name": "colsample_bytree", "double": {"min": 0.3, "max": 1, "step": 0.05}},
            {"name": "subsample", "double": {"min": 0.3, "max": 1}},
        ],
        "constraints": ["max_depth * n_estimators <= 6000", "eta * n_estimators >= 1"],
    },
    "normal": {
        "parameters": [
            {"name": "x", "double": {"min": -1, "max": 5, "distribution": "normal", "mean": 0, "stddev": 1}},
            {
                "name": "width",
                "int": {"min": 1, "max": 4096, "scale": "log", "distribution": "normal", "mean": 64, "stddev": 1},
            },
        ],
    },
    "finite": {
        "parameters": [
            {"name": "depth", "int": {"min": 1, "max": 5}},
            {"name": "booster", "categorical": {"values": ["tree", "linear", 7]}},
            {"name": "rate", "double": {"min": 0.1, "max": 0.3, "step": 0.1}, "when": {"booster": ["tree"]}},
            {"name": "drop", "categorical": {"values": [0, 1]}, "when": {"booster": ["tree"], "depth": [2, 3, 5]}},
        ],
        "constraints": ["depth * rate < 1.2", "drop == 0 or depth > 2"],
    },
    "skewed": {
        "parameters": [
            {"name": "rare", "categorical": {"values": ["a", "b", "c"], "probabilities": [0.999, 0.001, 0]}},
            {"name": "tail", "int": {"min": 0, "max": 30, "distribution": "normal", "mean": 0, "stddev": 0.5}},
        ],
    },
    "thousand": {
        "parameters": [{"name": "token", "categorical": {"values": [f"token-{number}" for number in range(1000)]}}],
    },
    "single": {"parameters": [{"name": "n", "int": {"min": 4, "max": 4}}]},
}


def define(strategy: str, space: str, *, seed: int = 11, population: int = MANY, **more: Any) -> StudyDefinition:
    """The study of a case; strategy manual gets a list that random made, and pbt so many members.

    A strategy may have a sampler behind a colon: "asha:tpe".
    """
    strategy, _, sampler = strategy.partition(":")
    settings = {"name": strategy, "seed": seed} | ({"sampler": sampler} if sampler else {})
    document = {**SPACES[space], "objectives": [LOSS], "strategy": settings, **more}
    if strategy in NEEDS_FIDELITY:
        document.setdefault("fidelity", FIDELITY)
    if strategy == "pbt":
        document["strategy"] |= {"population": population}
    if strategy == "manual" and "initial" not in document:
        drawn = create(define("random", space, seed=5)).suggest(range(12))
        document["initial"] = [suggestion.parameters for suggestion in drawn]
    return StudyDefinition.model_validate(document)


def space_of(definition: StudyDefinition) -> Space:
    """The search space of a definition."""
    return Space.from_spec(definition.parameters, definition.constraints)


def is_finite(space: str) -> bool:
    """Whether grid can search it."""
    return space_of(define("random", space)).cardinality is not None


FIDELITY = {"parameter": "epochs", "min": 1, "max": 9}
NEEDS_FIDELITY = ("asha", "hyperband", "bohb", "pbt")
LEARNING = ("tpe", "bayesian", "auto", "cmaes", *NEEDS_FIDELITY)
"""The strategies that learn."""
CASES = [
    (strategy, space)
    for strategy in ("manual", "grid", "random", "sobol", *LEARNING)
    for space in SPACES
    if strategy != "grid" or is_finite(space)
]
