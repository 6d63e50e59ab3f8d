"""The strategies that exist, by the name that a study gives."""

from __future__ import annotations

from collections.abc import Mapping

from tuneyard_strategy.auto import AutoStrategy
from tuneyard_strategy.bayesian import BayesianStrategy
from tuneyard_strategy.cmaes import CmaesStrategy
from tuneyard_strategy.contract import Strategy, StudyDefinition
from tuneyard_strategy.grid import GridStrategy
from tuneyard_strategy.learning import LearningStrategy
from tuneyard_strategy.manual import ManualStrategy
from tuneyard_strategy.multifidelity import AshaStrategy, BohbStrategy, HyperbandStrategy
from tuneyard_strategy.population import PbtStrategy
from tuneyard_strategy.random_search import RandomStrategy
from tuneyard_strategy.sequence import SequenceStrategy
from tuneyard_strategy.sobol import SobolStrategy
from tuneyard_strategy.space import Space
from tuneyard_strategy.tpe import TpeStrategy

STRATEGIES: Mapping[str, type[SequenceStrategy | LearningStrategy]] = {
    "auto": AutoStrategy,
    "manual": ManualStrategy,
    "grid": GridStrategy,
    "random": RandomStrategy,
    "sobol": SobolStrategy,
    "tpe": TpeStrategy,
    "bayesian": BayesianStrategy,
    "cmaes": CmaesStrategy,
    "asha": AshaStrategy,
    "hyperband": HyperbandStrategy,
    "bohb": BohbStrategy,
    "pbt": PbtStrategy,
}


def create(definition: StudyDefinition) -> Strategy:
    """The strategy of a study, which has heard of no trial yet.

    Raises:
        DefinitionError: space, constraints or initial configurations do not fit together.
    """
    space = Space.from_spec(definition.parameters, definition.constraints)
    return STRATEGIES[definition.strategy.name](definition, space)
