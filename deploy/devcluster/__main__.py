"""The command line: `python -m devcluster up|down|status|env`."""

import argparse
import shlex
import sys
from pathlib import Path

from devcluster import cluster, tools


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="devcluster", description="A Kubernetes control plane with fake GPU nodes, on this machine, without root."
    )
    parser.add_argument("command", choices=["up", "down", "status", "env"])
    parser.add_argument("--directory", type=Path, default=Path(".cluster"), help="where it lives (%(default)s)")
    parser.add_argument("--nodes", type=int, default=4, help="fake nodes of 8 GPUs (%(default)s)")
    options = parser.parse_args(arguments)
    directory = options.directory.absolute()
    try:
        return {"up": _up, "down": _down, "status": _status, "env": _env}[options.command](directory, options.nodes)
    except (cluster.ClusterError, tools.ToolsError) as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _up(directory: Path, nodes: int) -> int:
    if None in cluster.status(directory).values():
        cluster.stop(directory)  # what a restart of the machine left
        cluster.start(directory, nodes=nodes)
    sys.stdout.write(
        f"A Kubernetes control plane with fake GPU nodes runs in {directory}. In your shell:\n\n"
        f"{_exports(directory)}kubectl apply --server-side -f crds/\nkubectl get nodes\n\n"
        "`make cluster-down` removes it.\n"
    )
    return 0


def _down(directory: Path, _nodes: int) -> int:
    cluster.stop(directory)
    return 0


def _status(directory: Path, _nodes: int) -> int:
    pids = cluster.status(directory)
    lines = [f"{name:<20}{f'running, pid {pid}' if pid else 'not running'}\n" for name, pid in pids.items()]
    sys.stdout.write("".join(lines))
    return 0 if all(pids.values()) else 1


def _env(directory: Path, _nodes: int) -> int:
    if cluster.status(directory)["apiserver"] is None:
        raise cluster.ClusterError(f"No cluster runs in {directory}; `make cluster-up` starts one.")
    sys.stdout.write(_exports(directory))
    return 0


def _exports(directory: Path) -> str:
    """Lines for a shell: where the cluster is, and the kubectl of its version."""
    kubeconfig = shlex.quote(str(cluster.connect(directory).kubeconfig))
    return f"export KUBECONFIG={kubeconfig}\nexport PATH={shlex.quote(str(tools.path('kubectl').parent))}:$PATH\n"


if __name__ == "__main__":
    sys.exit(main())
