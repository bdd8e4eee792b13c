"""The HTTP API of the payment simulator: JSON, an API key as bearer token, faults on request."""

from __future__ import annotations

import hmac
import json
import select
import socket
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, TypeVar, cast
from urllib.parse import parse_qs, quote, unquote, urlsplit

from shop.adapters.payment_provider.response_fields import amount_in, currency_in, text_in
from tools.payment_simulator.dashboard import Dashboard
from tools.payment_simulator.faults import (
    Fault,
    FaultSource,
    fault_of_method,
    read_fault_settings,
    settings_as_text,
)
from tools.payment_simulator.pages import POLICY, page_after, payment_page
from tools.payment_simulator.records import (
    IntentFields,
    ProviderRecords,
    RefundFields,
    Response,
    WebhookPlan,
)

BODY_BYTES_MAX = 65_536
PAGE_LIMIT_DEFAULT = 100
PAGE_LIMIT_MAX = 500
IDLE_SECONDS_MAX = 120
CURSOR_DIGITS_MAX = 18
CUSTOMER_STEPS = ("finish", "fail", "deposit")

T = TypeVar("T")
Body = dict[str, object]
Query = dict[str, list[str]]
Step = Literal["create", "confirm", "cancel", "refund"]
Route = Callable[[str, Query, Body], Response | None]


