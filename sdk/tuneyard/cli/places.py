"""Where a command finds its study."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tuneyard.cli.problem import Problem
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


def again(options: Namespace, command: str) -> str:
    """A command line to suggest: it names the home folder where this one did."""
    where = f" --home {options.home}" if options.home is not None else ""
    return f"tuneyard {command}{where}"
