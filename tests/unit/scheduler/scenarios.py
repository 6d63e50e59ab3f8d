"""Scenarios as peers write them: nodes, queues, what runs and who waits; then who has which place, and who was stopped.

A trial is one study, so that its name says which one it is. Trials that are told to go are gone at once, and the cycle
is run until nothing changes any more, as in the peers' tests.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from scheduler_bench import GPU, Bench

from tuneyard_api.trial import Phase, Placement
from tuneyard_scheduler.cycle import schedule
from tuneyard_scheduler.views import Place

GIB = 1024
ROUNDS = 20

Size = int | float | str
"""Whole GPUs (int), a part of one (float), or memory on one ('10Gi')."""


class Runs(NamedTuple):
    """A trial that runs, longer than those that come after it in the scenario."""

    queue: str
    size: Size
    at: str
    """The node; with '/0' the GPU of which it has a part."""
    more: Mapping[str, Any] = {}
    """More of its study."""


class Waits(NamedTuple):
    """A trial (or more of its study) that waits."""

    queue: str
    size: Size
    trials: int = 1
    more: Mapping[str, Any] = {}
    """More of its study."""


class Scenario(NamedTuple):
    """What is given, and what is wanted."""

    nodes: Mapping[str, int | Mapping[str, Any]]
    """GPUs of each, or all fields."""
    queues: Mapping[str, Mapping[str, Any]]
    running: Mapping[str, Runs]
    waiting: Mapping[str, Waits]
    places: Mapping[str, str]
    """Where those are in the end who waited at first or were stopped, by name; who has no place is left out."""
    stopped: tuple[str, ...] = ()


def play(bench: Bench, given: Scenario) -> tuple[dict[str, str], tuple[str, ...]]:
    """What comes of it: places, and who was stopped (in the order of their names)."""
    for name, fields in given.nodes.items():
        values = {"gpus": fields} if isinstance(fields, int) else dict(fields)
        bench.node(name, **values)
    for name, fields in given.queues.items():
        bench.queue(name, **fields)
    for number, (name, runs) in enumerate(given.running.items()):
        bench.study(name, queue=runs.queue, created=float(number), **_size(runs.size), **runs.more)
        _hold(bench, name, runs, 1.0 + number)
    for number, (name, waits) in enumerate(given.waiting.items(), 100):
        bench.study(name, queue=waits.queue, created=float(number), **_size(waits.size), **waits.more)
        for index in range(waits.trials):
            bench.trial(index, name)
    return _settle(bench)


def _settle(bench: Bench) -> tuple[dict[str, str], tuple[str, ...]]:
    found: dict[tuple[str, int], str] = {}
    stopped: set[str] = set()
    for now in range(1000, 1000 + ROUNDS):
        decisions = schedule(bench.state, float(now))
        if not decisions.to_write:
            places: dict[str, str] = {}
            for (name, _), at in sorted(found.items()):
                places[name] = f"{places[name]} {at}" if name in places else at
            return places, tuple(sorted(stopped))
        for place in decisions.placements:
            placement = Placement(**_fields(place))
            bench.trial(place.index, place.study, Phase.RUNNING, place.attempt, placement=placement, since=float(now))
            found[place.study, place.index] = "/".join([str(place.node), *place.devices])
        for told in decisions.preempt:
            stopped.add(told.study)
            found.pop((told.study, told.index), None)
            bench.trial(told.index, told.study, Phase.PENDING, told.attempt + 1, since=float(now), preempted=1)
    raise AssertionError("trials are stopped and placed without an end")


def _size(size: Size) -> dict[str, Any]:
    if isinstance(size, str):
        return {"memory": int(size.removesuffix("Gi")) * GIB}
    return {"share": size} if isinstance(size, float) else {"gpus": size}


def _hold(bench: Bench, name: str, runs: Runs, since: float) -> None:
    node, _, device = runs.at.partition("/")
    gpus: float = runs.size if not isinstance(runs.size, str) else 0.0
    if isinstance(runs.size, str):
        known = bench.state.inventory.node(node)
        assert known is not None
        gpus = _size(runs.size)["memory"] / (known.kind(GPU).memory or 1)
    devices = [device] if device else None
    placement = Placement(attempt=0, node=node, gpus=gpus, resource=GPU, devices=devices)
    bench.trial(0, name, Phase.RUNNING, placement=placement, since=since)


def _fields(place: Place) -> dict[str, Any]:
    fields: dict[str, Any] = {"attempt": place.attempt, "node": place.node, "gpus": place.gpus}
    return fields | {"resource": place.resource, "devices": list(place.devices) or None}
