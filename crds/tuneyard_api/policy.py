"""Rules across a whole study that name the parameters to blame: a ValidatingAdmissionPolicy and the same in Python.

The API server estimates the cost of a CRD's rules for the largest object that the schema allows, and refuses these. A
policy's cost counts as it runs, so that they fit. An offender is the path of a field; a rule holds where it finds none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tuneyard_api.domain import admits
from tuneyard_api.space import Parameter
from tuneyard_api.study import StudySpec

INITIAL_BUDGET = 5_000
"""Values of `initial` up to which the policy looks at them.

The API server stops a policy that takes too long, and would then refuse a good study: Python looks at larger ones.
"""
WHEN_BUDGET = 100_000
"""The same for `when`: comparisons of a value in a list with a value that the parameter can have."""

# Only what every supported Kubernetes has, from 1.31 on: no comprehensions of two variables, which came with 1.33.
VARIABLES = {
    # dyn, because the API server knows no type for free-form values and could not check expressions that read them
    "spec": "dyn(object.spec)",
    "parameters": "variables.spec.parameters",
    "names": "variables.parameters.map(p, p.name)",
    "initial": "variables.spec.?initial.orValue([])",
    "initialFits": f"size(variables.initial) * size(variables.parameters) <= {INITIAL_BUDGET}",
    "categorical": "variables.parameters.filter(p, has(p.categorical)).map(p, p.name)",
    "whenFits": "variables.parameters.filter(p, has(p.when)).map(p, p.when.map(name, size(p.when[name]) * "
    "(name in variables.categorical "
    "? size(variables.parameters[variables.names.indexOf(name)].categorical.values) : 1)).sum()).sum() "
    f"<= {WHEN_BUDGET}",
}
"""What several rules use, in the order in which they build on each other."""


@dataclass(frozen=True)
class PolicyRule:
    """One demand on a whole study.

    Attributes:
        name: the CEL variable that holds the offenders.
        cel: the list of offenders' paths, on the policy's variables.
        offenders: the same in Python; None where Python checks more than this and elsewhere (`initial`).
        message: one sentence that says what is wrong with them and what to write instead.
    """

    name: str
    cel: str
    offenders: Callable[[StudySpec], Iterator[str]] | None
    message: str


def _of_parameters(condition: str, suffix: str = "") -> str:
    """CEL: the paths of the parameters `p` that meet a condition."""
    path = f"'spec.parameters[' + string(variables.names.indexOf(p.name)) + ']{suffix}'"
    return f"variables.parameters.filter(p, {condition}).map(p, {path})"


def _of_initial(demand: str) -> str:
    """CEL: the path of the first configuration `c` in initial that does not meet a demand."""
    first = f"[variables.initial.map(c, {demand}).indexOf(false)]"
    return f"!variables.initialFits ? [] : {first}.filter(i, i >= 0).map(i, 'spec.initial[' + string(i) + ']')"


def _when_not_above(spec: StudySpec) -> Iterator[str]:
    above: set[str] = set()
    for i, parameter in enumerate(spec.parameters):
        if not above.issuperset(parameter.when or ()):
            yield f"spec.parameters[{i}].when"
        above.add(parameter.name)


def _parents(spec: StudySpec) -> Iterator[tuple[str, Parameter, list[int | str]]]:
    """Each entry of a `when` that names a parameter: its path, that parameter, the values listed."""
    by_name = {parameter.name: parameter for parameter in spec.parameters}
    for i, parameter in enumerate(spec.parameters):
        for name, values in (parameter.when or {}).items():
            if name in by_name:
                yield f"spec.parameters[{i}].when", by_name[name], values


def _when_on_double(spec: StudySpec) -> Iterator[str]:
    return (path for path, parent, _ in _parents(spec) if parent.double is not None)


def _when_impossible(spec: StudySpec) -> Iterator[str]:
    for path, parent, values in _parents(spec):
        if parent.double is None and not all(admits(parent, value) for value in values):
            yield path


def _not_in_a_grid(spec: StudySpec) -> Iterator[str]:
    if spec.strategy.name != "grid":
        return
    for i, parameter in enumerate(spec.parameters):
        numeric = parameter.double or parameter.int_
        endless = parameter.double is not None and parameter.double.step is None
        if endless or (numeric is not None and numeric.distribution == "normal"):
            yield f"spec.parameters[{i}]"


def _gpu_amounts(spec: StudySpec) -> Iterator[str]:
    gpu = spec.gpu
    if gpu is not None and sum(amount is not None for amount in (gpu.count, gpu.fraction, gpu.memory)) != 1:
        yield "spec.gpu"


def _gpu_fraction(spec: StudySpec) -> Iterator[str]:
    fraction = spec.gpu.fraction if spec.gpu is not None else None
    if fraction is not None and not (fraction == "auto" if isinstance(fraction, str) else 0 < fraction < 1):
        yield "spec.gpu.fraction"


_GPU = "variables.spec.gpu"
_PARENT = "variables.parameters[variables.names.indexOf(name)]"

POLICY_RULES = (
    # Here, because a CRD's rules cannot see a field that is a number or a text.
    PolicyRule(
        "gpuAmounts",
        f"!has({_GPU}) || [has({_GPU}.count), has({_GPU}.fraction), has({_GPU}.memory)].filter(given, given).size() "
        "== 1 ? [] : ['spec.gpu']",
        _gpu_amounts,
        "gpu needs exactly one of count, fraction and memory; write count: 1, or leave gpu out for trials on the CPU",
    ),
    PolicyRule(
        "gpuFraction",
        f"!has({_GPU}) || !has({_GPU}.fraction) ? [] : [{_GPU}.fraction].filter(f, !(type(f) == string ? f == 'auto' "
        ": (type(f) == double || type(f) == int) && f > 0.0 && f < 1.0)).map(f, 'spec.gpu.fraction')",
        _gpu_fraction,
        "fraction must be above 0 and below 1, such as 0.25, or auto; for a whole GPU write count: 1",
    ),
    PolicyRule(
        "whenNotAbove",
        _of_parameters(
            "has(p.when) && !p.when.all(name, name in variables.names "
            "&& variables.names.indexOf(name) < variables.names.indexOf(p.name))",
            ".when",
        ),
        _when_not_above,
        "when names a parameter that does not stand above this one; name one that does, or change the order",
    ),
    PolicyRule(
        "whenOnDouble",
        _of_parameters(
            f"has(p.when) && p.when.exists(name, name in variables.names && has({_PARENT}.double))", ".when"
        ),
        _when_on_double,
        "when names a double parameter; name an int or categorical one",
    ),
    PolicyRule(
        "whenImpossible",
        "!variables.whenFits ? [] : "
        + _of_parameters(
            "has(p.when) && p.when.exists(name, name in variables.names "
            f"&& [{_PARENT}].exists(parent, !has(parent.double) && !p.when[name].all(value, has(parent.categorical) "
            "? value in parent.categorical.values : type(value) == int && parent.int.min <= value "
            "&& value <= parent.int.max && (value - parent.int.min) % parent.int.step == 0)))",
            ".when",
        ),
        _when_impossible,
        "when lists a value that the parameter it names cannot have; list only values of that parameter",
    ),
    PolicyRule(
        "notInGrid",
        "variables.spec.strategy.name != 'grid' ? [] : "
        + _of_parameters(
            "(has(p.double) && (!has(p.double.step) || p.double.distribution == 'normal')) "
            "|| (has(p.int) && p.int.distribution == 'normal')"
        ),
        _not_in_a_grid,
        "strategy grid needs finitely many values, each as good as the others; give every double a step and leave "
        "distribution normal out, or use strategy sobol",
    ),
    PolicyRule(
        "initialUnknown",
        _of_initial("c.all(name, name in variables.names)"),
        None,
        "a configuration in initial has a name that is not a parameter's; correct it, or leave it out",
    ),
    PolicyRule(
        "initialNotAValue",
        _of_initial("c.all(name, type(c[name]) == int || type(c[name]) == double || type(c[name]) == string)"),
        None,
        "a configuration in initial has a value that is no number or text; write one, and true or false in quotes",
    ),
)
