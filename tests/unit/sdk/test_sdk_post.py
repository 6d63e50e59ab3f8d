"""The way over the network: a real server that answers as told, and real programs that report to it."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tuneyard import _post, _warn
from tuneyard._post import Poster


class Intake(ThreadingHTTPServer):
    """Gives the answers listed, then 204 for ever; keeps what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[int] = []
        self.delay = 0.0
        self.tokens: list[str | None] = []
        self.batches: list[list[dict[str, Any]]] = []
        self.attempts = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/report?x=1"

    @property
    def steps(self) -> list[int]:
        return [point["step"] for batch in self.batches for point in batch]


class _Handler(BaseHTTPRequestHandler):
    server: Intake

    def do_POST(self) -> None:
        self.server.attempts += 1
        self.server.tokens.append(self.headers["Authorization"])
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/report?x=1"
        assert self.headers["Content-Type"] == "application/json"
        time.sleep(self.server.delay)
        status = self.server.answers.pop(0) if self.server.answers else 204
        if status < 300:
            self.server.batches.append(body["reports"])
        self.send_response(status)
        self.end_headers()
        if status >= 300:
            self.wfile.write(b"because of this")

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def intake() -> Iterator[Intake]:
    server = Intake()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_warn, "_warned", set())


def quick(url: str, token_file: Path | None = None) -> Poster:
    token = None if token_file is None else str(token_file)
    return Poster(url, token, interval=0.02, timeout=1, backoff=0.02, max_backoff=0.1)


def point(step: int) -> str:
    return json.dumps({"step": step, "metrics": {"a": 1.0}, "time": 0.0})


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 20 s"
        time.sleep(0.01)


def environment(intake_url: str, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "token").write_text("secret\n")
    rest = {name: value for name, value in os.environ.items() if not name.startswith("TUNEYARD_")}
    return rest | {
        "TUNEYARD_REPORT_URL": intake_url,
        "TUNEYARD_TOKEN_FILE": str(tmp_path / "token"),
        "TUNEYARD_TERMINATION_FILE": str(tmp_path / "last.json"),
        "http_proxy": "http://127.0.0.1:9",  # must not be asked: the operator is inside the cluster
    }


