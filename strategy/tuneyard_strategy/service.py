"""The strategy service: an `Advisor` behind HTTP, for callers in other processes.

| Request | Answer |
|---|---|
| POST /v1/ask | 200 AskResponse; 409 Missing: send definition and all records; 422 the study has no configurations |
| POST /v1/judge | 200 JudgeResponse: which running trials are to be stopped; 409 Missing |
| POST /v1/check | 200 the problems of a definition |
| POST /v1/recommend | 200 Recommendation: the trial to use in the end |
| POST /v1/explain | 200 Explanation: what matters, what is to be expected; 422 there are too few trials |
| GET /healthz, GET /openapi.json | open to everyone; the others want `Authorization: Bearer TOKEN` |

All other answers are {"error": "one sentence"}.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tuneyard_api.common import Model
from tuneyard_strategy.advisor import Advisor, AskRequest, AskResponse, JudgeRequest, JudgeResponse
from tuneyard_strategy.contract import StudyDefinition
from tuneyard_strategy.errors import NeedHistory, StrategyError
from tuneyard_strategy.explanation import ExplainRequest, Explanation
from tuneyard_strategy.process import AdvisorProcess
from tuneyard_strategy.recommendation import Recommendation, RecommendRequest

MAX_BODY = 64 * 2**20
"""Bytes of a request's body, at most: the history of 100,000 trials."""
OPEN_PATHS = frozenset({"/healthz", "/openapi.json"})

Answer = TypeVar("Answer")


class Problems(Model):
    """What is wrong with a definition."""

    problems: list[str] = Field(description="One sentence each; empty if all is well.")


class Missing(Model):
    """The service does not hold the history that the question builds on: send the definition and all records."""

    need: Literal["history"] = Field(default="history", description="What is missing.")
    have: int = Field(description="How many records of the study the service holds.")


class Refusal(Model):
    """Why there is no answer."""

    error: str = Field(description="One sentence.")


class Health(Model):
    """The service is up."""

    status: Literal["ok"] = Field(default="ok", description="Always ok.")


_REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": Refusal, "description": "The token is missing or wrong."},
    413: {"model": Refusal, "description": "The body is too large."},
    422: {"model": Refusal, "description": "The question is malformed, or the study cannot be searched."},
}
_BEARER = [Depends(HTTPBearer(auto_error=False, description="The token in the service's token file."))]
_ASK_REFUSALS = {**_REFUSALS, 409: {"model": Missing, "description": "History is missing."}}


class Gate:
    """Turns away requests without the token before anything of their body is read, and bodies that are too large."""

    def __init__(self, app: ASGIApp, token: Callable[[], str]) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS and not self._admits(dict(scope["headers"])):
            refusal = _refusal(401, "the token is missing or wrong: send the header Authorization: Bearer TOKEN")
            await refusal(scope, receive, send)
        else:
            await self._app(scope, _bounded(receive), send)

    def _admits(self, headers: dict[bytes, bytes]) -> bool:
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        expected = self._token().encode()
        return bool(expected) and scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), expected)


def _bounded(receive: Receive) -> Receive:
    """A way to receive a body that ends with an error once it is too large."""
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY:
            raise HTTPException(413, f"the body is larger than {MAX_BODY} bytes")
        return message

    return bounded


def create_app(
    advisor: Advisor | AdvisorProcess, token: Callable[[], str], explainer: Advisor | AdvisorProcess | None = None
) -> FastAPI:
    """The service as an ASGI application.

    Args:
        advisor: who answers; it is called from one thread, never by two requests at a time.
        token: gives what callers must present, each time anew since tokens are rotated; nobody enters while it is "".
        explainer: who explains and recommends, which takes seconds that no ask is to wait for; left out, an advisor in
            this process.
    """
    insight = explainer or Advisor()
    worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="advisor")
    at_leisure = ThreadPoolExecutor(max_workers=1, thread_name_prefix="explainer")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        worker.shutdown(cancel_futures=True)
        at_leisure.shutdown(cancel_futures=True)

    app = FastAPI(
        title="Tuneyard strategy service",
        version="v1",
        description="Proposes configurations for the trials of studies.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(Gate, token=token)
    _answer_in_sentences(app)
    _propose(app, advisor, worker)
    _explain(app, insight, at_leisure)

    @app.get("/healthz", operation_id="health")
    async def healthz() -> Health:
        """Whether the service is up."""
        return Health()

    return app


def _propose(app: FastAPI, advisor: Advisor | AdvisorProcess, worker: ThreadPoolExecutor) -> None:
    """Serve the questions of a study that goes on."""

    @app.post(
        "/v1/ask",
        operation_id="ask",
        dependencies=_BEARER,
        responses=_ASK_REFUSALS,
        response_model_exclude_none=True,
    )
    async def ask(request: AskRequest) -> AskResponse:
        """Configurations for trials, given the part of the history that the service has not seen."""
        return await _on(worker, advisor.ask, request)

    @app.post("/v1/judge", operation_id="judge", dependencies=_BEARER, responses=_ASK_REFUSALS)
    async def judge(request: JudgeRequest) -> JudgeResponse:
        """Which running trials are to be stopped, given the same of the history and their curves up to now."""
        return await _on(worker, advisor.judge, request)

    @app.post("/v1/check", operation_id="check", dependencies=_BEARER, responses=_REFUSALS)
    async def check(definition: StudyDefinition) -> Problems:
        """What is wrong with a study's definition beyond what the API server checks."""
        return Problems(problems=await _on(worker, advisor.check, definition))


def _explain(app: FastAPI, explainer: Advisor | AdvisorProcess, worker: ThreadPoolExecutor) -> None:
    """Serve the questions about what came of a study."""

    @app.post("/v1/explain", operation_id="explain", dependencies=_BEARER, responses=_REFUSALS)
    async def explained(request: ExplainRequest) -> Explanation:
        """Which parameters of a study matter, and what is to be expected of each trial."""
        return await _on(worker, explainer.explain, request)

    @app.post("/v1/recommend", operation_id="recommend", dependencies=_BEARER, responses=_REFUSALS)
    async def recommended(request: RecommendRequest) -> Recommendation:
        """The trial to use in the end."""
        return await _on(worker, explainer.recommend, request)


async def _on(worker: ThreadPoolExecutor, function: Callable[[Any], Answer], argument: object) -> Answer:
    return await asyncio.get_running_loop().run_in_executor(worker, function, argument)


def _answer_in_sentences(app: FastAPI) -> None:
    """Give every error the same short form."""

    @app.exception_handler(NeedHistory)
    async def need_history(_: Request, error: NeedHistory) -> JSONResponse:
        return JSONResponse(Missing(have=error.have).to_json(), status_code=409)

    @app.exception_handler(StrategyError)
    async def no_answer(_: Request, error: StrategyError) -> JSONResponse:
        return _refusal(422, str(error))

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        return _refusal(422, "; ".join(_complaint(details) for details in error.errors()[:5]))

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        return _refusal(error.status_code, error.detail)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return _refusal(500, f"the strategy service failed ({type(error).__name__}): see its log")


def _complaint(details: Mapping[str, Any]) -> str:
    """One of pydantic's findings in a few words."""
    if details["type"] == "json_invalid":
        return f"the body is no JSON: {details['ctx']['error']} at position {details['loc'][-1]}"
    path = ".".join(str(part) for part in details["loc"] if part != "body")
    return f"{path or 'the body'}: {details['msg'].removeprefix('Value error, ')}"


def _refusal(status: int, sentence: str) -> JSONResponse:
    return JSONResponse(Refusal(error=sentence).to_json(), status_code=status)
