"""The network of a cluster with real nodes: a segment of its own that this machine is joined to by one interface.

Each node lives in a network namespace with an interface `eth0`, and so do the cables between them: a bridge in a
namespace that belongs to a process called `switch`. This machine sees one interface (`tuneyardN`) with the address
that the API server and the DNS listen on, and routes to the pods. All of it vanishes with the switch.

Cluster N has 10.N.0.0/16: this machine is 10.N.0.1, node i is 10.N.0.(10+i) and its pods are 10.N.i.0/24.
"""

import ipaddress
import json
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from devcluster.processes import ClusterError

NUMBERS: Final = range(200, 255)
MOST_NODES: Final = 200


@dataclass(frozen=True)
class Network:
    """The addresses of one cluster; `number` is the second byte of all of them."""

    number: int

    @property
    def interface(self) -> str:
        """This machine's interface, unique on it."""
        return f"tuneyard{self.number}"

    @property
    def host(self) -> str:
        """This machine's address."""
        return f"10.{self.number}.0.1"

    @property
    def cluster_cidr(self) -> str:
        """What all nodes and pods have their addresses from."""
        return f"10.{self.number}.0.0/16"

    def node(self, index: int) -> str:
        """The address of node `index`, counted from 1."""
        return f"10.{self.number}.0.{10 + index}"

    def pods(self, index: int) -> str:
        """The addresses of a node's pods."""
        return f"10.{self.number}.{index}.0/24"


def choose(taken: Iterable[str]) -> list[Network]:
    """The networks that overlap none of the given ones, such as ["10.0.0.0/8"], the best first.

    Raises:
        ClusterError: There is none.
    """
    used = [ipaddress.ip_network(text, strict=False) for text in taken]
    networks = [Network(number) for number in NUMBERS]
    free = [one for one in networks if not any(ipaddress.ip_network(one.cluster_cidr).overlaps(net) for net in used)]
    if not free:
        raise ClusterError(
            "All addresses from 10.200.0.0 to 10.254.255.255 are in use on this machine: `ip route` shows by what."
        )
    return free


def join(switch: int) -> Network:
    """Lay a network: a bridge in the namespace of process `switch`, and this machine's interface to it."""
    for network in choose(_taken()):
        try:
            _ip(f"link add {network.interface} type veth peer name uplink netns {switch}")
        except ClusterError as error:
            if "File exists" in str(error):  # another cluster was faster
                continue
            raise
        _ip(
            "link add bridge type bridge",
            "link set uplink master bridge",
            "link set uplink up",
            "link set bridge up",
            "link set lo up",
            within=switch,
        )
        _ip(f"addr add {network.host}/24 dev {network.interface}", f"link set {network.interface} up")
        return network
    raise ClusterError("Other clusters have taken all networks.")


def plug(network: Network, switch: int, node: int, index: int, nodes: int) -> None:
    """Join process `node`'s namespace to the switch as node `index` of `nodes`."""
    _ip(
        f"link add node-{index} type veth peer name eth0 netns {node}",
        f"link set node-{index} master bridge",
        f"link set node-{index} up",
        within=switch,
    )
    others = [other for other in range(1, nodes + 1) if other != index]
    _ip(
        "link set lo up",
        f"addr add {network.node(index)}/24 dev eth0",
        "link set eth0 up",
        *(f"route add {network.pods(other)} via {network.node(other)}" for other in others),
        f"route add default via {network.host}",  # the last: the node waits for it
        within=node,
    )
    _ip(f"route replace {network.pods(index)} via {network.node(index)}")


def leave(network: Network) -> None:
    """Remove this machine's interface at once: without its switch the kernel does so a moment later."""
    command = ["ip", "link", "delete", network.interface]
    subprocess.run(command, capture_output=True, check=False)


def _taken() -> list[str]:
    """The destinations of this machine's routes."""
    done = subprocess.run(["ip", "-json", "-4", "route"], capture_output=True, text=True, check=True)  # noqa: S607
    return [route["dst"] for route in json.loads(done.stdout or "[]") if route["dst"] != "default"]


def _ip(*lines: str, within: int | None = None) -> None:
    """Run `ip` commands, in the network namespace of a process if one is given."""
    enter: Sequence[str] = () if within is None else ("nsenter", f"--target={within}", "--net")
    command = [*enter, "ip", "-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"The cluster's network cannot be laid: {done.stderr.strip()}")
