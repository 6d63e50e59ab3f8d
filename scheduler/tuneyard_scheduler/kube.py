"""The one module that talks to a Kubernetes API server: requests with raw dicts, and a reflector.

Objects stay raw dicts: on the hot path (several events a trial) models of the official client cost more than all our
own work. `kubernetes.aio` does what is hard: kubeconfig, credentials and their renewal, TLS.

The reflector exists beside kopf because it says when the first list is complete (planning must not begin before that),
lets each kind be filtered, and costs a tenth of kopf's handling per event.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from functools import partial
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.config.config_exception import ConfigException

from tuneyard_api.common import GROUP, VERSION
from tuneyard_scheduler import telemetry

logger = logging.getLogger(__name__)

Object = dict[str, Any]
OnEvent = Callable[[str, Object], None]

JSON_PATCH: Final = "application/json-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"
_PAGE: Final = 500
_WATCH_SECONDS: Final = 300
_PREFIXES: Final = {
    "studies": f"/apis/{GROUP}/{VERSION}",
    "trials": f"/apis/{GROUP}/{VERSION}",
    "gpuqueues": f"/apis/{GROUP}/{VERSION}",
    "jobs": "/apis/batch/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "events": "/api/v1",
    "nodes": "/api/v1",
    "pods": "/api/v1",
    **dict.fromkeys(
        ("resourceslices", "resourceclaims", "resourceclaimtemplates", "deviceclasses"), "/apis/resource.k8s.io/v1"
    ),
}


class KubeError(Exception):
    """The API server refused a request, or could not be reached (status 0)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}" if reason else message)
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def temporary(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in {0, 429} or self.status >= 500


def path(kind: str, namespace: str | None = None, name: str | None = None, sub: str | None = None) -> str:
    """The URL path of a collection ('studies', 'pods', ...), an object in it, or an object's subresource."""
    parts = [_PREFIXES[kind]]
    if namespace is not None:
        parts.append(f"namespaces/{quote(namespace)}")
    parts.append(kind)
    if name is not None:
        parts.append(quote(name))
    if sub is not None:
        parts.append(sub)
    return "/".join(parts)


class Kube:
    """A connection to one API server."""

    path = staticmethod(path)

    def __init__(self, configuration: client.Configuration, namespace: str) -> None:
        # A watch holds its connection, and 30 writes at a time must not queue behind one another.
        configuration.connection_pool_maxsize = 64
        # Python 3.13 refuses certificates that many clusters have (no key usage in the CA's).
        configuration.disable_strict_ssl_verification = True
        self._api = client.ApiClient(configuration)
        self.namespace = namespace
        self.may_write: Callable[[], bool] = lambda: True
        """Asked before each request that changes something: who no longer leads must not."""

    @classmethod
    async def connect(cls, kubeconfig: str | None = None) -> Self:
        """Connect as kubectl does: the given file, else KUBECONFIG or ~/.kube/config, else the pod's service account.

        Raises:
            KubeError: there are no usable credentials.
        """
        configuration = client.Configuration()
        try:
            if kubeconfig is None:
                try:
                    config.load_incluster_config(client_configuration=configuration)
                    return cls(configuration, "default")
                except ConfigException:
                    pass
            # Not left to the client, which reads KUBECONFIG only when it is imported.
            given = kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
            if not any(os.path.isfile(name) for name in given.split(os.pathsep)):  # noqa: ASYNC240, PTH113
                raise FileNotFoundError(f"there is no file {given}")
            await config.load_kube_config(config_file=given, client_configuration=configuration)
            _, context = config.list_kube_config_contexts(given)
        except (ConfigException, OSError) as error:
            raise KubeError(
                0, "NoCredentials", f"no usable kubeconfig ({error}); set KUBECONFIG or --kubeconfig"
            ) from error
        return cls(configuration, context.get("context", {}).get("namespace") or "default")

    async def session(self) -> tuple[str, aiohttp.ClientSession]:
        """The API server's URL, and a session that it lets in, for another client (kopf's) to use and to close.

        The session has the token of this moment: who goes on for long asks again.
        """
        headers = {"User-Agent": "tuneyard"}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], "", "GET", None)
        connector = aiohttp.TCPConnector(limit=0, ssl=self._api.rest_client.ssl_context)
        proxy = self._api.configuration.proxy
        return self._api.configuration.host, aiohttp.ClientSession(connector=connector, headers=headers, proxy=proxy)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def request(
        self,
        method: str,
        url_path: str,
        *,
        body: Any = None,
        params: dict[str, Any] | None = None,
        content_type: str = "application/json",
        timeout: float = 30,
    ) -> Object:
        """One request; the answer as a dict.

        Raises:
            KubeError: refused, or the API server can't be reached.
        """
        text = await self.text(method, url_path, body=body, params=params, content_type=content_type, timeout=timeout)
        return json.loads(text) if text else {}

    async def text(
        self,
        method: str,
        url_path: str,
        *,
        body: Any = None,
        params: dict[str, Any] | None = None,
        content_type: str = "application/json",
        timeout: float = 30,
    ) -> str:
        """One request; the answer as text (logs)."""
        if method != "GET" and not self.may_write():
            raise KubeError(0, "NotLeading", f"{method} {url_path}: another replica may lead by now")
        code, began = 0, time.monotonic()
        try:
            response = await self._open(method, url_path, body, params, content_type, aiohttp.ClientTimeout(timeout))
            data = await response.read()
            code = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubeError(0, "Unreachable", f"{method} {url_path}: {error or type(error).__name__}") from error
        finally:
            telemetry.count_request(method, url_path, code, time.monotonic() - began)
        if response.status >= 400:
            raise _refusal(response.status, data)
        return data.decode(errors="replace")

    async def serves(self, group_version: str) -> bool:
        """Whether the API server has this version of an API, such as resource.k8s.io/v1.

        Raises:
            KubeError: refused, or the API server can't be reached.
        """
        try:
            await self.request("GET", f"/apis/{group_version}")
        except KubeError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def patch_status(self, kind: str, namespace: str | None, name: str, status: Object) -> Object:
        """Merge-patch an object's status subresource."""
        return await self.request(
            "PATCH", path(kind, namespace, name, "status"), body={"status": status}, content_type=MERGE_PATCH
        )

    async def _open(
        self,
        method: str,
        url_path: str,
        body: Any,
        params: dict[str, Any] | None,
        content_type: str,
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": "application/json, */*", "Content-Type": content_type, "User-Agent": "tuneyard"}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], url_path, method, body)
        url = self._api.configuration.host + url_path + (f"?{urlencode(params)}" if params else "")
        answer = await self._api.rest_client.request(method, url, headers=headers, body=body, _request_timeout=timeout)
        response: aiohttp.ClientResponse = answer.response
        return response

    async def reflect(
        self,
        url_path: str,
        on_event: OnEvent,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        on_synced: Callable[[], None] | None = None,
        on_listed: Callable[[Container[str], int], None] | None = None,
    ) -> None:
        """List, then watch, for ever.

        on_event gets ADDED for each object of the first list, then on_synced is called, then each change arrives. After
        a gap the collection is listed again: what vanished meanwhile arrives as DELETED with its last known state.
        on_listed is told after each list which uids there are as of which version: whoever knows of objects by other
        ways than this watch finds out by it that they are gone.
        """
        selectors = {k: v for k, v in (("labelSelector", label_selector), ("fieldSelector", field_selector)) if v}
        reflector = _Reflector(self, url_path, selectors, on_event)
        failures = 0
        while True:
            try:
                if reflector.version is None:
                    await reflector.list()
                    if on_listed is not None:
                        on_listed(reflector.uids, int(reflector.version or 0))
                    if on_synced is not None:
                        on_synced()
                        on_synced = None
                await reflector.watch()
                failures = 0
            except KubeError as error:
                if error.status == 410:
                    reflector.version = None
                    continue
                failures += 1
                logger.warning("watch of %s interrupted: %s", url_path, error)
                await asyncio.sleep(min(30.0, 0.2 * 2 ** min(failures, 8)) * random.uniform(0.5, 1))  # noqa: S311


async def pages(get: Callable[..., Awaitable[Object]], params: Object) -> AsyncIterator[Object]:
    """A collection, page by page: `get(params=...)` reads one."""
    params = {**params, "limit": _PAGE}
    while True:
        page = await get(params=params)
        yield page
        token = page["metadata"].get("continue")
        if not token:
            return
        params = {**params, "continue": token}


class _Reflector:
    """Where one list-and-watch stands."""

    def __init__(self, kube: Kube, url_path: str, selectors: dict[str, str], on_event: OnEvent) -> None:
        self._kube = kube
        self._path = url_path
        self._selectors = selectors
        self._on_event = on_event
        self._known: dict[str, Object] = {}
        self.version: str | None = None

    @property
    def uids(self) -> Container[str]:
        """The uids of the objects that there are."""
        return self._known.keys()

    async def list(self) -> None:
        """Read the whole collection in pages; report what is there and what vanished."""
        seen: dict[str, Object] = {}
        version: str | None = None
        async for page in pages(partial(self._kube.request, "GET", self._path, timeout=120), self._selectors):
            for item in page["items"]:
                seen[item["metadata"]["uid"]] = _stub(item)
                self._tell("ADDED", item)
            version = page["metadata"]["resourceVersion"]
        for uid, last in self._known.items():
            if uid not in seen:
                self._tell("DELETED", last)
        self._known = seen
        self.version = version

    async def watch(self) -> None:
        """Follow the changes until the API server closes the stream.

        Raises:
            KubeError: 410 when the version is too old, else when the connection fails.
        """
        params = {
            **self._selectors,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self.version,
            "timeoutSeconds": _WATCH_SECONDS,
        }
        limit = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_WATCH_SECONDS + 30)
        try:
            response = await self._kube._open("GET", self._path, None, params, "application/json", limit)
            telemetry.count_request("WATCH", self._path, response.status)
            async with response:
                if response.status >= 400:
                    raise _refusal(response.status, await response.read())
                async for line in response.content:
                    self._take(json.loads(line))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise KubeError(0, "Interrupted", str(error) or type(error).__name__) from error

    def _take(self, event: Object) -> None:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            raise KubeError(item.get("code", 500), item.get("reason", ""), item.get("message", ""))
        self.version = item["metadata"]["resourceVersion"]
        if kind == "BOOKMARK":
            return
        if kind == "DELETED":
            self._known.pop(item["metadata"]["uid"], None)
        else:
            self._known[item["metadata"]["uid"]] = _stub(item)
        self._tell(kind, item)

    def _tell(self, kind: str, item: Object) -> None:
        """One object that cannot be handled must not end the watch of all others."""
        try:
            self._on_event(kind, item)
        except Exception:
            logger.exception("%s %s was not understood", self._path, item["metadata"].get("name"))


def _stub(item: Object) -> Object:
    """What is kept of an object to report its end after a gap: its identity, not its body."""
    meta = item["metadata"]
    return {
        "metadata": {key: meta[key] for key in ("name", "namespace", "uid", "labels", "ownerReferences") if key in meta}
    }


def _refusal(status: int, data: bytes) -> KubeError:
    """The API server's Status object as an exception."""
    try:
        answer = json.loads(data)
        return KubeError(status, answer.get("reason", ""), answer.get("message", ""))
    except (ValueError, AttributeError):
        return KubeError(status, "", data.decode(errors="replace")[:500])
