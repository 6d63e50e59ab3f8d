"""Probes and metrics of a process, over HTTPS: GET /healthz and /readyz for the kubelet, /metrics for Prometheus.

Metrics are for those whom the API server lets get /metrics: a TokenReview says who asks, a SubjectAccessReview whether
they may, as with kube-rbac-proxy and the projects of kubebuilder. The certificate is made anew at each start and signed
by nobody: it keeps the token from eavesdroppers; scrapers skip its verification. The probes say nothing worth hiding.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from tuneyard_scheduler.kube import Kube, KubeError

logger = logging.getLogger(__name__)

Object = dict[str, Any]
Check = Callable[[], str | None]
"""What is wrong, as a sentence; None when nothing is."""

_VALID: Final = dt.timedelta(days=3650)
_REMEMBERED_SECONDS: Final = 60.0
_MOST_REMEMBERED: Final = 1000
_MAX_TOKEN: Final = 16 * 1024
_TOKEN_REVIEWS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105
_ACCESS_REVIEWS: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


@asynccontextmanager
async def serving(
    listen: tuple[str, int] | None, kubeconfig: str | None, *, healthy: Check, ready: Check
) -> AsyncIterator[None]:
    """Answer for the time of the block; nothing where there is no address to listen on.

    Raises:
        OSError: the address cannot be listened on.
    """
    if listen is None:
        yield
        return
    # A connection of its own: who does not lead may not write with the other, and a review is a POST.
    async with await Kube.connect(kubeconfig) as kube:
        runner = web.AppRunner(create_app(Gate(kube), healthy=healthy, ready=ready), access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, *listen, ssl_context=_tls()).start()
            yield
        finally:
            await runner.cleanup()


def create_app(gate: Gate, *, healthy: Check, ready: Check) -> web.Application:
    """The web application."""

    async def metrics(request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return web.Response(status=401, text="send a token that may get /metrics as Authorization: Bearer\n")
        try:
            refusal = await gate.refusal(token)
        except KubeError as error:
            return web.Response(status=503, text=f"tokens cannot be checked now: {error}\n")
        if refusal is not None:
            status, sentence = refusal
            return web.Response(status=status, text=f"{sentence}\n")
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application(client_max_size=1024)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", _probe(healthy))
    app.router.add_get("/readyz", _probe(ready))
    return app


def _probe(check: Check) -> Callable[[web.Request], Any]:
    async def answer(_: web.Request) -> web.Response:
        problem = check()
        return web.Response(text="ok\n") if problem is None else web.Response(status=503, text=f"{problem}\n")

    return answer


class Gate:
    """Who may read metrics, as the API server sees it; its answers are kept for a minute."""

    def __init__(self, kube: Kube, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._clock = clock
        self._known: dict[bytes, tuple[float, tuple[int, str] | None]] = {}

    async def refusal(self, token: str) -> tuple[int, str] | None:
        """HTTP status and sentence for who may not; None for who may.

        Raises:
            KubeError: the API server cannot be asked.
        """
        if len(token) > _MAX_TOKEN:
            return 401, "the token is too long"
        key, now = hashlib.sha256(token.encode(errors="replace")).digest(), self._clock()
        known = self._known.get(key)
        if known is not None and now < known[0]:
            return known[1]
        answer = await self._ask(token)
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        self._known[key] = (now + _REMEMBERED_SECONDS, answer)
        return answer

    async def _ask(self, token: str) -> tuple[int, str] | None:
        status = await self._review(_TOKEN_REVIEWS, "authentication.k8s.io/v1", "TokenReview", {"token": token})
        if not status.get("authenticated"):
            return 401, "the token is not valid"
        user: Object = status["user"]
        asked = {
            "user": user.get("username"),
            "uid": user.get("uid"),
            "groups": user.get("groups"),
            "extra": user.get("extra"),
            "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
        }
        status = await self._review(_ACCESS_REVIEWS, "authorization.k8s.io/v1", "SubjectAccessReview", asked)
        if status.get("allowed"):
            return None
        return 403, f"{asked['user']} may not get /metrics; bind it to a ClusterRole with that nonResourceURL"

    async def _review(self, url_path: str, version: str, kind: str, spec: Object) -> Object:
        body = {"apiVersion": version, "kind": kind, "spec": spec}
        status: Object = (await self._kube.request("POST", url_path, body=body, timeout=10))["status"]
        return status


def _tls() -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tuneyard")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + _VALID)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.TemporaryDirectory(prefix="tuneyard-") as folder:  # ssl loads from files only
        both = Path(folder, "tls.pem")
        both.touch(mode=0o600)
        both.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        context.load_cert_chain(both)
    return context
