"""Asking the strategy service over HTTP: history goes over as deltas, or whole when the service asks for that."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
from pydantic import ValidationError

from tuneyard_api.common import Model
from tuneyard_operator.state import StudyState
from tuneyard_operator.strategy_client import (
    Answer,
    Ledger,
    StrategyError,
    answer,
    post_with_history,
    recommend_request,
)
from tuneyard_strategy.advisor import AskResponse, JudgeResponse, Question
from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.recommendation import Recommendation
from tuneyard_strategy.stopping import Verdict

M = TypeVar("M", bound=Model)
_TIMEOUT: Final = aiohttp.ClientTimeout(total=60, sock_connect=5)


class HttpStrategies:
    """Implements StrategyClient on a strategy service's URL."""

    def __init__(self, url: str, token_file: Path) -> None:
        self._url = url.rstrip("/")
        self._token_file = token_file
        self._ledger = Ledger()
        self._session: aiohttp.ClientSession | None = None
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """One question about a study at a time: each builds on what the one before has told."""

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def ask(self, state: StudyState, indices: list[int]) -> Answer:
        """See StrategyClient."""
        make = partial(self._ledger.request, state, indices)
        return answer(await self._answered(state, "/v1/ask", make, AskResponse))

    async def judge(self, state: StudyState, running: list[TrialRecord]) -> list[Verdict]:
        """See StrategyClient."""
        make = partial(self._ledger.judge_request, state, running)
        return (await self._answered(state, "/v1/judge", make, JudgeResponse)).verdicts

    async def recommend(self, state: StudyState) -> Recommendation:
        """See StrategyClient."""
        status, body = await self._post("/v1/recommend", recommend_request(state).to_json())
        return _understood(status, body, Recommendation)

    async def _answered(self, state: StudyState, path: str, make: Callable[..., Question], model: type[M]) -> M:
        async with self._turns[state.uid]:
            question, status, body = await post_with_history(self._post, path, make)
            response = _understood(status, body, model)
            self._ledger.answered(state, question)
            return response

    async def check(self, state: StudyState) -> list[str]:
        """See StrategyClient."""
        status, body = await self._post("/v1/check", StudyDefinition.from_spec(state.spec).to_json())
        if status != 200:
            raise StrategyError(f"the strategy service answered {status}: {body.get('error', body)}")
        return [str(problem) for problem in body["problems"]]

    async def _post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        try:
            # Read anew each time: tokens are rotated by replacing the file.
            headers = {"Authorization": f"Bearer {self._token_file.read_text().strip()}"}
            async with self._session.post(self._url + path, json=body, headers=headers) as response:
                answered = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise StrategyError(
                f"the strategy service at {self._url} does not answer: {error or 'time-out'}"
            ) from error
        if not isinstance(answered, dict):
            raise StrategyError(f"the strategy service at {self._url} answered {response.status} without an object")
        return response.status, answered

    def forget(self, uid: str) -> None:
        """See StrategyClient."""
        self._ledger.forget(uid)
        self._turns.pop(uid, None)


def _understood(status: int, body: dict[str, Any], model: type[M]) -> M:
    """An answer as what it should be.

    Raises:
        StrategyError: it is a refusal, or something else.
    """
    if status != 200:
        raise StrategyError(f"the strategy service answered {status}: {body.get('error', body)}")
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise StrategyError(f"the strategy service's answer is not understood: {error}") from error
