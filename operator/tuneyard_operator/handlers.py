"""kopf's side of the operator: start, stop, and the life of Study objects. The only module that imports kopf."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import logging
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import kopf
from aiohttp import web

from tuneyard_api.common import GROUP, VERSION
from tuneyard_operator import intake
from tuneyard_operator.controller import Controller
from tuneyard_operator.strategy_client import InProcess, StrategyClient
from tuneyard_operator.strategy_http import HttpStrategies
from tuneyard_operator.tokens import TokenVerifier
from tuneyard_scheduler.kube import Kube, KubeError

logger = logging.getLogger(__name__)

_LOGIN_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Options:
    """How `tuneyard operator` was called."""

    kubeconfig: str | None = None
    namespace: str | None = None
    """Only this namespace; None for all."""
    strategy_url: str | None = None
    """The strategy service; None to run strategies in this process."""
    strategy_token_file: Path | None = None
    listen: tuple[str, int] = ("0.0.0.0", 8080)  # noqa: S104 - pods reach the intake over the network
    report_url: str | None = None
    """Where pods reach the intake; None to guess from this host's address."""
    keep_jobs: float = 900.0
    """Seconds for which the Jobs of ended trials are kept, for their logs."""


class StartError(Exception):
    """The operator cannot start; the message is a sentence."""


class _Process:
    """What lives from start to stop."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.strategies: StrategyClient = _strategies(options)
        self.stack = contextlib.AsyncExitStack()
        self.kube: Kube | None = None
        self.controller: Controller | None = None
        self.failure: str | None = None
        """Why it could not start."""

    async def start(self) -> None:
        options = self.options
        kube = self.kube = await self.stack.enter_async_context(await Kube.connect(options.kubeconfig))
        report_url = options.report_url or f"http://{_own_address()}:{options.listen[1]}{intake.PATH}"
        controller = Controller(kube, self.strategies, report_url=report_url, keep_jobs=options.keep_jobs)
        self.stack.push_async_callback(controller.stop)

        async def fetch(url_path: str) -> dict[str, Any]:
            return await kube.request("GET", url_path)

        runner = web.AppRunner(intake.create_app(controller, TokenVerifier(fetch)), access_log=None)
        await runner.setup()
        self.stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, *options.listen).start()
        # Planning must not begin before all trials are known: kopf starts with Studies once this returns.
        await controller.start(options.namespace)
        self.controller = controller
        logger.info("operator started; reports go to %s", report_url)

    async def login(self) -> kopf.ConnectionInfo:
        """Kopf connects as our own client does; asked again now and then, since tokens are rotated."""
        assert self.kube is not None, "kopf logs in after its start"
        expiration = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=_LOGIN_SECONDS)
        return kopf.ConnectionInfo(**dataclasses.asdict(await self.kube.credentials()), expiration=expiration)

    async def stop(self) -> None:
        await self.stack.aclose()
        if isinstance(self.strategies, HttpStrategies):
            await self.strategies.close()


def _strategies(options: Options) -> StrategyClient:
    if options.strategy_url is None:
        return InProcess()
    if options.strategy_token_file is None:
        raise ValueError("--strategy-url needs --strategy-token-file: the service answers nobody without its token")
    return HttpStrategies(options.strategy_url, options.strategy_token_file)


def _own_address() -> str:
    """This host's address on the way to others; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737)
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _registry(process: _Process) -> kopf.OperatorRegistry:
    """The handlers: thin, they pass on what happens."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.startup(registry=handlers)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.networking.connect_timeout = 10
        settings.watching.server_timeout = 300
        settings.watching.client_timeout = 330
        settings.peering.standalone = True
        logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # a line for each event otherwise
        try:
            await process.start()
        except (KubeError, OSError) as error:
            await process.stop()
            process.failure = str(error)
            raise kopf.PermanentError(process.failure) from error
        except asyncio.CancelledError:
            await process.stop()
            raise

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await process.login()

    @kopf.on.cleanup(registry=handlers)
    async def stop(**_: Any) -> None:
        await process.stop()

    @kopf.on.event(GROUP, VERSION, "studies", registry=handlers)
    async def study(event: kopf.RawEvent, **_: Any) -> None:
        if process.controller is not None:
            process.controller.on_study(event["type"], dict(event["object"]))

    return handlers


def run(options: Options) -> None:
    """Run the operator until SIGTERM or SIGINT.

    Raises:
        StartError: it cannot start: no credentials, or its port is taken.
    """
    process = _Process(options)
    try:
        kopf.run(
            registry=_registry(process),
            standalone=True,
            clusterwide=options.namespace is None,
            namespaces=[options.namespace] if options.namespace else [],
        )
    except Exception as error:
        if process.failure is None:
            raise
        raise StartError(process.failure) from error
