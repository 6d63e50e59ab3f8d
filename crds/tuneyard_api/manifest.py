"""Reads manifests the way kubectl does."""

from __future__ import annotations

import re
from typing import Any

import yaml


class InvalidYaml(ValueError):
    """A text that is no YAML, or that writes a key twice; the message says where."""


def load(text: str) -> list[dict[str, Any]]:
    """The manifests in a text of one or several YAML documents; empty documents are left out.

    Unlike PyYAML by itself this reads 1e-5 as a number and dates as text, and refuses a key that is there twice.

    Raises:
        InvalidYaml: the text cannot be read, or one of its documents is no mapping.
    """
    try:
        documents = [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InvalidYaml(f"{where}{error.problem}; correct the YAML there") from None
    except yaml.reader.ReaderError as error:
        raise InvalidYaml(f"character {error.position + 1} is not a printable one; remove it") from None
    if not all(isinstance(document, dict) for document in documents):
        raise InvalidYaml("a manifest is a mapping; begin with apiVersion, kind, metadata and spec")
    return documents


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a text", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"'{key.value}' is written twice", problem_mark=key.start_mark)
            seen.add(key.value)
            if key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"  # 1 and on are names here, as in every JSON object
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)
