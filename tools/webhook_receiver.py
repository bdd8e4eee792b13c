"""A receiver of webhooks for tests, the end-to-end scenarios and fault runs.

It is an HTTP server with its own record of what arrived and how it responded, and it can misbehave.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import struct
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOLERANCE_SECONDS = 300


class Behaviour(StrEnum):
    """How the receiver responds; HANG waits until it is closed or behaves otherwise."""

    ACCEPT = "accept"
    ERROR = "error"
    GONE = "gone"
    REDIRECT = "redirect"
    NO_HTTP = "no-http"
    RESET = "reset"
    HANG = "hang"


STATUSES = {Behaviour.ACCEPT: 204, Behaviour.ERROR: 500, Behaviour.GONE: 410}


@dataclass(frozen=True)
class Received:
    """One request, and how it was responded to."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    behaviour: Behaviour

    @property
    def id(self) -> str:
        """The id of the message, the same in every attempt."""
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:  # Any: the reader states the shape that it expects
        """The document."""
        return json.loads(self.body)

    def is_signed_with(self, secret: str) -> bool:
        """Whether a signature was made with the secret, a short time ago (Standard Webhooks)."""
        sent_at = int(self.headers["webhook-timestamp"])
        key = base64.b64decode(secret.removeprefix("whsec_"))
        content = f"{self.id}.{sent_at}.".encode() + self.body
        expected = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
        signatures = self.headers["webhook-signature"].split(" ")
        return abs(time.time() - sent_at) < TOLERANCE_SECONDS and any(
            hmac.compare_digest(f"v1,{expected}", signature) for signature in signatures
        )


class Receiver:
    """A running receiver; ``behaviour`` may change at any time, and ``of_path`` has exceptions."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.behaviour = Behaviour.ACCEPT
        self.of_path: dict[str, Behaviour] = {}
        self.most_at_once = 0
        self._server = server
        self._received: list[Received] = []
        self._open = 0
        self._changed = threading.Condition()

    def url(self, path: str = "/") -> str:
        """The address of a path."""
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def received(self, path: str | None = None) -> list[Received]:
        """The requests so far, to one path or to all."""
        with self._changed:
            return [each for each in self._received if path in (None, each.path)]

    def accepted_ids(self, path: str | None = None) -> set[str]:
        """The ids of the messages that were responded to with a 2xx."""
        return {e.id for e in self.received(path) if e.behaviour == Behaviour.ACCEPT}

    def behaves(self, behaviour: Behaviour) -> None:
        """Changes how requests are responded to, also those that hang."""
        with self._changed:
            self.behaviour = behaviour
            self._changed.notify_all()

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        """Records a request and responds to it."""
        body = handler.rfile.read(int(handler.headers.get("content-length", "0")))
        headers = {name.lower(): text for name, text in handler.headers.items()}
        with self._changed:
            self._open += 1
            self.most_at_once = max(self.most_at_once, self._open)
            behaviour = self.of_path.get(handler.path, self.behaviour)
            self._received.append(Received(handler.path, headers, body, behaviour))
            if behaviour == Behaviour.HANG:
                self._changed.wait_for(lambda: self.behaviour != Behaviour.HANG, timeout=30)
            self._open -= 1
        self._send(handler, behaviour)

    def _send(self, handler: BaseHTTPRequestHandler, behaviour: Behaviour) -> None:
        match behaviour:
            case Behaviour.RESET:
                linger = struct.pack("ii", 1, 0)
                handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                handler.connection.close()
            case Behaviour.NO_HTTP:
                handler.connection.sendall(b"hello\r\n\r\n")
            case Behaviour.REDIRECT:
                handler.send_response(302)
                handler.send_header("location", self.url("/elsewhere"))
                handler.end_headers()
            case Behaviour.HANG:
                handler.close_connection = True
            case Behaviour.ACCEPT | Behaviour.ERROR | Behaviour.GONE:
                handler.send_response(STATUSES[behaviour])
                handler.send_header("set-cookie", "receiver-session=secret")
                handler.send_header("content-length", "0")
                handler.end_headers()


@contextmanager
def running_receiver(host: str = "127.0.0.1") -> Generator[Receiver]:
    """A receiver on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.respond(self)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is logged."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A sender that has closed its connection is no error."""

    with Server((host, 0), Handler) as server:
        receiver = Receiver(server)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield receiver
        finally:
            receiver.behaves(Behaviour.ACCEPT)
            server.shutdown()
            thread.join()
