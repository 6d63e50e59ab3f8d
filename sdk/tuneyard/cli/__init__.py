"""The command line: studies on this machine, and the processes that run them in a cluster.

Each command lives in a module of its own that is imported when it is called: `tuneyard --help` must not wait for numpy.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import time
import traceback
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from tuneyard.cli.parser import create
from tuneyard.cli.problem import Problem

BAD_INPUT = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit status: 0, 1 where it went wrong, 2 where the input is bad."""
    options = create().parse_args(arguments)
    try:
        module, _, function = options.command.partition(":")
        return int(getattr(importlib.import_module(module), function)(options))
    except Problem as problem:
        for sentence in problem.sentences:
            sys.stderr.write(f"tuneyard: {sentence}\n")
        return problem.status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain once more when it closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        kind = type(error).__name__
        where = _log(options)
        sys.stderr.write(f"tuneyard: an error in Tuneyard itself: {kind}: {error}; please report it with {where}\n")
        return 1


def _log(options: Namespace) -> Path | str:
    """Write the present exception to a file; where that is, or what else to send."""
    text = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(sys.argv)}\n{traceback.format_exc()}\n"
    from tuneyard.cli import places  # noqa: PLC0415 - only on the way out

    with contextlib.suppress(OSError):
        path = places.home(options).error_log
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(text)
        return path
    return f"this: {text}"
