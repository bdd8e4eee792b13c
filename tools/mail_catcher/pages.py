"""The HTTP side of the catcher: the mails as JSON and as a page, and the faults."""

from __future__ import annotations

import json
import socket
import sys
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from events.strict_json import is_object
from tools.mail_catcher.smtp import Catcher, read_faults

if TYPE_CHECKING:
    from tools.mail_catcher.messages import CaughtMail, CaughtMails

BODY_BYTES_MAX = 65_536
IDLE_SECONDS_MAX = 60
# The HTML of a mail is shown without scripts, forms and remote content.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"

Response = tuple[int, str, bytes]


class PagesServer(ThreadingHTTPServer):
    """The listening server, with the state that its handlers share."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], mails: CaughtMails, catcher: Catcher) -> None:
        super().__init__(address, PagesHandler)
        self.mails = mails
        self.catcher = catcher

    def handle_error(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Ignores disconnected clients; prints every other exception."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class PagesHandler(BaseHTTPRequestHandler):
    """Handles the requests of one connection."""

    protocol_version = "HTTP/1.1"
    server_version = "msa-shop-mail-catcher"
    sys_version = ""
    timeout = IDLE_SECONDS_MAX

    def do_GET(self) -> None:
        """The page, the list of mails, one mail, its HTML or its source, or the counts."""
        self._reply(*self._read())

    def do_POST(self) -> None:
        """Replaces the faults."""
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(min(length, BODY_BYTES_MAX))
        if urlsplit(self.path).path != "/faults":
            self._reply(*_json(404, {"error": "no such route"}))
            return
        try:
            settings: object = json.loads(body)
            if not is_object(settings):
                raise ValueError("faults are a JSON object")
            self._server.catcher.faults = read_faults(settings)
        except ValueError as error:
            self._reply(*_json(422, {"error": str(error)}))
            return
        self._reply(*_json(200, vars(self._server.catcher.faults)))

    def do_DELETE(self) -> None:
        """Forgets all mails."""
        self._server.mails.clear()
        self._reply(*_json(200, {}))

    def log_message(self, format: str, *args: object) -> None:
        """Does not log."""

    @property
    def _server(self) -> PagesServer:
        assert isinstance(self.server, PagesServer)
        return self.server

    def _read(self) -> Response:
        parts = urlsplit(self.path)
        place = [part for part in parts.path.split("/") if part]
        mails = self._server.mails
        match place:
            case []:
                return 200, "text/html; charset=utf-8", _page(mails.find(lambda _: True)).encode()
            case ["health"]:
                return _json(200, {"status": "ok"})
            case ["received"]:
                return _json(200, mails.received())
            case ["messages"]:
                to = parse_qs(parts.query).get("to", [""])[0]
                found = mails.find(lambda mail: to in ("", mail.recipient))
                return _json(200, [mail.summary() for mail in found])
            case ["messages", number, *form] if number.isdecimal():
                for mail in mails.find(lambda mail: mail.id == int(number)):
                    return _one(mail, form)
            case _:
                pass
        return _json(404, {"error": "no such mail or route"})

    def _reply(self, status: int, media_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)


def _one(mail: CaughtMail, form: list[str]) -> Response:
    match form:
        case []:
            return _json(200, mail.representation())
        case ["html"]:
            return 200, "text/html; charset=utf-8", mail.html.encode()
        case ["source"]:
            return 200, "text/plain; charset=utf-8", mail.raw
        case _:
            return _json(404, {"error": "no such form of a mail"})


def _json(status: int, body: object) -> Response:
    return status, "application/json", json.dumps(body, ensure_ascii=False).encode()


def _page(mails: list[CaughtMail]) -> str:
    """A table of all mails, newest first, each with its text."""
    rows = "".join(
        f"<h2>{escape(mail.subject)}</h2>"
        f"<p>{escape(mail.received_at)} · {escape(mail.recipient)} · "
        f'<a href="/messages/{mail.id}/html">HTML</a> · '
        f'<a href="/messages/{mail.id}/source">source</a></p><pre>{escape(mail.text)}</pre>'
        for mail in mails
    )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Mails</title></head>'
        f"<body><h1>{len(mails)} mails</h1>{rows}</body></html>"
    )
