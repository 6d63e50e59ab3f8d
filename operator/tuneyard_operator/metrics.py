"""Metrics of a trial: what it reported on the way, what it left at its end, and whether that can be used."""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from tuneyard_api.study import Objective

MAX_METRICS: Final = 64
MAX_POINTS: Final = 50
MAX_STEP: Final = 10**12
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]{0,62}")
# At most 400 digits (a double has no more than 309): then no log, whatever the pattern, takes quadratic time.
_NUMBER = re.compile(
    r"\s*([-+]?(?:\d{1,400}\.?\d{0,400}|\.\d{1,400})(?:[eE][-+]?\d{1,400})?|[-+]?(?:nan|inf))", re.IGNORECASE
)


class BadMetrics(ValueError):
    """Metrics that cannot be used; the message is a sentence for the trial's status."""


def as_number(name: str, value: object) -> float:
    """A reported value as a float; nan and inf pass (they may be all that a diverged program has to say).

    Raises:
        BadMetrics: the name is no metric name or the value no number.
    """
    if not _NAME.fullmatch(name):
        raise BadMetrics(f"'{name[:70]}' is not a metric name; use letters, digits and _ . / -, at most 63")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BadMetrics(f"metric {name} is {_shown(value)}; report a number")
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise BadMetrics(f"metric {name} is {_shown(value)}; report a number") from None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


@dataclass(slots=True)
class Reports:
    """The metrics that an attempt reported: the last value of each, and a curve of at most MAX_POINTS points."""

    last: dict[str, float] = field(default_factory=dict)
    problem: str | None = None
    told: int = 0
    """How many reports there were when the curve was last written."""
    count: int = 0
    marks: tuple[int, ...] = ()
    """Steps, in order: the first point at or beyond each is kept whatever else is thinned out."""
    _marked: int = 0
    _kept: set[int] = field(default_factory=set)
    _latest: tuple[int, dict[str, float]] | None = None
    _points: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    _stride: int = 1
    _steps: dict[str, int] = field(default_factory=dict)

    def add(self, step: object, metrics: object) -> None:
        """Take one report; what cannot be used is noted as the problem, the rest is kept."""
        if not isinstance(metrics, Mapping) or len(metrics) > MAX_METRICS:
            self.problem = f"a report is not an object of at most {MAX_METRICS} metrics"
            return
        values: dict[str, float] = {}
        for name, value in metrics.items():
            try:
                values[name] = as_number(str(name), value)
            except BadMetrics as error:
                self.problem = str(error)
        if len(self.last.keys() | values.keys()) > MAX_METRICS:
            self.problem = f"more than {MAX_METRICS} metrics were reported"
            return
        plain = isinstance(step, int) and not isinstance(step, bool) and 0 <= step <= MAX_STEP
        after = self._points[-1][0] + 1 if self._points else 0
        number = step if plain and isinstance(step, int) else max(after, self.count)
        # A post whose answer was lost comes again: what is older than the known must not replace it.
        fresh = {name: value for name, value in values.items() if number >= self._steps.get(name, 0)}
        self.last.update(fresh)
        self._steps.update(dict.fromkeys(fresh, number))
        finite = {name: value for name, value in fresh.items() if math.isfinite(value)}
        if finite:
            self._add_point(number, finite)

    def _add_point(self, step: int, metrics: dict[str, float]) -> None:
        if self._points and self._points[-1][0] == step:
            self._points[-1][1].update(metrics)
            return
        self._latest = (step, metrics)
        reached = bisect_right(self.marks, step)
        if reached > self._marked:
            self._marked = reached
            self._kept.add(step)
        # Every stride-th point is kept; when there are too many, every other goes and the stride doubles.
        if self.count % self._stride == 0 or step in self._kept:
            self._points.append((step, metrics))
            if len(self._points) >= MAX_POINTS:
                self._points = [p for at, p in enumerate(self._points) if at % 2 == 0 or p[0] in self._kept]
                self._stride *= 2
        self.count += 1

    @classmethod
    def resumed(cls, curve: Iterable[Mapping[str, Any]], marks: tuple[int, ...] = ()) -> Self:
        """What a curve that was written by an earlier process still tells."""
        reports = cls(marks=marks)
        for point in curve:
            reports.add(point["step"], point["metrics"])
        reports.told = reports.count
        return reports

    def curve(self) -> list[dict[str, Any]]:
        """The curve as the API has it: [{step, metrics}]."""
        return [{"step": step, "metrics": metrics} for step, metrics in self._points]

    def curve_to_now(self) -> list[dict[str, Any]]:
        """The curve with its newest point, which may have been thinned out."""
        latest = [] if self._latest is None or self._latest in self._points[-1:] else [self._latest]
        return [*self.curve(), *({"step": step, "metrics": metrics} for step, metrics in latest)]

    def step_of(self, metric: str) -> int | None:
        """The newest step at which there is a number for a metric."""
        return self._steps.get(metric)


def from_termination_message(text: str | None) -> dict[str, Any]:
    """The metrics in a pod's termination message: a JSON object of names and numbers; {} where it is none."""
    if not text or not text.lstrip().startswith("{"):
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return {str(name): value for name, value in found.items()} if isinstance(found, dict) else {}


def from_log(text: str, objectives: Iterable[Objective]) -> dict[str, Any]:
    """The metrics that log lines show: for each objective with a logPattern, the number in its last match.

    A pattern is plain text with {value} where the number stands: no regular expression, so that no pattern can
    make the operator work for long.
    """
    found: dict[str, Any] = {}
    for objective in objectives:
        if objective.log_pattern is None:
            continue
        before, _, after = objective.log_pattern.partition("{value}")
        end = len(text)
        while (start := text.rfind(before, 0, end)) >= 0:
            match = _NUMBER.match(text, start + len(before))
            if match and text.startswith(after.rstrip(), match.end()):
                found[objective.metric] = match.group(1)
                break
            end = start + len(before) - 1
    return found


def observe(
    objectives: Sequence[Objective], sources: Iterable[Mapping[str, Any]], problem: str | None
) -> dict[str, float]:
    """The final metrics: later sources win. All metrics of the objectives must be there and finite.

    Raises:
        BadMetrics: one is missing or no finite number; problem (of a report) is told where it explains that.
    """
    merged: dict[str, Any] = {}
    for source in sources:
        merged.update(source)
    for objective in objectives:
        name = objective.metric
        if name not in merged:
            others = ", ".join(sorted(map(str, merged))[:5])
            had = problem or (f"it reported {others}" if others else "it reported none")
            raise BadMetrics(f"the program ended without metric {name} ({had}); call tuneyard.report({name}=...)")
        if not math.isfinite(as_number(name, merged[name])):
            raise BadMetrics(f"metric {name} is {merged[name]}: not a finite number")
    return usable(merged)


def usable(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Those that are finite numbers, at most MAX_METRICS."""
    usable: dict[str, float] = {}
    for name, value in metrics.items():
        try:
            number = as_number(name, value)
        except BadMetrics:
            continue
        if math.isfinite(number):
            usable[name] = number
        if len(usable) == MAX_METRICS:
            break
    return usable
