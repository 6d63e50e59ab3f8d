from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneyard_api.space import Parameter
from tuneyard_strategy.encoding import Encoding
from tuneyard_strategy.errors import DefinitionError, StrategyError
from tuneyard_strategy.space import Space


def space(*parameters: dict[str, Any], constraints: list[str] | None = None) -> Space:
    return Space.from_spec([Parameter.model_validate(p) for p in parameters], constraints or [])


def double(name: str = "x", **more: Any) -> dict[str, Any]:
    return {"name": name, "double": more}


def whole(name: str = "n", when: Any = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "int": more, "when": when}


def category(name: str, *values: Any, when: Any = None, probabilities: Any = None) -> dict[str, Any]:
    return {"name": name, "categorical": {"values": list(values), "probabilities": probabilities}, "when": when}


def decoded(parameter: dict[str, Any], *u: float) -> list[Any]:
    return [configuration[parameter["name"]] for configuration in space(parameter).decode(np.array(u)[:, None])]


# From the unit cube to values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "u", "values"),
    [
        (double(min=0, max=1), [0, 0.25, 0.5], [0.0, 0.25, 0.5]),
        (double(min=0, max=1), [1 / 3, 2 / 3], [0.3333333333, 0.6666666667]),
        (double(min=1e-4, max=1, scale="log"), [0, 0.5, 0.75], [1e-4, 0.01, 0.1]),
        (double(min=100, max=100.001), [1 / 3], [100.0003333333333]),
        (double(min=-1e300, max=1e300), [0.5, 0.75], [0.0, 5e299]),
        (double(min=0, max=0.3, step=0.1), [0, 0.3, 0.6, 0.99], [0.0, 0.1, 0.2, 0.3]),
        (double(min=0.1, max=0.75, step=0.2), [0, 0.3, 0.6, 0.99], [0.1, 0.3, 0.5, 0.7]),
        (double(min=-0.1, max=0.1, step=0.1), [0, 0.5, 0.99], [-0.1, 0.0, 0.1]),
        (double(min=0, max=1, distribution="normal", mean=0.5, stddev=0.1), [0.5, 0.1], [0.5, 0.3718449741]),
        (whole(min=1, max=4), [0, 0.2499, 0.25, 0.75, 0.999], [1, 1, 2, 4, 4]),
        (whole(min=1, max=8, step=3), [0, 0.34, 0.67], [1, 4, 7]),
        (whole(min=-3, max=-3), [0, 0.5, 0.999], [-3, -3, -3]),
        (whole(min=1, max=1000, scale="log"), [0, 0.144, 0.145, 0.5, 0.999], [1, 1, 2, 22, 993]),
        (whole(min=0, max=10, distribution="normal", mean=5, stddev=1), [0.5, 0.3, 0.05], [5, 4, 3]),
        (whole(min=0, max=2**53 - 1), [0.5], [2**52]),
        (category("c", "a", 2, "2"), [0, 0.34, 0.67], ["a", 2, "2"]),
        (category("c", "a", "b", "c", probabilities=[0.1, 0, 0.9]), [0, 0.0999, 0.1, 0.999], ["a", "a", "c", "c"]),
        (category("c", "a", "b", probabilities=[1, 0]), [0.99999999, 1], ["a", "a"]),
    ],
)
def test_points_become_values_of_the_right_type(parameter: dict[str, Any], u: list[float], values: list[Any]) -> None:
    got = decoded(parameter, *u)
    assert got == values
    assert [type(value) for value in got] == [type(value) for value in values]


def test_there_is_no_negative_zero() -> None:
    assert str(decoded(double(min=-1, max=1, step=1), 0.5)[0]) == "0.0"
    assert str(decoded(double(min=-1e-30, max=1), 0.0)[0]) in {"0.0", "-1e-30"}


def test_steps_end_where_decimal_numbers_end() -> None:
    for top in range(1, 60):
        stepped = space(double(min=0, max=top / 10, step=0.1))
        assert [c["x"] for c in stepped.enumerate()] == [tenth / 10 for tenth in range(top + 1)]


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_whole_numbers_have_the_probability_of_their_scale(scale: str) -> None:
    values = np.array(decoded(whole(min=1, max=50, scale=scale), *np.linspace(0, 1, 200_000, endpoint=False)))
    share = np.bincount(values)[1:] / len(values)
    weight = np.ones(50) if scale == "linear" else 1 / np.arange(1, 51)
    np.testing.assert_allclose(share[1:], (weight / weight[1:].sum() * share[1:].sum())[1:], rtol=0.05)


