"""What a run prints: lines, one for each event that is worth one, and the result at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Final, Self

from tuneyard.cli import words
from tuneyard_api.common import epoch_seconds
from tuneyard_api.trial import Phase
from tuneyard_operator.local_runner import Ending
from tuneyard_operator.state import StudyState
from tuneyard_operator.worlds.local import News, Recorded, Started, Told

Object = dict[str, Any]

_QUIET: Final = frozenset({"Started", "Resumed", "Suspended"})
"""What is told of a study that the other lines say better."""


class Watching:
    """Whom a run tells of itself (Audience); a context, for what has to be put back at the end.

    Args:
        suggest: makes a whole command line of a command, such as `best digits`.
        name: the study's.
    """

    def __init__(self, suggest: Callable[[str], str], name: str) -> None:
        self.suggest = suggest
        self.name = name
        self.began = time.time()
        self.best: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, state: StudyState, news: list[News], waits: str | None) -> None:
        """See Audience."""

    def interrupted(self, times: int, running: int) -> None:
        """See Audience."""
        self.say(_on_interrupt(times, running))

    def say(self, sentence: str) -> None:
        """Tell the user something now."""
        raise NotImplementedError

    def end(self, ending: Ending, status: Object, spec: Object) -> None:
        """The last words: how it ended, and what was found."""
        self.say("")
        for line in self.last_words(ending, status, spec):
            self.say(line)

    def last_words(self, ending: Ending, status: Object, spec: Object) -> list[str]:
        """They."""
        goal = next(objective for objective in spec["objectives"] if objective.get("goal"))
        lines = [self._how_it_ended(ending, status)]
        best, front = status.get("best"), status.get("front")
        if front is not None and ending is not Ending.DELETED:
            lines += [f"{words.front(front['size'])}: {self.suggest(f'pareto {self.name}')}"]
        elif best is not None and ending is not Ending.DELETED:
            lines += [f"Best: {goal['metric']} {words.number(best['value'])}, trial {best['index']}"]
            width = max(map(len, best["parameters"]), default=0)
            lines += [f"  {key:<{width}}  {words.exact(given)}" for key, given in best["parameters"].items()]
            lines += words.recommended(status)
            lines += [f"For your shell: {self.suggest(f'best {self.name} -o env')}"]
        elif ending in {Ending.COMPLETE, Ending.FAILED}:
            lines += [f"No trial succeeded; see why: {self.suggest(f'get trials {self.name} -o wide')}"]
        return lines

    def _how_it_ended(self, ending: Ending, status: Object) -> str:
        study, message = f"Study {self.name}", status.get("message") or ""
        match ending:
            case Ending.COMPLETE | Ending.FAILED:
                took = ""
                if status.get("startTime") and status.get("completionTime"):
                    seconds = epoch_seconds(status["completionTime"]) - epoch_seconds(status["startTime"])
                    took = f" ({words.clock(seconds)})"
                how = "is complete" if ending is Ending.COMPLETE else "has failed"
                return f"{study} {how}: {message}{took}"
            case Ending.BLOCKED:
                return f"{study} is blocked: {message}"
            case Ending.SUSPENDED:
                return f"{study} is suspended after {status['progress']} trials; the same command goes on with it"
            case Ending.DELETED:
                return f"{study} was deleted"
            case Ending.INTERRUPTED:
                return f"{study} was interrupted after {status['progress']} trials; the same command goes on with it"
            case Ending.LEFT:
                return f"Left study {self.name}; its running trials go on, and the same command finds them"


def _on_interrupt(times: int, running: int) -> str:
    trials = f"{words.count(running, 'trial')} {'is' if running == 1 else 'are'} still running"
    if times == 1 and running:
        return f"{trials}: waiting for {'it' if running == 1 else 'them'}; press Ctrl-C again to stop " + (
            "it now" if running == 1 else "them now"
        )
    if times == 2:
        return "stopping the running trials; they will be run again"
    return "killing the running trials" if running else "ending"


class Lines(Watching):
    """For logs and pipes: a line for each event."""

    def __init__(self, suggest: Callable[[str], str], name: str) -> None:
        super().__init__(suggest, name)
        self._waits: str | None = None
        self._problem: str | None = None

    def say(self, sentence: str) -> None:
        """Print it at once."""
        print(sentence, flush=True)

    def show(self, state: StudyState, news: list[News], waits: str | None) -> None:
        """See Audience."""
        for item in news:
            line = self._line(state, item)
            if line is not None:
                self._stamped(line)
        if waits != self._waits and not state.active and waits is not None:
            self._stamped(f"waiting: {waits}")
        self._waits = waits
        if state.strategy_problem != self._problem and state.strategy_problem is not None:
            self._stamped(f"no further trials yet: {state.strategy_problem}")
        self._problem = state.strategy_problem

    def _stamped(self, line: str) -> None:
        self.say(f"{time.strftime('%H:%M:%S')}  {line}")

    def _line(self, state: StudyState, news: News) -> str | None:
        if isinstance(news, Told):
            return None if news.reason in _QUIET or not news.warning else f"warning: {news.message}"
        if isinstance(news, Started):
            again = f", attempt {news.attempt}" if news.attempt else ""
            return f"trial {news.index} started{again}: {words.configuration(state.trials[news.index].parameters)}"
        return _ended(state, news, self)


def _ended(state: StudyState, news: Recorded, view: Watching) -> str:
    """An attempt's end in a line."""
    status, index = news.trial["status"], news.trial["spec"]["index"]
    phase, last = Phase(status["phase"]), (status.get("attempts") or [{}])[-1]
    message = status.get("message") or last.get("message") or last.get("reason") or ""
    if phase is Phase.SUCCEEDED:
        result = _result(state, status["observation"]["metrics"])
        return f"trial {index} ended: {result}{_news_of_best(state, index, view)}"
    if phase is Phase.PENDING:
        wait = epoch_seconds(status["notBefore"]) - time.time() if status.get("notBefore") else 0.0
        when = f"in {words.clock(math.ceil(wait))}" if wait > 0 else "now"
        return f"trial {index} is tried again {when}: {message}"
    return f"trial {index} {phase.lower()}: {message}"


def _result(state: StudyState, metrics: Object) -> str:
    return ", ".join(f"{goal.metric} {words.number(metrics[goal.metric])}" for goal in state.goals)


def _news_of_best(state: StudyState, index: int, view: Watching) -> str:
    if state.front is not None:
        return ", on the front" if index in state.trials and state.trials[index] in state.front else ""
    best = state.best is not None and state.best.index == index != view.best
    view.best = index if best else view.best
    return ", the best so far" if best else ""
