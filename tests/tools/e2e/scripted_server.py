"""An HTTP server with scripted responses, for tests of HTTP clients."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CLOSE_CONNECTION = 0
# status, headers and JSON document of a response
ScriptedResponse = tuple[int, dict[str, str], object]
# method, path, headers with lower-case names, and body of a request
Request = tuple[str, str, dict[str, str], bytes]


@dataclass
class ScriptedServer:
    """Sends the responses in order, the last one repeatedly, and records the requests."""

    responses: list[ScriptedResponse]
    requests: list[Request] = field(default_factory=list[Request])
    url: str = ""

    def next(self) -> ScriptedResponse:
        """The response to the latest request."""
        return self.responses[min(len(self.requests), len(self.responses)) - 1]

    def keys(self) -> list[str | None]:
        """The idempotency key of each request."""
        return [headers.get("idempotency-key") for _, _, headers, _ in self.requests]


@contextmanager
def scripted_server(*responses: ScriptedResponse) -> Generator[ScriptedServer]:
    """Serves the responses on a free port; CLOSE_CONNECTION as a status sends no response."""
    script = ScriptedServer(list(responses))

    class Handler(BaseHTTPRequestHandler):
        def do_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): text for name, text in self.headers.items()}
            script.requests.append((self.command, self.path, headers, body))
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

        def log_message(self, format: str, *args: object) -> None:
            """Logs nothing."""

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
