"""Strategy services for tests: one that needs no library and does as it should, and a way to serve any other."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Object = dict[str, Any]
Answer = tuple[int, Any]
"""Status and body: an object, or text as it is."""


class RandomService:
    """Draws at random, and keeps the whole contract in as few lines as it takes. Spaces without constraints only."""

    def __init__(self) -> None:
        self.studies: dict[str, tuple[Object, dict[int, Object], int]] = {}
        self.heard: list[tuple[str, Object]] = []

    def __call__(self, path: str, body: Object) -> Answer:
        self.heard.append((path, body))
        if path.endswith("/check"):
            return 200, {"problems": ["settings: this is wrong"] if body["strategy"]["service"]["settings"] else []}
        if body["since"] == 0:
            self.studies[body["study"]] = body["definition"], {}, 0
        definition, trials, told = self.studies.get(body["study"], ({}, {}, -1))
        if told != body["since"]:
            return 409, {"need": "history", "have": 0}
        trials.update({record["index"]: record["parameters"] for record in body["records"]})
        self.studies[body["study"]] = definition, trials, body["revision"]
        found: list[Object] = []
        for index in body["indices"]:
            parameters = draw(definition, index, [*trials.values(), *(each["parameters"] for each in found)])
            if parameters is None:
                return 200, {"configurations": found, "exhausted": True, "message": "all is known"}
            found.append({"index": index, "parameters": parameters})
        return 200, {"configurations": found, "exhausted": False}


def draw(definition: Object, index: int, known: list[Object]) -> Object | None:
    for attempt in range(2000):
        rng = random.Random(definition["strategy"]["seed"] * 1_000_003 + index * 2003 + attempt)
        found: Object = {}
        for parameter in definition["parameters"]:
            if all(found.get(name) in values for name, values in parameter.get("when", {}).items()):
                found[parameter["name"]] = value(parameter, rng)
        if found not in known:
            return found
    return None


def value(parameter: Object, rng: random.Random) -> Any:
    if "categorical" in parameter:
        return rng.choice(parameter["categorical"]["values"])
    spec = parameter.get("int") or parameter["double"]
    step = spec.get("step")
    if step is None:
        return rng.uniform(spec["min"], spec["max"])
    steps = int((spec["max"] - spec["min"]) / step + 1e-9)
    return round(spec["min"] + rng.randint(0, steps) * step, 9)


@contextmanager
def serving(answer: Callable[[str, Object], Answer]) -> Iterator[str]:
    """Serve on a free port of this machine; the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, found = answer(self.path, body)
            headers = {}
            if isinstance(found, tuple):
                found, headers = found
            text = found.encode() if isinstance(found, str) else json.dumps(found).encode()
            self.send_response(status)
            for name, content in {"Content-Length": str(len(text)), **headers}.items():
                self.send_header(name, content)
            self.end_headers()
            try:
                self.wfile.write(text)
            except OSError:
                return  # the caller has had enough

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