# Conditions ------------------------------------------------------------------------------------------------------

NESTED = (
    whole("layers", min=1, max=3),
    category("optimizer", "sgd", "adam"),
    category("nesterov", "no", "yes", when={"optimizer": ["sgd"]}),
    whole("momentum", min=0, max=9, when={"nesterov": ["yes"], "layers": [2, 3]}),
)


def test_a_parameter_exists_only_under_its_conditions() -> None:
    nested = space(*NESTED)
    seen = set()
    for configuration in nested.decode(np.random.default_rng(1).random((500, 4))):
        assert ("nesterov" in configuration) == (configuration["optimizer"] == "sgd")
        expected = configuration.get("nesterov") == "yes" and configuration["layers"] in {2, 3}
        assert ("momentum" in configuration) == expected
        assert nested.problems(configuration) == []
        seen.add(tuple(configuration))
    assert len(seen) == 3


def test_a_condition_on_a_step_parameter_means_values_not_numbers_of_steps() -> None:
    stepped = space(whole("batch", min=32, max=128, step=32), whole("n", min=0, max=1, when={"batch": [96]}))
    assert [tuple(c.values()) for c in stepped.enumerate()] == [(32,), (64,), (96, 0), (96, 1), (128,)]


def test_a_condition_with_values_that_never_occur_is_never_met() -> None:
    never = space(category("c", 1, "2"), whole("n", min=0, max=5, when={"c": ["1", 2]}))
    assert list(never.enumerate()) == [{"c": 1}, {"c": "2"}]
    assert never.cardinality == 2


# Constraints -----------------------------------------------------------------------------------------------------


def test_feasible_looks_at_constraints_row_by_row_and_only_where_their_parameters_exist() -> None:
    constrained = space(*NESTED, constraints=["momentum < 5", "layers < 3 or optimizer == 'adam'"])
    rows: list[dict[str, Any]] = [
        {"layers": 2, "optimizer": "sgd", "nesterov": "yes", "momentum": 4},
        {"layers": 2, "optimizer": "sgd", "nesterov": "yes", "momentum": 5},
        {"layers": 3, "optimizer": "sgd", "nesterov": "no"},
        {"layers": 3, "optimizer": "adam"},
    ]
    assert constrained.feasible(rows).tolist() == [True, False, False, True]
    assert constrained.feasible([]).tolist() == []


def test_a_constraint_on_a_parameter_that_is_not_there_refuses_nothing() -> None:
    constrained = space(*NESTED, constraints=["momentum >= 5"])
    points = np.random.default_rng(2).random((400, 4))
    kept = constrained.configurations(constrained.feasible_table(points))
    assert kept == [c for c in constrained.decode(points) if c.get("momentum", 5) >= 5]
    assert len({tuple(c) for c in kept}) == 3
    assert len(list(constrained.enumerate())) == 3 * (1 + 1) + 1 + 2 * 5


@pytest.mark.parametrize(
    ("configuration", "problems"),
    [
        ({"layers": 2, "optimizer": "adam"}, []),
        ({"layers": 2}, [": optimizer is missing"]),
        ({"layers": 2, "optimiser": "adam"}, [".optimiser: there is no such parameter", ": optimizer is missing"]),
        ({"layers": 4, "optimizer": "adam"}, [".layers: 4 is not a value"]),
        ({"layers": True, "optimizer": "adam"}, [".layers: True is not a value"]),
        ({"layers": 2, "optimizer": "adam", "nesterov": "no"}, [".nesterov: it exists only where optimizer is 'sgd'"]),
        ({"layers": 1, "optimizer": "adam"}, [": the constraint 'layers > 1' does not hold"]),
    ],
)
def test_problems_of_a_configuration(configuration: dict[str, Any], problems: list[str]) -> None:
    found = space(*NESTED, constraints=["layers > 1"]).problems(configuration)
    assert len(found) == len(problems)
    for text, expected in zip(found, problems, strict=True):
        assert text.startswith(expected)


