"""What every process of the cluster does around its work: connect, answer probes, wait for its turn to lead, end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from tuneyard_scheduler import telemetry
from tuneyard_scheduler.kube import Kube
from tuneyard_scheduler.lease import Lease

_END_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Options:
    """How a component was called, as far as all of them are called alike."""

    kubeconfig: str | None = None
    namespace: str | None = None
    """Only this namespace; None for all."""
    lease: str | None = None
    """The Lease to hold while working, in the namespace of this pod; None where there is but one replica."""
    serve: tuple[str, int] | None = None
    """Where to answer probes and give metrics; None to do neither."""


@contextlib.asynccontextmanager
async def candidate(options: Options, kube: Kube, port: int | None = None) -> AsyncIterator[Lease | None]:
    """The lease to contend for; `kube` writes only while it is held.

    Args:
        options: what to contend for.
        kube: the connection that the work uses.
        port: where the leader is reached by other replicas, on this pod's address.
    """
    if options.lease is None:
        yield None
        return
    async with await Kube.connect(options.kubeconfig) as own:
        lease = Lease(
            own,
            os.environ.get("POD_NAMESPACE") or kube.namespace,
            options.lease,
            identity=os.environ.get("POD_NAME") or f"{socket.gethostname()}-{secrets.token_hex(4)}",
            address=f"{_bracketed(own_address())}:{port}" if port else "",
        )
        kube.may_write = lambda: lease.held
        yield lease


async def lead(lease: Lease | None, work: Callable[[], Awaitable[None]]) -> None:
    """Work once the lease is held, until the work ends.

    Raises:
        LeadershipLost: another replica may lead by now; this process had better end.
    """
    if lease is None:
        telemetry.LEADER.set(1)
        await work()
        return
    await lease.acquire()
    telemetry.LEADER.set(1)
    tasks = [asyncio.ensure_future(lease.keep()), asyncio.ensure_future(work())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_END_SECONDS)
        telemetry.LEADER.set(0)
        await lease.release()


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run until it ends, or SIGTERM or Ctrl-C comes."""
    asyncio.run(_until_told(work))


async def _until_told(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def own_address() -> str:
    """This host's address on the way to others; no packet is sent."""
    given = os.environ.get("POD_IP")
    if given:
        return given
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737)
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
