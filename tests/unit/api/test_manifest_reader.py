"""Manifests are read as kubectl reads them."""

import pytest

from tuneyard_api.manifest import InvalidYaml, load


def test_numbers_and_texts_as_kubectl_reads_them():
    (read,) = load("{a: 1e-5, b: 1.5e3, c: 2E+2, d: -3, e: 0.5, f: 2026-01-01, g: '1e-5', h: .5e1, i: true, j: 10m}")
    assert read == {
        "a": 1e-5,
        "b": 1500.0,
        "c": 200.0,
        "d": -3,
        "e": 0.5,
        "f": "2026-01-01",
        "g": "1e-5",
        "h": 5.0,
        "i": True,
        "j": "10m",
    }
    assert isinstance(read["d"], int)


def test_several_documents():
    assert load("---\na: 1\n---\n---\nb: 2\n") == [{"a": 1}, {"b": 2}]
    assert load("") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 4, column 3: 'c' is written twice; correct the YAML there"),
        ("a: [1, 2\nb: 3", "line 2, column 2: "),
        ("a: 1\n\tb: 2", "line 2, column 1: "),
        ("- a\n- b", "a manifest is a mapping; begin with apiVersion, kind, metadata and spec"),
        ("just text", "a manifest is a mapping"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("? [1, 2]\n: x", "line 1, column 3: a key must be a text; correct the YAML there"),
        ("a: b\x00c", "character 5 is not a printable one; remove it"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text, says):
    with pytest.raises(InvalidYaml) as refused:
        load(text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_anchors_and_merges_work():
    assert load("a: &x {k: 1}\nb: {<<: *x, l: 2}") == [{"a": {"k": 1}, "b": {"k": 1, "l": 2}}]


def test_keys_are_texts():
    assert load("{1: a, on: b, 0.5: c}") == [{"1": "a", "on": "b", "0.5": "c"}]
