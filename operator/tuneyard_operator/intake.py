"""The metric intake: POST /v1/reports from training pods, each only for its own trial.

Every replica of the operator takes reports, since a Service does not know who leads: one that does not passes them on.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from aiohttp import web

from tuneyard_operator import telemetry
from tuneyard_operator.controller import Controller
from tuneyard_operator.tokens import TokenVerifier, Unauthorized
from tuneyard_scheduler.kube import KubeError

PATH: Final = "/v1/reports"
_MAX_BYTES: Final = 256 * 1024
_MAX_REPORTS: Final = 1000
_FORWARDED: Final = "X-Tuneyard-Forwarded"
_FORWARD_TIMEOUT: Final = aiohttp.ClientTimeout(total=4)  # the SDK waits 5 s


class Intake:
    """Takes reports in.

    Args:
        verifier: tells pods by their tokens.
        leader: the address, HOST:PORT, of the replica that leads; None where none is known.
    """

    def __init__(self, verifier: TokenVerifier, leader: Callable[[], str | None] = lambda: None) -> None:
        self._verifier = verifier
        self._leader = leader
        self._session: aiohttp.ClientSession | None = None
        self.controller: Controller | None = None
        """What takes the reports; None in a replica that does not lead."""

    def create_app(self) -> web.Application:
        """The web application; aiohttp because kopf and the Kubernetes client bring it along."""
        app = web.Application(client_max_size=_MAX_BYTES)
        app.router.add_post(PATH, self._post)
        app.cleanup_ctx.append(self._with_session)
        return app

    async def _with_session(self, _: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(timeout=_FORWARD_TIMEOUT) as self._session:
            yield

    async def _post(self, request: web.Request) -> web.Response:
        answer = await self._take(request)
        telemetry.REPORTS.labels(answer.status).inc()
        return answer

    async def _take(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return _refuse(401, "send the token of TUNEYARD_TOKEN_FILE as Authorization: Bearer")
        try:
            pod_uid = await self._verifier.pod_uid(token)
        except Unauthorized as error:
            return _refuse(401, str(error))
        except KubeError as error:
            return _refuse(503, f"tokens cannot be checked now: {error}")
        if self.controller is None:
            return await self._forward(request)
        key = self.controller.running_pods.get(pod_uid)
        if key is None:
            # The pod's own event may still be on its way: 503 makes the SDK try again.
            return _refuse(503, "this pod is not known as a running trial (yet)")
        try:
            body = json.loads(await request.read())
            items = body["reports"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return _refuse(400, 'the body must be {"reports": [{"step": ..., "metrics": {...}}]}')
        if not isinstance(items, list) or len(items) > _MAX_REPORTS or not all(isinstance(i, dict) for i in items):
            return _refuse(400, f"reports must be a list of at most {_MAX_REPORTS} objects")
        self.controller.report(key, items)
        return web.json_response({"accepted": len(items)})

    async def _forward(self, request: web.Request) -> web.Response:
        """Pass a report on to the leader, once: two replicas that take each other for it must not play ball."""
        address = self._leader()
        if address is None or _FORWARDED in request.headers or self._session is None:
            return _refuse(503, "no operator leads at this moment")
        headers = {
            "Authorization": request.headers["Authorization"],
            "Content-Type": "application/json",
            _FORWARDED: "1",
        }
        try:
            body = await request.read()
            async with self._session.post(f"http://{address}{PATH}", data=body, headers=headers) as answer:
                return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return _refuse(503, "the operator that leads cannot be reached at this moment")


@asynccontextmanager
async def serving(intake: Intake, listen: tuple[str, int]) -> AsyncIterator[None]:
    """Take reports for the time of the block.

    Raises:
        OSError: the address cannot be listened on.
    """
    runner = web.AppRunner(intake.create_app(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, *listen).start()
        yield
    finally:
        await runner.cleanup()


def _refuse(status: int, sentence: str) -> web.Response:
    body: dict[str, Any] = {"error": sentence}
    return web.json_response(body, status=status)
