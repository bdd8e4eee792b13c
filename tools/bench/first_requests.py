"""The first request to each function in a benchmark; its handler reads the database."""

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
from events.orders import OrderPaid, OrderPlaced
from events.refunds import RefundRequested
from events.vocabulary import CLOCK_TICKED
from shop.adapters.signatures import Signer
from shop.primitives.clock import utc_now
from shop.primitives.ids import new_uuid
from shop.registry import spec_of
from tools.bench.environment import BenchEnvironment
from tools.seed import LOCAL_ACCOUNTS

# An order as place_order writes it.
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

# A paid order with a refund that is not sent yet.
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


def first_request(environment: BenchEnvironment, name: str) -> tuple[bytes, int]:
    """A new request to a function, as bytes, and the expected status.

    Without an entry here it is the first public GET of a fixed path; ValueError if there is none.
    """
    if name in _REQUESTS:
        return _REQUESTS[name](environment)
    for route in spec_of(name).routes:
        if (route.method, route.auth) == ("GET", "public") and "{" not in route.path:
            return json_request("GET", route.path), route.status
    raise ValueError(f"add the first request of {name} to tools/bench/first_requests.py")


def http_request(
    method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> bytes:
    """An HTTP/1.1 request as bytes."""
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
    """An HTTP request with a JSON body, a token and an idempotency key, where given."""
    sent = {name.replace("_", "-"): text for name, text in headers.items()}
    content = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
    if content:
        sent["Content-Type"] = "application/json"
    if token:
        sent["Authorization"] = f"Bearer {token}"
    if key:
        sent["Idempotency-Key"] = key
    return http_request(method, path, sent, content)


def _authenticated(
    method: str, path: str, body: Any = None, *, role: str = "customer", status: int = 200
) -> Callable[[BenchEnvironment], tuple[bytes, int]]:
    def make(environment: BenchEnvironment) -> tuple[bytes, int]:
        token = environment.token(environment.account(role), role)
        key = uuid4().hex if method != "GET" else None
        return json_request(method, path, body, token=token, key=key), status

    return make


def _public(
    method: str, path: str, body: Any = None, *, status: int = 200
) -> Callable[[BenchEnvironment], tuple[bytes, int]]:
    return lambda _environment: (json_request(method, path, body), status)


def _page(_environment: BenchEnvironment) -> tuple[bytes, int]:
    return http_request("GET", "/", {"accept": "text/html"}), 200


def _login(_environment: BenchEnvironment) -> tuple[bytes, int]:
    _, email, password = LOCAL_ACCOUNTS[0]
    return json_request("POST", "/auth/login", {"email": email, "password": password}), 200


def _register(_environment: BenchEnvironment) -> tuple[bytes, int]:
    account = {"email": f"{uuid4().hex}@bench.kr", "password": uuid4().hex, "name": "새손님"}
    return json_request("POST", "/users", account, key=uuid4().hex), 201


def _cancel(environment: BenchEnvironment) -> tuple[bytes, int]:
    order_id = place(environment)
    token = environment.token(environment.account("customer"), "customer")
    return json_request("PATCH", f"/orders/{order_id}/cancel", token=token, key=uuid4().hex), 200


def _read_order(environment: BenchEnvironment) -> tuple[bytes, int]:
    order_id = place(environment)
    token = environment.token(environment.account("customer"), "customer")
    return json_request("GET", f"/orders/{order_id}", token=token), 200


def _webhook(environment: BenchEnvironment) -> tuple[bytes, int]:
    """A correctly signed webhook about a payment of another shop: looked up, then ignored."""
    webhook = {
        "id": f"evt_{uuid4().hex}",
        "type": "charge.captured",
        "data": {
            "key": f"bench-{uuid4().hex}",
            "amount_minor": 1000,
            "currency": "KRW",
            "provider_ref": "ch_bench",
        },
    }
    body = json.dumps(webhook).encode()
    stamp = str(int(time.time()))
    signed = stamp.encode() + b"." + body
    secret = environment.secrets.webhook_secret.encode()
    signature = hmac.new(secret, signed, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "Webhook-Signature": f"t={stamp},v1={signature}",
    }
    return http_request("POST", "/payments/webhook", headers, body), 204


def _charge(environment: BenchEnvironment) -> tuple[bytes, int]:
    event = OrderPlaced(order_id=place(environment))
    return _event(environment, event, "/shop/place_order", "ordering"), 204


def _refund(environment: BenchEnvironment) -> tuple[bytes, int]:
    """A refund of a charge that the payment simulator does not have: the refund is rejected."""
    event = RefundRequested(
        order_id=place(environment), payment_id=new_uuid(), refund_id=new_uuid()
    )
    environment.sql(
        PAY_AND_REFUND,
        order_id=event.order_id,
        user_id=environment.account("customer"),
        payment_id=event.payment_id,
        refund_id=event.refund_id,
    )
    return _event(environment, event, "/shop/cancel_order", "ordering"), 204


def _dead_letter(environment: BenchEnvironment) -> tuple[bytes, int]:
    event = OrderPlaced(order_id=new_uuid())
    return _event(environment, event, "/shop/place_order", "ordering"), 204


def _notify(environment: BenchEnvironment) -> tuple[bytes, int]:
    event = OrderPaid(order_id=place(environment))
    return _event(environment, event, "/shop/charge", "payment"), 204


def tick(schedule: str) -> Callable[[BenchEnvironment], tuple[bytes, int]]:
    """Makes the signed tick of a schedule."""

    def make(environment: BenchEnvironment) -> tuple[bytes, int]:
        message = CloudEvent(
            id=str(new_uuid()),
            source="/shop/clock",
            type=CLOCK_TICKED,
            subject=schedule,
            time=utc_now(),
            data=b"{}",
        )
        return _signed(environment, message, "clock"), 204

    return make


def _event(environment: BenchEnvironment, event: Any, source: str, domain: str) -> bytes:
    message = envelope.wrap(
        event, id=str(new_uuid()), source=source, time=utc_now(), traceparent=None
    )
    return _signed(environment, message, domain)


def _signed(environment: BenchEnvironment, message: CloudEvent, domain: str) -> bytes:
    signed = Signer(domain, environment.secrets.event_keys[domain]).sign(message)
    headers, body = envelope.to_binary(signed)
    return http_request("POST", "/events", headers, body)


def place(environment: BenchEnvironment) -> UUID:
    """The id of a new order."""
    order_id = new_uuid()
    environment.sql(PLACE, order_id=order_id, user_id=environment.account("customer"))
    return order_id


_ORDER = {"productId": 1, "quantity": 1, "paymentMethod": "CARD"}
_REQUESTS: dict[str, Callable[[BenchEnvironment], tuple[bytes, int]]] = {
    "account": _authenticated("GET", "/users/me/sessions"),
    "api_docs": _public("GET", "/v3/api-docs"),
    "cancel_order": _cancel,
    "cart": _authenticated("POST", "/cart/items", {"productId": 2, "quantity": 1}, status=201),
    "charge": _charge,
    "dead_letter": _dead_letter,
    # there is no such order, which is found under its lock
    "fulfil_orders": _authenticated(
        "POST",
        "/admin/orders/00000000-0000-7000-8000-000000000000/shipments",
        {},
        role="staff",
        status=404,
    ),
    "list_products": _public("GET", "/products"),
    "login": _login,
    "manage_accounts": _authenticated("GET", "/admin/users", role="admin"),
    "manage_orders": _authenticated("GET", "/admin/orders", role="support"),
    "manage_webhooks": _authenticated("GET", "/admin/webhooks", role="admin"),
    "manage_products": _authenticated(
        "POST", "/products/1/stock", {"quantity": 1}, role="staff", status=200
    ),
    "notify": _notify,
    "payment_webhook": _webhook,
    "place_order": _authenticated("POST", "/orders", _ORDER, status=201),
    "read_orders": _read_order,
    "read_settlements": _authenticated("GET", "/settlements/daily", role="finance"),
    "refund": _refund,
    "register": _register,
    "settle": tick("close-days"),
    "sweep": tick("sweep"),
    "web": _page,
}
