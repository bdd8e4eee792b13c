"""The sandbox's HTTP API: JSON over HTTP/1.1 with keep-alive, a bearer key, faults on request."""

from __future__ import annotations

import hmac
import json
import select
import socket
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from shop.adapters.payment_provider.response_fields import amount_in, currency_in, text_in
from tools.payment_simulator.faults import (
    FaultDice,
    magic_fault,
    read_fault_settings,
    settings_as_text,
)
from tools.payment_simulator.records import Answer, Books, WebhookPlan

BODY_BYTES_MAX = 65_536
PAGE_LIMIT_DEFAULT = 100
PAGE_LIMIT_MAX = 500
IDLE_SECONDS_MAX = 120
CURSOR_DIGITS_MAX = 18


Route = Callable[[str, dict[str, list[str]], dict[str, Any]], Answer | None]


class RequestError(Exception):
    """A request that is refused before it reaches the books: status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.answer: Answer = (status, {"error": reason})


class SandboxServer(ThreadingHTTPServer):
    """Listens, and holds what the handlers share."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(
        self, address: tuple[str, int], books: Books, dice: FaultDice, api_key: str
    ) -> None:
        super().__init__(address, SandboxHandler)
        self.books = books
        self.dice = dice
        self.api_key = api_key

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is its own affair; everything else is printed as a bug."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class SandboxHandler(BaseHTTPRequestHandler):
    """One connection; each request is one step at the provider."""

    server: SandboxServer
    protocol_version = "HTTP/1.1"
    server_version = "msa-shop-sandbox"
    sys_version = ""
    timeout = IDLE_SECONDS_MAX
    disable_nagle_algorithm = True
    wbufsize = 65_536

    def do_GET(self) -> None:
        """Reads: health, books."""
        self._serve(self._read)

    def do_POST(self) -> None:
        """Everything that changes something."""
        self._serve(self._write)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: what happened is in the books."""

    def _serve(self, route: Route) -> None:
        try:
            # The body is read even when it is refused, or its bytes would be the next request.
            body = self._read_body()
            parts = urlsplit(self.path)
            self._check_key(parts.path)
            answer = route(parts.path, parse_qs(parts.query), body)
        except RequestError as refused:
            answer = refused.answer
        if answer is None:
            self._hang()
        else:
            self._reply(*answer)

    def _read(self, path: str, query: dict[str, list[str]], _: dict[str, Any]) -> Answer:
        books = self.server.books
        if path == "/health":
            return 200, {"status": "ok"}
        if path == "/books":
            return books.everything()
        if path == "/faults":
            return 200, self.server.dice.report()
        if path == "/charges":
            return books.entries_since(_cursor(query), _limit(query))
        collection, key, step = _split(path)
        if collection == "intents" and key and not step:
            return books.intent(key)
        if collection == "refunds" and key and not step:
            return books.refund_in_books(key)
        raise RequestError(404, "no such route")

    def _write(self, path: str, _: dict[str, list[str]], body: dict[str, Any]) -> Answer | None:
        books = self.server.books
        if path == "/intents":
            fields = _intent_fields(body)
            return self._with_faults("create", None, lambda: books.create_intent(fields))
        if path == "/refunds":
            fields = _refund_fields(body)
            return self._with_faults("refund", None, lambda: books.refund(fields))
        if path == "/faults":
            return self._load_faults(body)
        collection, key, step = _split(path)
        if collection == "intents" and key and step == "confirm":
            return self._with_faults("confirm", key, lambda: books.confirm(key))
        if collection == "intents" and key and step == "cancel":
            return self._with_faults("cancel", None, lambda: books.cancel(key))
        raise RequestError(404, "no such route")

    def _with_faults(
        self, step: str, confirmed_key: str | None, act: Callable[[], Answer]
    ) -> Answer | None:
        """The step with what goes wrong around it; None: no answer at all."""
        settings = self.server.dice.settings
        fault = self._choose_fault(step, confirmed_key)
        if fault == "timeout_before":
            return None
        if fault == "error_before":
            return 500, {"error": "internal error"}
        if fault == "rate_limited":
            return 429, {"error": "too many requests"}
        if fault == "late" and confirmed_key is not None:
            return self._postpone(confirmed_key)
        if fault == "slow":
            time.sleep(settings.slow_seconds)
        answer = act()
        if fault == "slow_answer":
            time.sleep(settings.slow_seconds)
        if fault == "timeout_after":
            return None
        if fault == "error_after":
            return 500, {"error": "internal error"}
        return _falsify(answer, fault)

    def _choose_fault(self, step: str, confirmed_key: str | None) -> str | None:
        """What the payment method asks for on its first confirmation, else what is drawn."""
        intent = self.server.books.newest_intent(confirmed_key) if confirmed_key else None
        magic = magic_fault(intent["payment_method"]) if intent else None
        if intent is not None and magic and self.server.books.is_first_try(intent["intent_id"]):
            self.server.dice.note_magic(magic)
            return magic
        return self.server.dice.call_fault(step)

    def _postpone(self, key: str) -> Answer:
        intent = self.server.books.newest_intent(key)
        if intent is not None:
            self.server.books.postpone_confirm(
                intent["intent_id"],
                time.time() + self.server.dice.settings.late_seconds,
                ignores_tombstone=self.server.dice.happens("tombstone_ignored"),
            )
        return 404, {"error": "no such intent"}

    def _load_faults(self, body: dict[str, Any]) -> Answer:
        try:
            settings = read_fault_settings(body)
        except ValueError as error:
            raise RequestError(400, str(error)) from error
        self.server.books.keep_setting("faults", settings_as_text(settings))
        self.server.books.key_life_seconds = settings.key_life_seconds
        self.server.dice.load(settings)
        return 200, self.server.dice.report()

    def _check_key(self, path: str) -> None:
        expected = f"Bearer {self.server.api_key}".encode()
        given = self.headers.get("Authorization", "").encode()
        if path != "/health" and not hmac.compare_digest(given, expected):
            raise RequestError(401, "the API key is missing or wrong")

    def _read_body(self) -> dict[str, Any]:
        length_text = self.headers.get("Content-Length", "0")
        length = int(length_text) if length_text.isascii() and length_text.isdigit() else -1
        if "Transfer-Encoding" in self.headers or not 0 <= length <= BODY_BYTES_MAX:
            self.close_connection = True
            raise RequestError(413, f"a body has a length of at most {BODY_BYTES_MAX} bytes")
        text = self.rfile.read(length)
        if not text:
            return {}
        try:
            body = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RequestError(400, "the body is not JSON") from error
        if not isinstance(body, dict):
            raise RequestError(400, "the body is not a JSON object")
        return body

    def _reply(self, status: int, body: dict[str, Any]) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(payload)

    def _hang(self) -> None:
        """Say nothing until the client goes away (or for ``hang_seconds``), then hang up."""
        self.close_connection = True
        deadline = time.monotonic() + self.server.dice.settings.hang_seconds
        while (left := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select([self.connection], [], [], left)
            if not readable or not self.connection.recv(4096, socket.MSG_DONTWAIT):
                return


def plan_webhook(dice: FaultDice) -> WebhookPlan:
    """What becomes of the next webhook: lost, several times, late, or simply sent."""
    if dice.happens("webhook_lost"):
        return WebhookPlan(copies=0)
    copies = round(dice.spread(2, 5)) if dice.happens("webhook_duplicated") else 1
    is_late = dice.happens("webhook_reordered")
    delay_seconds = dice.spread(0, dice.settings.reorder_seconds) if is_late else 0.0
    return WebhookPlan(copies, delay_seconds)


def _falsify(answer: Answer, fault: str | None) -> Answer:
    """The answer with one field that is not what the books say."""
    status, body = answer
    if status != 200 or body.get("amount_minor") is None:
        return answer
    if fault == "wrong_amount":
        return status, {**body, "amount_minor": body["amount_minor"] + 1}
    if fault == "wrong_currency":
        return status, {**body, "currency": "USD" if body["currency"] != "USD" else "KRW"}
    if fault == "wrong_key":
        return status, {**body, "key": f"{body['key']}-other"}
    return answer


def _split(path: str) -> tuple[str, str, str]:
    """``/intents/{key}/confirm`` as its three parts; missing ones are empty."""
    parts = path.split("/")
    if len(parts) not in (3, 4) or parts[0]:
        return "", "", ""
    return parts[1], unquote(parts[2]), parts[3] if len(parts) == 4 else ""


def _cursor(query: dict[str, list[str]]) -> int:
    text = query.get("since", ["0"])[0]
    if not (text.isascii() and text.isdigit() and len(text) <= CURSOR_DIGITS_MAX):
        raise RequestError(400, "since is not a cursor of ours")
    return int(text)


def _limit(query: dict[str, list[str]]) -> int:
    text = query.get("limit", [str(PAGE_LIMIT_DEFAULT)])[0]
    if not (text.isascii() and text.isdigit() and len(text) <= CURSOR_DIGITS_MAX):
        raise RequestError(400, "limit is not a number")
    return max(1, min(int(text), PAGE_LIMIT_MAX))


def _intent_fields(body: dict[str, Any]) -> dict[str, Any]:
    names = ("key", "amount_minor", "currency", "payment_method", "order_id", "payment_id")
    return _checked(body, names, optional=())


def _refund_fields(body: dict[str, Any]) -> dict[str, Any]:
    names = ("key", "charge_key", "provider_ref", "amount_minor", "currency")
    return _checked(body, names, optional=("provider_ref",))


def _checked(
    body: dict[str, Any], names: tuple[str, ...], *, optional: tuple[str, ...]
) -> dict[str, Any]:
    """Exactly these fields, each readable; raises RequestError naming the first that is not."""
    unknown = sorted(set(body) - set(names))
    if unknown:
        raise RequestError(400, f"unknown field {unknown[0]}")
    readers = {"amount_minor": amount_in, "currency": currency_in}
    fields: dict[str, Any] = {}
    for name in names:
        value = body.get(name)
        fields[name] = readers.get(name, text_in)(value)
        if fields[name] is None and not (value is None and name in optional):
            raise RequestError(400, f"{name} is missing or unreadable")
    return fields
