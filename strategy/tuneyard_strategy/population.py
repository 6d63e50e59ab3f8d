"""pbt: a population whose members change their configuration during training.

A member's training is cut into generations of `fidelity.min`; each is a trial that goes on from the checkpoint of one
of the generation before. Its rung says all: `bracket` is the member, `level` the generation, `continues` whose state it
has. When a member's trial has ended, its next one follows from what is then known of that generation, so that nobody
waits for the others, and from the trial's index, so that whoever asks again gets the same answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np

from tuneyard_api.fidelity import Rung
from tuneyard_api.study import POPULATION, QUANTILE, RESAMPLE_PROBABILITY
from tuneyard_strategy.contract import StudyDefinition
from tuneyard_strategy.distributions import Floats
from tuneyard_strategy.history import Fate
from tuneyard_strategy.multifidelity import RungStrategy
from tuneyard_strategy.rng import Stream, uniforms
from tuneyard_strategy.space import Configuration, Space

TRIES = 64
"""Changed configurations among which one that meets the constraints is looked for."""


class PbtStrategy(RungStrategy):
    """Population based training (Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846), with truncation selection.

    A member that is among the worst `quantile` of its generation goes on from the checkpoint of one of the best
    `quantile`, with that one's configuration changed (exploit and explore); the others go on as they are. Members are
    compared after the same amount of training, with those that have come so far by then; of fewer than 1 / quantile
    nobody is among the worst. A member whose trial failed goes on from one of the best, too.
    """

    def __init__(self, definition: StudyDefinition, space: Space) -> None:
        spec = definition.strategy
        self._members = range(spec.population or POPULATION)
        self._quantile = spec.quantile or QUANTILE
        given = spec.resample_probability
        self._resampled = RESAMPLE_PROBABILITY if given is None else given
        self._heights: dict[int, int] = {}
        """By member, a level above which it has no trial."""
        super().__init__(definition, space)
        self._last = self.fidelity.generations - 1

    def ranked(self, index: int) -> Iterator[Configuration]:
        """See LearningStrategy: members begin with the initial configurations and points of the Sobol sequence."""
        del index
        return iter(())

    def place(self, index: int) -> tuple[Rung, Configuration] | None:
        """See RungStrategy: the next generation of the member that has come least far, of those that do not train.

        Of several the best goes first: the worse one is, the more depends on the others' results.
        """
        by_level: dict[int, list[int]] = defaultdict(list)
        for member in self._members:
            by_level[self._height(member)].append(member)
        found = (
            self._next(index, member, level)
            for level in sorted(by_level)
            for member in self._best_first(level, by_level[level])
        )
        return next((place for place in found if place is not None), None)

    def continuable(self) -> list[int]:
        """See Strategy: the members' latest, then the best part of generations that some are still at.

        Where nobody came to the end of one its members go on from the one below.
        """
        heights = {member: self._height(member) for member in self._members}
        lowest = min(heights.values())
        while lowest > 0 and not self._generation(lowest):
            lowest -= 1
        part = max(self._part(len(self._members)), 1)
        latest = {trial for key in heights.items() for trial in self._rungs.get(key, ())}
        found = [
            (trial not in latest, place, trial)
            for level in range(max(lowest, 0), min(max(heights.values()) + 1, self._last))
            for place, trial in enumerate(self._generation(level))
            if place < part or trial in latest
        ]
        return [trial for *_, trial in sorted(found)]

    @property
    def exhausted(self) -> str:
        """See Strategy."""
        if any(self._height(member) < 0 for member in self._members):
            return self._start.exhausted_after(sum(len(self._rungs[member, 0]) for member in self._members))
        return f"all {len(self._members)} members of the population have come to their end"

    def _best_first(self, level: int, members: Iterable[int]) -> list[int]:
        """Members whose last trial is at this level; those without a result come last."""
        ranks = {trial: rank for rank, trial in enumerate(self._generation(level))}

        def turn(member: int) -> tuple[int, int]:
            here = self._rungs.get((member, level), ())
            return min((ranks.get(trial, len(ranks)) for trial in here), default=0), member

        return sorted(members, key=turn)

    def _generation(self, level: int) -> list[int]:
        """The trials of all members that came to the end of a level, the best first."""
        return self._best(*((member, level) for member in self._members))

    def _next(self, index: int, member: int, level: int) -> tuple[Rung, Configuration] | None:
        """A member's next trial, by what became of the last one; None where it trains, is done, or cannot begin."""
        here = sorted(self._rungs[member, level])
        if any(self._trains(trial) for trial in here):
            return None
        own = next((trial for trial in here if self._is_sound(trial)), None)
        if own is not None and level >= self._last:
            return None
        source = self._source(index, own, level)
        if source is None:
            configuration = self.new(index)
            return None if configuration is None else (self._rung(member, 0), configuration)
        trial, level = source
        configuration = self._existing[trial] if trial == own else self._explored(index, trial, level)
        return self._rung(member, level + 1, trial), configuration

    def _source(self, index: int, own: int | None, level: int) -> tuple[int, int] | None:
        """From which trial a member goes on, and its level; None where there is none.

        Args:
            index: of the trial to come.
            own: the member's last trial, unless that failed.
            level: the member's.
        """
        for below in range(min(level, self._last - 1), -1, -1):
            best = self._generation(below)
            count = self._part(len(best))
            if own is not None and own not in best[len(best) - count :]:
                return own, level
            if best:
                (place,) = uniforms(self.seed, Stream.EXPLOITATION, index=index, start=0, rows=1, width=1)[0]
                return best[int(place * max(count, 1))], below
        return None

    def _part(self, count: int) -> int:
        """How many of so many are the best, or the worst."""
        return int(count * self._quantile + 1e-9)

    def _explored(self, index: int, source: int, level: int) -> Configuration:
        """The configuration of a trial that is not one's own, changed: none that goes on from there has it already."""
        configuration = self._existing[source]
        above = (self._rungs[member, level + 1] for member in self._members)
        others = [trial for trials in above for trial, continued in trials.items() if continued == source]
        taken = {self.space.key(self._existing.get(each) or self._proposed[each]) for each in (source, *others)}
        draws = uniforms(
            self.seed, Stream.EXPLORATION, index=index, start=0, rows=TRIES, width=3 * len(self.space.names)
        )
        found = explored(self.space, configuration, draws, self._resampled)
        return next((each for each in found if self.space.key(each) not in taken), configuration)

    def _rung(self, member: int, level: int, continues: int | None = None) -> Rung:
        fidelity = min((level + 1) * self.fidelity.min, self.fidelity.max)
        return Rung(fidelity=fidelity, level=level, bracket=member, continues=continues)

    def _trains(self, trial: int) -> bool:
        return bool(self.history.fates[trial] == Fate.PENDING)

    def _is_sound(self, trial: int) -> bool:
        """Whether there is a checkpoint to go on from."""
        failed = self.history.fates[trial] == Fate.FAILED or not self.history.is_placed(trial)
        return self._records[trial].state == "succeeded" and not failed

    def _height(self, member: int) -> int:
        """The highest level at which a member has a trial; -1 where it has none."""
        level = self._heights.get(member, -1)
        while level >= 0 and not self._rungs.get((member, level)):
            level -= 1
        self._heights[member] = level
        return level

    def _enter(self, index: int, rung: Rung) -> None:
        super()._enter(index, rung)
        self._heights[rung.bracket] = max(self._heights.get(rung.bracket, -1), rung.level)

    def _restart(self) -> None:
        self._heights.clear()
        super()._restart()


def explored(space: Space, configuration: Configuration, draws: Floats, resampled: float) -> Iterator[Configuration]:
    """Configurations near one, of the space and within its constraints.

    Each parameter is moved to a value nearby (see Dimension.moved), or with probability `resampled` drawn from its
    distribution. One that exists only because of another's new value is drawn as well.

    Args:
        space: the search space.
        configuration: one of it.
        draws: uniform numbers, shape (n, 3 d): n are tried.
        resampled: a probability.
    """
    for anew, way, place in draws.reshape(len(draws), 3, -1):
        moved = {
            name: dimension.moved(configuration[name], up=bool(way[at] < 0.5))
            for at, (name, dimension) in enumerate(zip(space.names, space.dimensions, strict=True))
            if name in configuration and anew[at] >= resampled
        }
        table = space.table(np.array([place]), fixed=moved)
        if space.meets(table)[0]:
            yield from space.configurations(table)
