"""The request that wakes each function: a real one, that the function answers from the database."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, LiteralString
from uuid import UUID, uuid4

from events import envelope
from events.envelope import CloudEvent
from events.orders import OrderPlaced
from events.refunds import RefundRequested
from events.vocabulary import CLOCK_TICKED
from shop.adapters.signatures import Signer
from shop.primitives.clock import utc_now
from shop.primitives.ids import new_uuid
from tools.bench.stand import Stand
from tools.seed import LOCAL_ACCOUNTS

# An order as place_order leaves it.
PLACE: LiteralString = """
with placed as (
  insert into shop.orders (order_id, user_id, status, total_minor, currency, payment_method,
    expires_at, hard_expires_at, charge_at)
  values (%(order_id)s, %(user_id)s, 'PENDING', 1000, 'KRW', 'CARD',
    now() + interval '1 hour', now() + interval '2 hours', now() + interval '1 hour')
  returning order_id, user_id
), lines as (
  insert into shop.order_lines (order_id, user_id, product_id, qty, unit_price_minor)
  select order_id, user_id, 1, 1, 1000 from placed
), held as (
  insert into shop.reservations (reservation_id, order_id, product_id, qty, status)
  select gen_random_uuid(), order_id, 1, 1, 'HELD' from placed
), logged as (
  insert into shop.transitions (entity, entity_id, order_id, from_status, to_status, actor)
  select 'order', order_id, order_id, '-', 'PENDING', 'bench' from placed
)
update shop.stock set reserved = reserved + 1, on_hand = on_hand + 1 where product_id = 1
"""

# A paid order whose refund waits to be sent.
PAY_AND_REFUND: LiteralString = """
with paid as (
  insert into shop.payments (payment_id, order_id, user_id, attempt, status, amount_minor,
    currency, payment_method, provider_key, provider_ref, refund_reserved_minor,
    charge_not_after, next_try_at)
  values (%(payment_id)s, %(order_id)s, %(user_id)s, 1, 'CAPTURED', 1000, 'KRW', 'CARD',
    %(payment_id)s::text, 'ch_' || %(payment_id)s::text, 1000, now(),
    now())
  returning payment_id
)
insert into shop.refunds (refund_id, payment_id, amount_minor, currency, reason, status,
  provider_key, next_try_at)
select %(refund_id)s, payment_id, 1000, 'KRW', 'USER', 'INTENT', %(refund_id)s::text,
  now() + interval '1 hour' from paid
