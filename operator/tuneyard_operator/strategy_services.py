"""Strategies of the users' own: services somewhere on the network, whose answers are looked at before they count.

A service answers as ours does (see `tuneyard_strategy.service`), with POST <url>/v1/ask; POST <url>/v1/check is up to
it. Nothing that it does makes an invalid trial: an answer with anything wrong in it is no answer. It is sent no token,
is not followed where it redirects to, and is waited for and read only so long.
"""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from pydantic import ValidationError

from tuneyard_api.common import seconds
from tuneyard_api.service import ServiceSpec
from tuneyard_api.study import StrategySpec
from tuneyard_operator.state import StudyState
from tuneyard_operator.strategy_client import (
    Answer,
    InProcess,
    Ledger,
    StrategyClient,
    StrategyError,
    defined,
    post_with_history,
)
from tuneyard_operator.strategy_http import HttpStrategies
from tuneyard_strategy.advisor import AskRequest, AskResponse
from tuneyard_strategy.contract import StudyDefinition, TrialRecord
from tuneyard_strategy.recommendation import Recommendation
from tuneyard_strategy.space import Space
from tuneyard_strategy.stopping import Verdict

logger = logging.getLogger(__name__)

MAX_ANSWER: Final = 4 * 2**20
"""Bytes of an answer, at most."""
CONNECT_SECONDS: Final = 5.0
AGAIN_SECONDS: Final = 30.0
"""While Sobol proposes instead, the service is asked again this long after it failed."""
_SHOWN: Final = 300
_ANY: Final = "*"


