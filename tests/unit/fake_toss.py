"""A double of the part of Toss Payments' API that the adapter uses, over HTTP, with faults.

It keeps its own records: payments by ``paymentKey``, their cancellations, and every transaction.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from uuid import uuid4

# Any: the objects of the API, which the tests read by key
Response = tuple[int, Any]

SECRET_KEY = "test_sk_double"
KOREA = timezone(timedelta(hours=9))
CARD, VIRTUAL_ACCOUNT = "카드", "가상계좌"


class FakeToss:
    """Objects in memory; each of ``faults`` applies to the next POST to a path with that end."""

    def __init__(self) -> None:
        self.payments: dict[str, dict[str, Any]] = {}
        self.transactions: list[dict[str, Any]] = []
        self.faults: list[tuple[str, str]] = []
        self.requests: list[tuple[str, str]] = []
        self._declines: set[str] = set()
        self._kept: dict[str, Response] = {}
        self._lock = threading.RLock()
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def captures(self, key: str) -> int:
        order_id = key.removeprefix("shop:")
        return sum(t["orderId"] == order_id and t["status"] == "DONE" for t in self.transactions)

    # ------------------------------------------------ what customers and staff do

    def authenticate(
        self, order_id: str, amount: int, method: str = CARD, *, declines: bool = False
    ) -> str:
        """The customer pays in the widget; returns the ``paymentKey`` of the success page."""
        payment_key = f"tgen_{uuid4().hex}"
        self.payments[payment_key] = {
            "paymentKey": payment_key, "orderId": order_id, "status": "IN_PROGRESS",
            "method": method, "currency": "KRW", "totalAmount": amount, "balanceAmount": amount,
            "requestedAt": _now(), "approvedAt": None, "cancels": None, "failure": None,
            "virtualAccount": None, "secret": None,
        }  # fmt: skip
        if declines:
            self._declines.add(payment_key)
        return payment_key

    def deposit(self, order_id: str) -> dict[str, Any]:
        """The customer transfers the amount; returns the webhook about it."""
        payment = self.of_order(order_id)
        assert payment["status"] == "WAITING_FOR_DEPOSIT", payment
        key = self._collect(payment)
        return {
            "createdAt": _now(), "secret": payment["secret"], "status": "DONE",
            "transactionKey": key, "orderId": order_id,
        }  # fmt: skip

    def refund_by_hand(self, order_id: str, amount: int) -> str:
        """Staff cancel a part of a payment in the dashboard; returns the transaction's key."""
        payment = self.of_order(order_id)
        status, body = self._cancel(payment, {"cancelReason": "by hand", "cancelAmount": amount})
        assert status == 200, body
        return str(payment["cancels"][-1]["transactionKey"])

    def of_order(self, order_id: str) -> dict[str, Any]:
        """The newest payment of an order, confirmed ones first."""
        found = [p for p in self.payments.values() if p["orderId"] == order_id]
        found.sort(key=lambda payment: payment["status"] == "IN_PROGRESS")
        return found[0]

    # ------------------------------------------------ the API

    def respond(self, method: str, path: str, body: dict[str, Any], key: str) -> Response | None:
        with self._lock:
            self.requests.append((method, path))
            fault = self._next_fault(path) if method == "POST" else None
            if fault in ("timeout_before", "429"):
                return None if fault == "timeout_before" else _error(429, "TOO_MANY_REQUESTS")
            response = self._keyed(path, body, key) if method == "POST" else self._get(path, body)
        match fault:
            case "timeout_after":
                return None
            case "500_after":
                return _error(500, "FAILED_INTERNAL_SYSTEM_PROCESSING")
            case "wrong_amount":
                return response[0], {**response[1], "totalAmount": response[1]["totalAmount"] + 1}
            case "wrong_order":
                return response[0], {**response[1], "orderId": str(uuid4())}
            case _:
                return response

    def hang(self) -> None:
        self._released.wait(10)

    def _next_fault(self, path: str) -> str | None:
        for fault in self.faults:
            if path.endswith(fault[0]):
                self.faults.remove(fault)
                return fault[1]
        return None

    def _keyed(self, path: str, body: dict[str, Any], key: str) -> Response:
        """A key has the response of its first request, also with another body."""
        if key not in self._kept:
            self._kept[key] = json.loads(json.dumps(self._post(path, body)))
        status, kept = self._kept[key]
        return status, kept

    def _post(self, path: str, body: dict[str, Any]) -> Response:
        if path == "/v1/payments/confirm":
            return self._confirm(body)
        payment = self.payments.get(unquote(path.split("/")[3]))
        return _error(404, "NOT_FOUND_PAYMENT") if payment is None else self._cancel(payment, body)

    def _confirm(self, body: dict[str, Any]) -> Response:
        payment = self.payments.get(body["paymentKey"])
        if payment is None or payment["orderId"] != body["orderId"]:
            return _error(404, "NOT_FOUND_PAYMENT")
        if payment["totalAmount"] != body["amount"]:
            return _error(400, "INVALID_REQUEST")
        if payment["status"] != "IN_PROGRESS":
            return _error(400, "ALREADY_PROCESSED_PAYMENT")
        if any(p["orderId"] == body["orderId"] and p["status"] not in ("IN_PROGRESS", "ABORTED")
               for p in self.payments.values()):  # fmt: skip
            return _error(400, "DUPLICATED_ORDER_ID")
        if body["paymentKey"] in self._declines:
            payment.update(status="ABORTED", failure={"code": "REJECT_CARD_COMPANY"})
            return _error(403, "REJECT_CARD_COMPANY")
        if payment["method"] == VIRTUAL_ACCOUNT:
            due = datetime.now(KOREA) + timedelta(hours=72)
            account = {"accountNumber": "79019639679511", "bankCode": "11",
                       "dueDate": due.isoformat(timespec="seconds"), "expired": False}  # fmt: skip
            payment.update(
                status="WAITING_FOR_DEPOSIT", virtualAccount=account, secret=f"ps_{uuid4().hex}"
            )
            self._record(payment, "WAITING_FOR_DEPOSIT", payment["totalAmount"])
            return 200, payment
        self._collect(payment)
        return 200, payment

    def _collect(self, payment: dict[str, Any]) -> str:
        payment.update(status="DONE", approvedAt=_now())
        return self._record(payment, "DONE", payment["totalAmount"])

    def _cancel(self, payment: dict[str, Any], body: dict[str, Any]) -> Response:
        amount = int(body.get("cancelAmount", payment["balanceAmount"]))
        if payment["status"] not in ("DONE", "PARTIAL_CANCELED", "WAITING_FOR_DEPOSIT"):
            return _error(400, "ALREADY_CANCELED_PAYMENT")
        if amount > payment["balanceAmount"]:
            return _error(403, "NOT_CANCELABLE_AMOUNT")
        was_paid = payment["approvedAt"] is not None
        if was_paid and payment["method"] == VIRTUAL_ACCOUNT and "refundReceiveAccount" not in body:
            return _error(400, "INVALID_REFUND_ACCOUNT_INFO")
        left = payment["balanceAmount"] - amount
        status = "PARTIAL_CANCELED" if left else "CANCELED"
        payment.update(status=status, balanceAmount=left)
        cancel = {
            "transactionKey": self._record(payment, status, amount), "cancelAmount": amount,
            "cancelReason": body["cancelReason"], "canceledAt": _now(), "cancelStatus": "DONE",
        }  # fmt: skip
        payment["cancels"] = [*(payment["cancels"] or []), cancel]
        return 200, payment

    def _record(self, payment: dict[str, Any], status: str, amount: int) -> str:
        key = uuid4().hex.upper()
        self.transactions.append({
            "transactionKey": key, "paymentKey": payment["paymentKey"], "amount": amount,
            "orderId": payment["orderId"], "method": payment["method"], "status": status,
            "transactionAt": _now(), "currency": "KRW",
        })  # fmt: skip
        return key

    def _get(self, path: str, query: dict[str, Any]) -> Response:
        parts = path.split("/")[2:]
        if parts == ["transactions"]:
            return 200, self._listed(query)
        if parts[:2] == ["payments", "orders"]:
            is_known = any(p["orderId"] == unquote(parts[2]) for p in self.payments.values())
            found = self.of_order(unquote(parts[2])) if is_known else None
        else:
            found = self.payments.get(unquote(parts[1]))
        return _error(404, "NOT_FOUND_PAYMENT") if found is None else (200, found)

    def _listed(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        rows = [
            row
            for row in self.transactions
            if query["startDate"] <= row["transactionAt"][:19] <= query["endDate"]
        ]
        if "startingAfter" in query:
            keys = [row["transactionKey"] for row in rows]
            rows = rows[keys.index(query["startingAfter"]) + 1 :]
        return rows[: int(query["limit"])]


def _now() -> str:
    return datetime.fromtimestamp(time.time(), KOREA).isoformat(timespec="seconds")


def _error(status: int, code: str) -> Response:
    return status, {"code": code, "message": "rejected"}


def _handler_of(fake: FakeToss) -> type[BaseHTTPRequestHandler]:
    expected = "Basic " + base64.b64encode(f"{SECRET_KEY}:".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            self._reply(lambda: fake.respond("GET", parts.path, dict(parse_qsl(parts.query)), ""))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            key = self.headers["Idempotency-Key"]
            self._reply(lambda: fake.respond("POST", self.path, body, key))

        def _reply(self, respond: Any) -> None:
            is_known = self.headers["Authorization"] == expected
            response = respond() if is_known else _error(401, "UNAUTHORIZED_KEY")
            if response is None:
                fake.hang()
                self.close_connection = True
                return
            payload = json.dumps(response[1]).encode()
            self.send_response(response[0])
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *args: object) -> None:
            """Does not log."""

    return Handler
