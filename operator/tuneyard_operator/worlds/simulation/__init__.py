"""The simulated world: the engine and the scheduler against a cluster that goes wrong in every way that a seed says.

Everything runs in virtual time on one heap of events: the API server (the truth), its watches with their delays, gaps
and repetitions, the cluster's own controllers, people, and the two processes, which crash at any step. The engine, the
planner, the state and the scheduler are the very ones of the other worlds. Invariants are checked after every step; one
that breaks is reported with the seed, and `python -m tuneyard_operator.worlds.simulation SEED --trace` shows it again.
"""

from tuneyard_operator.worlds.simulation.faults import Faults
from tuneyard_operator.worlds.simulation.run import Report, Simulation, simulate

__all__ = ["Faults", "Report", "Simulation", "simulate"]
