"""The metric intake: POST /v1/reports from training pods, each only for its own trial. GET /healthz for the kubelet."""

from __future__ import annotations

import json
from typing import Any, Final

from aiohttp import web

from tuneyard_operator.controller import Controller
from tuneyard_operator.tokens import TokenVerifier, Unauthorized
from tuneyard_scheduler.kube import KubeError

PATH: Final = "/v1/reports"
_MAX_BYTES: Final = 256 * 1024
_MAX_REPORTS: Final = 1000


def create_app(controller: Controller, verifier: TokenVerifier) -> web.Application:
    """The web application; aiohttp because kopf and the Kubernetes client bring it along."""

    async def reports(request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return _refuse(401, "send the token of TUNEYARD_TOKEN_FILE as Authorization: Bearer")
        try:
            pod_uid = await verifier.pod_uid(token)
        except Unauthorized as error:
            return _refuse(401, str(error))
        except KubeError as error:
            return _refuse(503, f"tokens cannot be checked now: {error}")
        key = controller.running_pods.get(pod_uid)
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
        controller.report(key, items)
        return web.json_response({"accepted": len(items)})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok") if controller.healthy else web.Response(status=503, text="planning is stuck")

    app = web.Application(client_max_size=_MAX_BYTES)
    app.router.add_post(PATH, reports)
    app.router.add_get("/healthz", healthz)
    return app


def _refuse(status: int, sentence: str) -> web.Response:
    body: dict[str, Any] = {"error": sentence}
    return web.json_response(body, status=status)