def test_an_incomplete_configuration_may_be_without_problems() -> None:
    nested = space(*NESTED, constraints=["layers > 1"])
    assert nested.problems({"optimizer": "sgd"}, complete=False) == []
    assert nested.problems({"layers": 1}, complete=False) == [": the constraint 'layers > 1' does not hold"]


def test_every_problem_of_a_definition_is_said_at_once() -> None:
    with pytest.raises(DefinitionError) as error:
        space(whole(min=2, max=1), double("x", min=0, max=1, scale="log"), constraints=["n <", "m > 1"])
    assert [problem.split(":")[0] for problem in error.value.problems] == [
        "parameters[0].int.min",
        "parameters[1].double.min",
        "constraints[0]",
        "constraints[1]",
    ]


@pytest.mark.parametrize(
    "parameter",
    [whole(min=-(2**53) + 1, max=2**53 - 1), double(min=0, max=1, step=1e-17), whole(min=-1, max=2**53 - 1)],
)
def test_more_values_than_can_be_told_apart_are_refused(parameter: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=r"step: it gives more than 9007199254740991 values; write a larger one"):
        space(parameter)


def test_the_largest_whole_numbers_come_back() -> None:
    largest = space(whole(min=1, max=2**53 - 1))
    values = [{"n": n} for n in (1, 2, 2**53 - 2, 2**53 - 1)]
    assert largest.configurations(largest.table_of(values)) == values


# Counting and enumerating ----------------------------------------------------------------------------------------


def test_a_grid_is_in_order_and_the_last_parameter_changes_fastest() -> None:
    grid = space(category("c", "b", "a"), whole(min=1, max=2), double(min=0, max=0.2, step=0.1))
    expected = itertools.product(["b", "a"], [1, 2], [0.0, 0.1, 0.2])
    assert [tuple(c.values()) for c in grid.enumerate()] == list(expected)


def test_a_grid_is_the_same_in_any_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    whole_grid = list(space(*NESTED, constraints=["momentum != 3", "layers != 2 or optimizer == 'sgd'"]).enumerate())
    monkeypatch.setattr("tuneyard_strategy.space.BLOCK", 3)
    again = space(*NESTED, constraints=["momentum != 3", "layers != 2 or optimizer == 'sgd'"])
    assert list(again.enumerate()) == whole_grid


def test_a_huge_grid_starts_at_once() -> None:
    huge = space(*(whole(f"n{i}", min=0, max=2**40) for i in range(5)), constraints=["n0 > 5000"])
    assert huge.cardinality == (2**40 + 1) ** 5
    first = list(itertools.islice(huge.enumerate(), 2))
    assert first == [{"n0": 5001, "n1": 0, "n2": 0, "n3": 0, "n4": n} for n in (0, 1)]


def test_an_enumeration_without_a_find_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuneyard_strategy.space.PATIENCE", 10_000)
    with pytest.raises(StrategyError, match="10000 combinations in a row do not meet the constraints"):
        next(space(whole(min=0, max=2**40), constraints=["n < 0"]).enumerate())


def test_a_space_without_end_cannot_be_enumerated() -> None:
    with pytest.raises(StrategyError, match="give it a step"):
        next(space(double(min=0, max=1)).enumerate())


def test_keys_tell_configurations_apart() -> None:
    keyed = space(category("c", 1, "1"), whole("n", min=0, max=1, when={"c": [1]}))
    configurations = list(keyed.enumerate())
    assert len({keyed.key(c) for c in configurations}) == len(configurations) == 3
    assert keyed.key({"n": 0.0, "c": 1}) == keyed.key({"c": 1, "n": 0})


# Properties ------------------------------------------------------------------------------------------------------

BOUNDS = st.integers(-50, 50)