class RequestError(Exception):
    """A client error that is found before the records are read: status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.response: Response = (status, {"error": reason})


class SimulatorServer(ThreadingHTTPServer):
    """The listening server, with the state that its handlers share."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(
        self,
        address: tuple[str, int],
        records: ProviderRecords,
        fault_source: FaultSource,
        api_key: str,
        return_url: str = "",
        public_url: str = "",
    ) -> None:
        super().__init__(address, SimulatorHandler)
        self.records = records
        self.dashboard = Dashboard(records)
        self.fault_source = fault_source
        self.api_key = api_key
        self.return_url = return_url
        self.public_url = public_url.rstrip("/")

    def handle_error(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Ignores disconnected clients; prints every other exception."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class SimulatorHandler(BaseHTTPRequestHandler):
    """Handles the requests of one connection."""

    protocol_version = "HTTP/1.1"
    server_version = "msa-shop-sandbox"
    sys_version = ""
    timeout = IDLE_SECONDS_MAX
    disable_nagle_algorithm = True
    wbufsize = 65_536

    def do_GET(self) -> None:
        """Responds with health, records, fault settings, one intent, refund or page."""
        if (reference := self._browsed_payment()) is not None:
            self._show_payment(reference)
        else:
            self._serve(self._read)

    def do_POST(self) -> None:
        """Changes intents and creates refunds, also from the dashboard, and loads faults."""
        if (reference := self._browsed_payment()) is not None:
            self._act_and_return(reference)
        else:
            self._serve(self._write)

    def log_message(self, format: str, *args: object) -> None:
        """Does not log: ``GET /records`` returns every operation."""

    @property
    def _simulator(self) -> SimulatorServer:
        assert isinstance(self.server, SimulatorServer)
        return self.server

    def _browsed_payment(self) -> str | None:
        """The reference of a payment that a customer's browser has opened; None: a program."""
        collection, reference, _ = _split_path(urlsplit(self.path).path)
        is_browser = "text/html" in self.headers.get("Accept", "")
        return reference if collection == "pay" and is_browser else None

    def _show_payment(self, reference: str) -> None:
        payment = self._simulator.records.customers.payment(reference)
        page = payment_page(payment, self._simulator.return_url).encode()
        self.send_response(200 if payment else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def _act_and_return(self, reference: str) -> None:
        """Does what a button of the page says, and leads back to the shop, or to the page."""
        length = self.headers.get("Content-Length", "0")
        if length != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # the buttons send no body
        step = _split_path(urlsplit(self.path).path)[2]
        customers = self._simulator.records.customers
        payment = customers.payment(reference)
        if payment is None or step not in CUSTOMER_STEPS:
            self._show_payment(reference)
            return
        status, _ = customers.act(reference, step)
        target = page_after(payment, self._simulator.return_url) if status == 200 else ""
        self.send_response(303)
        self.send_header("Location", target or f"/pay/{quote(reference, safe='')}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _serve(self, route: Route) -> None:
        try:
            # Read the body before any error, or its bytes would be parsed as the next request.
            body = self._read_body()
            parts = urlsplit(self.path)
            self._check_key(parts.path)
            response = route(parts.path, parse_qs(parts.query), body)
        except RequestError as error:
            response = error.response
        if response is None:
            self._hang()
        else:
            self._reply(*response)

    def _read(self, path: str, query: Query, _: Body) -> Response:
        records = self._simulator.records
        if path == "/health":
            return 200, {"status": "ok"}
        if path == "/records":
            return records.all_records()
        if path == "/faults":
            return 200, self._simulator.fault_source.report()
        if path == "/scheduled":
            return records.scheduled()
        if path == "/charges":
            return records.entries_since(_parse_cursor(query), _parse_limit(query))
        collection, key, step = _split_path(path)
        if collection == "intents" and key and not step:
            return records.intent(key)
        if collection == "refunds" and key and not step:
            return records.refund_by_key(key)
        raise RequestError(404, "no such route")

    def _write(self, path: str, _: Query, body: Body) -> Response | None:
        records = self._simulator.records
        if path == "/intents":
            fields = _intent_fields(body)
            return self._with_faults("create", None, lambda: records.create_intent(fields))
        if path == "/refunds":
            refund = _refund_fields(body)
            return self._with_faults("refund", None, lambda: records.refund(refund))
        if path == "/faults":
            return self._load_faults(body)
        if path.startswith("/dashboard/"):
            return self._use_dashboard(path.removeprefix("/dashboard/"), body)
        collection, key, step = _split_path(path)
        if collection == "pay" and key and step in CUSTOMER_STEPS:
            return records.customers.act(key, step)
        if collection == "intents" and key and step == "confirm":
            token = _optional(body, "token", text_in)
            return self._with_faults("confirm", key, lambda: records.confirm(key, token))
        if collection == "intents" and key and step == "cancel":
            return self._with_faults("cancel", None, lambda: records.cancel(key))
        raise RequestError(404, "no such route")

    def _use_dashboard(self, path: str, body: Body) -> Response:
        """What happens without a request of the shop; never with a fault."""
        dashboard = self._simulator.dashboard
        match path.split("/"):
            case ["refunds"]:
                return dashboard.refund(*_charge_and_amount(body))
            case ["refunds", reference, "failed"]:
                return dashboard.fail_refund(unquote(reference))
            case ["disputes"]:
                fee_minor = _optional(body, "fee_minor", amount_in) or 0
                return dashboard.dispute(*_charge_and_amount(body), fee_minor)
            case ["disputes", reference, ("won" | "lost") as result]:
                return dashboard.close_dispute(unquote(reference), result)
            case ["intents", key, "capture"]:
                return self._simulator.records.confirm(unquote(key))
            case [("other-shop-charges" | "payouts") as what]:
                amount_minor = _required(body, "amount_minor", amount_in)
                currency = _required(body, "currency", currency_in)
                is_payout = what == "payouts"
                act = dashboard.payout if is_payout else dashboard.charge_of_other_shop
                return act(amount_minor, currency)
            case _:
                raise RequestError(404, "no such route")

    def _with_faults(
        self, step: Step, confirmed_key: str | None, operation: Callable[[], Response]
    ) -> Response | None:
        """Runs the operation with at most one fault; None means that no response is sent."""
        fault = self._choose_fault(step, confirmed_key)
        match fault:
            case Fault.TIMEOUT_BEFORE:
                return None
            case Fault.ERROR_BEFORE:
                return 500, {"error": "internal error"}
            case Fault.RATE_LIMITED:
                return 429, {"error": "too many requests"}
            case Fault.LATE if confirmed_key is not None:
                return self._postpone(confirmed_key)
            case Fault.SLOW:
                time.sleep(self._simulator.fault_source.settings.slow_seconds)
            case _:
                pass
        return self._with_fault_after(fault, operation())

    def _with_fault_after(self, fault: Fault | None, response: Response) -> Response | None:
        """The response to a completed operation, changed by the fault."""
        match fault:
            case Fault.TIMEOUT_AFTER:
                return None
            case Fault.ERROR_AFTER:
                return 500, {"error": "internal error"}
            case Fault.SLOW_ANSWER:
                time.sleep(self._simulator.fault_source.settings.slow_seconds)
                return response
            case _:
                return _falsify(response, fault)

    def _choose_fault(self, step: Step, confirmed_key: str | None) -> Fault | None:
        """The fault of the payment method on its first confirmation, else a drawn one."""
        intent = self._simulator.records.newest_intent(confirmed_key) if confirmed_key else None
        fault = fault_of_method(intent["payment_method"]) if intent else None
        if (
            intent is not None
            and fault
            and self._simulator.records.is_first_try(intent["intent_id"])
        ):
            self._simulator.fault_source.count_method_fault(fault)
            return fault
        return self._simulator.fault_source.draw_call_fault(step)

    def _postpone(self, key: str) -> Response:
        intent = self._simulator.records.newest_intent(key)
        if intent is not None:
            self._simulator.records.postpone_confirm(
                intent["intent_id"],
                time.time() + self._simulator.fault_source.settings.late_seconds,
                ignores_tombstone=self._simulator.fault_source.draw_fault(Fault.TOMBSTONE_IGNORED),
            )
        return 404, {"error": "no such intent"}

    def _load_faults(self, body: Body) -> Response:
        try:
            settings = read_fault_settings(body)
        except ValueError as error:
            raise RequestError(400, str(error)) from error
        self._simulator.records.store_setting("faults", settings_as_text(settings))
        self._simulator.records.key_life_seconds = settings.key_life_seconds
        self._simulator.fault_source.load(settings)
        return 200, self._simulator.fault_source.report()

    def _check_key(self, path: str) -> None:
        expected = f"Bearer {self._simulator.api_key}".encode()
        given = self.headers.get("Authorization", "").encode()
        is_public = path == "/health" or path.startswith("/pay/")
        if not is_public and not hmac.compare_digest(given, expected):
            raise RequestError(401, "the API key is missing or wrong")

    def _read_body(self) -> Body:
        length_text = self.headers.get("Content-Length", "0")
        length = int(length_text) if length_text.isascii() and length_text.isdigit() else -1
        if "Transfer-Encoding" in self.headers or not 0 <= length <= BODY_BYTES_MAX:
            self.close_connection = True
            raise RequestError(413, f"a body has a length of at most {BODY_BYTES_MAX} bytes")
        text = self.rfile.read(length)
        if not text:
            return {}
        try:
            body: object = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RequestError(400, "the body is not JSON") from error
        if not isinstance(body, dict):
            raise RequestError(400, "the body is not a JSON object")
        return cast("Body", body)  # the keys of a JSON object are strings

    def _reply(self, status: int, body: Body) -> None:
        action, public_url = body.get("next_action"), self._simulator.public_url
        if public_url and isinstance(action, dict):
            body = {**body, "next_action": {**action, "url": f"{public_url}{action['path']}"}}
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(payload)

    def _hang(self) -> None:
        """Sends no response until the client disconnects or ``hang_seconds`` pass."""
        self.close_connection = True
        deadline = time.monotonic() + self._simulator.fault_source.settings.hang_seconds
        while (left := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select([self.connection], [], [], left)
            if not readable or not self.connection.recv(4096, socket.MSG_DONTWAIT):
                return


def plan_webhook(fault_source: FaultSource) -> WebhookPlan:
    """How the next webhook is sent: once, or with drawn faults."""
    if fault_source.draw_fault(Fault.WEBHOOK_LOST):
        return WebhookPlan(copies=0)
    is_duplicated = fault_source.draw_fault(Fault.WEBHOOK_DUPLICATED)
    copies = round(fault_source.uniform(2, 5)) if is_duplicated else 1
    is_late = fault_source.draw_fault(Fault.WEBHOOK_REORDERED)
    delay_seconds = (
        fault_source.uniform(0, fault_source.settings.reorder_seconds) if is_late else 0.0
    )
    return WebhookPlan(copies, delay_seconds)


def _falsify(response: Response, fault: Fault | None) -> Response:
    """The response with one field that differs from the records."""
    status, body = response
    amount_minor = body.get("amount_minor")
    if status != 200 or not isinstance(amount_minor, int):
        return response
    match fault:
        case Fault.WRONG_AMOUNT:
            return status, {**body, "amount_minor": amount_minor + 1}
        case Fault.WRONG_CURRENCY:
            return status, {**body, "currency": "USD" if body["currency"] != "USD" else "KRW"}
        case Fault.WRONG_KEY:
            return status, {**body, "key": f"{body['key']}-other"}
        case _:
            return response


def _split_path(path: str) -> tuple[str, str, str]:
    """``/intents/{key}/confirm`` as its three parts; missing ones are empty."""
    parts = path.split("/")
    if len(parts) not in (3, 4) or parts[0]:
        return "", "", ""
    return parts[1], unquote(parts[2]), parts[3] if len(parts) == 4 else ""


def _parse_cursor(query: Query) -> int:
    text = query.get("since", ["0"])[0]
    if not (text.isascii() and text.isdigit() and len(text) <= CURSOR_DIGITS_MAX):
        raise RequestError(400, "since is not a valid cursor")
    return int(text)


def _parse_limit(query: Query) -> int:
    text = query.get("limit", [str(PAGE_LIMIT_DEFAULT)])[0]
    if not (text.isascii() and text.isdigit() and len(text) <= CURSOR_DIGITS_MAX):
        raise RequestError(400, "limit is not a number")
    return max(1, min(int(text), PAGE_LIMIT_MAX))


def _intent_fields(body: Body) -> IntentFields:
    _check_names(body, IntentFields)
    return IntentFields(
        key=_required(body, "key", text_in),
        amount_minor=_required(body, "amount_minor", amount_in),
        currency=_required(body, "currency", currency_in),
        payment_method=_required(body, "payment_method", text_in),
        order_id=_required(body, "order_id", text_in),
        payment_id=_required(body, "payment_id", text_in),
    )


def _refund_fields(body: Body) -> RefundFields:
    _check_names(body, RefundFields)
    return RefundFields(
        key=_required(body, "key", text_in),
        charge_key=_required(body, "charge_key", text_in),
        provider_ref=_optional(body, "provider_ref", text_in),
        amount_minor=_required(body, "amount_minor", amount_in),
        currency=_required(body, "currency", currency_in),
    )


def _charge_and_amount(body: Body) -> tuple[str, int | None]:
    charge_key = _required(body, "charge_key", text_in)
    return charge_key, _optional(body, "amount_minor", amount_in)


def _optional(body: Body, name: str, read: Callable[[object], T | None]) -> T | None:
    return None if body.get(name) is None else _required(body, name, read)


def _check_names(body: Body, fields: type[IntentFields] | type[RefundFields]) -> None:
    unknown = sorted(set(body) - set(fields.__annotations__))
    if unknown:
        raise RequestError(400, f"unknown field {unknown[0]}")


def _required(body: Body, name: str, read: Callable[[object], T | None]) -> T:
    value = read(body.get(name))
    if value is None:
        raise RequestError(400, f"{name} is missing or invalid")
    return value
