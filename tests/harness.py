"""One harness for all tests of the shop: every function's app in this process, on real servers.

``ShopHarness`` sends requests, events and ticks to the functions; ``FlowHarness`` adds a broker
and the payment simulator, and delivers events once, repeatedly, shuffled, concurrently or never.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import random
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from uuid import UUID, uuid4

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

from events import envelope
from events.vocabulary import class_of
from shop.adapters.passwords import hash_password
from shop.adapters.signatures import Signer
from shop.adapters.tokens import TokenIssuer
from shop.primitives import webhook_signatures
from shop.primitives.spec import FunctionSpec
from shop.registry import all_specs, consumers_of, spec_of
from shop.runtime.app import App
from shop.runtime.config import Secret, Settings
from shop.runtime.http_messages import HttpRequest, HttpResponse
from shop.runtime.services import Services
from tests.openapi_document import undocumented
from tests.rows import rows_of
from tests.tools.payment_simulator.simulator_process import API_KEY, SECRET, SimulatorProcess
from tools.checker.evaluate import ExternalRecords, Violation, find_violations
from tools.checker.provider_transactions import dispute_records, provider_records
from tools.local_platform.function_environment import url_of_role
from tools.local_platform.secrets import Secrets

ISSUER, AUDIENCE = "https://shop.test", "shop"
CLOCK = "/shop/clock"
TICK = "com.msashop.clock.ticked.v1"
ROUNDS_MAX = 30

PASSWORD = "a long enough pass phrase"
TRACKING = "/shipments/webhook"
UNREACHABLE = "http://127.0.0.1:9"  # the discard port, on which nothing listens

Message = tuple[dict[str, str], bytes]
MakeShop = Callable[..., "ShopHarness"]
Rows = Callable[..., list[tuple[Any, ...]]]
# The statuses of an order, its payments, its refunds and its reservations.
Outcome = tuple[str, list[str], list[str], list[str]]
T = TypeVar("T")

PAID: Outcome = ("PAID", ["CAPTURED"], [], ["COMMITTED"])
REFUNDED: Outcome = ("CANCELLED", ["CAPTURED"], ["SUCCEEDED"], ["RETURNED"])
UNPAID: Outcome = ("CANCELLED", [], [], ["RELEASED"])

MAKE_ALL_DUE = (
    "update shop.payments set next_try_at = now() where status in ('INTENT', 'UNKNOWN') "
    "or action_token is not null or status = 'REQUIRES_ACTION' and act_until <= now()",
    "update shop.refunds set next_try_at = now() where status in ('INTENT', 'UNKNOWN')",
    "update shop.orders set charge_at = now() where charge_at is not null",
    "update shop.orders set updated_at = now() - interval '1 minute' where status = 'CANCELLING'",
    "update shop.outbox set next_try_at = now() where done_at is null and parked_at is null",
)
UNFINISHED_WORK = """
select 'order' as what, order_id::text as id from shop.orders where charge_at is not null
union all select 'payment', payment_id::text from shop.payments
  where status in ('INTENT', 'UNKNOWN') or action_token is not null
    or status = 'REQUIRES_ACTION' and least(act_until, next_try_at) <= now()
union all select 'refund', refund_id::text from shop.refunds where status in ('INTENT', 'UNKNOWN')
union all select kind, id from shop.due_work where kind = 'finish'
"""


@dataclass
class Response:
    """The response of a function."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:  # Any: the test states the shape that it expects
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


