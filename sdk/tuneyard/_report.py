"""`report`: metrics on their way out of a trial.

A report takes up to three ways, each chosen by an environment variable (docs/design.md): a line in a file on a laptop,
a post to the operator in a cluster, and, in both, the last value of each metric in the termination file, which the
kubelet puts into the pod's status. That file is rewritten in one system call at every report, so it is right even when
the process ends by SIGKILL or os._exit. Where none is set the program runs by hand, and a report is printed.
"""

from __future__ import annotations

import atexit
import json
import math
import operator
import os
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, SupportsFloat, SupportsIndex

from tuneyard._warn import warn_once

if TYPE_CHECKING:
    from tuneyard._post import Poster

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]{0,62}")
NAME_RULE = "write up to 63 letters, digits and _ . / - that begin with a letter or _"
MAX_METRICS = 64
"""Metrics in one report."""
MAX_TEXT = 64
"""Characters kept of a value that is no number."""
MAX_TERMINATION_BYTES = 4096
"""What the kubelet reads of a termination message."""
GPU_PEAK = "tuneyard/gpu_peak_mib"
"""A program that reports this itself is not measured."""
MEASURE_SECONDS = 5.0
"""Between two looks at the GPU's memory while a program reports."""
FLUSH_SECONDS = 5.0
"""How long the end of the program may wait for the last reports to be sent."""

Metric = SupportsFloat | SupportsIndex | str
"""What can be reported: everything that float() takes, such as NumPy scalars and tensors with one element."""


def report(step: int | None = None, **metrics: Metric) -> None:
    """Tell Tuneyard the present value of one or several metrics.

    It costs microseconds, never waits for the network and never raises: what is wrong is said once on standard error.
    The last value of each metric is the trial's result; the values on the way are its curve.

    Example:
        `tuneyard.report(step=epoch, accuracy=0.91, **{"val/loss": loss})`

    Args:
        step: which point of the curve this is, a whole number from 0, for example the epoch. Left out: one more than
            that of the report before.
        **metrics: up to 64 values by name. Anything that float() takes; NaN, infinities and texts are passed on and
            make the trial infeasible, with a reason that says so.
    """
    try:
        with _lock:
            _reporter().report(step, metrics)
    except Exception as error:  # whatever happens here is no reason to stop a training
        warn_once("error", f"a report failed ({type(error).__name__}: {error}); the training goes on")


class Reporter:
    """Where this process's reports go. Not safe for threads by itself: `report` holds the lock.

    Args:
        report_file: the JSON-lines file to append to.
        poster: sends points to the operator.
        termination_file: where the last value of each metric is kept.
    """

    def __init__(
        self, *, report_file: str | None = None, poster: Poster | None = None, termination_file: str | None = None
    ) -> None:
        self._report_file = report_file
        self._poster = poster
        self._termination = TerminationFile(termination_file) if termination_file else None
        self._measures = bool(os.environ.get("TUNEYARD_MEASURE_GPU"))
        self._measured = 0.0
        self._by_hand = not (report_file or poster or termination_file)
        self._next_step = 0

    @classmethod
    def from_environment(cls) -> Reporter:
        """The reporter that the engine asked for by environment variables."""
        poster = None
        if url := os.environ.get("TUNEYARD_REPORT_URL"):
            from tuneyard._post import Poster  # noqa: PLC0415  # a laptop's trials need no HTTP: half of the import time

            poster = Poster(url, os.environ.get("TUNEYARD_TOKEN_FILE"), interval=_interval())
        return cls(
            report_file=os.environ.get("TUNEYARD_REPORT_FILE"),
            poster=poster,
            termination_file=os.environ.get("TUNEYARD_TERMINATION_FILE"),
        )

    def report(self, step: object, metrics: dict[str, Metric]) -> None:
        """Send one point all the ways that there are."""
        values = _clean(metrics)
        if not values:
            return
        number = self._step(step)
        if self._by_hand:
            print(f"step={number}", *(f"{name}={_show(value)}" for name, value in values.items()), flush=True)
            return
        self._measures = self._measures and GPU_PEAK not in values
        if self._measures and time.monotonic() >= self._measured + MEASURE_SECONDS:
            values = {**self._measure(), **values}
        self._send(number, values)

    def _send(self, number: int, values: dict[str, float | str]) -> None:
        point = json.dumps({"step": number, "metrics": values, "time": round(time.time(), 3)})
        if self._termination:
            self._termination.update(values)
        if self._report_file:
            _append(self._report_file, point + "\n")
        if self._poster:
            self._poster.put(point)

    def close(self) -> None:
        """Send the last word on the GPU's memory and what is still queued, within FLUSH_SECONDS."""
        if self._measures and self._next_step and not self._by_hand:
            last = self._measure()
            if last:
                self._send(self._next_step - 1, last)
        if self._poster:
            self._poster.close(FLUSH_SECONDS)

    def _measure(self) -> dict[str, float | str]:
        """The most GPU memory that was used, as metrics."""
        from tuneyard import _gpu  # noqa: PLC0415  # only where it is asked for

        self._measured = time.monotonic()
        found = _gpu.usage()
        return dict(found.metrics()) if found is not None else {}

    def _step(self, step: object) -> int:
        number = self._next_step if step is None else _whole_number(step)
        if number is None:
            warn_once("step", f"step={step!r:.40} is no whole number from 0 on; reports are counted instead")
            number = self._next_step
        self._next_step = number + 1
        return number


