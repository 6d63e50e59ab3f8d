"""Which nodes a pod may run on, by what its template says: selector, affinity, tolerations, CPU and memory.

The rules are those of kube-scheduler, of which nothing is required here that is only preferred.
Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/ and .../taint-and-toleration/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Expression(NamedTuple):
    """One requirement on a label (or, with `field`, on metadata.name)."""

    key: str
    operator: str
    values: tuple[str, ...] = ()
    field: bool = False

    def holds(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether a node of this name and these labels meets it."""
        value = name if self.field else labels.get(self.key)
        match self.operator:
            case "In":
                return value in self.values
            case "NotIn":
                return value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case "Gt" | "Lt":
                return _compares(self.operator, value, self.values)
            case _:
                return False


class Taint(NamedTuple):
    """A taint that keeps pods away which do not tolerate it."""

    key: str
    effect: str
    value: str = ""


class Toleration(NamedTuple):
    """What a pod puts up with. An empty key, or effect, is any."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def covers(self, taint: Taint) -> bool:
        """Whether it tolerates the taint."""
        if self.effect not in {"", taint.effect} or self.key not in {"", taint.key}:
            return False
        return self.operator == "Exists" or (bool(self.key) and self.value == taint.value)


@dataclass(frozen=True, slots=True)
class NodeNeeds:
    """What the trials of a study need of a node beside GPUs."""

    labels: tuple[tuple[str, str], ...] = ()
    terms: tuple[tuple[Expression, ...], ...] = ()
    """Alternatives; in each, all have to hold. Empty: no requirement."""
    tolerations: tuple[Toleration, ...] = ()

    def accepts(self, name: str, labels: Mapping[str, str], taints: tuple[Taint, ...]) -> bool:
        """Whether a node will do."""
        return (
            all(labels.get(key) == value for key, value in self.labels)
            and all(any(toleration.covers(taint) for toleration in self.tolerations) for taint in taints)
            and (not self.terms or any(all(e.holds(name, labels) for e in term) for term in self.terms if term))
        )

    def __bool__(self) -> bool:
        return bool(self.labels or self.terms)


ANY_NODE = NodeNeeds()


def needs(pod: Mapping[str, Any], *tolerated: str) -> NodeNeeds:
    """From a pod's spec.

    Args:
        pod: The spec.
        tolerated: Keys of taints that are tolerated as well.
    """
    affinity = (pod.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    given = [
        Toleration(t.get("key") or "", t.get("operator") or "Equal", t.get("value") or "", t.get("effect") or "")
        for t in pod.get("tolerations") or ()
    ]
    return NodeNeeds(
        labels=tuple(sorted((pod.get("nodeSelector") or {}).items())),
        terms=tuple(_term(term) for term in required.get("nodeSelectorTerms") or ()),
        tolerations=(*given, *(Toleration(key, "Exists") for key in tolerated)),
    )


def taints(spec: Mapping[str, Any]) -> tuple[Taint, ...]:
    """The taints of a node, from its spec, that keep pods away."""
    found = spec.get("taints") or ()
    return tuple(Taint(t["key"], t["effect"], t.get("value") or "") for t in found if t["effect"] != "PreferNoSchedule")


def _term(term: Mapping[str, Any]) -> tuple[Expression, ...]:
    return tuple(
        Expression(e["key"], e["operator"], tuple(e.get("values") or ()), field)
        for name, field in (("matchExpressions", False), ("matchFields", True))
        for e in term.get(name) or ()
    )


def _compares(operator: str, value: str | None, bounds: tuple[str, ...]) -> bool:
    try:
        difference = int(value or "") - int(bounds[0])
    except (ValueError, IndexError):
        return False
    return difference > 0 if operator == "Gt" else difference < 0
