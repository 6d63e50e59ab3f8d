"""Which running trials are to be stopped: a function of what is known of the study's trials, and of nothing else.

`Judge` holds the curves of the trials that it was told of, and judges those that run by their curves up to now. Whether
a trial that reached a rung goes on is decided once; the caller keeps that on record (`judged`) and does not ask again.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from statistics import median

from pydantic import Field

from tuneyard_api.common import Model
from tuneyard_api.fidelity import MAX_FIDELITY, EarlyStoppingSpec
from tuneyard_strategy.contract import Curve, StudyDefinition, TrialRecord
from tuneyard_strategy.rungs import kept, rungs


class Verdict(Model):
    """What is to become of a running trial."""

    index: int = Field(ge=0, description="The trial.")
    stop: bool = Field(description="Whether it is to be stopped.")
    fidelity: int = Field(ge=0, le=MAX_FIDELITY, description="How far it had come where it was judged.")
    value: float = Field(description="The objective's value there.")
    message: str = Field(default="", max_length=512, description="Why it is to be stopped: one sentence.")


def stops_at_rungs(definition: StudyDefinition) -> bool:
    """Whether trials start for all of the fidelity and are stopped at rungs: asha, unless they can be resumed."""
    fidelity = definition.fidelity
    return definition.strategy.name == "asha" and fidelity is not None and not fidelity.resume


def decision_points(definition: StudyDefinition) -> tuple[int, ...]:
    """The fidelities, but for max, at which a running trial is judged once."""
    if definition.fidelity is None or not stops_at_rungs(definition):
        return ()
    return rungs(definition.fidelity)[:-1]


class Judge:
    """Judges the trials of one study. A trial is stopped if one rule says so."""

    def __init__(self, definition: StudyDefinition) -> None:
        sign = next((o.sign for o in definition.objectives if o.goal is not None), 1.0)
        self._rules: list[Halving | Median] = []
        if definition.fidelity is not None and stops_at_rungs(definition):
            self._rules.append(Halving(decision_points(definition), definition.fidelity.factor, sign))
        if definition.early_stopping is not None:
            self._rules.append(Median(definition.early_stopping, sign))

    def update(self, records: Sequence[TrialRecord]) -> None:
        """Hear of trials that are new or have changed; a later record replaces an earlier one."""
        for rule in self._rules:
            for record in records:
                rule.learn(record)

    def judge(self, running: Sequence[TrialRecord]) -> list[Verdict]:
        """What is to become of running trials, given their curves up to now.

        Returns:
            A verdict for each trial that a rule has something to say on.
        """
        found: dict[int, Verdict] = {}
        for rule in self._rules:
            for verdict in rule.judge(running):
                if verdict.index not in found or (verdict.stop and not found[verdict.index].stop):
                    found[verdict.index] = verdict
        return [found[record.index] for record in running if record.index in found]


class Halving:
    """Asynchronous successive halving, stopping type: of those that reached a rung, the best one in `factor` goes on.

    Li et al. 2020 (https://arxiv.org/abs/1810.05934) promote trials that pause; to stop instead those that would not
    be promoted needs no checkpoints (Tiao et al. 2020, https://arxiv.org/abs/2003.10865).
    """

    def __init__(self, points: Sequence[int], factor: int, sign: float) -> None:
        self._points = points
        self._factor = factor
        self._sign = sign
        self._reached: list[dict[int, float]] = [{} for _ in points]
        """By rung, the value (smaller is better) of each trial that reached it."""

    def learn(self, record: TrialRecord) -> None:
        """A trial's curve, or none (any more)."""
        for point, reached in zip(self._points, self._reached, strict=True):
            value = value_at(record.curve, point)
            if value is None:
                reached.pop(record.index, None)
            else:
                reached[record.index] = self._sign * value

    def judge(self, running: Sequence[TrialRecord]) -> list[Verdict]:
        """Each trial at the last rung that it reached."""
        verdicts = []
        for record in running:
            level = self._level(record)
            if level is not None:
                verdicts.append(self._at(level, record, running))
        return verdicts

    def _level(self, record: TrialRecord) -> int | None:
        """The last rung that the curve reached and at which it has not been judged."""
        done = record.curve[-1][0] if record.curve else 0
        level = bisect_right(self._points, done) - 1
        return level if level >= 0 and self._points[level] > (record.judged or 0) else None

    def _at(self, level: int, record: TrialRecord, running: Sequence[TrialRecord]) -> Verdict:
        point, own = self._points[level], value_at(record.curve, self._points[level])
        assert own is not None, "it reached the rung"
        values = dict(self._reached[level])
        for other in running:
            value = value_at(other.curve, point)
            if value is not None:
                values[other.index] = self._sign * value
        mine = (self._sign * own, record.index)
        better = sum((value, index) < mine for index, value in values.items())
        stop = better >= kept(len(values), self._factor)
        said = (
            f"{own:.6g} at fidelity {point} is number {better + 1} of the {len(values)} trials that came so far; "
            f"asha lets the best one in {self._factor} go on"
        )
        return Verdict(index=record.index, stop=stop, fidelity=point, value=own, message=said if stop else "")


class Median:
    """The median stopping rule of Vizier (Golovin et al. 2017, section 3.2.1).

    A trial is stopped if its best value is strictly worse than the median of the running averages, up to the same
    step, of the ended trials that came as far. Those that were stopped there count: without them the median would be
    that of the best alone. Curves are thinned out, and averages are those of the points that are left.
    """

    def __init__(self, spec: EarlyStoppingSpec, sign: float) -> None:
        self._spec = spec
        self._sign = sign
        self._ended: dict[int, tuple[list[int], list[float]]] = {}
        """By trial, the steps of its curve and the running averages up to each (smaller is better)."""

    def learn(self, record: TrialRecord) -> None:
        """A trial's curve counts when the trial has ended."""
        self._ended.pop(record.index, None)
        if record.state in {"succeeded", "stopped"} and record.curve:
            steps, averages, total = [], [], 0.0
            for number, (step, value) in enumerate(record.curve, 1):
                total += self._sign * value
                steps.append(step)
                averages.append(total / number)
            self._ended[record.index] = (steps, averages)

    def judge(self, running: Sequence[TrialRecord]) -> list[Verdict]:
        """Those that are worse than the median; there is nothing to say on the others."""
        medians: dict[int, tuple[float, int] | None] = {}
        verdicts = []
        for record in running:
            done = record.curve[-1][0] if record.curve else 0
            if done < self._spec.warmup:
                continue
            if done not in medians:
                medians[done] = self._median(done)
            middle = medians[done]
            best = min(self._sign * value for _, value in record.curve)
            if middle is not None and best > middle[0]:
                verdicts.append(self._verdict(record, self._sign * best, self._sign * middle[0], middle[1]))
        return verdicts

    def _median(self, done: int) -> tuple[float, int] | None:
        averages = []
        for steps, running in self._ended.values():
            if steps[-1] >= done:
                averages.append(running[max(0, bisect_right(steps, done) - 1)])
        return (median(averages), len(averages)) if len(averages) >= self._spec.min_trials else None

    def _verdict(self, record: TrialRecord, best: float, middle: float, count: int) -> Verdict:
        done, last = record.curve[-1]
        said = (
            f"its best value up to step {done}, {best:.6g}, is worse than {middle:.6g}, the median of what {count} "
            f"ended trials had on average up to there"
        )
        return Verdict(index=record.index, stop=True, fidelity=done, value=last, message=said)


def value_at(curve: Curve, point: int) -> float | None:
    """The value of the first report at or beyond a fidelity; None where the curve does not come so far."""
    at = bisect_left(curve, point, key=lambda entry: entry[0])
    return curve[at][1] if at < len(curve) else None
