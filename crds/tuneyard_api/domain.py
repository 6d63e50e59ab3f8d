"""Which values a parameter can have, and which parameters a configuration has."""

from __future__ import annotations

from collections.abc import Mapping

from tuneyard_api.space import DoubleParameter, IntParameter, Parameter, ParameterValue

STEP_TOLERANCE = 1e-6
"""How far from a multiple of the step a double may lie, in steps: room for decimal fractions."""


def admits(parameter: Parameter, value: ParameterValue) -> bool:
    """Whether the value is one that the parameter can have. A text never equals a number, nor true the number 1."""
    if isinstance(value, bool):
        return False
    if parameter.categorical is not None:
        return any(_same(value, category) for category in parameter.categorical.values)
    if parameter.int_ is not None:
        return _admits_int(parameter.int_, value)
    return parameter.double is not None and _admits_double(parameter.double, value)


def is_active(parameter: Parameter, configuration: Mapping[str, ParameterValue]) -> bool:
    """Whether the parameter exists beside the values that stand above it in the list."""
    return all(
        name in configuration and any(_same(configuration[name], value) for value in values)
        for name, values in (parameter.when or {}).items()
    )


def describe(parameter: Parameter) -> str:
    """The values of a parameter in words, for messages."""
    if parameter.categorical is not None:
        values = [repr(value) for value in parameter.categorical.values]
        return "one of " + ", ".join(values[:10]) + (", ..." if len(values) > 10 else "")
    if parameter.int_ is not None:
        whole = parameter.int_
        step = f" in steps of {whole.step}" if whole.step > 1 else ""
        return f"a whole number from {whole.min} to {whole.max}{step}"
    assert parameter.double is not None
    real = parameter.double
    step = f" in steps of {real.step:g}" if real.step is not None else ""
    return f"a number from {real.min:g} to {real.max:g}{step}"


def _same(left: ParameterValue, right: ParameterValue) -> bool:
    return type(left) is type(right) and left == right


def _admits_int(parameter: IntParameter, value: ParameterValue) -> bool:
    if not isinstance(value, int):
        return False
    return parameter.min <= value <= parameter.max and (value - parameter.min) % parameter.step == 0


def _admits_double(parameter: DoubleParameter, value: ParameterValue) -> bool:
    if isinstance(value, str) or not parameter.min <= value <= parameter.max:
        return False
    if parameter.step is None:
        return True
    steps = (value - parameter.min) / parameter.step
    return abs(steps - round(steps)) <= STEP_TOLERANCE
