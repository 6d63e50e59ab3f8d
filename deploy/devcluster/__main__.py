"""The command line: `python -m devcluster up|tuneyard|load|down|status|env`."""

import argparse
import os
import shlex
import sys
from pathlib import Path

from devcluster import cluster, local, nodes, tools


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="devcluster", description="A Kubernetes cluster on this machine.")
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--directory", type=Path, default=Path(".cluster"), help="where it lives (%(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    bare = commands.add_parser("up", parents=[place], help="start a bare cluster")
    bare.add_argument("--nodes", type=int, default=4, help="fake nodes of 8 GPUs (%(default)s)")
    bare.add_argument("--real", type=int, default=0, help="real nodes, for root on Linux (%(default)s)")
    whole = commands.add_parser("tuneyard", parents=[place], help="start a cluster of real nodes with Tuneyard in it")
    whole.add_argument("--nodes", type=int, default=1, help="how many nodes (%(default)s)")
    for command, gpus in ((bare, 0), (whole, 2)):
        command.add_argument("--gpus", type=int, default=gpus, help="fake GPUs of each real node (%(default)s)")
    load = commands.add_parser("load", parents=[place], help="put images into it, since its nodes reach no registry")
    load.add_argument("archives", type=Path, nargs="+", metavar="ARCHIVE", help="an OCI archive of an image")
    commands.add_parser("down", parents=[place], help="remove it")
    commands.add_parser("status", parents=[place], help="say what runs")
    commands.add_parser("env", parents=[place], help="print what a shell needs to use it")
    options = parser.parse_args(arguments)
    run = {"up": _up, "tuneyard": _tuneyard, "load": _load, "down": _down, "status": _status, "env": _env}[
        options.command
    ]
    try:
        return run(options.directory.absolute(), options)
    except (cluster.ClusterError, tools.ToolsError) as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _up(directory: Path, options: argparse.Namespace) -> int:
    if local.is_kind(directory) or (nodes.of(directory) is not None and not options.real):
        raise cluster.ClusterError(f"The cluster in {directory} runs containers; `make cluster-down` removes it.")
    if None in cluster.status(directory).values():
        cluster.stop(directory)  # what a restart of the machine left
        cluster.start(directory, nodes=options.nodes, real=options.real, gpus=options.gpus)
    sys.stdout.write(
        f"A bare Kubernetes cluster runs in {directory}. In your shell:\n\n"
        f"{_exports(directory)}kubectl apply --server-side -f crds/\nkubectl get nodes\n\n"
        "`make cluster-down` removes it.\n"
    )
    return 0


def _tuneyard(directory: Path, options: argparse.Namespace) -> int:
    local.up(directory, count=options.nodes, gpus=options.gpus)
    sys.stdout.write(
        f"Tuneyard runs on a cluster of this machine. In your shell:\n\n{_exports(directory)}"
        "kubectl apply -f examples/digits.yaml\nkubectl get studies -w\n\n"
        "`make cluster` brings what you change into it, `make cluster-down` removes it.\n"
    )
    return 0


def _load(directory: Path, options: argparse.Namespace) -> int:
    for archive in options.archives:
        if not archive.is_file():
            raise cluster.ClusterError(
                f"There is no file {archive}; `docker save` or `podman save` writes such archives."
            )
        local.load(directory, archive.absolute())
    return 0


def _down(directory: Path, _options: argparse.Namespace) -> int:
    local.down(directory)
    return 0


def _status(directory: Path, _options: argparse.Namespace) -> int:
    pids = cluster.status(directory)
    lines = [f"{name:<20}{f'running, pid {pid}' if pid else 'not running'}\n" for name, pid in pids.items()]
    sys.stdout.write("".join(lines))
    return 0 if all(pids.values()) else 1


def _env(directory: Path, _options: argparse.Namespace) -> int:
    if not local.is_kind(directory) and cluster.status(directory)["apiserver"] is None:
        raise cluster.ClusterError(f"No cluster runs in {directory}; `make cluster` or `make cluster-fake` starts one.")
    sys.stdout.write(_exports(directory))
    return 0


def _exports(directory: Path) -> str:
    """Lines for a shell: where the cluster is, and the kubectl and helm that belong to it."""
    kubeconfig = shlex.quote(str(cluster.connect(directory).kubeconfig))
    programs = [path for path in (tools.path("kubectl"), tools.path("helm")) if path.exists()]
    folders = shlex.quote(os.pathsep.join(str(path.parent) for path in programs))
    return f"export KUBECONFIG={kubeconfig}\nexport PATH={folders}:$PATH\n"


if __name__ == "__main__":
    sys.exit(main())
