"""An HTTP server in a thread that stands in for every function at a fixed address."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FunctionHandler(BaseHTTPRequestHandler):
    """Acknowledges events after answering ``statuses``; 0 closes without a response."""

    protocol_version = "HTTP/1.1"
    received: list[dict[str, str]]
    statuses: list[int]
    health: dict[str, int]

    def do_GET(self) -> None:
        self.send_response(self.health.get(self.path, 404))
        self.send_header("content-length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.received.append({**headers, ":path": self.path})
        status = self.statuses.pop(0) if self.statuses else 204
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        if status != 204:
            self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Does not log."""


@contextmanager
def function_server(
    *statuses: int, health: dict[str, int] | None = None
) -> Generator[tuple[str, list[dict[str, str]]]]:
    """Yields an address pattern for all functions, and the headers of received requests.

    ``health`` has the statuses of health checks by path; others are 404.
    """
    attributes = {
        "received": [],
        "statuses": list(statuses),
        "health": {"/health/readiness": 200} if health is None else health,
    }
    handler = type("OwnHandler", (FunctionHandler,), attributes)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            # the pattern needs the name, and the user part of a URL is ignored
            yield f"http://{{name}}@127.0.0.1:{server.server_port}", handler.received
        finally:
            server.shutdown()
            thread.join()