def run(code: str, intake_url: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment(intake_url, tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_points_arrive_in_order_and_in_batches(intake: Intake) -> None:
    poster = Poster(intake.url, None, interval=0.2)
    poster.put(point(0))
    until(lambda: intake.steps == [0])
    for step in range(1, 300):
        poster.put(point(step))
    poster.close(10)

    assert intake.steps == list(range(300))
    assert max(len(batch) for batch in intake.batches) <= _post.BATCH_POINTS
    assert intake.attempts <= 5


def test_a_batch_has_a_bounded_size(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_post, "BATCH_BYTES", 2000)
    intake.answers, intake.delay = [], 0.1
    poster = quick(intake.url)
    for step in range(100):
        poster.put(point(step))
    poster.close(10)

    assert intake.steps == list(range(100))
    assert max(len(json.dumps(batch)) for batch in intake.batches) < 2200


@pytest.mark.parametrize("status", [401, 408, 429, 500, 502, 503])
def test_what_passes_is_tried_again_and_nothing_is_lost_or_doubled(
    intake: Intake, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    intake.answers = [status] * 3
    poster = quick(intake.url)
    poster.put(point(0))
    until(lambda: intake.attempts >= 2)
    poster.put(point(1))
    until(lambda: intake.steps == [0, 1])
    poster.close(5)

    assert intake.steps == [0, 1]
    assert capsys.readouterr().err == ""


def test_waits_grow_up_to_a_limit(intake: Intake) -> None:
    intake.answers = [503] * 8
    poster = quick(intake.url)
    start = time.monotonic()
    poster.put(point(0))
    until(lambda: intake.steps == [0])
    took = time.monotonic() - start
    poster.close(5)

    # 0.02 + 0.04 + 0.08 + 5 * 0.1 seconds, each times 0.5 to 1
    assert 0.3 < took < 5


def test_long_trouble_is_said_once_with_its_reason(intake: Intake, capsys: pytest.CaptureFixture[str]) -> None:
    intake.answers = [503] * 12
    poster = quick(intake.url)
    poster.put(point(0))
    until(lambda: intake.steps == [0])
    poster.close(5)

    assert capsys.readouterr().err == (
        "tuneyard: reports do not get through (the operator answers 503 Service Unavailable: because of this); "
        "trying again in the background\n"
    )


def test_the_token_is_read_anew_for_each_post(intake: Intake, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")
    intake.answers = [204, 401]
    poster = quick(intake.url, token)
    poster.put(point(0))
    until(lambda: intake.steps == [0])
    token.write_text("new\n")
    poster.put(point(1))
    until(lambda: intake.steps == [0, 1])
    poster.close(5)

    assert intake.tokens == ["Bearer old", "Bearer new", "Bearer new"]


def test_a_token_that_comes_late_is_waited_for(intake: Intake, tmp_path: Path) -> None:
    poster = quick(intake.url, tmp_path / "token")
    poster.put(point(0))
    time.sleep(0.1)
    assert intake.attempts == 0
    (tmp_path / "token").write_text("secret")
    until(lambda: intake.steps == [0])
    poster.close(5)


@pytest.mark.parametrize("status", [301, 400, 403, 404, 413])
def test_a_refusal_is_final_and_said_once(intake: Intake, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    intake.answers = [status]
    poster = quick(intake.url)
    poster.put(point(0))
    until(lambda: poster._over)
    for step in range(20):
        poster.put(point(step))
    poster.close(5)

    assert intake.attempts == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tuneyard: the operator answers {status} ")
    assert line.endswith(": because of this; no more reports are sent, the training goes on")


def test_an_address_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    poster = quick("ftp://operator/report")
    poster.put(point(0))
    until(lambda: poster._over)

    assert "TUNEYARD_REPORT_URL is 'ftp://operator/report', not an http or https address" in capsys.readouterr().err


def test_the_queue_drops_the_oldest_never_the_newest(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_post, "QUEUE_LIMIT", 50)
    intake.answers = [503]
    poster = Poster(intake.url, None, backoff=3)
    poster.put(point(0))
    until(lambda: poster._problem != "")  # now it waits for 1.5 seconds at least
    for step in range(1, 500):
        poster.put(point(step))
    poster.close(10)

    assert intake.steps == list(range(450, 500))


def test_put_does_not_wait_for_a_server_that_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, then never answers
        poster = quick(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        start = time.monotonic()
        for step in range(2000):
            poster.put(point(step))
        assert time.monotonic() - start < 1
        start = time.monotonic()
        poster.close(0.3)
        assert time.monotonic() - start < 1
        assert poster._thread is not None
        poster._thread.join(10)
        assert not poster._thread.is_alive()


def test_a_program_flushes_at_its_end(intake: Intake, tmp_path: Path) -> None:
    done = run("import tuneyard\nfor n in range(5): tuneyard.report(step=n, accuracy=n / 5)", intake.url, tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert intake.steps == list(range(5))
    assert set(intake.tokens) == {"Bearer secret"}
    assert json.loads((tmp_path / "last.json").read_text()) == {"accuracy": 0.8}


def test_a_program_whose_server_is_down_ends_in_time_and_keeps_its_last_values(tmp_path: Path) -> None:
    start = time.monotonic()
    done = run(
        """
        import time, tuneyard, tuneyard._report
        tuneyard._report.FLUSH_SECONDS = 1.0
        start = time.monotonic()
        for n in range(200): tuneyard.report(step=n, accuracy=n / 200)
        assert time.monotonic() - start < 1, "reporting waited for the network"
        """,
        f"http://127.0.0.1:{free_port()}/",
        tmp_path,
    )

    assert done.returncode == 0, done.stderr
    assert 1 < time.monotonic() - start < 15
    assert "tuneyard: the last reports were not sent in time (ConnectionRefusedError" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "last.json").read_text()) == {"accuracy": 0.995}


def test_a_program_that_fails_still_sends_what_it_reported(intake: Intake, tmp_path: Path) -> None:
    done = run("import tuneyard; tuneyard.report(accuracy=0.5); raise SystemExit(3)", intake.url, tmp_path)

    assert done.returncode == 3
    assert len(intake.steps) == 1


def test_what_was_posted_and_the_last_values_survive_kill_9(intake: Intake, tmp_path: Path) -> None:
    program = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import time, tuneyard\nfor n in range(10**6):\n tuneyard.report(step=n, accuracy=n)\n time.sleep(0.01)",
        ],
        env=environment(intake.url, tmp_path),
    )
    try:
        until(lambda: len(intake.steps) > 20)
    finally:
        program.kill()
    assert program.wait(10) == -signal.SIGKILL

    assert intake.steps == list(range(len(intake.steps)))
    assert json.loads((tmp_path / "last.json").read_text())["accuracy"] >= intake.steps[-1]


def test_a_forked_worker_sends_its_own_points_and_not_the_parents(intake: Intake, tmp_path: Path) -> None:
    done = run(
        """
        import os, sys, tuneyard
        tuneyard.report(step=1, parent=1)
        for step in range(2, 12):  # the first ones while the parent's thread sends its first post
            child = os.fork()
            if child == 0:
                tuneyard.report(step=step, child=1)
                sys.exit(0)
            assert os.waitpid(child, 0)[1] == 0
        """,
        intake.url,
        tmp_path,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(intake.steps) == list(range(1, 12))
