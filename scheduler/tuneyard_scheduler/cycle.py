"""One scheduling cycle: state and clock in, decisions out."""

from __future__ import annotations

from typing import Final

from tuneyard_api.common import timestamp
from tuneyard_scheduler.books import Reservation, StudyBook, TrialBook
from tuneyard_scheduler.line import Line
from tuneyard_scheduler.policies import DEFAULT, Policies, elastic
from tuneyard_scheduler.policies.nodes import Spot
from tuneyard_scheduler.policies.reservation import standing
from tuneyard_scheduler.reasons import Reason, Refusal
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Decisions, Place, StudyView, TrialView, Waiting, fitted

PASSED_SECONDS: Final = 600.0
"""For so long a trial that needs more than others of its study lets these go first."""


def schedule(state: ClusterState, now: float, *, policies: Policies = DEFAULT, limit: int | None = None) -> Decisions:
    """Give places to waiting trials until nobody who waits may have another one.

    A study is a class of identical requests: as soon as one of its trials gets no place, none of the others does, so a
    cycle costs as much as it gives and as many studies wait, whatever the number of trials and nodes.

    Args:
        state: What is known. Each place is applied to it as it is given (`ClusterState.apply`); `ClusterState.forget`
            takes back one that could not be written.
        now: Epoch seconds.
        policies: The rules.
        limit: Give no more places than this; whoever is still in line then is not told why. Whom to stop counts too.

    Returns:
        The places, in the order in which they were given; for each other study with waiting trials, the reason; which
        attempts are to be stopped; and when to look again if nothing happens before.
    """
    # 1. Trials whose backoff has passed join those that are ready.
    state.release(now)
    # 2. Nobody is given anything of a node that is kept for somebody, unless it is sure to be no delay.
    held = kept = standing(state)
    # 3. Studies with waiting trials stand in line, in that of their queue.
    line = Line(state, policies, now)
    with elastic.room_kept(state):
        placements, waiting = _give(state, line, held, now, policies, limit)
    # 4. Those that got nothing, and whose queue is guaranteed more, have borrowers stopped for them.
    room = None if limit is None else limit - len(placements)
    preempt = policies.reclaim(state, waiting, room)
    # 5. For the first of the others that fits nowhere a node is kept.
    state.reservation = policies.reserve(state, waiting, now)
    # 6. A few go out without a node, where their queue says so; and those come back that waited for one in vain.
    room = None if room is None else room - len(preempt)
    placements += elastic.let_out(state, waiting, now, room)
    back, due = elastic.take_back(state, now)
    # 7. The next backoff (or wait) that passes is the next thing that can change without an event; what was kept until
    #    now, and is not any more, can be given at once.
    given_up = kept is not None and standing(state) != kept
    wakeups = [at for at in (now if given_up else None, state.next_release(), due) if at is not None]
    return Decisions(placements, waiting, preempt, back, min(wakeups, default=None))


def _give(
    state: ClusterState, line: Line, held: Reservation | None, now: float, policies: Policies, limit: int | None
) -> tuple[list[Place], list[Waiting]]:
    """Places for those in line, and why the others get none.

    Whose turn it is gets one place and stands in line again, or leaves with a reason.
    """
    state.inventory.aside = held.node if held is not None else None
    placements: list[Place] = []
    waiting: list[Waiting] = []
    while (limit is None or len(placements) < limit) and (study := line.first()) is not None:
        assert study.view is not None, "only known studies stand in line"
        found = _serve(state, study, study.view, policies, held, now)
        if isinstance(found, Waiting):
            waiting.append(found)
        else:
            state.apply([found], now)
            placements.append(found)
            if held is not None and study.key == held.study:
                # What is left there is for everybody, unless this place comes to nothing.
                state.reservation, held = held._replace(trial=found.index), None
                state.inventory.aside = None
        line.settle(study, stays=isinstance(found, Place) and bool(study.pending))
    state.inventory.aside = None
    return placements, waiting


def _serve(
    state: ClusterState, study: StudyBook, view: StudyView, policies: Policies, held: Reservation | None, now: float
) -> Place | Waiting:
    """A place for the study's next trial, or why it gets none.

    Where that one needs more than others, because it ran out of memory, others may go first, but not for ever.
    """
    heads = study.heads()
    assert heads, "a study in line has waiting trials"
    for gate in policies.gates:
        refusal = gate(state, study, view)
        if refusal is not None:
            return Waiting(view.key, heads[0], *refusal)
    refused: Waiting | None = None
    for head in heads:
        trial = study.trials[head]
        assert trial.view is not None, "only known trials wait"
        spot = _choose(state, study, fitted(view, trial.view.need), trial, policies, held, now)
        if not isinstance(spot, Refusal):
            return _place(state, view.key, trial.view, spot)
        refused = refused or Waiting(view.key, head, *spot)
        if now - max(trial.view.since, trial.view.not_before or 0.0) >= PASSED_SECONDS:
            break
    assert refused is not None, "each head was refused"
    return refused


def _choose(
    state: ClusterState,
    study: StudyBook,
    view: StudyView,
    trial: TrialBook,
    policies: Policies,
    held: Reservation | None,
    now: float,
) -> Spot | Refusal | None:
    """A spot for the trial; on the node that is kept for somebody only by right, or where that is no delay."""
    spot = policies.choose(state, view, trial)
    if held is None or not isinstance(spot, Refusal):
        return spot
    state.inventory.aside = None
    spot = policies.choose(state, view, trial)
    state.inventory.aside = held.node
    mine = study.key == held.study or not isinstance(spot, Spot) or spot.node != held.node
    if isinstance(spot, Spot) and not mine and not policies.backfill(state, held, study, spot, now):
        return _is_held(held, now)
    return spot


def _place(state: ClusterState, study: str, trial: TrialView, spot: Spot | None) -> Place:
    if spot is None:
        return Place(study, trial.index, trial.attempt)
    node, resource, portion, devices = spot
    known = state.inventory.node(node)
    form = known.claims.get(resource) if known is not None and resource is not None else None
    return Place(
        study,
        trial.index,
        trial.attempt,
        node,
        portion.gpus,
        resource,
        portion.backend,
        devices,
        portion.memory,
        form.claim(devices, portion) if form is not None else None,
    )


def _is_held(held: Reservation, now: float) -> Refusal:
    until = f" and is expected to start by {timestamp(held.at)}" if held.at > now else ""
    return Refusal(
        Reason.HELD,
        f"node {held.node} has room, but that is held for trial {held.study}-{held.trial}, which needs more{until}",
    )
