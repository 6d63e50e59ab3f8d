"""What a run shows on a terminal: a table of what runs, the best so far, and how far it is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tuneyard.cli import words
from tuneyard.cli.watching import Watching
from tuneyard_api.common import epoch_seconds
from tuneyard_api.study import Objective
from tuneyard_api.trial import Phase
from tuneyard_operator.front import Front
from tuneyard_operator.state import StudyState
from tuneyard_operator.trial_state import TrialState, attempt_seconds
from tuneyard_operator.worlds.local import News, Recorded, Told

Object = dict[str, Any]

_REFRESH_SECONDS: Final = 1.0
_RECENT: Final = 5
_FURNITURE: Final = 14
"""Lines of a screen that are neither running nor ended trials."""
_PHASES: Final = {"Complete": "green", "Failed": "red", "Blocked": "red"}
_WORDS: Final = {
    Phase.SUCCEEDED: ("done", "green"),
    Phase.FAILED: ("failed", "red"),
    Phase.INFEASIBLE: ("infeasible", "yellow"),
    Phase.STOPPED: ("stopped", ""),
    Phase.PENDING: ("retry", "yellow"),
}


class LiveTable(Watching):
    """For terminals. Drawn when something happens and once a second: it must cost nearly nothing beside the trials."""

    def __init__(self, suggest: Callable[[str], str], name: str, console: Console | None = None) -> None:
        super().__init__(suggest, name)
        self.console = console or Console(highlight=False)
        self._live = Live(console=self.console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._drawn_at = 0.0
        self._ended: deque[_Row] = deque(maxlen=_RECENT)
        self._said: list[str] = []
        self._interrupted = False
        self._last: RenderableType = Text("")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.update(self._last, refresh=True)
        self._live.stop()

    def interrupted(self, times: int, running: int) -> None:
        """See Audience."""
        self._interrupted = True
        super().interrupted(times, running)

    def say(self, sentence: str) -> None:
        """Above the table's last line while it is shown; after its end below it."""
        if self._live.is_started:
            self._said.append(sentence)
            self._drawn_at = 0.0
        else:
            self.console.print(sentence, markup=False, soft_wrap=True)

    def show(self, state: StudyState, news: list[News], waits: str | None) -> None:
        """See Audience."""
        for item in news:
            if isinstance(item, Recorded):
                if item.trial["status"].get("attempts"):
                    self._ended.append(_over(item.trial))
            elif isinstance(item, Told) and item.warning:
                self._said.append(item.message)
        now = time.time()
        if news or now >= self._drawn_at + _REFRESH_SECONDS:
            self._drawn_at = now
            head = list(self._head(state, now))
            self._last = Group(*head)
            self._live.update(Group(*head, *self._body(state, waits, now)), refresh=True)

    def _head(self, state: StudyState, now: float) -> Iterator[RenderableType]:
        """What stays on the screen at the end, too."""
        spec, status = state.spec, state.status_written or state.status
        phase = "Interrupted" if self._interrupted else str(status.get("phase") or "Pending")
        yield Text("")
        title = Table.grid(expand=True)
        title.add_column(ratio=1)
        title.add_column(justify="right")
        strategy = "service" if spec.strategy.service else spec.strategy.name
        about = f"  {strategy}, {words.count(spec.trials.parallel, 'trial')} at a time"
        title.add_row(
            Text.assemble((state.name, "bold"), (about, "dim")),
            Text(phase, style=_PHASES.get(phase, "bold")),
        )
        yield title
        yield from self._progress(state, now)

    def _progress(self, state: StudyState, now: float) -> Iterator[RenderableType]:
        limit = state.limit
        total = max(float(limit), state.next_index) if limit != float("inf") else None
        bar = Table.grid(expand=True, padding=(0, 2, 0, 0))
        bar.add_column(ratio=1)
        bar.add_column(justify="right")
        counts = [f"{state.ended}/{'?' if total is None else int(total)}"]
        counts += [
            f"{state.phases[phase]} {phase.lower()}"
            for phase in (Phase.FAILED, Phase.INFEASIBLE, Phase.STOPPED)
            if state.phases[phase]
        ]
        counts.append(words.clock(now - self.began))
        eta = (state.status_written or state.status).get("eta")
        if eta is not None and state.active:
            counts.append(f"about {words.clock(epoch_seconds(eta) - now)} left")
        drawn = ProgressBar(total=total or 1, completed=state.ended if total else 0, complete_style="cyan")
        bar.add_row(drawn, Text(" · ".join(counts)))
        yield bar

    def _body(self, state: StudyState, waits: str | None, now: float) -> Iterator[RenderableType]:
        yield Text("")
        yield self._best(state)
        yield Text("")
        if state.active or self._ended:
            yield self._trials(state, now)
        if waits is not None and not state.active:
            yield Text(f"Waiting: {waits}", style="yellow")
        if state.strategy_problem is not None:
            yield Text(f"No further trials yet: {state.strategy_problem}", style="yellow")
        for sentence in self._said[-2:]:
            yield Text(sentence, style="bold yellow")
        yield Text("")  # where the cursor stands, and the terminal echoes Ctrl-C

    def _best(self, state: StudyState) -> RenderableType:
        best = state.best
        if state.front is not None:
            return self._front(state.front, state.goals)
        if best is None:
            return Text(f"Best   none yet ({state.goal.goal} {state.goal.metric})", style="dim")
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_row(
            Text("Best", style="bold"),
            Text(f"{state.goal.metric} {words.number(best.value)}", style="bold green"),
            Text(f"trial {best.index}", style="dim"),
            Text(words.configuration(best.parameters)),
        )
        return grid

    def _front(self, front: Front, goals: Sequence[Objective]) -> RenderableType:
        """How many trials no other one beats, and what the best one in each objective reaches."""
        shown = [trial.metrics for trial in front.shown()]
        if not shown:
            return Text(f"Front  none yet ({', '.join(f'{goal.goal} {goal.metric}' for goal in goals)})", style="dim")
        grid = Table.grid(padding=(0, 2, 0, 0))
        ends = [(max if goal.goal == "maximize" else min)(m[goal.metric] for m in shown) for goal in goals]
        best = ", ".join(f"{goal.metric} to {words.number(end)}" for goal, end in zip(goals, ends, strict=True))
        grid.add_row(Text("Front", style="bold"), Text(words.front(len(front))), Text(best, style="bold green"))
        return grid

    def _trials(self, state: StudyState, now: float) -> RenderableType:
        """Those that ended last, then those that run."""
        metrics = [goal.metric for goal in state.goals]
        room = max(3, self.console.height - _FURNITURE - len(self._ended))
        active = sorted(state.active)
        rows = [*self._ended, *(_running(state.trials[index], now) for index in active[:room])]
        retries = any(row.attempt for row in rows)
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0), expand=True)
        table.add_column("Trial", justify="right", no_wrap=True)
        if retries:
            table.add_column("Attempt", justify="right", no_wrap=True)
        table.add_column("", no_wrap=True, min_width=7)
        table.add_column("Step", justify="right", no_wrap=True, min_width=4)
        for metric in metrics:
            table.add_column(metric, justify="right", no_wrap=True, min_width=8)
        table.add_column("Time", justify="right", no_wrap=True, min_width=4)
        table.add_column("Parameters", no_wrap=True, ratio=1)
        for row in rows:
            attempt = [str(row.attempt)] if retries else []
            state_of = Text(row.state, style=row.style)
            values = [words.number(row.metrics.get(metric)) for metric in metrics]
            table.add_row(str(row.index), *attempt, state_of, row.step, *values, row.time, row.text, style=row.shade)
        if len(active) > room:
            table.add_row(*[""] * (4 + len(metrics) + retries), f"and {len(active) - room} more")
        return table


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the table."""

    index: int
    attempt: int
    state: str
    style: str
    step: str
    metrics: Mapping[str, float]
    time: str
    text: Text
    """The configuration; of a trial that came to grief, why."""
    shade: str = ""


def _running(trial: TrialState, now: float) -> _Row:
    curve = trial.reports.curve()
    begun = trial.seen.started if trial.seen is not None else None
    return _Row(
        trial.index,
        trial.attempt,
        "running",
        "cyan",
        str(curve[-1]["step"]) if curve else "",
        trial.reports.last,
        words.clock(now - begun) if begun is not None else "",
        Text(words.configuration(trial.parameters)),
    )


def _over(trial: Object) -> _Row:
    status, last = trial["status"], trial["status"]["attempts"][-1]
    phase = Phase(status["phase"])
    word, style = _WORDS[phase]
    message = "" if phase is Phase.SUCCEEDED else last.get("message") or status.get("message") or ""
    took = attempt_seconds(last)
    return _Row(
        trial["spec"]["index"],
        last["number"],
        word,
        style,
        str(status["curve"][-1]["step"]) if status.get("curve") else "",
        (status.get("observation") or {}).get("metrics") or {},
        words.clock(took) if took else "",
        Text(message or words.configuration(trial["spec"]["parameters"]), style=style if message else ""),
        shade="dim" if phase is Phase.SUCCEEDED else "",
    )
