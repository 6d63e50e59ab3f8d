"""`tuneyard verify`: whether Tuneyard works in a cluster, shown by a study that runs there and is removed again."""

from __future__ import annotations

import asyncio
import time
from argparse import Namespace
from pathlib import Path
from typing import Any, Final

from tuneyard.cli.problem import Problem
from tuneyard_api import manifest
from tuneyard_scheduler.kube import Kube, KubeError, path

Object = dict[str, Any]

_POLL_SECONDS: Final = 1.0
_REMOVAL_SECONDS: Final = 60.0


def verify(options: Namespace) -> int:
    """Run the study in a file to its end, look at its trials, and remove it."""
    study = _read(options.file)
    try:
        asyncio.run(_verify(options, study))
    except KubeError as error:
        raise Problem(error.message, status=1) from error
    return 0


def _read(file: Path) -> Object:
    try:
        documents = manifest.load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Problem(f"{file} cannot be read: {(error.strerror or str(error)).lower()}") from None
    except (manifest.InvalidYaml, UnicodeDecodeError) as error:
        raise Problem(f"{file}: {error}") from None
    if len(documents) != 1 or not (documents[0].get("metadata") or {}).get("name"):
        raise Problem(f"{file}: write one study with a metadata.name")
    return documents[0]


async def _verify(options: Namespace, study: Object) -> None:
    async with await Kube.connect(options.kubeconfig) as kube:
        namespace = options.namespace or study["metadata"].get("namespace") or kube.namespace
        run = _Run(kube, namespace, study["metadata"]["name"])
        await run.remove()
        await kube.request("POST", path("studies", namespace), body=study)
        try:
            await run.completion(options.timeout)
            await run.look_at_trials()
        except Problem as problem:
            look = f"the study is left for a look: kubectl describe study,trials -n {namespace}"
            raise Problem(*problem.sentences, look, status=1) from None
        await run.remove()


class _Run:
    """One study in a cluster."""

    def __init__(self, kube: Kube, namespace: str, name: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._url = path("studies", namespace, name)
        self._trials = 0

    async def completion(self, timeout: float) -> None:
        """Wait until the study is complete, and print on the way what becomes of it.

        Raises:
            Problem: it failed, or takes too long.
        """
        deadline, before = time.monotonic() + timeout, ""
        while True:
            try:
                status: Object = (await self._kube.request("GET", self._url)).get("status") or {}
            except KubeError as error:
                if not error.temporary or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_POLL_SECONDS)
                continue
            now = _told(status)
            if now != before:
                print(f"study {self._namespace}/{self._name}: {now}", flush=True)
                before = now
            if status.get("phase") == "Complete":
                self._trials = status["trials"]["created"]
                return
            if status.get("phase") == "Failed":
                raise Problem("the study failed", *await self._troubles())
            if time.monotonic() > deadline:
                hint = "" if status else "; is the operator running, and does it watch this namespace?"
                raise Problem(f"the study is not complete after {timeout:.0f} s{hint}", *await self._troubles())
            await asyncio.sleep(_POLL_SECONDS)

    async def look_at_trials(self) -> None:
        """Check that all trials succeeded, and that what they reported on their way has arrived.

        Raises:
            Problem: one did not, or its reports have not.
        """
        for index in range(self._trials):
            status = await self._trial(index)
            if status.get("phase") != "Succeeded":
                raise Problem(f"trial {index} did not succeed: {_told(status)}")
            if not status.get("curve"):
                raise Problem(
                    f"trial {index} ended well, but none of its reports arrived at the operator; "
                    "see whether network policies let pods of this namespace reach its Service"
                )
        print(f"the reports of {self._trials} trials arrived", flush=True)

    async def remove(self) -> None:
        """Delete the study, if there is one, and wait until it is gone."""
        deadline = time.monotonic() + _REMOVAL_SECONDS
        try:
            await self._kube.request("DELETE", self._url)
            while time.monotonic() < deadline:
                await self._kube.request("GET", self._url)
                await asyncio.sleep(_POLL_SECONDS)
        except KubeError as error:
            if error.status != 404:
                raise
            return
        raise Problem(f"study {self._namespace}/{self._name} cannot be removed: look at its finalizers", status=1)

    async def _trial(self, index: int) -> Object:
        try:
            url = path("trials", self._namespace, f"{self._name}-{index}")
            return (await self._kube.request("GET", url)).get("status") or {}
        except KubeError as error:
            if error.status != 404:
                raise
            return {}

    async def _troubles(self) -> list[str]:
        """What the first trial says about itself: in a study this small the others say the same."""
        told = _told(await self._trial(0))
        return [f"trial 0: {told}"] if told else []


def _told(status: Object) -> str:
    words = (status.get("phase"), status.get("progress"), status.get("reason"), status.get("message"))
    return ", ".join(word for word in words if word)
