"""A fake of the part of Stripe's API that the adapter uses, over HTTP, with faults.

localstripe lacks idempotency keys, search and refund limits, on which the adapter depends.
"""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

# Any: Stripe's objects, which the tests read by key
Response = tuple[int, dict[str, Any]]
SCA_CARD = "pm_card_authenticationRequired"
SCA_CARD_DECLINED = "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds"


class FakeStripe:
    """Objects in memory; each of ``faults`` applies to the next POST to a path with that end."""

    def __init__(self) -> None:
        self.intents: dict[str, dict[str, Any]] = {}
        self.charges: dict[str, dict[str, Any]] = {}
        self.refunds: dict[str, dict[str, Any]] = {}
        self.disputes: dict[str, dict[str, Any]] = {}
        self.events: dict[str, dict[str, Any]] = {}
        self.faults: list[tuple[str, str]] = []
        self.requests: list[tuple[str, str]] = []
        self.refund_status = "succeeded"
        self._kept: dict[str, tuple[Any, Response]] = {}
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

    def expire_keys(self) -> None:
        self._kept.clear()

    def captures(self, key: str) -> int:
        return sum(charge["metadata"]["shop_key"] == key and charge["captured"]
                   for charge in self.charges.values())  # fmt: skip

    # ------------------------------------------------ what is done in Stripe's dashboard

    def refund_by_hand(self, key: str, amount: int) -> dict[str, Any]:
        """Staff refund a charge; the refund has no metadata of the shop."""
        form = {"payment_intent": self._intent_of(key)["id"], "amount": str(amount)}
        status, refund = self._refund(form)
        assert status == 200, refund
        return refund

    def change_refund(self, refund_id: str, status: str) -> dict[str, Any]:
        """The bank executes a pending refund, or returns the money of one that had succeeded."""
        refund = self.refunds[refund_id]
        refund["status"] = status
        names = ("refund.updated", "refund.failed") if status == "failed" else ("refund.updated",)
        for name in names:
            event: dict[str, Any] = {
                "id": f"evt_{uuid4().hex}", "object": "event", "type": name,
                "created": int(time.time()), "data": {"object": dict(refund)},
            }  # fmt: skip
            self.events[event["id"]] = event
        return refund

    def open_dispute(self, key: str, fee: int) -> dict[str, Any]:
        """The customer disputes a charge: Stripe withdraws its amount and a fee."""
        intent = self._intent_of(key)
        dispute: dict[str, Any] = {
            "id": f"dp_{uuid4().hex}", "object": "dispute", "amount": intent["amount"],
            "currency": intent["currency"], "created": int(time.time()), "metadata": {},
            "payment_intent": intent["id"], "charge": f"ch_{uuid4().hex}",
            "status": "needs_response",
            "balance_transactions": [_balance(-intent["amount"], fee, intent["currency"])],
        }  # fmt: skip
        self.disputes[dispute["id"]] = dispute
        return dispute

    def close_dispute(self, dispute_id: str, *, is_won: bool) -> dict[str, Any]:
        """Stripe closes a dispute; a won one pays the amount back, and not the fee."""
        dispute = self.disputes[dispute_id]
        dispute["status"] = "won" if is_won else "lost"
        if is_won:
            paid_back = _balance(dispute["amount"], 0, dispute["currency"])
            dispute["balance_transactions"].append(paid_back)
        return dispute

    def charge_of_other_shop(self, amount: int) -> dict[str, Any]:
        """Another shop on the same account charges."""
        charge: dict[str, Any] = {
            "id": f"ch_{uuid4().hex}", "object": "charge", "amount": amount,
            "amount_captured": amount, "captured": True, "status": "succeeded", "currency": "krw",
            "created": int(time.time()), "payment_intent": f"pi_{uuid4().hex}", "metadata": {},
        }  # fmt: skip
        self.charges[charge["id"]] = charge
        return charge

    def _intent_of(self, key: str) -> dict[str, Any]:
        return next(i for i in self.intents.values() if i["metadata"]["shop_key"] == key)

    def respond(self, method: str, path: str, form: dict[str, Any], key: str) -> Response | None:
        with self._lock:
            self.requests.append((method, path))
            fault = self._next_fault(path) if method == "POST" else None
            if fault in ("timeout_before", "429"):
                return None if fault == "timeout_before" else _error(429, "rate_limit")
            response = self._keyed(path, form, key) if method == "POST" else self._get(path, form)
        if fault == "timeout_after":
            return None
        if fault == "500_after":
            return 500, {"error": {"type": "api_error", "message": "oops"}}
        if fault == "wrong_amount":
            return response[0], {**response[1], "amount": response[1]["amount"] + 1}
        if fault == "wrong_key":
            return response[0], {**response[1], "metadata": {"shop_key": "another"}}
        return response

    def hang(self) -> None:
        self._released.wait(10)

    def _next_fault(self, path: str) -> str | None:
        for fault in self.faults:
            if path.endswith(fault[0]):
                self.faults.remove(fault)
                return fault[1]
        return None

    def _keyed(self, path: str, form: dict[str, Any], key: str) -> Response:
        if key in self._kept:
            if self._kept[key][0] != (path, form):
                return _error(400, None, "idempotency_error")
            return self._kept[key][1]
        response = json.loads(json.dumps(self._post(path, form)))
        self._kept[key] = ((path, form), (response[0], response[1]))
        return response[0], response[1]

    def _post(self, path: str, form: dict[str, Any]) -> Response:
        parts = path.split("/")[2:]
        if parts == ["payment_intents"]:
            return self._create(form)
        if parts == ["refunds"]:
            return self._refund(form)
        intent = self.intents.get(parts[1])
        if intent is None:
            return _error(404, "resource_missing")
        return self._confirm(intent, form) if parts[2] == "confirm" else self._cancel(intent)

    def _create(self, form: dict[str, Any]) -> Response:
        if not form["payment_method"].startswith("pm_card_"):
            return _error(400, "resource_missing")
        intent: dict[str, Any] = {
            "id": f"pi_{uuid4().hex}", "object": "payment_intent", "amount": int(form["amount"]),
            "amount_received": 0, "currency": form["currency"], "created": int(time.time()),
            "status": "requires_confirmation", "payment_method": form["payment_method"],
            "last_payment_error": None, "cancellation_reason": None, "metadata": form["metadata"],
            "next_action": None, "client_secret": f"pi_secret_{uuid4().hex}",
        }  # fmt: skip
        self.intents[intent["id"]] = intent
        return 200, intent

    def authenticate(self, key: str, *, succeeds: bool) -> None:
        """The customer finishes, or fails, what the bank of an SCA test card asks for."""
        intent = self._intent_of(key)
        assert intent["status"] == "requires_action", intent
        is_declined = intent["payment_method"] != SCA_CARD
        self._collect(intent, is_declined=is_declined or not succeeds)

    def _confirm(self, intent: dict[str, Any], form: dict[str, Any]) -> Response:
        if intent["status"] != "requires_confirmation":
            return _error(400, "payment_intent_unexpected_state", payment_intent=intent)
        if intent["payment_method"] in (SCA_CARD, SCA_CARD_DECLINED):
            url = f"https://hooks.stripe.com/redirect/{intent['id']}"
            redirect = {"url": url, "return_url": form.get("return_url")}
            by_redirect = {"type": "redirect_to_url", "redirect_to_url": redirect}
            action = by_redirect if "return_url" in form else {"type": "use_stripe_sdk"}
            intent.update(status="requires_action", next_action=action)
            return 200, intent
        return self._collect(
            intent, is_declined=intent["payment_method"] == "pm_card_visa_chargeDeclined"
        )

    def _collect(self, intent: dict[str, Any], *, is_declined: bool) -> Response:
        intent["next_action"] = None
        charge_id = f"ch_{uuid4().hex}"
        self.charges[charge_id] = {
            "id": charge_id, "object": "charge", "amount": intent["amount"],
            "amount_captured": 0 if is_declined else intent["amount"],
            "captured": not is_declined, "status": "failed" if is_declined else "succeeded",
            "currency": intent["currency"], "created": int(time.time()),
            "payment_intent": intent["id"], "metadata": intent["metadata"],
        }  # fmt: skip
        if is_declined:
            failure = {
                "type": "card_error", "code": "card_declined", "decline_code": "generic_decline"
            }  # fmt: skip
            intent.update(status="requires_payment_method", last_payment_error=failure)
            return 402, {"error": {**failure, "message": "declined", "payment_intent": intent}}
        intent.update(status="succeeded", amount_received=intent["amount"])
        return 200, intent

    def _cancel(self, intent: dict[str, Any]) -> Response:
        if intent["status"] in ("succeeded", "canceled", "processing"):
            return _error(400, "payment_intent_unexpected_state", payment_intent=intent)
        intent["status"] = "canceled"
        return 200, intent

    def _refund(self, form: dict[str, Any]) -> Response:
        of_intent = form["payment_intent"]
        charges = [charge for charge in self.charges.values()
                   if charge["payment_intent"] == of_intent and charge["captured"]]  # fmt: skip
        if not charges:
            return _error(400, "resource_missing")
        given = sum(refund["amount"] for refund in self.refunds.values()
                    if refund["payment_intent"] == of_intent)  # fmt: skip
        withheld = sum(dispute["amount"] for dispute in self.disputes.values()
                       if dispute["payment_intent"] == of_intent
                       and dispute["status"] in ("needs_response", "lost"))  # fmt: skip
        if withheld and given + withheld + int(form["amount"]) > charges[0]["amount"]:
            return _error(400, "charge_disputed")
        if given == charges[0]["amount"]:
            return _error(400, "charge_already_refunded")
        if given + int(form["amount"]) > charges[0]["amount"]:
            return _error(400, None, param="amount")
        refund: dict[str, Any] = {
            "id": f"re_{uuid4().hex}", "object": "refund", "amount": int(form["amount"]),
            "currency": charges[0]["currency"], "created": int(time.time()),
            "payment_intent": of_intent, "status": self.refund_status,
            "metadata": form.get("metadata", {}),
        }  # fmt: skip
        self.refunds[refund["id"]] = refund
        return 200, refund

    def _get(self, path: str, query: dict[str, Any]) -> Response:
        parts = path.split("/")[2:]
        if parts == ["payment_intents", "search"]:
            wanted = query["query"].removeprefix('metadata["shop_key"]:"').removesuffix('"')
            found = [intent for intent in self.intents.values()
                     if intent["metadata"]["shop_key"] == wanted]  # fmt: skip
            return 200, {"object": "search_result", "data": found, "has_more": False}
        if parts[0] == "payment_intents":
            found_intent = self.intents.get(parts[1])
            return (200, found_intent) if found_intent else _error(404, "resource_missing")
        listed = {
            "charges": self.charges,
            "refunds": self.refunds,
            "disputes": self.disputes,
            "events": self.events,
        }
        return self._list(path, listed[parts[0]], query)

    def _list(self, path: str, objects: dict[str, Any], query: dict[str, Any]) -> Response:
        created = query.get("created", {})
        rows = [
            item
            for item in reversed(list(objects.values()))
            if query.get("payment_intent") in (None, item.get("payment_intent"))
            and ("types" not in query or item["type"] in query["types"].values())
            and int(created.get("gte", 0)) <= item["created"] <= int(created.get("lte", 10**12))
        ]
        if "starting_after" in query:
            ids = [row["id"] for row in rows]
            rows = rows[ids.index(query["starting_after"]) + 1 :]
        limit = int(query.get("limit", 10))
        page = {"object": "list", "url": path, "data": rows[:limit], "has_more": len(rows) > limit}
        return 200, page


