"""The search space of a Study: parameters, their distributions and their conditions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from tuneyard_api.common import Model
from tuneyard_api.rule import matches

Name = Annotated[
    str,
    StringConstraints(max_length=63),
    matches("^[A-Za-z][A-Za-z0-9_]*$", "write letters, digits and _, beginning with a letter"),
]

Value = int | str
"""A category: a whole number or a text. Write other numbers and booleans in quotes."""

ParameterValue = bool | int | float | str
"""A parameter's value in a configuration."""

Configuration = Annotated[dict[str, ParameterValue], Field(max_length=100)]
"""A value for each active parameter, by name."""

Category = Annotated[str, StringConstraints(min_length=1, max_length=128)]


MAX_INT = 2**53 - 1
"""The largest whole number that every JSON reader keeps exact; bounds of int parameters stay within it."""


class NumericParameter(Model):
    """What a double and an int parameter share."""

    scale: Literal["linear", "log"] = Field(
        default="linear", description="log searches each order of magnitude alike: right for learning rates and widths."
    )
    distribution: Literal["uniform", "normal"] = Field(
        default="uniform",
        description="How random and sobol draw. normal needs mean and stddev; it is cut at the bounds.",
    )
    mean: float | None = Field(
        default=None, description="Centre of the normal distribution, in the parameter's own unit, between min and max."
    )
    stddev: float | None = Field(
        default=None,
        description="Standard deviation of the normal distribution, above 0: in the parameter's own unit with scale "
        "linear, in natural logarithms with scale log (0.7 is a factor of two).",
    )


class DoubleParameter(NumericParameter):
    """A real number between two bounds."""

    min: float = Field(description="The lowest value. With scale log it must be above 0.")
    max: float = Field(description="The highest value; above min.")
    step: float | None = Field(
        default=None,
        description="Only min, min + step, min + 2 step ... are tried; needs scale linear. grid needs it.",
    )


class IntParameter(NumericParameter):
    """A whole number between two bounds, both included."""

    min: int = Field(ge=-MAX_INT, le=MAX_INT, description="The lowest value. With scale log it must be above 0.")
    max: int = Field(ge=-MAX_INT, le=MAX_INT, description="The highest value; not below min.")
    step: int = Field(
        default=1,
        ge=1,
        le=MAX_INT,
        description="Only min, min + step, min + 2 step ... are tried. Above 1 it needs scale linear.",
    )


class CategoricalParameter(Model):
    """One of a list of values without an order."""

    values: list[int | Category] = Field(
        min_length=1,
        max_length=1000,
        json_schema_extra={"x-kubernetes-list-type": "set"},  # the API server refuses repeated values
        description="The values to choose from: texts or whole numbers. Write other numbers and booleans in quotes.",
    )
    probabilities: list[Annotated[float, Field(ge=0, le=1)]] | None = Field(
        default=None,
        max_length=1000,
        description="How often random and sobol draw each value: as many numbers as values, with the sum 1.",
    )


class Parameter(Model):
    """One dimension of the search space: exactly one of double, int and categorical."""

    name: Name = Field(
        description="The parameter's name: letters, digits and _, beginning with a letter. The training program finds "
        "it in the environment variable TUNEYARD_PARAM_<name> and wherever the template says ${name}."
    )
    double: DoubleParameter | None = Field(default=None, description="A real number.")
    int_: IntParameter | None = Field(default=None, alias="int", description="A whole number.")
    categorical: CategoricalParameter | None = Field(default=None, description="One of a list of values.")
    when: dict[str, Annotated[list[int | Category], Field(min_length=1, max_length=1000)]] | None = Field(
        default=None,
        max_length=8,
        description="The parameter exists only where each named parameter (an int or categorical one that stands "
        "above it in the list) has one of the values given, for example {optimizer: [sgd]}.",
    )
