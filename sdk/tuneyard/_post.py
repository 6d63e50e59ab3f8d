"""Reports on their way to the operator: a bounded queue, and a daemon thread that posts it in batches.

The training must never feel this. `Poster.put` appends to a deque, which needs no lock; the thread looks into it once
an interval, which makes the batches; what fails is tried again, later and later, while the oldest points fall out of
the queue. The values that matter at the end take another way too: the termination file.
"""

from __future__ import annotations

import codecs
import threading
import time
from collections import deque
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from random import SystemRandom
from urllib.parse import SplitResult, urlsplit

from tuneyard._warn import warn_once

QUEUE_LIMIT = 1000
"""Points that wait, at most: then the oldest is dropped for the newest."""
BATCH_POINTS = 200
BATCH_BYTES = 128 * 1024
"""A post may exceed this by one point; the operator takes twice as much."""
PATIENCE = 5
"""Failures in a row before the user is told: a restart of the operator is nobody's business."""
TRY_AGAIN = frozenset({401, 408, 429})
"""Client errors that pass: a token that was just rotated, a slow moment, a busy operator."""

codecs.lookup("idna")  # host names need it; a process forked while the thread imports it could never again
_random = SystemRandom()  # not the global generator: its sequence belongs to the training


class RefusedError(Exception):
    """The operator will never take these reports; the message says why."""


class Poster:
    """Sends points to the operator from a thread of its own.

    Args:
        url: where to post, http or https.
        token_file: the file with the bearer token, read anew for each post because tokens rotate; None for no token.
        interval: seconds between two batches.
        timeout: seconds that connecting, sending and receiving may take, each.
        backoff: seconds before the first repetition; doubled for each further one.
        max_backoff: the longest wait in seconds.
    """

    def __init__(
        self,
        url: str,
        token_file: str | None,
        *,
        interval: float = 1.0,
        timeout: float = 5.0,
        backoff: float = 0.5,
        max_backoff: float = 30.0,
    ) -> None:
        self._url = url
        self._token_file = token_file
        self._interval = interval
        self._timeout = timeout
        self._backoff = backoff
        self._max_backoff = max_backoff
        self._queue: deque[str] = deque()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._over = False
        self._problem = ""

    def put(self, point: str) -> None:
        """Queue one point (a JSON object as text). Returns at once; callers hold a lock."""
        if self._over:
            return
        self._queue.append(point)
        while len(self._queue) > QUEUE_LIMIT:
            self._queue.popleft()
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="tuneyard-report", daemon=True)
            thread.start()
            self._thread = thread

    def close(self, timeout: float) -> None:
        """Send what is queued, for at most `timeout` seconds; then give it up."""
        self._closing.set()
        if self._thread is None:
            return
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._over = True
            warn_once("unsent", f"the last reports were not sent in time ({self._problem or 'no answer yet'})")

    def _run(self) -> None:
        failures = 0
        try:
            while not self._over and (self._queue or not self._closing.is_set()):
                failures = 0 if self._send_batch() else failures + 1
                if failures == PATIENCE:
                    warn_once("late", f"reports do not get through ({self._problem}); trying again in the background")
                self._pause(failures)
        except RefusedError as refused:
            self._over = True
            self._queue.clear()
            warn_once("refused", f"{refused}; no more reports are sent, the training goes on")

    def _pause(self, failures: int) -> None:
        if failures == 0:
            if len(self._queue) < BATCH_POINTS:
                self._closing.wait(self._interval)
            return
        delay = min(self._max_backoff, self._backoff * 2 ** min(failures - 1, 10)) * _random.uniform(0.5, 1)
        if self._closing.is_set():
            time.sleep(min(delay, self._backoff))  # the end is near: no point in waiting long
        else:
            self._closing.wait(delay)

    def _send_batch(self) -> bool:
        """Post the oldest points; on failure put them back. Whether nothing stands in the way of the next batch."""
        batch: list[str] = []
        size = 0
        while self._queue and len(batch) < BATCH_POINTS and size < BATCH_BYTES:
            batch.append(self._queue.popleft())
            size += len(batch[-1])
        if not batch:
            return True
        try:
            self._problem = self._post('{"reports": [' + ", ".join(batch) + "]}")
        except RefusedError:
            raise
        except Exception as error:  # network, token file, protocol: all of it may pass
            self._problem = f"{type(error).__name__}: {error}"
        if self._problem:
            self._queue.extendleft(reversed(batch))
        return not self._problem

    def _post(self, body: str) -> str:
        """One request. Empty when the operator took it, else what is wrong for the moment.

        Raises:
            RefusedError: it is wrong for good.
        """
        url = urlsplit(self._url)
        headers = {"Content-Type": "application/json"}
        if self._token_file:
            headers["Authorization"] = f"Bearer {Path(self._token_file).read_bytes().decode().strip()}"
        connection = _connection(url, self._timeout)
        try:
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request("POST", target, body.encode(), headers)
            response = connection.getresponse()
            answer = response.read(300).decode(errors="replace").strip()
        finally:
            connection.close()
        status = response.status
        if 200 <= status < 300:
            return ""
        problem = f"the operator answers {status} {response.reason}" + (f": {answer}" if answer else "")
        if status < 500 and status not in TRY_AGAIN:
            raise RefusedError(problem)
        return problem


def _connection(url: SplitResult, timeout: float) -> HTTPConnection:
    """A connection that ignores proxies: the operator is inside the cluster.

    Raises:
        RefusedError: the URL is not one of http or https.
    """
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise RefusedError(f"TUNEYARD_REPORT_URL is '{url.geturl()}', not an http or https address")
    kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
    return kind(url.hostname, url.port, timeout=timeout)
