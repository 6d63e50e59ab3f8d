"""Kubernetes' quantities, such as 500m, 2 and 1.5Gi. The parser of kubernetes.utils brings the whole client with it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_FORM: Final = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)(n|u|m|k|[KMGTPE]i|[MGTPE])?")
_FACTORS: Final = {
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "E": 1e18,
    **{f"{letter}i": 1024.0 ** (number + 1) for number, letter in enumerate("KMGTPE")},
}


@lru_cache(maxsize=4096)
def parse(text: str | float) -> float:
    """The number that a quantity stands for.

    Raises:
        ValueError: it is none.
    """
    form = _FORM.fullmatch(str(text))
    if form is None:
        raise ValueError(f"{text!r} is no quantity")
    return float(form.group(1)) * _FACTORS.get(form.group(2) or "", 1.0)
