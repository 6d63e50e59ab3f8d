from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tuneyard.cli import main
from tuneyard_strategy.openapi import document
from tuneyard_strategy.openapi import main as openapi

ROOT = Path(__file__).parents[3]


def test_a_missing_token_file_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strategy", "--token-file", str(tmp_path / "none")]) == 2
    assert re.fullmatch(r"tuneyard: the token file .*none cannot be read: No such file.*\n", capsys.readouterr().err)


def test_an_empty_token_file_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_text("\n")
    assert main(["strategy", "--token-file", str(tmp_path / "token")]) == 2
    assert "is empty: write a random text into it" in capsys.readouterr().err


def test_the_process_serves_and_ends_on_a_signal(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tuneyard.cli",
            "strategy",
            "--listen=127.0.0.1:0",
            f"--token-file={tmp_path / 'token'}",
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stderr is not None
        address = next(found.group(1) for line in process.stderr if (found := re.search(r"on (http://\S+)", line)))
        body = {"parameters": [{"name": "a", "int": {"min": 1, "max": 3}}], "constraints": ["a > 3"]}
        request = urllib.request.Request(
            f"{address}/v1/check",
            json.dumps(body).encode(),
            {"Authorization": "Bearer secret", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            assert "meets constraints[0] 'a > 3'" in json.load(response)["problems"][0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) in {0, -signal.SIGTERM}
    finally:
        process.kill()
        process.communicate()


def test_the_committed_openapi_document_is_up_to_date() -> None:
    assert (ROOT / "docs" / "openapi-strategy.json").read_text(encoding="utf-8") == document()


def test_a_stale_document_is_noticed_and_renewed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "openapi.json"
    assert openapi([str(file), "--check"]) == 1
    assert "is out of date: run python -m tuneyard_strategy.openapi" in capsys.readouterr().err
    assert openapi([str(file)]) == 0
    assert openapi([str(file), "--check"]) == 0
    assert json.loads(file.read_text())["info"]["title"] == "Tuneyard strategy service"
