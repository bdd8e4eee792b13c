"""A small HTTP server that answers by a script, to see what the client makes of each answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CLOSE_CONNECTION = 0


@dataclass
class ScriptedServer:
    """Answers in turn (the last one again and again) and remembers what was asked."""

    answers: list[tuple[int, dict[str, str], Any]]
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    def next(self) -> tuple[int, dict[str, str], Any]:
        """The answer to the request that was just noted."""
        return self.answers[min(len(self.asked), len(self.answers)) - 1]

    def keys(self) -> list[str | None]:
        """The idempotency key of each request."""
        return [headers.get("idempotency-key") for _, _, headers, _ in self.asked]


@contextmanager
def scripted_server(*answers: tuple[int, dict[str, str], Any]) -> Iterator[ScriptedServer]:
    """Serves the answers on a free port; CLOSE_CONNECTION as a status sends no response."""
    script = ScriptedServer(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): text for name, text in self.headers.items()}
            script.asked.append((self.command, self.path, headers, body))
            status, extra, document = script.next()
            if status == CLOSE_CONNECTION:
                self.close_connection = True
                return
            payload = b"" if document is None else json.dumps(document).encode()
            self.send_response(status)
            for name, text in {"Content-Length": str(len(payload)), **extra}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = do_any  # noqa: N815 (the names are http.server's)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
