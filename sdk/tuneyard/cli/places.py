"""Where a command finds its study: on this machine, or in a cluster."""

from __future__ import annotations

import asyncio
import os
import shlex
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from tuneyard.cli.problem import Problem
from tuneyard_api.common import STUDY_LABEL, UID_LABEL
from tuneyard_api.sentences import did_you_mean
from tuneyard_operator.world import WorldError
from tuneyard_operator.worlds.home import Home
from tuneyard_operator.worlds.store import Store

Object = dict[str, Any]


def home(options: Namespace) -> Home:
    """The folder that the command line or the environment names."""
    given = getattr(options, "home", None)
    return Home(given) if given is not None else Home.default(os.environ)


@contextmanager
def opened(options: Namespace) -> Iterator[tuple[Home, Store]]:
    """The home folder and its store; where one of them cannot be used, that is said in a sentence."""
    place = home(options)
    try:
        store = Store(place.root)
        try:
            yield place, store
        finally:
            store.close()
    except WorldError as error:
        raise Problem(str(error), status=1) from error


def find_study(store: Store, name: str) -> Object:
    """The study of this name."""
    study = store.study(name)
    if study is None:
        known = [str(other["metadata"]["name"]) for other in store.studies()]
        if not known:
            raise Problem(f"there is no study {name}, nor any other; start one: tuneyard run FILE")
        raise Problem(f"there is no study {name}{did_you_mean(name, known) or '; there is ' + ', '.join(known[:10])}")
    return study


def read(options: Namespace, name: str, *, trials: bool = False) -> tuple[Object, list[Object]]:
    """A study and, if asked for, its trials: of the cluster where the command line names one or a namespace."""
    if _in_cluster(options):
        return _read_cluster(options, name, trials=trials)
    with opened(options) as (_, store):
        study = find_study(store, name)
        return study, store.trials(study["metadata"]["uid"]) if trials else []


def _read_cluster(options: Namespace, name: str, *, trials: bool) -> tuple[Object, list[Object]]:
    from tuneyard_scheduler.kube import Kube, KubeError, pages, path  # noqa: PLC0415 - only for who has a cluster

    async def answers() -> tuple[Object, list[Object]]:
        async with await Kube.connect(options.kubeconfig) as kube:
            namespace = options.namespace or kube.namespace
            study = await kube.request("GET", path("studies", namespace, name))
            get = partial(kube.request, "GET", path("trials", namespace))
            wanted = {"labelSelector": f"{UID_LABEL}={study['metadata']['uid']}"}
            return study, [item async for page in pages(get, wanted) for item in page["items"]] if trials else []

    try:
        return asyncio.run(answers())
    except KubeError as error:
        raise Problem(error.message, status=1) from error


def again(options: Namespace, command: str) -> str:
    """A command line to suggest: it names the home folder where this one did."""
    where = f" --home {options.home}" if options.home is not None else ""
    return f"tuneyard {command}{where}"


def there(options: Namespace, command: str) -> str:
    """The same for a command that reads from a cluster, too: it names that where this one did."""
    return again(options, command) + _cluster(options)


def trials_of(options: Namespace, name: str) -> str:
    """A command line to suggest that lists a study's trials."""
    if not _in_cluster(options):
        return again(options, f"get trials {name} -o wide")
    return f"kubectl get trials -l {STUDY_LABEL}={name} -o wide{_cluster(options)}"


def _in_cluster(options: Namespace) -> bool:
    return bool(options.namespace or options.kubeconfig)


def _cluster(options: Namespace) -> str:
    given = {"namespace": options.namespace, "kubeconfig": options.kubeconfig}
    return "".join(f" --{name} {shlex.quote(value)}" for name, value in given.items() if value)
