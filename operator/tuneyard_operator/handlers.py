"""The operator's process: kopf brings the Studies and ends it in order. The only module that imports kopf."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import kopf

from tuneyard_api.common import GROUP, VERSION
from tuneyard_operator import intake, telemetry
from tuneyard_operator.controller import Controller
from tuneyard_operator.intake import Intake
from tuneyard_operator.strategy_client import InProcess, StrategyClient
from tuneyard_operator.strategy_http import HttpStrategies
from tuneyard_operator.strategy_services import WithServices
from tuneyard_operator.tokens import TokenVerifier
from tuneyard_scheduler import process
from tuneyard_scheduler.kube import Kube, KubeError
from tuneyard_scheduler.lease import LeadershipLost
from tuneyard_scheduler.serving import serving
from tuneyard_scheduler.telemetry import showing
from tuneyard_strategy.advisor import PATIENCE, Advisor

logger = logging.getLogger(__name__)

_LOGIN_SECONDS: Final = 600.0
_OFFER_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Options(process.Options):
    """How `tuneyard operator` was called."""

    strategy_url: str | None = None
    """The strategy service; None to run strategies in this process."""
    strategy_token_file: Path | None = None
    strategy_services: tuple[str, ...] = ()
    """Strategy services of users' own that may be asked, as origins."""
    listen: tuple[str, int] = ("0.0.0.0", 8080)  # noqa: S104 - pods reach the intake over the network
    report_url: str | None = None
    """Where pods reach the intake; None to guess from this host's address."""
    keep_jobs: float = 900.0
    """Seconds for which the Jobs of ended trials are kept, for their logs."""
    gpu_runtime_class: str | None = None
    """The RuntimeClass of pods with NVIDIA GPUs whose template names none."""


class StartError(Exception):
    """The operator cannot start or go on; the message is a sentence."""


class _Replica:
    """One operator process: takes reports and answers probes from its start, plans from when it leads."""

    def __init__(self, options: Options, kube: Kube) -> None:
        self._options = options
        self._kube = kube
        self._controller: Controller | None = None

    async def run(self) -> None:
        """Until told to end.

        Raises:
            LeadershipLost: another replica may lead by now.
            OSError: an address cannot be listened on.
        """
        options, kube = self._options, self._kube
        async with AsyncExitStack() as stack:
            lease = await stack.enter_async_context(process.candidate(options, kube, options.listen[1]))
            leader = (lambda: lease.leader_address) if lease is not None else (lambda: None)
            reports = Intake(TokenVerifier(lambda url_path: kube.request("GET", url_path)), leader)
            await stack.enter_async_context(intake.serving(reports, options.listen))
            probes = serving(options.serve, options.kubeconfig, healthy=self._healthy, ready=self._healthy)
            await stack.enter_async_context(probes)
            await process.lead(lease, lambda: self._work(reports))

    def _healthy(self) -> str | None:
        return "planning is stuck" if self._controller is not None and not self._controller.healthy else None

    async def _work(self, reports: Intake) -> None:
        """Plan, until kopf is told to end."""
        options = self._options
        strategies = WithServices(_strategies(options), options.strategy_services)
        report_url = options.report_url or f"http://{process.own_address()}:{options.listen[1]}{intake.PATH}"
        measured = telemetry.MeasuredStrategies(strategies)
        controller = Controller(
            self._kube,
            measured,
            report_url=report_url,
            keep_jobs=options.keep_jobs,
            gpu_runtime_class=options.gpu_runtime_class,
        )
        shown = ExitStack()
        try:
            # Planning must not begin before all trials are known: Studies come after this.
            await controller.start(options.namespace)
            await _studies_served(self._kube)
            self._controller = reports.controller = controller
            shown.enter_context(showing(telemetry.StateCollector(controller.engine)))
            logger.info("operator started; reports go to %s", report_url)
            told = asyncio.Event()
            bringing = asyncio.ensure_future(
                kopf.operator(
                    registry=_registry(self._kube, controller, told),
                    settings=_settings(),
                    standalone=True,
                    # For its peering, which is off; kopf asks for this user's name otherwise: a container has none.
                    identity="tuneyard",  # type: ignore[arg-type]
                    clusterwide=options.namespace is None,
                    namespaces=[options.namespace] if options.namespace else [],
                )
            )
            # Once told to end, kopf would wait 5 s for all tasks that are not its own, and the next leader with it.
            await asyncio.wait([bringing, asyncio.ensure_future(told.wait())], return_when=asyncio.FIRST_COMPLETED)
            if bringing.done():
                bringing.result()
        finally:
            shown.close()
            self._controller = reports.controller = None
            await controller.stop()
            await strategies.close()


async def _studies_served(kube: Kube) -> None:
    """Until the API server offers Studies: kopf looks once, at its start."""
    while True:
        try:
            offered = (await kube.request("GET", f"/apis/{GROUP}/{VERSION}"))["resources"]
            if any(resource["name"] == "studies" for resource in offered):
                return
        except KubeError as error:
            logger.warning("waiting for the kind Study: %s", error)
        await asyncio.sleep(_OFFER_SECONDS)


def _strategies(options: Options) -> StrategyClient:
    if options.strategy_url is None:
        return InProcess(Advisor(patience=PATIENCE))
    if options.strategy_token_file is None:
        raise ValueError("--strategy-url needs --strategy-token-file: the service answers nobody without its token")
    return HttpStrategies(options.strategy_url, options.strategy_token_file)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # it would watch CRDs and namespaces, which our role does not allow
    settings.networking.connect_timeout = 10
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # a line for each event otherwise
    return settings


def _registry(kube: Kube, controller: Controller, told: asyncio.Event) -> kopf.OperatorRegistry:
    """The handlers: thin, they pass on what happens; `told` is set when the process is told to end."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.AiohttpSession:
        """Connect as our own client does; asked again now and then, since tokens are rotated."""
        server, session = await kube.session()
        expiration = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=_LOGIN_SECONDS)
        return kopf.AiohttpSession(server=server, aiohttp_session=session, expiration=expiration)

    @kopf.on.event(GROUP, VERSION, "studies", registry=handlers)
    async def study(event: kopf.RawEvent, **_: Any) -> None:
        controller.on_study(event["type"], dict(event["object"]))

    @kopf.on.cleanup(registry=handlers)
    async def stop(**_: Any) -> None:
        told.set()

    return handlers


async def _serve(options: Options) -> None:
    async with await Kube.connect(options.kubeconfig) as kube:
        await _Replica(options, kube).run()


def run(options: Options) -> None:
    """Run the operator until SIGTERM or SIGINT.

    Raises:
        StartError: it cannot start or go on: no credentials, its port is taken, or another replica leads by now.
    """
    try:
        process.run(_serve(options))
    except (KubeError, LeadershipLost, OSError) as error:
        raise StartError(str(error)) from error