class WithServices:
    """Implements StrategyClient: studies with a service of their own go there, all others to `inner`.

    Args:
        inner: for all other studies.
        allowed: the services that may be asked, as origins such as http://optimizer.team-a.svc:8080; a host may begin
            with *. for all below it; * allows every one.
        clock: seconds, for when to ask a service again.
    """

    def __init__(
        self, inner: StrategyClient, allowed: Sequence[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.inner = inner
        self._allowed = allowed
        self._clock = clock
        self._ledger = Ledger()
        self._sobol = InProcess(define=_as_sobol)
        self._taken: defaultdict[str, _Taken] = defaultdict(_Taken)
        self._failed: dict[str, tuple[float, str]] = {}
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections, those of `inner` too."""
        if self._session is not None:
            await self._session.close()
        if isinstance(self.inner, HttpStrategies):
            await self.inner.close()

    async def ask(self, state: StudyState, indices: list[int]) -> Answer:
        """See StrategyClient. Initial configurations are the study's own, and not asked for."""
        service = state.spec.strategy.service
        if service is None:
            return await self.inner.ask(state, indices)
        initial = [index for index in indices if index < len(state.spec.initial)]
        if initial:
            return await self._sobol.ask(state, initial)
        if service.on_failure == "Wait":
            return await self._ask_service(state, service, indices)
        failed_at, why = self._failed.get(state.uid, (-AGAIN_SECONDS, ""))
        if self._clock() - failed_at >= AGAIN_SECONDS:
            try:
                found = await self._ask_service(state, service, indices)
            except StrategyError as error:
                logger.warning("study %s: Sobol proposes, because %s", state.name, error)
                why = str(error)
                self._failed[state.uid] = self._clock(), why
            else:
                self._failed.pop(state.uid, None)
                return found
        found = await self._sobol.ask(state, indices)
        return replace(found, note=f"Sobol proposes meanwhile: {why}")

    async def judge(self, state: StudyState, running: list[TrialRecord]) -> list[Verdict]:
        """See StrategyClient. The rules that stop trials are ours, whoever proposes."""
        judge = self.inner if state.spec.strategy.service is None else self._sobol
        return await judge.judge(state, running)

    async def recommend(self, state: StudyState) -> Recommendation:
        """See StrategyClient; whatever model a service has stays with it."""
        if state.spec.strategy.service is not None:
            return Recommendation()
        return await self.inner.recommend(state)

    async def check(self, state: StudyState) -> list[str]:
        """See StrategyClient. The service may be asked for its opinion on the settings, and need not have one."""
        service = state.spec.strategy.service
        problems = await self.inner.check(state)
        if service is None or problems:
            return problems
        if not allows(self._allowed, service.url):
            return [f"strategy.service.url: {_not_allowed(service)}"]
        try:
            status, body = await self._post(service, "/v1/check", defined(state).to_json())
        except StrategyError:
            if service.on_failure == "Sobol":
                return []
            raise
        found = body.get("problems") if status == 200 else None
        return [f"strategy.service: {_shown(problem)}" for problem in found[:10]] if isinstance(found, list) else []

    def forget(self, uid: str) -> None:
        """See StrategyClient."""
        self.inner.forget(uid)
        self._sobol.forget(uid)
        self._ledger.forget(uid)
        self._taken.pop(uid, None)
        self._failed.pop(uid, None)

    async def _ask_service(self, state: StudyState, service: ServiceSpec, indices: list[int]) -> Answer:
        make = partial(self._ledger.request, state, indices)
        question, status, body = await post_with_history(partial(self._post, service), "/v1/ask", make)
        if status != 200:
            self._ledger.forget(state.uid)
            raise StrategyError(f"{_named(service)} answered {status}: {_shown(body.get('error', body))}")
        try:
            space = Space.from_spec(state.spec.parameters, state.spec.constraints)
            found = checked(body, question, space, self._taken[state.uid].keys(state, space))
        except StrategyError as error:
            self._ledger.forget(state.uid)  # it may have lost its way: next time it is told everything
            raise StrategyError(f"{_named(service)} answered what is no configuration: {error}") from error
        self._ledger.answered(state, question)
        return found

    async def _post(self, service: ServiceSpec, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body of the answer.

        Raises:
            StrategyError: it does not come in time, is too large, is no JSON object, or points elsewhere.
        """
        if not allows(self._allowed, service.url):
            raise StrategyError(_not_allowed(service))
        if self._session is None:
            # Answers are taken as they come: one that is packed could be far larger than it looks.
            self._session = aiohttp.ClientSession(
                auto_decompress=False, headers={"Accept-Encoding": "identity"}, cookie_jar=aiohttp.DummyCookieJar()
            )
        limit = float(seconds(service.timeout))
        timeout = aiohttp.ClientTimeout(total=limit, sock_connect=min(CONNECT_SECONDS, limit))
        url = service.url.rstrip("/") + path
        try:
            async with self._session.post(url, json=body, timeout=timeout, allow_redirects=False) as response:
                status, text = response.status, await _read(response)
        except TimeoutError as error:
            raise StrategyError(f"{_named(service)} did not answer within {service.timeout}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise StrategyError(f"{_named(service)} does not answer: {_shown(str(error))}") from error
        if 300 <= status < 400:
            raise StrategyError(f"{_named(service)} points elsewhere ({status}), where nobody follows: correct its url")
        if text is None:
            raise StrategyError(f"{_named(service)} answered more than {MAX_ANSWER} bytes")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            if status == 200:
                raise StrategyError(f"{_named(service)} answered something that is no JSON object")
            found = {}
        return status, found


class _Taken:
    """The configurations of a study's trials, by what tells them apart."""

    def __init__(self) -> None:
        self._seen = 0
        self._keys: set[Hashable] = set()

    def keys(self, state: StudyState, space: Space) -> set[Hashable]:
        """Those of all trials so far."""
        self._keys.update(space.key(record.parameters) for record in state.history[self._seen :])
        self._seen = len(state.history)
        return self._keys


def checked(body: dict[str, Any], question: AskRequest, space: Space, taken: set[Hashable]) -> Answer:
    """An answer of which every configuration can be a trial.

    Args:
        body: what came.
        question: what was asked.
        space: the study's.
        taken: keys of the configurations that trials have.

    Raises:
        StrategyError: with what is wrong first.
    """
    try:
        response = AskResponse.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        raise StrategyError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    asked, found, keys = set(question.indices), {}, set[Hashable]()
    for proposal in response.configurations:
        index, parameters = proposal.index, space.typed(proposal.parameters)
        if index not in asked or index in found:
            raise StrategyError(f"trial {index} was not asked for" if index not in asked else f"trial {index} twice")
        problems = space.problems(parameters)
        if problems:
            raise StrategyError(f"trial {index}{_shown(problems[0])}")
        key = space.key(parameters)
        if key in taken or key in keys:
            raise StrategyError(f"trial {index} has the configuration of another one")
        keys.add(key)
        found[index] = parameters
    if not found and not response.exhausted:
        raise StrategyError("none at all, although it does not say that the space is exhausted")
    return Answer(found, response.exhausted, continuable=[])


def allows(allowed: Sequence[str], url: str) -> bool:
    """Whether one of the allowed origins is that of the URL."""
    return any(entry == _ANY or _same_origin(entry, url) for entry in allowed)


def _same_origin(entry: str, url: str) -> bool:
    one, other = _origin(entry), _origin(url)
    if one is None or other is None or one[::2] != other[::2]:
        return False
    allowed, host = one[1], other[1]
    return host.endswith(allowed[1:]) if allowed.startswith("*.") else host == allowed


def _origin(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None for what is no URL."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or {"https": 443}.get(parts.scheme, 80)
    except ValueError:
        return None


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """The body; None where it is too large."""
    text = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        text += chunk
        if len(text) > MAX_ANSWER:
            response.close()
            return None
    return bytes(text)


def _as_sobol(state: StudyState) -> StudyDefinition:
    """The study as Sobol's: for its initial configurations, and where it falls back."""
    sobol = StrategySpec(name="sobol", seed=state.spec.strategy.seed)
    return StudyDefinition.from_spec(state.spec).model_copy(update={"strategy": sobol})


def _not_allowed(service: ServiceSpec) -> str:
    said = f"no strategy service at {service.url} may be asked"
    return f"{said}; have an administrator add it to operator.strategyServices, or name another"


def _named(service: ServiceSpec) -> str:
    return f"the strategy service at {service.url}"


def _shown(said: object) -> str:
    """What somebody else wrote, on one line and not too long."""
    text = " ".join(str(said).split())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
