"""Random: independent draws from the parameters' distributions, each configuration once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tuneyard_strategy.rng import Stream, uniforms
from tuneyard_strategy.scan import MAX_REFUSED, scan, short_list, shuffled
from tuneyard_strategy.sequence import SequenceStrategy
from tuneyard_strategy.space import Configuration, Table


class RandomStrategy(SequenceStrategy):
    """Draws at random. Where the feasible configurations can be listed, without putting back; else skipping repeats."""

    @cached_property
    def listed(self) -> Table | None:
        """All feasible configurations, where they are few enough."""
        return short_list(self.space)

    def candidates(self, taken: set[Hashable]) -> Iterator[Configuration]:
        """See SequenceStrategy."""
        if self.listed is not None:
            yield from shuffled(self.space, self.listed, self.seed)
        else:
            yield from scan(self.space, self._draw, taken)

    def exhausted_after(self, count: int) -> str:
        """See SequenceStrategy."""
        if self.listed is not None:
            return super().exhausted_after(count)
        return f"after {count} configurations, none of {MAX_REFUSED} further points was new and met the constraints"

    def _draw(self, first: int, rows: int) -> NDArray[np.float64]:
        width = len(self.space.names)
        return uniforms(self.seed, Stream.CANDIDATES, start=first, rows=rows, width=width)