def _balance(amount: int, fee: int, currency: str) -> dict[str, Any]:
    return {
        "id": f"txn_{uuid4().hex}", "object": "balance_transaction", "amount": amount, "fee": fee,
        "net": amount - fee, "currency": currency, "created": int(time.time()),
    }  # fmt: skip


def _error(
    status: int, code: str | None, error_type: str = "invalid_request_error", **more: Any
) -> Response:
    return status, {"error": {"type": error_type, "code": code, "message": "rejected", **more}}


def _form(text: str) -> dict[str, Any]:
    """``a=1&m[k]=v`` as ``{"a": "1", "m": {"k": "v"}}``."""
    form: dict[str, Any] = {}
    for name, value in parse_qsl(text):
        outer, _, inner = name.partition("[")
        if inner:
            form.setdefault(outer, {})[inner.rstrip("]")] = value
        else:
            form[outer] = value
    return form


def _handler_of(fake: FakeStripe) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            self._reply(fake.respond("GET", parts.path, _form(parts.query), ""))

        def do_POST(self) -> None:
            form = _form(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
            self._reply(fake.respond("POST", self.path, form, self.headers["Idempotency-Key"]))

        def _reply(self, response: Response | None) -> None:
            if self.headers["Authorization"] != "Bearer sk_test_fake":
                response = _error(401, None)
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