@dataclass
class ShopHarness:
    """All functions; ``call`` uses the same App that serves requests in a container."""

    admin_url: str
    redis_url: str
    provider_url: str
    provider_api_key: str
    webhook_secret: str
    secrets: Secrets
    smtp_url: str = "smtp://127.0.0.1:9"  # nothing listens there: mails stay due
    overrides: dict[str, Any] = field(default_factory=dict)
    database_address: str = ""  # of the functions, if not that of admin_url
    apps: dict[str, App] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for spec in all_specs():
            self.apps[spec.name] = App((spec,), Services(self._settings(spec), source=spec.source))

    def _spec(self, name: str) -> FunctionSpec:
        return next(spec for spec in all_specs() if spec.name == name)

    def _settings(self, spec: FunctionSpec) -> Settings:
        role = spec.database_role
        values: dict[str, Any] = {
            "profile": "local",
            "broker_class": "local",
            "database_url": Secret(self.role_url(role) if role else ""),
            "redis_url": Secret(self.redis_url),
            "jwt_private_key": Secret(self.secrets.jwt_private_key),
            "jwt_jwks": self.secrets.jwks,
            "jwt_issuer": ISSUER,
            "jwt_audience": AUDIENCE,
            "link_key": Secret(self.secrets.link_key),
            "second_factor_key": Secret(self.secrets.second_factor_key),
            "webhook_key": Secret(self.secrets.webhook_key),
            "webhook_networks_allowed": "127.0.0.0/8",
            "smtp_url": Secret(self.smtp_url),
            "mail_from": "orders@shop.kr",
            "shop_name": "Shop",
            "shop_url": "https://shop.kr",
            "event_keys": self.secrets.event_key_set,
            "event_signing_key": Secret(self.secrets.event_keys[role]) if role else Secret(""),
            "payment_provider_url": self.provider_url,
            "payment_provider_api_key": Secret(self.provider_api_key),
            "payment_provider_timeout_seconds": 2.0,
            "payment_webhook_secret": Secret(self.webhook_secret),
            "carrier_webhook_secret": Secret(self.secrets.carrier_secret),
            "rate_limit_per_minute": 0,
            "open_orders_max": 0,
            "unpaid_stock_percent": 0,
        }
        return Settings(**(values | self.overrides))

    def role_url(self, role: str) -> str:
        own = url_of_role(self.admin_url, f"shop_{role}")
        return f"{own.rpartition('@')[0]}@{self.database_address}" if self.database_address else own

    # ------------------------------------------------------------ accounts and products

    def token(self, user_id: int, role: str = "customer") -> str:
        """An access token of a new session of an existing account."""
        session_id = uuid4()
        self.sql(
            "insert into shop.sessions (session_id, user_id, expires_at) "
            "values (%s, %s, now() + interval '1 day')",
            session_id,
            user_id,
        )
        issuer = TokenIssuer(
            self.secrets.jwt_private_key, ISSUER, AUDIENCE, lambda: datetime.now(UTC)
        )
        return issuer.issue(user_id, role, session_id)[0]

    def token_key(self) -> Ed25519PrivateKey:
        """The key that ``login`` signs access tokens with."""
        key = load_pem_private_key(self.secrets.jwt_private_key.encode(), password=None)
        assert isinstance(key, Ed25519PrivateKey)
        return key

    def person(self, role: str = "customer") -> Person:
        """A new account with a token, whose password is ``PASSWORD``."""
        email = f"{uuid4().hex}@test.kr"
        (row,) = self.sql(
            "with created as (insert into shop.users (email, email_key, name, password_hash, role) "
            "values (%s, %s, 'Test', %s, %s) returning user_id, role), "
            "recorded as (insert into shop.audit_log (actor_kind, action, object_kind, object_id, "
            "after, trace_id) select 'COMMAND', 'user.created', 'user', user_id::text, "
            "jsonb_build_object('role', role, 'state', 'ACTIVE'), '' from created "
            "where role <> 'customer') select user_id from created",
            email,
            email,
            password_hash(),
            role,
        )
        return Person(self, row["user_id"], self.token(row["user_id"], role))

    def product(self, *, price: int = 1000, stock: int = 10, name: str = "물건") -> int:
        """Adds a product with stock; returns its id."""
        self.sql("insert into shop.categories (name) values ('시험') on conflict do nothing")
        (row,) = self.sql(
            "insert into shop.products (name, category, price_minor, currency) "
            "values (%s, '시험', %s, 'KRW') returning product_id",
            name,
            price,
        )
        product_id: int = row["product_id"]
        self.sql("insert into shop.stock (product_id, on_hand) values (%s, %s)", product_id, stock)
        if stock:
            self.sql(
                "insert into shop.stock_moves (product_id, kind, qty) values (%s, 'INITIAL', %s)",
                product_id,
                stock,
            )
        return product_id

    def stock_of(self, product_id: int) -> tuple[int, int]:
        """The product's stock on hand, and how much of it is reserved."""
        (row,) = self.sql(
            "select on_hand, reserved from shop.stock where product_id = %s", product_id
        )
        return row["on_hand"], row["reserved"]

    # ------------------------------------------------------------ HTTP

    def call(
        self,
        method: str,
        path: str,
        json_body: Any = None,
        *,
        raw: bytes | None = None,
        token: str | None = None,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        client: str | None = None,
        function: str | None = None,
    ) -> Response:
        """Sends one request, routed by the specs as the edge routes it; ``client`` is an address.

        The address is what the trusted hop appends to ``X-Forwarded-For``.
        """
        sent = {k.lower(): v for k, v in (headers or {}).items()}
        if client:
            sent["x-forwarded-for"] = client
        body = raw if raw is not None else b""
        if json_body is not None:
            body = json.dumps(json_body, ensure_ascii=False).encode()
        if body:
            sent.setdefault("content-type", "application/json")
        if token:
            sent["authorization"] = f"Bearer {token}"
        if key:
            sent["idempotency-key"] = key
        path, _, query = path.partition("?")
        if path == TRACKING and "webhook-signature" not in sent:
            sent |= self.signed_by_carrier(body)
        app = self.apps[function] if function else self._route(method, path)
        request = HttpRequest(
            method, path, query, sent, "203.0.113.7", io.BytesIO(body).read, len(body)
        )
        response = _response(app.answer(request))
        if response.status != 405 and any(o.pattern.fullmatch(path) for o in app.router.operations):
            flaws = undocumented(method, path, response.status, response.headers)
            assert flaws == [], f"the OpenAPI document is incomplete: {flaws}"
        return response

    def signed_by_carrier(self, body: bytes, message_id: str = "") -> dict[str, str]:
        """The headers of a report that a carrier signs now."""
        key = webhook_signatures.read_secret(self.secrets.carrier_secret)
        sent_as = message_id or f"msg_{uuid4().hex}"
        return webhook_signatures.headers_of(sent_as, int(time.time()), body, [key])

    def _route(self, method: str, path: str) -> App:
        for app in self.apps.values():
            for operation in app.router.operations:
                if operation.pattern.fullmatch(path) and operation.route.method == method:
                    if path == "/orders/me" and "{" in operation.route.path:
                        continue
                    return app
        return self.apps["place_order"]

    def register(self, email: str, password: str = PASSWORD, **options: Any) -> Response:
        """Requests a new account."""
        body = {"email": email, "password": password, "name": "김철수"}
        return self.call("POST", "/users", json_body=body, **options)

    def log_in(self, email: str, password: str = PASSWORD, **options: Any) -> Response:
        """Requests a new session."""
        body = {"email": email, "password": password}
        return self.call("POST", "/auth/login", json_body=body, **options)

    def send_webhook(
        self, event_type: str, key: str, amount: int, *, event_id: str = ""
    ) -> Response:
        """Sends a webhook as the provider signs it; returns the response."""
        data: dict[str, object] = {
            "key": key,
            "amount_minor": amount,
            "currency": "KRW",
            "provider_ref": f"ch_{key}",
            "status": event_type.partition(".")[2],
            "charge_key": key,
            "charge_ref": f"ch_{key}",
        }
        return self.send_webhook_about(event_type, data, event_id=event_id)

    def send_webhook_about(
        self, event_type: str, data: Mapping[str, object], *, event_id: str = ""
    ) -> Response:
        """Sends a webhook with this data as the provider signs it; returns the response."""
        event_id = event_id or f"evt_{uuid4().hex}"
        event = {
            "id": event_id,
            "type": event_type,
            "created": int(time.time()),
            "data": dict(data),
        }
        return self._send_signed("webhook-signature", event)

    def send_stripe_webhook(self, event_type: str, item: Mapping[str, object]) -> Response:
        """Sends a webhook about one of Stripe's objects as Stripe signs it."""
        event_id = f"evt_{event_type}_{item['id']}"
        event = {"id": event_id, "type": event_type, "data": {"object": dict(item)}}
        return self._send_signed("stripe-signature", event)

    def _send_signed(self, header: str, event: Mapping[str, object]) -> Response:
        body, now = json.dumps(event).encode(), int(time.time())
        digest = hmac.new(SECRET.encode(), f"{now}.".encode() + body, hashlib.sha256)
        headers = {header: f"t={now},v1={digest.hexdigest()}"}
        return self.call("POST", "/payments/webhook", raw=body, headers=headers)

    # ------------------------------------------------------------ events and clock

    def outbox(self, *, undone: bool = True) -> list[dict[str, Any]]:
        """The events of the outbox, oldest first."""
        where = "where done_at is null" if undone else ""
        return self.sql(f"select * from shop.outbox {where} order by created_at, event_id")

    def deliver(self, row: Mapping[str, Any], consumer: str) -> Response:
        """Delivers one event of the outbox to one consumer, as a broker would."""
        event = class_of(row["type"]).from_data(row["data"])
        wrapped = envelope.wrap(
            event,
            id=str(row["event_id"]),
            source=row["source"],
            time=row["created_at"],
            traceparent=row["traceparent"] or None,
        )
        role = self._spec(row["source"].removeprefix("/shop/")).database_role
        assert role is not None
        signed = Signer(role, self.secrets.event_keys[role]).sign(wrapped)
        headers, body = envelope.to_binary(signed)
        return self.post_event(consumer, headers, body)

    def post_event(self, consumer: str, headers: Mapping[str, str], body: bytes) -> Response:
        return self.call("POST", "/events", raw=body, headers=headers, function=consumer)

    def deliver_all(self) -> int:
        """Delivers every event of the outbox to its subscribers until no new one is there."""
        delivered = 0
        seen: set[tuple[UUID, str]] = set()
        while True:
            fresh = [
                (row, spec.name)
                for row in self.outbox()
                for spec in all_specs()
                for subscription in spec.subscriptions
                if subscription.event == row["type"] and (row["event_id"], spec.name) not in seen
            ]
            if not fresh:
                return delivered
            for row, consumer in fresh:
                seen.add((row["event_id"], consumer))
                response = self.deliver(row, consumer)
                assert response.status == 204 and response.body == b"", (
                    response.status,
                    response.body,
                )
                delivered += 1

    def tick(self, function: str) -> Response:
        """Sends one tick of the clock for the function's schedule."""
        (schedule,) = self._spec(function).schedules
        event = envelope.CloudEvent(
            id=str(uuid4()),
            source=CLOCK,
            type=TICK,
            subject=schedule.name,
            time=datetime.now(UTC),
            data=b"{}",
        )
        headers, body = envelope.to_binary(
            Signer("clock", self.secrets.event_keys["clock"]).sign(event)
        )
        return self.post_event(function, headers, body)

    # ------------------------------------------------------------ rows

    def sql(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """Runs a statement as the administrator, whom no row policy restricts."""
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            cursor = connection.cursor(row_factory=dict_row)
            return rows_of(cursor.execute(statement.encode(), parameters or None))

    def close(self) -> None:
        for app in self.apps.values():
            app.services.close()


@dataclass
class Person:
    """An account with an access token, and the requests it sends."""

    shop: ShopHarness
    user_id: int
    token: str

    def get(self, path: str, **options: Any) -> Response:
        return self.shop.call("GET", path, token=self.token, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> Response:
        return self.shop.call("POST", path, json_body=body, token=self.token, **options)

    def patch(self, path: str, body: Any = None, **options: Any) -> Response:
        return self.shop.call("PATCH", path, json_body=body, token=self.token, **options)

    def delete(self, path: str, body: Any = None, **options: Any) -> Response:
        return self.shop.call("DELETE", path, json_body=body, token=self.token, **options)

    def order(
        self, product_id: int, quantity: int = 1, method: str = "CARD", **options: Any
    ) -> Any:
        """Places an order of one product; returns its JSON."""
        body = order_body(product_id, quantity) | {"paymentMethod": method}
        response = self.post("/orders", body, **options)
        assert response.status == 201, response.body
        return response.json

    def paid_order(self, product_id: int, quantity: int = 1) -> Any:
        """Places an order and delivers its events until it is paid."""
        order = self.order(product_id, quantity)
        self.shop.deliver_all()
        order = self.get(f"/orders/{order['id']}").json
        assert order["status"] == "PAID", order
        return order


class EventBroker:
    """An HTTP ingress that answers every event with 202 and keeps it until the test takes it.

    ``status`` is another answer to all, ``statuses`` has some by the event's id; events with
    another answer than 202 are not kept.
    """

    def __init__(self) -> None:
        self.status = 202
        self.statuses: dict[str, int] = {}
        self.messages: list[Message] = []
        self.all: list[Message] = []
        broker = self

        class Ingress(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                message = ({k.lower(): v for k, v in self.headers.items()}, body)
                status = broker.statuses.get(message[0]["ce-id"], broker.status)
                if status == 202:
                    broker.messages.append(message)
                    broker.all.append(message)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Suppresses the access log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Ingress)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def take(self) -> list[Message]:
        """Removes and returns the events received since the last call."""
        taken, self.messages = self.messages, []
        return taken

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@dataclass
class FlowHarness:
    """The shop with its broker and payment simulator, for tests that cross functions."""

    shop: ShopHarness
    broker: EventBroker
    simulator: SimulatorProcess
    known_intents: int
    known_refunds: int
    known_disputes: int
    client_operations: list[tuple[object, ...]] = field(default_factory=list[tuple[object, ...]])
    injected_poison: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    # ------------------------------------------------------------ events

    def deliver(
        self, *, times: int = 1, shuffled_by: int | None = None, at_once: bool = False
    ) -> int:
        """Delivers all events, and those they cause, until none is left; returns how many."""
        delivered = 0
        for _ in range(ROUNDS_MAX):
            messages = self.broker.take() * times
            batch = [(m, name) for m in messages for name in consumers_of(event_name(m))]
            if not batch:
                return delivered
            if shuffled_by is not None:
                random.Random(shuffled_by).shuffle(batch)
            if at_once:
                self._deliver_at_once(batch)
            else:
                for delivery in batch:
                    self.deliver_one(*delivery)
            delivered += len(batch)
        raise AssertionError(f"events after {ROUNDS_MAX} rounds of deliveries")

    def _deliver_at_once(self, batch: Sequence[tuple[Message, str]]) -> None:
        """Delivers in eight threads; a delivery that waits too long gets 503 and is repeated."""
        with ThreadPoolExecutor(8) as pool:
            responses = list(pool.map(self._post, *zip(*batch, strict=True)))
        for delivery, response in zip(batch, responses, strict=True):
            if response.status == 503:
                self.deliver_one(*delivery)
            else:
                assert response.status == 204, response

    def deliver_one(self, message: Message, consumer: str) -> None:
        response = self._post(message, consumer)
        assert (response.status, response.body) == (204, b""), response

    def _post(self, message: Message, consumer: str) -> Response:
        return self.shop.post_event(consumer, *message)

    def discard_events(self) -> None:
        """Loses every event that the broker accepted."""
        self.broker.take()

    def take_charge_delivery(self) -> Callable[[], Response]:
        """Takes the newest ``order.placed``, discards the rest; the result sends it to charge."""
        placed = [m for m in self.broker.take() if event_name(m) == "order.placed"]
        return lambda: self._post(placed[-1], "charge")

    # ------------------------------------------------------------ timers

    def sweep_all(self) -> None:
        """Makes every job due now, then sends one tick to ``sweep``."""
        for statement in MAKE_ALL_DUE:
            self.shop.sql(statement)
        response = self.shop.tick("sweep")
        assert response.status == 204, response

    def run_timers_only(self) -> None:
        """Loses every event and sends ticks until no work is unfinished."""
        for _ in range(ROUNDS_MAX):
            self.discard_events()
            if not self.shop.sql(UNFINISHED_WORK):
                return
            self.sweep_all()
        raise AssertionError(f"unfinished: {self.shop.sql(UNFINISHED_WORK)}")

    def run_until_idle(self) -> None:
        """Delivers events and sends ticks until no work is unfinished and no event unsent."""
        for _ in range(ROUNDS_MAX):
            self.deliver()
            unsent = self.shop.sql("select 1 from shop.outbox where done_at is null")
            if not unsent and not self.shop.sql(UNFINISHED_WORK):
                return
            self.sweep_all()
        raise AssertionError(f"unfinished: {self.shop.sql(UNFINISHED_WORK)}")

    def expire_order(
        self, order_id: str, *, hard: bool = False, waits_for_charge: bool = False
    ) -> None:
        """Moves the order's soft (or also its hard) expiry into the past, without a sweep.

        An order that ``waits_for_charge`` does not expire before the charge was tried.
        """
        self.shop.sql(
            "update shop.orders set expires_at = now() - interval '1 second', hard_expires_at = "
            "case when %s then now() - interval '1 second' else hard_expires_at end, "
            "charge_at = case when %s then charge_at end where order_id = %s",
            hard,
            waits_for_charge,
            order_id,
        )

    def reconcile(self) -> None:
        """Reads the provider's transactions now."""
        self.shop.sql("update shop.reconciliation set next_run_at = now()")
        self.sweep_all()

    def send_webhook(self, event_type: str, key: str, amount: int, *, event_id: str = "") -> int:
        """Sends a webhook as the provider signs it; returns the status of the response."""
        return self.shop.send_webhook(event_type, key, amount, event_id=event_id).status

    # ------------------------------------------------------------ reading state

    def order_state(self, order_id: str) -> dict[str, Any]:
        """The order's status and reason, and the statuses of its payments, refunds and stock."""
        (row,) = self.shop.sql(
            "select o.status, o.reason, array(select p.status || case when p.late then ' late' "
            "else '' end from shop.payments p where p.order_id = o.order_id order by p.attempt) "
            "as payments, array(select r.status from shop.refunds r join shop.payments p "
            "using (payment_id) where p.order_id = o.order_id order by r.created_at) as refunds, "
            "array(select r.status from shop.reservations r where r.order_id = o.order_id "
            "order by r.product_id) as stock from shop.orders o where order_id = %s",
            order_id,
        )
        return row

    def outcome(self, order: Mapping[str, Any]) -> Outcome:
        """The order's statuses, to compare with ``PAID`` and the like."""
        row = self.order_state(order["id"])
        return row["status"], row["payments"], row["refunds"], row["stock"]

    def payment_key(self, order_id: str) -> str:
        """The provider key of the order's newest payment."""
        (row,) = self.shop.sql(
            "select provider_key from shop.payments where order_id = %s "
            "order by attempt desc limit 1",
            order_id,
        )
        key: str = row["provider_key"]
        return key

    def operator_alerts(self) -> list[str]:
        rows = self.shop.sql("select kind from shop.alarms order by kind")
        return [row["kind"] for row in rows]

    def due_jobs(self) -> list[str]:
        """The kinds of due jobs, without mails: no mail server listens, so they stay due."""
        rows = self.shop.sql(
            "select kind from shop.due_work where due_at <= now() and kind <> 'mail'"
        )
        return [row["kind"] for row in rows]

    # ------------------------------------------------------------ invariants

    def external_records(self) -> ExternalRecords:
        """What the provider, the clients and the test know beside the database."""
        records = self.simulator.records()
        charges, refunds = provider_records(
            records["intents"][self.known_intents :], records["refunds"][self.known_refunds :]
        )
        return ExternalRecords(
            charges,
            refunds,
            tuple(self.client_operations),
            tuple(self.injected_poison),
            dispute_records(records["disputes"][self.known_disputes :]),
        )


@cache
def password_hash() -> str:
    """A hash of ``PASSWORD``, computed once in a process."""
    return hash_password(PASSWORD)


def order_body(product_id: int, quantity: int = 1) -> dict[str, Any]:
    """The body of a request that orders one product by card."""
    return {"productId": product_id, "quantity": quantity, "paymentMethod": "CARD"}


def assert_invariants(flow: FlowHarness, *, at_rest: bool = True) -> None:
    """Asserts every invariant; reads the provider's transactions before the database snapshot."""
    found: list[Violation] = find_violations(
        flow.shop.admin_url, flow.external_records(), at_rest=at_rest
    )
    assert not found, "\n".join(str(violation) for violation in found)
    for row in flow.shop.sql("select distinct source, type from shop.outbox"):
        spec = spec_of(row["source"].removeprefix("/shop/"))
        assert row["type"] in spec.emits, f"{spec.name} emits {row['type']} undeclared"


def assert_idle_and_consistent(flow: FlowHarness) -> None:
    """Runs all work to its end, then asserts every invariant and that nothing is due."""
    flow.run_until_idle()
    assert_invariants(flow)
    due = flow.due_jobs()
    assert due == [], due


def run_concurrently(*calls: Callable[[], T]) -> list[T]:
    """Runs each call in its own thread, started at one barrier; returns their results in order."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        barrier.wait(10)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(60) for future in [pool.submit(run, call) for call in calls]]


@contextmanager
def cloned_database(postgres_url: str, template_url: str) -> Generator[str]:
    """Creates a migrated and seeded database for the duration; yields the administrator's URL."""
    server, template = template_url.rsplit("/", 1)
    name = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            SQL("create database {} template {}").format(Identifier(name), Identifier(template))
        )
    try:
        yield f"{server}/{name}"
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(SQL("drop database {} with (force)").format(Identifier(name)))


@contextmanager
def shop_of_module(request: pytest.FixtureRequest, **overrides: Any) -> Generator[ShopHarness]:
    """The whole shop on one database for a module, whose tests do not disturb each other."""
    servers = (request.getfixturevalue("postgres_url"), request.getfixturevalue("template_url"))
    with cloned_database(*servers) as url:
        shop = ShopHarness(
            admin_url=url,
            redis_url=request.getfixturevalue("redis_url"),
            provider_url=request.getfixturevalue("simulator").url,
            provider_api_key=API_KEY,
            webhook_secret=SECRET,
            secrets=request.getfixturevalue("secrets"),
            smtp_url=request.getfixturevalue("mail_server").url,
            overrides=overrides,
        )
        try:
            yield shop
        finally:
            shop.close()


def event_name(message: Message) -> str:
    return message[0]["ce-type"].removeprefix("com.msashop.").rpartition(".v")[0]


def _response(response: HttpResponse) -> Response:
    headers = {name.lower(): value for name, value in response.headers.items()}
    body = response.body if response.parts is None else b"".join(response.parts)
    return Response(response.status, body, headers)
