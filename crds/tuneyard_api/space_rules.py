"""The rules of a study's parameters: see `rules`."""

from __future__ import annotations

from tuneyard_api.rule import Rule, unique
from tuneyard_api.space import CategoricalParameter, DoubleParameter, IntParameter, NumericParameter, Parameter

_NUMERIC_PARAMETER = (
    Rule(
        "self.scale != 'log' || self.min > 0",
        lambda p: p.scale != "log" or p.min > 0,
        "scale log needs min above 0; raise min or write scale: linear",
        ".min",
    ),
    Rule(
        "self.distribution != 'normal' || (has(self.mean) && has(self.stddev))",
        lambda p: p.distribution != "normal" or (p.mean is not None and p.stddev is not None),
        "distribution normal needs mean and stddev; write both, or distribution: uniform",
        ".distribution",
    ),
    Rule(
        "self.distribution == 'normal' || (!has(self.mean) && !has(self.stddev))",
        lambda p: p.distribution == "normal" or (p.mean is None and p.stddev is None),
        "mean and stddev need distribution normal; add distribution: normal, or leave them out",
        ".distribution",
    ),
    Rule(
        "!has(self.mean) || (self.min <= self.mean && self.mean <= self.max)",
        lambda p: p.mean is None or p.min <= p.mean <= p.max,
        "mean must lie between min and max; move it, or widen the bounds",
        ".mean",
    ),
    Rule(
        "!has(self.stddev) || self.stddev > 0",
        lambda p: p.stddev is None or p.stddev > 0,
        "stddev must be above 0; for a fixed value write it into the template instead",
        ".stddev",
    ),
)

_STEP_FITS = "step must fit between min and max; write a step of at most max - min, or leave it out"
_STEP_IS_LINEAR = "step needs scale linear; leave step out, or write scale: linear"

_DOUBLE_PARAMETER = (
    Rule(
        "self.min < self.max",
        lambda p: p.min < p.max,
        "min must be below max; swap them, or write a fixed value into the template instead",
        ".min",
    ),
    Rule(
        "!has(self.step) || self.step > 0",
        lambda p: p.step is None or p.step > 0,
        "step must be above 0; leave it out to search every value between min and max",
        ".step",
    ),
    Rule(
        "!has(self.step) || self.scale == 'linear'",
        lambda p: p.step is None or p.scale == "linear",
        _STEP_IS_LINEAR,
        ".step",
    ),
    Rule(  # the margin is for steps such as 0.2 in 0.1 to 0.3, which are a rounding error too long
        "!has(self.step) || self.min >= self.max || self.step <= (self.max - self.min) * 1.000000001",
        lambda p: p.step is None or p.min >= p.max or p.step <= (p.max - p.min) * 1.000000001,
        _STEP_FITS,
        ".step",
    ),
)

_INT_PARAMETER = (
    Rule(
        "self.min <= self.max",
        lambda p: p.min <= p.max,
        "min must not be above max; swap them",
        ".min",
    ),
    Rule(
        "self.step == 1 || self.scale == 'linear'",
        lambda p: p.step == 1 or p.scale == "linear",
        _STEP_IS_LINEAR,
        ".step",
    ),
    Rule(
        "self.step == 1 || self.min >= self.max || self.step <= self.max - self.min",
        lambda p: p.step == 1 or p.min >= p.max or p.step <= p.max - p.min,
        _STEP_FITS,
        ".step",
    ),
)

_CATEGORICAL_PARAMETER = (
    Rule("", lambda p: unique(p.values), "values must differ; write each value once", ".values"),
    Rule(
        "!has(self.probabilities) || size(self.probabilities) == size(self.values)",
        lambda p: p.probabilities is None or len(p.probabilities) == len(p.values),
        "probabilities must be as many as values; write one number for each value, in the same order",
        ".probabilities",
    ),
    Rule(
        "!has(self.probabilities) || (self.probabilities.sum() >= 0.999999 && self.probabilities.sum() <= 1.000001)",
        lambda p: p.probabilities is None or 0.999999 <= sum(p.probabilities) <= 1.000001,
        "probabilities must have the sum 1; write for example [0.3, 0.7] for two values",
        ".probabilities",
    ),
)

_PARAMETER = (
    Rule(
        "[has(self.double), has(self.int), has(self.categorical)].filter(given, given).size() == 1",
        lambda p: sum(kind is not None for kind in (p.double, p.int_, p.categorical)) == 1,
        "a parameter is exactly one of double, int and categorical; write one of them",
    ),
)

SPACE_RULES: dict[type, tuple[Rule, ...]] = {
    NumericParameter: _NUMERIC_PARAMETER,
    DoubleParameter: _DOUBLE_PARAMETER,
    IntParameter: _INT_PARAMETER,
    CategoricalParameter: _CATEGORICAL_PARAMETER,
    Parameter: _PARAMETER,
}
