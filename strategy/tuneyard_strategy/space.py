"""The search space: which configurations exist, in which order, and how numbers in the unit cube become configurations.

| Symbol | Shape | What |
|---|---|---|
| n, d | | configurations, parameters |
| u | (n, d) | a point of the unit cube for each configuration, one coordinate a parameter, active or not |
| cells | (n, d) | the configurations' values, see `dimensions` |
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneyard_api.domain import admits
from tuneyard_api.initial import configuration_problems
from tuneyard_api.rules import rules_of
from tuneyard_api.space import MAX_INT, Parameter, ParameterValue
from tuneyard_strategy.counting import Condition, count
from tuneyard_strategy.dimensions import ContinuousDimension, Dimension, Value, dimension_of, kinds_of
from tuneyard_strategy.distributions import Floats
from tuneyard_strategy.errors import DefinitionError, ExpressionError, StrategyError
from tuneyard_strategy.expressions import Constraint

Configuration = dict[str, Value]
"""A value for each active parameter, in the order of the parameters."""
Mask = NDArray[np.bool_]

BLOCK = 1024
"""Configurations that are enumerated at a time."""
FEW = 8
"""Points that are looked at together where the first one is mostly all that is needed."""
PATIENCE = 2**22
"""Partial or whole configurations that may break the constraints in a row before an enumeration gives up."""


@dataclass(frozen=True)
class Table:
    """Configurations side by side: of all parameters, or of the first few."""

    cells: Floats
    """Shape (n, d), see `dimensions`."""
    active: Mask
    """Which rows have which parameter, shape (n, d); what the other cells hold means nothing."""

    @property
    def rows(self) -> int:
        """How many configurations."""
        return len(self.cells)

    def take(self, rows: NDArray[np.intp] | Mask) -> Table:
        """Only the rows with these numbers, or where the mask is true."""
        return Table(self.cells[rows], self.active[rows])


class Space:
    """A search space.

    Example:
        >>> space = Space.from_spec([Parameter.model_validate({"name": "n", "int": {"min": 1, "max": 4}})], ["n != 3"])
        >>> space.decode(np.array([[0.1], [0.9]]))
        [{'n': 1}, {'n': 4}]
        >>> list(space.enumerate())
        [{'n': 1}, {'n': 2}, {'n': 4}]
    """

    def __init__(self, parameters: Sequence[Parameter], constraints: Sequence[Constraint]) -> None:
        self.parameters = tuple(parameters)
        self.constraints = tuple(constraints)
        self.names = tuple(parameter.name for parameter in parameters)
        self.dimensions = tuple(dimension_of(parameter) for parameter in parameters)
        self.kinds = kinds_of(parameters, range(len(parameters)))
        """The same dimensions, those of a kind together."""
        self._smooth = [(p, dimension) for p, _, dimension in self.kinds if isinstance(dimension, ContinuousDimension)]
        self._whole = {parameter.name for parameter in parameters if parameter.int_ is not None}
        self._positions = {name: position for position, name in enumerate(self.names)}
        self._filler = dict(zip(self.names, (_any_value(dimension) for dimension in self.dimensions), strict=True))
        self._conditions = tuple(self._conditions_of(parameter) for parameter in parameters)
        self._settled: tuple[list[Constraint], ...] = tuple([] for _ in parameters)
        """The constraints that can be checked as soon as the parameter at this position has a value."""
        for constraint in constraints:
            self._settled[max(self._positions[name] for name in constraint.names)].append(constraint)
        constrained = {name for constraint in constraints for name in constraint.names}
        self._constrained = kinds_of(parameters, self._with_ancestors(constrained))

    @classmethod
    def from_spec(cls, parameters: Sequence[Parameter], constraints: Sequence[str] = ()) -> Space:
        """The space of a study whose parameters keep the rules of the API.

        Raises:
            DefinitionError: a constraint does not parse, or the parameters do not fit together.
        """
        problems = list(_structure_problems(parameters))
        categories = {p.name: p.categorical.values if p.categorical is not None else None for p in parameters}
        compiled = []
        for number, text in enumerate(constraints):
            try:
                compiled.append(Constraint.parse(text, categories))
            except ExpressionError as error:
                problems.append(f"constraints[{number}]: {error}")
        if problems:
            raise DefinitionError(problems)
        return cls(parameters, compiled)

    # Many configurations at a time ---------------------------------------------------------------------------------

    def table(self, u: Floats, fixed: Mapping[str, Value] | None = None, *, sketch: bool = False) -> Table:
        """The configurations at points of the unit cube, shape (n, d), but with the values of `fixed` parameters.

        A sketch leaves doubles as they are before rounding, which takes most of the time.
        """
        cells = np.empty(u.shape)
        for kind in self.kinds:
            draw = kind.dimension.sketch if sketch else kind.dimension.draw
            cells[:, kind.positions] = draw(u[:, kind.positions])
        for name, value in (fixed or {}).items():
            position = self._positions[name]
            cells[:, position] = self.dimensions[position].cells([[value]])[0, 0]
        return self._completed(cells)

    def feasible_table(self, u: Floats) -> Table:
        """The rows of `table(u)` that meet all constraints.

        Where most points are refused, drawing is most of the work: parameters that no constraint depends on are drawn
        for the feasible points only.
        """
        if not self.constraints:
            return self.table(u)
        cells = np.zeros(u.shape)
        for kind in self._constrained:
            cells[:, kind.positions] = kind.dimension.draw(u[:, kind.positions])
        return self.table(u[self.meets(self._completed(cells))])

    def table_of(self, configurations: Sequence[Mapping[str, Value]]) -> Table:
        """Configurations without a problem as a table."""
        active = np.ones((len(configurations), len(self.names)), dtype=np.bool_)
        if any(len(configuration) < len(self.names) for configuration in configurations):
            active[:] = [[name in configuration for name in self.names] for configuration in configurations]
            configurations = [self._filler | dict(configuration) for configuration in configurations]
        cells = np.empty(active.shape)
        for kind in self.kinds:
            cells[:, kind.positions] = kind.dimension.cells([[c[name] for name in kind.names] for c in configurations])
        return Table(cells, active)

    def meets(self, table: Table, constraints: Sequence[Constraint] | None = None) -> Mask:
        """Which rows of a table meet all constraints (or only these), shape (n,)."""
        met = np.ones(table.rows, dtype=np.bool_)
        if table.rows == 0:
            return met
        for constraint in self.constraints if constraints is None else constraints:
            positions = {name: self._positions[name] for name in constraint.names}
            columns = {name: self._operand(table, position) for name, position in positions.items()}
            concerned = table.active[:, list(positions.values())].all(axis=1)
            met &= ~concerned | constraint.met(columns)
        return met

    def configurations(self, table: Table) -> list[Configuration]:
        """The rows of a table as configurations."""
        values = np.empty(table.cells.shape, dtype=object)
        for kind in self.kinds:
            values[:, kind.positions] = kind.dimension.values(table.cells[:, kind.positions])
        rows = values.tolist()
        if table.active.all():
            return [dict(zip(self.names, row, strict=True)) for row in rows]
        return [
            {name: value for name, value, there in zip(self.names, row, active, strict=True) if there}
            for row, active in zip(rows, table.active.tolist(), strict=True)
        ]

    def decode(self, u: Floats) -> list[Configuration]:
        """The configurations at points of the unit cube; constraints are not looked at.

        Args:
            u: shape (n, d), in [0, 1).
        """
        return self.configurations(self.table(u))

    def rounded(self, points: Floats) -> Iterator[Configuration]:
        """The configurations at points of the unit cube that meet the constraints; worked out a few at a time."""
        for start in range(0, len(points), FEW):
            few = self.table(points[start : start + FEW], sketch=True)
            yield from self.finished(few, np.flatnonzero(self.meets(few)))

    def finished(self, sketch: Table, rows: NDArray[np.intp]) -> Iterator[Configuration]:
        """Those configurations of a sketch, in this order, that meet the constraints; worked out one by one."""
        for row in rows.tolist():
            exact = sketch.take(np.array([row]))
            for positions, dimension in self._smooth:
                exact.cells[:, positions] = dimension.rounded(exact.cells[:, positions])
            if self.meets(exact)[0]:
                yield from self.configurations(exact)

    def feasible(self, configurations: Sequence[Mapping[str, Value]]) -> Mask:
        """Which of these configurations (without another problem) meet all constraints, shape (n,)."""
        return self.meets(self.table_of(configurations))

    # One configuration ---------------------------------------------------------------------------------------------

    def encode(self, configuration: Mapping[str, Value]) -> Floats:
        """A point of the unit cube, shape (d,), that decodes to this configuration; inactive parameters lie at 0.5.

        A value that is never drawn (a probability of 0, the far tail of a normal distribution) has no point of its own
        and gets the nearest one.
        """
        table = self.table_of([configuration])
        point = np.full(len(self.names), 0.5)
        for kind in self.kinds:
            point[kind.positions] = kind.dimension.places(table.cells[:, kind.positions])
        return np.where(table.active[0], point, 0.5)

    def typed(self, parameters: Mapping[str, ParameterValue]) -> dict[str, ParameterValue]:
        """The same values, with those of int parameters as int: on some ways through JSON, 3 becomes 3.0."""
        return {
            name: int(value) if isinstance(value, float) and name in self._whole and value.is_integer() else value
            for name, value in parameters.items()
        }

    def key(self, configuration: Mapping[str, object]) -> Hashable:
        """What two configurations have in common exactly if they are the same; 1 and 1.0 are."""
        return tuple(map(configuration.get, self.names))

    def problems(self, configuration: Mapping[str, ParameterValue], *, complete: bool = True) -> list[str]:
        """Why this is no configuration of the space: one text each, beginning with the path within the configuration.

        Args:
            configuration: values by parameter.
            complete: whether every active parameter must have a value.
        """
        problems = list(configuration_problems(self.parameters, configuration, complete=complete))
        return problems or [
            f": the constraint '{constraint.text}' does not hold"
            for constraint in self.constraints
            if not constraint.holds(configuration)
        ]

    # All configurations --------------------------------------------------------------------------------------------

    @cached_property
    def cardinality(self) -> int | None:
        """How many configurations there are, constraints aside; None for infinitely many.

        Exact, unless conditions are entangled beyond what a user would write (see `counting`).
        """
        return count([dimension.size for dimension in self.dimensions], self._conditions)

    def enumerate(self) -> Iterator[Configuration]:
        """All configurations that meet the constraints, in grid order: the last parameter changes fastest.

        Raises:
            StrategyError: there are infinitely many, or none for millions of steps.
        """
        for table in self.blocks():
            yield from self.configurations(table)

    def blocks(self) -> Iterator[Table]:
        """`enumerate` as tables of up to BLOCK rows. Constraints prune as soon as their parameters have values.

        Raises:
            StrategyError: there are infinitely many, or none for millions of steps.
        """
        if self.cardinality is None:
            raise StrategyError("a space with a double parameter without a step has no end: give it a step")
        fruitless = 0
        for tried, table in self._expand(Table(np.empty((1, 0)), np.empty((1, 0), dtype=np.bool_))):
            if table.cells.shape[1] == len(self.names) and table.rows:
                fruitless = 0
                yield table
            elif (fruitless := fruitless + tried) > PATIENCE:
                raise StrategyError(f"{PATIENCE} combinations in a row do not meet the constraints")

    def _expand(self, table: Table) -> Iterator[tuple[int, Table]]:
        """Depth first and in grid order, all tables with one more parameter, and the rows tried to get each."""
        position = table.cells.shape[1]
        if position == len(self.names):
            return
        active = self._exist(position, table)
        size = min(self.dimensions[position].size or 0, 2**50)  # no one gets further, and the sum fits int64
        branches = np.where(active, size, 1)
        ends = np.cumsum(branches)
        for start in range(0, int(ends[-1]) if table.rows else 0, BLOCK):
            numbers = np.arange(start, min(start + BLOCK, int(ends[-1])))
            rows = np.searchsorted(ends, numbers, side="right")
            codes = numbers - (ends - branches)[rows]
            wider = Table(
                np.column_stack([table.cells[rows], codes]), np.column_stack([table.active[rows], active[rows]])
            )
            wider = wider.take(self.meets(wider, self._settled[position]))
            yield len(numbers), wider
            yield from self._expand(wider)

    # Inner workings ------------------------------------------------------------------------------------------------

    def _completed(self, cells: Floats) -> Table:
        """The table of all these cells, with which rows have which parameter."""
        table = Table(cells, np.ones(cells.shape, dtype=np.bool_))
        for position, conditions in enumerate(self._conditions):
            if conditions:
                table.active[:, position] = self._exist(position, table)
        return table

    def _exist(self, position: int, table: Table) -> Mask:
        """Which rows have the parameter at this position, given those before it."""
        found = np.ones(table.rows, dtype=np.bool_)
        for condition in self._conditions[position]:
            parent = condition.parent
            found &= table.active[:, parent] & np.isin(table.cells[:, parent], sorted(condition.codes))
        return found

    def _with_ancestors(self, names: set[str]) -> set[int]:
        """The positions of these parameters and of all that decide whether they exist."""
        positions = {self._positions[name] for name in names}
        for position in range(len(self.names) - 1, -1, -1):
            if position in positions:
                positions.update(condition.parent for condition in self._conditions[position])
        return positions

    def _operand(self, table: Table, position: int) -> NDArray[Any]:
        values = self.dimensions[position].values(table.cells[:, [position]])[:, 0]
        categorical = self.parameters[position].categorical
        texts = categorical is not None and any(isinstance(value, str) for value in categorical.values)
        return values if texts else values.astype(np.float64)

    def _conditions_of(self, parameter: Parameter) -> tuple[Condition, ...]:
        conditions = []
        for name, values in (parameter.when or {}).items():
            position = self._positions[name]
            admitted = [value for value in values if admits(self.parameters[position], value)]
            codes = self.dimensions[position].cells([[value] for value in admitted])[:, 0]
            conditions.append(Condition(position, frozenset(codes.astype(np.int64).tolist())))
        return tuple(conditions)


def _any_value(dimension: Dimension) -> Value:
    value: Value = dimension.values(dimension.draw(np.array([[0.5]]))).tolist()[0][0]
    return value


def _structure_problems(parameters: Sequence[Parameter]) -> Iterator[str]:
    """What the API server would have refused, and the one number that it has no bound for."""
    above: set[str] = set()
    for number, parameter in enumerate(parameters):
        where, double = f"parameters[{number}]", parameter.double
        parts = {"": parameter, ".double": double, ".int": parameter.int_, ".categorical": parameter.categorical}
        for path, part in parts.items():
            if part is not None:
                broken = (rule for rule in rules_of(type(part)) if not rule.holds(part))
                yield from (f"{where}{path}{rule.field}: {rule.message}" for rule in broken)
        for name in parameter.when or {}:
            if name not in above:
                yield f"{where}.when: there is no int or categorical parameter '{name}' above it in the list"
        if parameter.name in (other.name for other in parameters[:number]):
            yield f"{where}.name: '{parameter.name}' is taken; write each name once"
        if double is None:
            above.add(parameter.name)
        for path, numbers in {".double": double, ".int": parameter.int_}.items():
            if numbers is not None and numbers.step and (numbers.max - numbers.min) / numbers.step > MAX_INT:
                yield f"{where}{path}.step: it gives more than {MAX_INT} values; write a larger one, or closer bounds"
