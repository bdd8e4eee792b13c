"""A real Envoy with the rendered configuration, before real functions and one that echoes."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import envoy

from shop.registry import all_specs
from tests.function_process import FunctionProcess, free_port
from tests.waiting import wait_for
from tools.render.documents import yaml_text
from tools.render.envoy import EdgeSettings, bootstrap

ENVOY = str(Path(envoy.__file__).parent / "_bin" / "envoy")


class Edge(FunctionProcess):
    """An Envoy process and the lines of its access log."""

    def __init__(self, process: subprocess.Popen[bytes], place: EdgeSettings, log: Path) -> None:
        super().__init__(process, place.port)
        self.place, self.log = place, log

    def is_ready(self) -> bool:
        """Whether it serves and has the keys of tokens."""
        assert self.process.poll() is None, self.log.with_suffix(".err").read_text()[-2000:]
        connection = HTTPConnection("127.0.0.1", self.place.admin_port, timeout=5)
        try:
            connection.request("GET", "/stats?filter=jwks_fetch_success")
            counts = connection.getresponse().read().decode()
        except OSError:
            return False
        finally:
            connection.close()
        return counts.strip().rpartition(" ")[2] not in ("", "0")

    def line(self, path: str, status: int) -> dict[str, Any]:
        """The access log's line about a path and its answer, as soon as it is written."""

        def written() -> dict[str, Any] | None:
            lines = [json.loads(text) for text in self.log.read_text().splitlines()]
            found = (line for line in lines if (line["path"], line["status"]) == (path, status))
            return next(found, None)

        line: dict[str, Any] = wait_for(written, f"an access log line about {path}")
        return line


@contextmanager
def edge(folder: Path, addresses: dict[str, int], **changes: Any) -> Generator[Edge]:
    """Envoy in front of functions at ports of this machine; functions without one are not there."""
    gone = free_port()
    place = EdgeSettings(
        address_of=lambda spec: ("127.0.0.1", addresses.get(spec.name, gone)),
        port=free_port(),
        metrics_port=free_port(),
        admin_port=free_port(),
        host="127.0.0.1",
    )
    place = replace(place, **changes)
    file, log = folder / "envoy.yaml", folder / "envoy.log"
    file.write_text(yaml_text(bootstrap(all_specs(), place)))
    command = [ENVOY, "-c", str(file), "-l", "warning", "--concurrency", "1"]
    command += ["--disable-hot-restart", "--file-flush-interval-msec", "20"]
    with log.open("wb") as out, log.with_suffix(".err").open("wb") as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors)
    try:
        served = Edge(process, place, log)
        wait_for(served.is_ready, "Envoy with the keys of tokens")
        yield served
    finally:
        process.terminate()
        process.wait(timeout=20)


class Echo(BaseHTTPRequestHandler):
    """Answers what it was asked, path and headers as JSON, or ``answers``; and keeps the paths."""

    protocol_version = "HTTP/1.1"
    seen: list[str]
    answers: Mapping[str, str]

    def do_GET(self) -> None:
        """Any GET."""
        self.seen.append(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = json.dumps({"path": self.path, "headers": headers})
        body = self.answers.get(self.path, asked).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def echo(answers: Mapping[str, str] | None = None) -> Generator[tuple[int, list[str]]]:
    """A function that echoes: its port, and the paths that reached it."""
    handler = type("OwnEcho", (Echo,), {"seen": [], "answers": answers or {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port, handler.seen
        finally:
            server.shutdown()
            thread.join()