class TerminationFile:
    """The last value of each metric as one JSON object of at most MAX_TERMINATION_BYTES, up to date at every moment."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._last = _read_object(path)

    def update(self, values: dict[str, float | str]) -> None:
        """Rewrite the file: the newest metrics first, the older ones while there is room."""
        self._last = _that_fits(values | {name: old for name, old in self._last.items() if name not in values})
        try:
            _overwrite(self._path, json.dumps(self._last).encode())
        except OSError as error:
            warn_once("termination", f"the last metrics cannot be kept in a file ({error}); the training goes on")


def _interval() -> float:
    """Seconds between two posts: the engine asks for more of them where a report may be a reason to stop the trial."""
    try:
        return min(max(float(os.environ.get("TUNEYARD_REPORT_SECONDS", "1")), 0.05), 60.0)
    except ValueError:
        return 1.0


def _that_fits(values: dict[str, float | str]) -> dict[str, float | str]:
    size = 0
    for count, (name, value) in enumerate(values.items()):
        size += len(json.dumps({name: value}))  # its braces stand for the comma and blank between two
        if size > MAX_TERMINATION_BYTES:
            warn_once("many", f"the metrics take more than {MAX_TERMINATION_BYTES} bytes; the oldest are left out")
            return dict(list(values.items())[:count])
    return values


def _clean(metrics: dict[str, Metric]) -> dict[str, float | str]:
    values: dict[str, float | str] = {}
    for name, value in metrics.items():
        if not NAME.fullmatch(name):
            warn_once("name", f"metric '{name:.80}' is left out: {NAME_RULE}")
        elif len(values) == MAX_METRICS:
            warn_once("count", f"a report has {len(metrics)} metrics; those after the first {MAX_METRICS} are left out")
            break
        else:
            values[name] = _value(value)
    return values


def _value(value: Metric) -> float | str:
    """A finite number as it is; all else, which JSON has no number for, as a short text."""
    try:
        number = float(value)
    except Exception:  # tensors of several elements, texts, strange types: each raises an error of its own
        return str(value)[:MAX_TEXT]
    return number if math.isfinite(number) else str(number)


def _show(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"


def _whole_number(step: object) -> int | None:
    """A step as an int, or None where it is not one from 0 on. NumPy's and PyTorch's integers do, and so does 3.0."""
    if isinstance(step, float) and step.is_integer():
        step = int(step)
    try:
        number = operator.index(step)  # type: ignore[arg-type]  # the TypeError is the answer
    except TypeError:
        return None
    return number if number >= 0 else None


def _append(path: str, line: str) -> None:
    """Add a line by one system call, so that those of several processes never mix."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)
    except OSError as error:
        warn_once("file", f"reports cannot be written ({error}); the training goes on")


def _overwrite(path: str, data: bytes) -> None:
    """Make `data`, and blanks where more was before, the file's content by one system call.

    Truncating and then writing would be two, and the process may be killed between them.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        size = os.fstat(handle).st_size
        if size > MAX_TERMINATION_BYTES:  # nothing of ours, and the kubelet would read its end
            os.ftruncate(handle, 0)
            size = 0
        os.write(handle, data.ljust(size))
    finally:
        os.close(handle)


def _read_object(path: str) -> dict[str, float | str]:
    """What an earlier program of the same trial left in the termination file, for example train.py before test.py."""
    try:
        content = json.loads(Path(path).read_bytes()[: MAX_TERMINATION_BYTES + 1])
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {name: value for name, value in content.items() if isinstance(value, int | float | str)}


_lock = threading.RLock()  # re-entrant: a signal handler may report while a report is under way
_current: Reporter | None = None


def _reporter() -> Reporter:
    global _current  # noqa: PLW0603  # one a process
    if _current is None:
        _current = Reporter.from_environment()
        atexit.register(_close)
    return _current


def _close() -> None:
    if _current is not None:
        _current.close()


def _after_fork() -> None:
    """A child begins anew: the queue and its thread are the parent's, and so is a lock that is held just now."""
    global _lock, _current  # noqa: PLW0603
    _lock = threading.RLock()
    _current = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