"""


def first_request(stand: Stand, name: str) -> tuple[bytes, int]:
    """A fresh request for a function, as bytes, and the status of its right answer."""
    return _REQUESTS[name](stand)


def http_request(
    method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> bytes:
    """An HTTP/1.1 request, whole."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {text}" for name, text in (headers or {}).items()]
    if body or method in ("POST", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def json_request(
    method: str,
    path: str,
    body: Any = None,
    *,
    token: str | None = None,
    key: str | None = None,
    **headers: str,
) -> bytes:
    """An HTTP request with a JSON body, a token and an idempotency key, each if given."""
    sent = {name.replace("_", "-"): text for name, text in headers.items()}
    content = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
    if content:
        sent["Content-Type"] = "application/json"
    if token:
        sent["Authorization"] = f"Bearer {token}"
    if key:
        sent["Idempotency-Key"] = key
    return http_request(method, path, sent, content)


def _asked(
    method: str, path: str, body: Any = None, *, role: str = "customer", status: int = 200
) -> Callable[[Stand], tuple[bytes, int]]:
    def make(stand: Stand) -> tuple[bytes, int]:
        token = stand.token(stand.account(role), role)
        key = uuid4().hex if method != "GET" else None
        return json_request(method, path, body, token=token, key=key), status

    return make


def _public(
    method: str, path: str, body: Any = None, *, status: int = 200
) -> Callable[[Stand], tuple[bytes, int]]:
    return lambda _stand: (json_request(method, path, body), status)


def _login(_stand: Stand) -> tuple[bytes, int]:
    _, email, password = LOCAL_ACCOUNTS[0]
    return json_request("POST", "/auth/login", {"email": email, "password": password}), 200


def _register(_stand: Stand) -> tuple[bytes, int]:
    person = {"email": f"{uuid4().hex}@bench.kr", "password": uuid4().hex, "name": "새손님"}
    return json_request("POST", "/users", person, key=uuid4().hex), 201


def _cancel(stand: Stand) -> tuple[bytes, int]:
    order_id = _place(stand)
    token = stand.token(stand.account("customer"), "customer")
    return json_request("PATCH", f"/orders/{order_id}/cancel", token=token, key=uuid4().hex), 200


def _read_order(stand: Stand) -> tuple[bytes, int]:
    order_id = _place(stand)
    token = stand.token(stand.account("customer"), "customer")
    return json_request("GET", f"/orders/{order_id}", token=token), 200


def _webhook(stand: Stand) -> tuple[bytes, int]:
    """An authentic notice about a key that no payment of ours has: looked up, then refused."""
    notice = {
        "id": f"evt_{uuid4().hex}",
        "type": "charge.captured",
        "data": {
            "key": f"bench-{uuid4().hex}",
            "amount_minor": 1000,
            "currency": "KRW",
            "provider_ref": "ch_bench",
        },
    }
    body = json.dumps(notice).encode()
    stamp = str(int(time.time()))
    signed = stamp.encode() + b"." + body
    secret = stand.secrets.webhook_secret.encode()
    signature = hmac.new(secret, signed, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "Webhook-Signature": f"t={stamp},v1={signature}",
    }
    return http_request("POST", "/payments/webhook", headers, body), 422


def _charge(stand: Stand) -> tuple[bytes, int]:
    event = OrderPlaced(order_id=_place(stand))
    return _event(stand, event, "/shop/place_order", "ordering"), 204


def _refund(stand: Stand) -> tuple[bytes, int]:
    """A refund of a charge that the sandbox never made, so that its answer is a rejection."""
    event = RefundRequested(order_id=_place(stand), payment_id=new_uuid(), refund_id=new_uuid())
    stand.sql(
        PAY_AND_REFUND,
        order_id=event.order_id,
        user_id=stand.account("customer"),
        payment_id=event.payment_id,
        refund_id=event.refund_id,
    )
    return _event(stand, event, "/shop/cancel_order", "ordering"), 204


def _dead_letter(stand: Stand) -> tuple[bytes, int]:
    event = OrderPlaced(order_id=new_uuid())
    return _event(stand, event, "/shop/place_order", "ordering"), 204


def _tick(schedule: str) -> Callable[[Stand], tuple[bytes, int]]:
    def make(stand: Stand) -> tuple[bytes, int]:
        message = CloudEvent(
            id=str(new_uuid()),
            source="/shop/clock",
            type=CLOCK_TICKED,
            subject=schedule,
            time=utc_now(),
            data=b"{}",
        )
        return _signed(stand, message, "clock"), 204

    return make


def _event(stand: Stand, event: Any, source: str, domain: str) -> bytes:
    message = envelope.wrap(
        event, id=str(new_uuid()), source=source, time=utc_now(), traceparent=None
    )
    return _signed(stand, message, domain)


def _signed(stand: Stand, message: CloudEvent, domain: str) -> bytes:
    signed = Signer(domain, stand.secrets.event_keys[domain]).sign(message)
    headers, body = envelope.to_binary(signed)
    return http_request("POST", "/events", headers, body)


def _place(stand: Stand) -> UUID:
    order_id = new_uuid()
    stand.sql(PLACE, order_id=order_id, user_id=stand.account("customer"))
    return order_id


_ORDER = {"productId": 1, "quantity": 1, "paymentMethod": "CARD"}
_REQUESTS: dict[str, Callable[[Stand], tuple[bytes, int]]] = {
    "api_docs": _public("GET", "/v3/api-docs"),
    "cancel_order": _cancel,
    "cart": _asked("POST", "/cart/items", {"productId": 2, "quantity": 1}, status=201),
    "charge": _charge,
    "dead_letter": _dead_letter,
    "list_products": _public("GET", "/products"),
    "login": _login,
    "manage_products": _asked(
        "POST", "/products/1/stock", {"quantity": 1}, role="staff", status=200
    ),
    "payment_webhook": _webhook,
    "place_order": _asked("POST", "/orders", _ORDER, status=201),
    "read_orders": _read_order,
    "read_settlements": _asked("GET", "/settlements/daily", role="finance"),
    "refund": _refund,
    "register": _register,
    "settle": _tick("close-days"),
    "sweep": _tick("sweep"),
}
