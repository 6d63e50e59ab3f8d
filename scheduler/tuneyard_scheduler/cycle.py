"""One scheduling cycle: state and clock in, decisions out."""

from __future__ import annotations

from tuneyard_scheduler.books import StudyBook
from tuneyard_scheduler.line import Line
from tuneyard_scheduler.policies import DEFAULT, Policies, elastic
from tuneyard_scheduler.reasons import Refusal
from tuneyard_scheduler.state import ClusterState
from tuneyard_scheduler.views import Decisions, Place, StudyView, Waiting


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
    # 2. Studies with waiting trials stand in line, in that of their queue.
    line = Line(state, policies, now)
    with elastic.room_kept(state):
        placements, waiting = _give(state, line, now, policies, limit)
    # 4. Those that got nothing, and whose queue is guaranteed more, have borrowers stopped for them.
    room = None if limit is None else limit - len(placements)
    preempt = policies.reclaim(state, waiting, room)
    # 5. Of the others a few go out without a node, where their queue says so; and those come back that waited in vain.
    room = None if room is None else room - len(preempt)
    placements += elastic.let_out(state, waiting, now, room)
    back, due = elastic.take_back(state, now)
    # 6. The next backoff (or wait) that passes is the next thing that can change without an event.
    wakeups = [at for at in (state.next_release(), due) if at is not None]
    return Decisions(placements, waiting, preempt, back, min(wakeups, default=None))


def _give(
    state: ClusterState, line: Line, now: float, policies: Policies, limit: int | None
) -> tuple[list[Place], list[Waiting]]:
    """Places for those in line, and why the others get none."""
    # 3. Whose turn it is gets one place and stands in line again, or leaves with a reason.
    placements: list[Place] = []
    waiting: list[Waiting] = []
    while (limit is None or len(placements) < limit) and (study := line.first()) is not None:
        assert study.view is not None, "only known studies stand in line"
        found = _serve(state, study, study.view, policies)
        if isinstance(found, Waiting):
            waiting.append(found)
        else:
            state.apply([found], now)
            placements.append(found)
        line.settle(study, stays=isinstance(found, Place) and bool(study.pending))
    return placements, waiting


def _serve(state: ClusterState, study: StudyBook, view: StudyView, policies: Policies) -> Place | Waiting:
    """A place for the study's next trial, or why it gets none."""
    ready = study.ready.smallest()
    head = ready if ready is not None else study.pending.smallest()
    assert head is not None, "a study in line has waiting trials"
    for gate in policies.gates:
        refusal = gate(state, study, view)
        if refusal is not None:
            return Waiting(view.key, head, *refusal)
    trial = study.trials[head]
    assert trial.view is not None, "only known trials wait"
    spot = policies.choose(state, view, trial)
    if isinstance(spot, Refusal):
        return Waiting(view.key, head, *spot)
    if spot is None:
        return Place(view.key, head, trial.view.attempt)
    node, resource, portion, devices = spot
    return Place(
        view.key, head, trial.view.attempt, node, portion.gpus, resource, portion.backend, devices, portion.memory
    )
