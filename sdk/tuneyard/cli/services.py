"""`tuneyard operator|scheduler|strategy`: the processes of a cluster. Each imports only what it needs."""

from __future__ import annotations

import logging
from argparse import Namespace

from tuneyard.cli.problem import Problem


def operator(options: Namespace) -> int:
    """Run the operator until it is told to end."""
    from tuneyard_operator import handlers  # noqa: PLC0415

    if options.strategy_url is not None and options.strategy_token_file is None:
        raise Problem("--strategy-url needs --strategy-token-file: the service answers nobody without its token")
    _log_to_stderr(options.log_level)
    given = handlers.Options(
        kubeconfig=options.kubeconfig,
        namespace=options.namespace,
        strategy_url=options.strategy_url,
        strategy_token_file=options.strategy_token_file,
        listen=options.listen,
        report_url=options.report_url,
        keep_jobs=options.keep_jobs,
    )
    try:
        handlers.run(given)
    except handlers.StartError as error:
        raise Problem(str(error), status=1) from error
    return 0


def scheduler(options: Namespace) -> int:
    """Run the scheduler until it is told to end."""
    from tuneyard_scheduler.controller import run  # noqa: PLC0415
    from tuneyard_scheduler.kube import KubeError  # noqa: PLC0415

    _log_to_stderr(options.log_level)
    try:
        run(options.kubeconfig)
    except KubeError as error:
        raise Problem(error.message, status=1) from error
    return 0


def strategy(options: Namespace) -> int:
    """Run the strategy service until it is told to end."""
    from tuneyard_strategy.server import serve  # noqa: PLC0415

    try:
        host, port = options.listen
        serve(host, port, options.token_file)
    except ValueError as error:
        raise Problem(str(error)) from error
    return 0


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