@st.composite
def one_parameter(draw: st.DrawFn, name: str, parents: list[dict[str, Any]], *, finite: bool) -> dict[str, Any]:
    parameter: dict[str, Any] = {"name": name}
    kinds = ["int", "categorical", "stepped"] if finite else ["int", "categorical", "stepped", "double"]
    kind = draw(st.sampled_from(kinds))
    low = draw(BOUNDS)
    high = low + draw(st.integers(1, 4 if finite else 100))
    if kind == "categorical":
        parameter["categorical"] = {"values": draw(st.permutations([0, 1, "0", "a", "b"]))[: draw(st.integers(1, 4))]}
    elif kind == "int":
        log = draw(st.booleans())
        parameter["int"] = {"min": low + 51 if log else low, "max": high + 51 if log else high}
        parameter["int"] |= {"scale": "log"} if log else {"step": draw(st.integers(1, high - low))}
    elif kind == "stepped":
        parameter["double"] = {"min": low / 10, "max": high / 10, "step": draw(st.sampled_from([0.1, 0.05, 0.3]))}
        parameter["double"]["max"] = max(high / 10, low / 10 + 0.3)
    else:
        log = draw(st.booleans())
        parameter["double"] = {"min": 2.0**low, "max": 2.0**high, "scale": "log" if log else "linear"}
    for parent in (
        draw(st.lists(st.sampled_from(parents), max_size=2, unique_by=lambda p: p["name"])) if parents else []
    ):
        values = parent["categorical"]["values"]
        kept = draw(st.lists(st.sampled_from(values), min_size=1, unique_by=repr))
        parameter.setdefault("when", {})[parent["name"]] = kept
    return parameter


@st.composite
def spaces(draw: st.DrawFn, *, finite: bool = False) -> Space:
    parameters: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 5))):
        parents = [p for p in parameters if "categorical" in p]
        parameters.append(draw(one_parameter(f"p{number}", parents, finite=finite)))
    return space(*parameters)


@given(spaces(), st.integers(0, 2**32))
def test_what_is_drawn_is_in_the_space_and_comes_back_from_its_point(drawn: Space, seed: int) -> None:
    for configuration in drawn.decode(np.random.default_rng(seed).random((20, len(drawn.names)))):
        assert drawn.problems(configuration) == []
        point = drawn.encode(configuration)
        assert ((point >= 0) & (point <= 1)).all()
        assert drawn.decode(np.minimum(point, 1 - 2**-53)[None, :]) == [configuration]


@given(spaces(), st.integers(0, 2**32))
def test_parameters_that_share_an_object_are_as_each_alone(drawn: Space, seed: int) -> None:
    u = np.random.default_rng(seed).random((7, len(drawn.names)))
    assert sorted(p for kind in drawn.kinds for p in kind.positions.tolist()) == list(range(len(drawn.names)))
    for positions, names, together in drawn.kinds:
        assert names == tuple(drawn.names[p] for p in positions)
        cells = together.draw(u[:, positions])
        values, places = together.values(cells).tolist(), together.places(cells)
        np.testing.assert_array_equal(together.cells(values), cells)
        for column, position in enumerate(positions.tolist()):
            alone, own = drawn.dimensions[position], u[:, [position]]
            np.testing.assert_array_equal(alone.draw(own)[:, 0], cells[:, column])
            np.testing.assert_array_equal(alone.sketch(own)[:, 0], together.sketch(u[:, positions])[:, column])
            np.testing.assert_array_equal(alone.places(cells[:, [column]])[:, 0], places[:, column])
            assert [row[column] for row in values] == alone.values(cells[:, [column]])[:, 0].tolist()


def test_many_steps_are_worked_out_where_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = [whole("a", min=1, max=50, scale="log"), whole("b", min=-3, max=40, step=2), double("c", min=0, max=2)]
    u = np.random.default_rng(1).random((30, 3))
    kept = space(*parameters)
    monkeypatch.setattr("tuneyard_strategy.dimensions.MAX_KEPT", 0)
    worked_out = space(*parameters)
    points = [Encoding(each).coordinates(each.table(u)) for each in (kept, worked_out)]
    np.testing.assert_array_equal(*points)
    widths = [each.kinds[0].dimension.widths(u[:, :2]) for each in (kept, worked_out)]
    np.testing.assert_array_equal(*widths)


@settings(max_examples=60)
@given(spaces(finite=True))
def test_the_enumeration_is_complete_without_repeats_and_as_long_as_counted(drawn: Space) -> None:
    configurations = list(itertools.islice(drawn.enumerate(), 5000))
    keys = {drawn.key(c) for c in configurations}
    assert len(keys) == len(configurations)
    assert all(drawn.problems(c) == [] for c in configurations[:50])
    if len(configurations) < 5000:
        assert drawn.cardinality == len(configurations)
        for configuration in drawn.decode(np.random.default_rng(0).random((50, len(drawn.names)))):
            assert drawn.key(configuration) in keys
