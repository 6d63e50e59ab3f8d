"""An advisor in a process of its own: while a model is fitted there, whoever asks can go on with other things."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from tuneyard_strategy.advisor import PATIENCE, Advisor, AskRequest, AskResponse, JudgeRequest, JudgeResponse
from tuneyard_strategy.contract import StudyDefinition
from tuneyard_strategy.errors import StrategyError
from tuneyard_strategy.explanation import ExplainRequest, Explanation
from tuneyard_strategy.recommendation import Recommendation, RecommendRequest

logger = logging.getLogger(__name__)


class AdvisorProcess:
    """Answers as an `Advisor` does. Not thread-safe: one question at a time.

    The process is a fork of this one: make it early, before there are threads. It ends when this one does, however that
    happens.

    Args:
        ended: called when it has ended too early, for example for lack of memory. What it knew is a cache; nothing is
            lost when all begins anew.
    """

    def __init__(self, ended: Callable[[], None]) -> None:
        fork = multiprocessing.get_context("fork")
        self._connection, theirs = fork.Pipe()
        self._process = fork.Process(target=_run, args=(theirs, self._connection), name="advisor", daemon=True)
        self._process.start()
        theirs.close()
        self._ended = ended

    @property
    def pid(self) -> int | None:
        """The number of the process."""
        return self._process.pid

    def ask(self, request: AskRequest) -> AskResponse:
        """See Advisor."""
        answer: AskResponse = self._call("ask", request)
        return answer

    def check(self, definition: StudyDefinition) -> list[str]:
        """See Advisor."""
        answer: list[str] = self._call("check", definition)
        return answer

    def judge(self, request: JudgeRequest) -> JudgeResponse:
        """See Advisor."""
        answer: JudgeResponse = self._call("judge", request)
        return answer

    def explain(self, request: ExplainRequest) -> Explanation:
        """See Advisor."""
        answer: Explanation = self._call("explain", request)
        return answer

    def recommend(self, request: RecommendRequest) -> Recommendation:
        """See Advisor."""
        answer: Recommendation = self._call("recommend", request)
        return answer

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join()

    def _call(self, method: str, argument: object) -> Any:
        try:
            self._connection.send((method, argument))
            succeeded, result = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            status = self._process.exitcode
            logger.error(  # noqa: TRY400 - where we are tells nothing
                "the advisor's process ended with status %s; -9 is for lack of memory, most likely", status
            )
            self._ended()
            raise StrategyError(f"the strategy service begins anew: its advisor ended with status {status}") from None
        if not succeeded:
            raise result
        return result


def _run(connection: Connection, of_owner: Connection) -> None:
    of_owner.close()  # so that the owner's end is noticed
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner
    serve(connection, Advisor(patience=PATIENCE))


def serve(connection: Connection, advisor: Advisor) -> None:
    """Answer until the other end is closed; between questions, prepare answers that are still wanted."""
    while True:
        try:
            method, argument = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        try:
            answer = (True, getattr(advisor, method)(argument))
        except StrategyError as error:
            answer = (False, error)
        except Exception as error:
            error.add_note(traceback.format_exc())
            answer = (False, error)
        connection.send(answer)
        while not connection.poll() and advisor.prepare():
            pass
