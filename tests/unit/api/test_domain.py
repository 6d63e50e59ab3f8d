"""Which values a parameter can have, and where it exists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneyard_api.domain import admits, describe, is_active
from tuneyard_api.space import Parameter


def parameter(**kind):
    return Parameter.model_validate({"name": "p", **kind})


DOUBLE = {"double": {"min": 0.1, "max": 0.9}}
STEPS = {"double": {"min": 0.1, "max": 0.9, "step": 0.1}}
INT = {"int": {"min": -3, "max": 6, "step": 3}}
CATEGORIES = {"categorical": {"values": ["a", "1", 2]}}


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (DOUBLE, [0.1, 0.9, 0.5], [0, 1, 0.95, "0.5", True]),
        (STEPS, [0.1, 0.3, 0.7, 0.9], [0.15, 0.8999, 1.0]),
        ({"double": {"min": 0, "max": 2}}, [0, 1, 2], [-1, 3, True, False]),
        (INT, [-3, 0, 3, 6], [-2, 1, 9, 3.0, "3", True]),
        (CATEGORIES, ["a", "1", 2], [1, "2", "b", True, 2.0]),
    ],
)
def test_admits(kind, good, bad):
    assert [value for value in good if not admits(parameter(**kind), value)] == []
    assert [value for value in bad if admits(parameter(**kind), value)] == []


@given(
    low=st.floats(-1e6, 1e6),
    step=st.decimals("0.001", "100", places=3).map(float),
    count=st.integers(1, 1000),
    data=st.data(),
)
def test_every_step_is_admitted_and_no_half_step(low, step, count, data):
    stepped = parameter(double={"min": low, "max": low + count * step, "step": step})
    index = data.draw(st.integers(0, count - 1))
    assert admits(stepped, low + index * step)
    assert not admits(stepped, low + (index + 0.5) * step)


def test_a_parameter_exists_where_each_of_its_conditions_holds():
    conditional = parameter(**INT, when={"optimizer": ["sgd", "adam"], "layers": [1]})
    assert is_active(conditional, {"optimizer": "sgd", "layers": 1})
    assert not is_active(conditional, {"optimizer": "sgd", "layers": 2})
    assert not is_active(conditional, {"optimizer": "sgd", "layers": "1"})
    assert not is_active(conditional, {"layers": 1})
    assert is_active(parameter(**INT), {})


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (DOUBLE, "a number from 0.1 to 0.9"),
        (STEPS, "a number from 0.1 to 0.9 in steps of 0.1"),
        (INT, "a whole number from -3 to 6 in steps of 3"),
        (CATEGORIES, "one of 'a', '1', 2"),
        ({"categorical": {"values": list(range(12))}}, "one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..."),
    ],
)
def test_describe(kind, words):
    assert describe(parameter(**kind)) == words
