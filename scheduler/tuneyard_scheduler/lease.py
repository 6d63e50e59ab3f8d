"""Who leads, of several replicas: the holder of a coordination.k8s.io/v1 Lease.

The algorithm is that of client-go's leaderelection: a candidate takes the lease when it has watched it unrenewed for
its whole duration by its own clock, so that clocks need not agree; the holder gives up well before that. The Python
client has an elector too, but that one counts in wall-clock time, keeps the lease when it ends, and cannot say whether
it still leads at this moment.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Any, Final

from tuneyard_api.common import GROUP, micro_timestamp
from tuneyard_scheduler.kube import MERGE_PATCH, Kube, KubeError, path

logger = logging.getLogger(__name__)

Object = dict[str, Any]

DURATION: Final = 10
"""Seconds without a renewal after which another may take the lease."""
DEADLINE: Final = 6.0
"""Seconds without a renewal after which the holder no longer counts itself as such."""
RETRY: Final = 2.0
"""Seconds between two attempts."""
_TIMEOUT: Final = 3.0
_ADDRESS: Final = f"{GROUP}/address"


class LeadershipLost(Exception):
    """The lease could not be renewed in time: another replica may lead by now."""


class Lease:
    """One candidate's view of a lease.

    Args:
        kube: a connection of its own, so that renewals never queue behind other requests.
        namespace: where the lease is.
        name: its name.
        identity: this candidate. In a pod: the pod's name, because a container that starts anew may go on at once with
            the lease of the one that died before it in the same pod.
        address: where others reach this candidate while it leads, HOST:PORT; see `leader_address`.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        *,
        identity: str,
        address: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._address = address
        self._clock = clock
        self._seen: Object | None = None
        self._seen_at = 0.0
        self._until = float("-inf")

    @property
    def held(self) -> bool:
        """Whether this candidate leads, for certain, at this moment."""
        return self._clock() < self._until

    @property
    def leader_address(self) -> str | None:
        """Where the leader was reached when last looked; None where none is known."""
        if self._seen is None or not self._seen["spec"].get("holderIdentity"):
            return None
        return (self._seen["metadata"].get("annotations") or {}).get(_ADDRESS) or None

    async def acquire(self) -> None:
        """Wait until this candidate leads."""
        logger.info("waiting for the lease %s", self._name)
        while not await self._attempt():  # noqa: ASYNC110 - the lease is on a server, there is no event
            await asyncio.sleep(self._pause())
        logger.info("this replica, %s, leads", self._identity)

    def _pause(self) -> float:
        """Seconds to the next look: not later than when the lease as it was last seen runs out."""
        pause = RETRY * random.uniform(0.8, 1.2)  # noqa: S311
        left = self._seen_at + self._seen_duration - self._clock()
        return min(pause, left + 0.01) if left > 0 else pause

    async def keep(self) -> None:
        """Renew for as long as that works.

        Raises:
            LeadershipLost: it did not work in time.
        """
        while True:
            await asyncio.sleep(RETRY)
            await self._attempt()
            if not self.held:
                raise LeadershipLost(f"the lease {self._name} could not be renewed for {DEADLINE:g} s")

    async def release(self) -> None:
        """Let another take over at once."""
        if not self.held or self._seen is None:
            return
        self._until = float("-inf")
        spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": micro_timestamp(time.time())}
        try:
            await self._patch(self._seen["metadata"]["resourceVersion"], {"spec": spec})
        except KubeError as error:
            logger.warning("the lease %s is left to expire: %s", self._name, error)

    async def _attempt(self) -> bool:
        """Take or renew once; whether this candidate leads now."""
        began = self._clock()
        try:
            if not self.held:
                self._observe(await self._read())
                if not self._free():
                    return False
            self._observe(await self._take())
        except KubeError as error:
            if error.status in {404, 409}:  # deleted; taken by another; or renewed by us, and the answer was lost
                await self._look()
            else:
                logger.warning("the lease %s cannot be had now: %s", self._name, error)
            return False
        self._until = began + DEADLINE
        return True

    async def _look(self) -> None:
        """Read what there is; while that cannot be done, what was seen last stands."""
        try:
            self._observe(await self._read())
        except KubeError as error:
            logger.debug("the lease %s cannot be read now: %s", self._name, error)
            return
        if self._seen is not None and self._seen["spec"].get("holderIdentity") != self._identity:
            self._until = float("-inf")

    def _observe(self, found: Object | None) -> None:
        version = found and found["metadata"]["resourceVersion"]
        if found is None or self._seen is None or version != self._seen["metadata"]["resourceVersion"]:
            self._seen, self._seen_at = found, self._clock()

    def _free(self) -> bool:
        """Whether it may be taken: there is none, it was let go, it is ours, or it was not renewed in time."""
        if self._seen is None:
            return True
        if self._seen["spec"].get("holderIdentity") in {None, "", self._identity}:
            return True
        return self._clock() >= self._seen_at + self._seen_duration

    @property
    def _seen_duration(self) -> float:
        """Seconds for which the holder may go without a renewal; it says so itself."""
        spec = self._seen["spec"] if self._seen is not None else {}
        return float(spec.get("leaseDurationSeconds") or DURATION)

    async def _read(self) -> Object | None:
        try:
            return await self._kube.request("GET", path("leases", self._namespace, self._name), timeout=_TIMEOUT)
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def _take(self) -> Object:
        now = micro_timestamp(time.time())
        before = self._seen["spec"] if self._seen is not None else {}
        spec = {"holderIdentity": self._identity, "leaseDurationSeconds": DURATION, "renewTime": now}
        if before.get("holderIdentity") != self._identity:
            spec |= {"acquireTime": now, "leaseTransitions": (before.get("leaseTransitions") or 0) + 1}
        meta = {"annotations": {_ADDRESS: self._address}} if self._address else {}
        if self._seen is not None:
            return await self._patch(self._seen["metadata"]["resourceVersion"], {"metadata": meta, "spec": spec})
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, **meta},
            "spec": spec | {"leaseTransitions": 0},
        }
        return await self._kube.request("POST", path("leases", self._namespace), body=body, timeout=_TIMEOUT)

    async def _patch(self, version: str, body: Object) -> Object:
        """Change the lease, if it is still the one that was seen."""
        body = {**body, "metadata": {**body.get("metadata", {}), "resourceVersion": version}}
        url_path = path("leases", self._namespace, self._name)
        return await self._kube.request("PATCH", url_path, body=body, content_type=MERGE_PATCH, timeout=_TIMEOUT)
