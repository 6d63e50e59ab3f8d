"""`python -m tuneyard_scheduler`: the scheduler's process."""

from __future__ import annotations

import argparse
import logging
import sys

from tuneyard_scheduler.controller import run
from tuneyard_scheduler.kube import KubeError


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and schedule; the exit status."""
    parser = argparse.ArgumentParser(prog="tuneyard-scheduler", description="Give waiting trials their nodes and GPUs.")
    parser.add_argument("--kubeconfig", help="the cluster's kubeconfig file (default: as kubectl finds it)")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    options = parser.parse_args(arguments)
    logging.basicConfig(level=options.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        run(options.kubeconfig)
    except KubeError as error:
        sys.stderr.write(f"tuneyard scheduler: {error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
