"""One schedule: the same engine and the same scheduler against a simulated cluster with the faults of a seed."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tuneyard_operator.worlds.simulation.apiserver import ApiServer
from tuneyard_operator.worlds.simulation.autoscaler import Autoscaler
from tuneyard_operator.worlds.simulation.cluster import Cluster
from tuneyard_operator.worlds.simulation.ending import check_end, settled
from tuneyard_operator.worlds.simulation.faults import Faults
from tuneyard_operator.worlds.simulation.invariants import Invariants
from tuneyard_operator.worlds.simulation.kernel import START, TAIL, Kernel, Violation
from tuneyard_operator.worlds.simulation.operators import OperatorProcess
from tuneyard_operator.worlds.simulation.plans import draw_plans, draw_queues, really
from tuneyard_operator.worlds.simulation.process import Process
from tuneyard_operator.worlds.simulation.reports import Reporting
from tuneyard_operator.worlds.simulation.schedulers import SchedulerProcess
from tuneyard_operator.worlds.simulation.shares import Build, draw_build
from tuneyard_operator.worlds.simulation.strategies import RealStrategies, SeededStrategies, Strategies
from tuneyard_operator.worlds.simulation.users import Users

MOST_SECONDS: Final = 3600.0
"""Virtual seconds after the last fault within which every study must have ended."""
_LOOK: Final = 5.0


@dataclass(frozen=True, slots=True)
class Report:
    """What a schedule showed."""

    seed: int
    violation: str | None
    steps: int
    seconds: float
    """Virtual seconds."""
    digest: str
    faults: dict[str, int]
    trials: int
    configurations: dict[tuple[str, int], dict[str, Any]] = field(repr=False)
    trace: list[str] = field(repr=False)

    def __str__(self) -> str:
        """For people: what broke, and the last lines of the trace."""
        if self.violation is None:
            return f"seed {self.seed}: all invariants held over {self.steps} steps (trace {self.digest})"
        lines = "\n".join(self.trace[-TAIL:])
        return (
            f"seed {self.seed}, step {self.steps}: {self.violation}\n{lines}\n"
            f"all of it: python -m tuneyard_operator.worlds.simulation {self.seed} --trace"
        )


class Simulation:
    """Everything of one schedule, wired up."""

    def __init__(
        self, seed: int, *, faults: Faults | None = None, real_strategies: bool = False, keep_trace: bool = False
    ) -> None:
        self.seed = seed
        self.kernel = Kernel(seed, keep_trace=keep_trace)
        rng = self.kernel.rng
        # Drawn before the faults, so that a run without them is about the same studies.
        plain = rng.random() < 0.3
        builds = [draw_build(rng, plain=plain) for _ in range(rng.randint(1, 3))]
        gpus = [build.gpus for build in builds]
        self.plans = draw_plans(rng, max(gpus), plain=plain)
        queues = draw_queues(rng, sum(gpus), max(gpus))
        self._quiet_at = rng.uniform(20.0, 90.0)
        if real_strategies:
            self.plans = [really(plan, rng) for plan in self.plans]
        drawn = Faults.draw(rng)
        self.faults = drawn if faults is None else replace(faults)
        self.api = ApiServer(self.kernel)
        self.cluster = Cluster(self.kernel, self.api, self.faults, plain=plain)
        by_name = {plan.name: plan for plan in self.plans}
        strategies: Strategies = RealStrategies() if real_strategies else SeededStrategies(by_name)
        self.invariants = Invariants(self.kernel, self.api, self.cluster, by_name, strategies)
        self.users = Users(self.kernel, self.api, self.faults, self.cluster, self.plans)
        self.operator = OperatorProcess(
            self.kernel, self.api, self.faults, strategies, self.cluster.log_of, self.invariants.verdicts.judged
        )
        Reporting(self.kernel, self.cluster.machines, self.operator)
        self.scheduler = SchedulerProcess(self.kernel, self.api, self.faults, self.invariants.decided)
        if any("elastic" in spec for spec in queues.values()):
            Autoscaler(self.kernel, self.cluster.machines)
        self._enough = Build(max(gpus)) if plain else Build(max(gpus), "parts", 40960, selected=True)
        for name, spec in queues.items():
            self.api.create("gpuqueues", {"metadata": {"name": name}, "spec": spec}, "user")
        for build in builds:
            self.cluster.machines.join(build)

    def run(self) -> None:
        """From the start to the end of all studies.

        Raises:
            Violation: an invariant did not hold.
        """
        kernel = self.kernel
        for process in (self.operator, self.scheduler):
            process.start()
            if self.faults.crash:
                kernel.after(kernel.rng.expovariate(self.faults.crash), self._crash_now_and_then, process)
        kernel.after(self._quiet_at, self._calm)
        deadline = START + self._quiet_at + MOST_SECONDS
        self._ended = False
        self._version = 0
        kernel.after(_LOOK, self._look)
        while not self._ended:
            kernel.step()
            if kernel.now > deadline:
                raise Violation(f"not all studies had ended {MOST_SECONDS:.0f} s after the last fault")
        check_end(self.api, self.cluster, self.invariants, self.operator, self.scheduler)

    def _crash_now_and_then(self, process: Process) -> None:
        if self.faults.crash:
            process.crash()
            self.kernel.after(self.kernel.rng.expovariate(self.faults.crash), self._crash_now_and_then, process)

    def _calm(self) -> None:
        """The faults are over: the images are there again, and some node is large enough for everybody."""
        self.kernel.note("calm")
        self.faults.calm()
        self.cluster.machines.join(self._enough)
        self.users.calm()

    def _look(self) -> None:
        over = settled(self.api, self.cluster, self.users, self.operator, self.scheduler)
        self._ended = over and self.api.version == self._version
        self._version = self.api.version
        self.kernel.after(_LOOK, self._look)


def simulate(
    seed: int,
    *,
    faults: Faults | None = None,
    real_strategies: bool = False,
    keep_trace: bool = False,
    tamper: Callable[[Simulation], None] | None = None,
) -> Report:
    """Run one schedule.

    Args:
        seed: Settles everything.
        faults: What goes wrong; left out: as the seed says.
        real_strategies: Search with the strategies that users have, instead of one that costs nothing.
        keep_trace: Keep the whole trace, not only its end.
        tamper: Turns a safeguard off, to prove that its absence is noticed.
    """
    violation: str | None = None
    simulation = Simulation(seed, faults=faults, real_strategies=real_strategies, keep_trace=keep_trace)
    if tamper is not None:
        tamper(simulation)
    with _errors_of_the_log() as errors:
        try:
            simulation.run()
        except Violation as broken:
            violation = str(broken)
        except Exception:
            violation = f"a process failed: {traceback.format_exc(limit=-6)}"
        finally:
            simulation.operator.close()
            simulation.scheduler.close()
    if violation is None and errors:
        violation = f"an error in the log: {errors[0]}"
    kernel = simulation.kernel
    return Report(
        seed=seed,
        violation=violation,
        steps=kernel.steps,
        seconds=kernel.now - START,
        digest=kernel.digest,
        faults=dict(kernel.counts),
        trials=len(simulation.invariants.records.configurations),
        configurations=simulation.invariants.records.configurations,
        trace=list(kernel.trace),
    )


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextmanager
def _errors_of_the_log() -> Iterator[list[str]]:
    """The errors that the code logs; warnings are its everyday life here, and are not even put together."""
    handler = _Errors()
    loggers = [logging.getLogger(name) for name in ("tuneyard_operator", "tuneyard_scheduler")]
    before = [(each.level, each.propagate) for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
        each.propagate = False
        each.addHandler(handler)
    try:
        yield handler.said
    finally:
        for each, (level, propagate) in zip(loggers, before, strict=True):
            each.setLevel(level)
            each.propagate = propagate
            each.removeHandler(handler)
