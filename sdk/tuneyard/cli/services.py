"""`tuneyard operator|scheduler|strategy`: the processes of a cluster. Each imports only what it needs."""

from __future__ import annotations

from argparse import Namespace

from tuneyard.cli.problem import Problem


def operator(options: Namespace) -> int:
    """Run the operator until it is told to end."""
    from tuneyard_operator import handlers  # noqa: PLC0415
    from tuneyard_scheduler import logs  # noqa: PLC0415

    if options.strategy_url is not None and options.strategy_token_file is None:
        raise Problem("--strategy-url needs --strategy-token-file: the service answers nobody without its token")
    logs.setup(options.log_level, options.log_format)
    given = handlers.Options(
        kubeconfig=options.kubeconfig,
        namespace=options.namespace,
        lease=options.lease,
        serve=options.serve,
        strategy_url=options.strategy_url,
        strategy_token_file=options.strategy_token_file,
        strategy_services=tuple(options.strategy_service),
        listen=options.listen,
        report_url=options.report_url,
        keep_jobs=options.keep_jobs,
        gpu_runtime_class=options.gpu_runtime_class,
    )
    try:
        handlers.run(given)
    except handlers.StartError as error:
        raise Problem(str(error), status=1) from error
    return 0


def scheduler(options: Namespace) -> int:
    """Run the scheduler until it is told to end."""
    from tuneyard_scheduler import controller, logs  # noqa: PLC0415
    from tuneyard_scheduler.kube import KubeError  # noqa: PLC0415
    from tuneyard_scheduler.lease import LeadershipLost  # noqa: PLC0415

    logs.setup(options.log_level, options.log_format)
    given = controller.Options(
        kubeconfig=options.kubeconfig,
        namespace=options.namespace,
        lease=options.lease,
        serve=options.serve,
        device_classes=tuple(options.device_class),
        gpu_sharing=None if options.gpu_sharing == "none" else options.gpu_sharing,
        reservation_namespace=options.reservation_namespace,
        reservation_pod=options.reservation_pod,
    )
    try:
        controller.run(given)
    except KubeError as error:
        raise Problem(error.message, status=1) from error
    except (LeadershipLost, OSError) as error:
        raise Problem(str(error), status=1) from error
    return 0


def strategy(options: Namespace) -> int:
    """Run the strategy service until it is told to end."""
    from tuneyard_scheduler import logs  # noqa: PLC0415
    from tuneyard_strategy import server  # noqa: PLC0415

    logs.setup(options.log_level, options.log_format)
    host, port = options.listen
    try:
        if options.create_token:
            server.create_token(options.token_file)
        server.serve(host, port, options.token_file)
    except ValueError as error:
        raise Problem(str(error)) from error
    return 0
