"""The shop under test: every function's real app, in process, on real PostgreSQL, Redis, provider.

What a platform would do between the functions (routing, delivering events, ticking the clock) the
test does itself, so it decides what is lost, repeated or late.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row

from events import envelope
from events.vocabulary import class_of
from shop.adapters.signatures import Signer
from shop.adapters.tokens import TokenIssuer
from shop.primitives.spec import FunctionSpec
from shop.registry import all_specs
from shop.runtime.app import App
from shop.runtime.config import Secret, Settings
from shop.runtime.http_messages import HttpRequest, HttpResponse
from shop.runtime.services import Services, install
from tools.local_platform.secrets import Secrets

ISSUER, AUDIENCE = "https://shop.test", "shop"
CLOCK = "/shop/clock"
TICK = "com.msashop.clock.ticked.v1"


@dataclass
class Response:
    """An answer, as a test wants to look at it."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


@dataclass
class ShopUnderTest:
    """All functions; ``call`` goes through the same App that serves in a container."""

    admin_url: str
    redis_url: str
    provider_url: str
    provider_api_key: str
    webhook_secret: str
    secrets: Secrets
    overrides: dict[str, Any] = field(default_factory=dict)
    apps: dict[str, App] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for spec in all_specs():
            self.apps[spec.name] = App((spec,), Services(self._settings(spec), source=spec.source))
        install(Services(self._settings(self._spec("login")), source="/shop/login"))

    def _spec(self, name: str) -> FunctionSpec:
        return next(spec for spec in all_specs() if spec.name == name)

    def _settings(self, spec: FunctionSpec) -> Settings:
        role = spec.database_role
        values: dict[str, Any] = {
            "profile": "local",
            "database_url": Secret(self.role_url(role) if role else ""),
            "redis_url": Secret(self.redis_url),
            "jwt_private_key": Secret(self.secrets.jwt_private_key),
            "jwt_jwks": self.secrets.jwks,
            "jwt_issuer": ISSUER,
            "jwt_audience": AUDIENCE,
            "event_keys": self.secrets.event_key_set,
            "event_signing_key": Secret(self.secrets.event_keys[role]) if role else Secret(""),
            "payment_provider_url": self.provider_url,
            "payment_provider_api_key": Secret(self.provider_api_key),
            "payment_provider_timeout_seconds": 2.0,
            "payment_webhook_secret": Secret(self.webhook_secret),
            "rate_limit_per_minute": 0,
            "open_orders_max": 0,
        }
        return Settings(**(values | self.overrides))

    def role_url(self, role: str) -> str:
        host = self.admin_url.split("@")[1]
        return f"postgresql://shop_{role}@{host}"

    # ------------------------------------------------------------ people

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

    def person(self, role: str = "customer") -> Person:
        """A new account with a token; its password hash is no hash: nobody can log in with it."""
        email = f"{uuid4().hex}@test.kr"
        (row,) = self.sql(
            "insert into shop.users (email, email_key, name, password_hash, role) "
            "values (%s, %s, 'Test', '!', %s) returning user_id",
            email,
            email,
            role,
        )
        return Person(self, row["user_id"], self.token(row["user_id"], role))

    def product(self, *, price: int = 1000, stock: int = 10, name: str = "물건") -> int:
        """A new product on the shelf; returns its id."""
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

    # ------------------------------------------------------------ HTTP

    def call(
        self,
        method: str,
        path: str,
        *,
        json_body: Any = None,
        raw: bytes | None = None,
        token: str | None = None,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        function: str | None = None,
    ) -> Response:
        """One request, routed by the specs as the edge does it."""
        sent = {k.lower(): v for k, v in (headers or {}).items()}
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
        app = self.apps[function] if function else self._route(method, path)
        wire = HttpRequest(
            method, path, query, sent, "203.0.113.7", io.BytesIO(body).read, len(body)
        )
        return _response(app.answer(wire))

    def _route(self, method: str, path: str) -> App:
        for app in self.apps.values():
            for operation in app._operations:
                if operation.pattern.fullmatch(path) and operation.route.method == method:
                    if path == "/orders/me" and "{" in operation.route.path:
                        continue
                    return app
        return self.apps["place_order"]

    # ------------------------------------------------------------ events and clock

    def outbox(self, *, undone: bool = True) -> list[dict[str, Any]]:
        """Announced events, oldest first."""
        where = "where done_at is null" if undone else ""
        return self.sql(f"select * from shop.outbox {where} order by created_at, event_id")

    def deliver(self, row: Mapping[str, Any], consumer: str) -> Response:
        """Delivers one announced event to one consumer, as a broker would."""
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
        """Delivers every undone event to its subscribers until nothing is announced any more."""
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
                answer = self.deliver(row, consumer)
                assert answer.status == 204 and answer.body == b"", (answer.status, answer.body)
                delivered += 1

    def tick(self, function: str) -> Response:
        """One tick of the clock for a function's schedule."""
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
        """Runs a statement as the administrator, past every policy."""
        with psycopg.connect(self.admin_url, autocommit=True, row_factory=dict_row) as connection:
            cursor = connection.execute(statement, parameters or None)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        for app in self.apps.values():
            app.services.close()


@dataclass
class Person:
    """Somebody with an account and a token."""

    shop: ShopUnderTest
    user_id: int
    token: str

    def get(self, path: str, **options: Any) -> Response:
        return self.shop.call("GET", path, token=self.token, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> Response:
        return self.shop.call("POST", path, json_body=body, token=self.token, **options)

    def patch(self, path: str, body: Any = None, **options: Any) -> Response:
        return self.shop.call("PATCH", path, json_body=body, token=self.token, **options)

    def delete(self, path: str, **options: Any) -> Response:
        return self.shop.call("DELETE", path, token=self.token, **options)

    def order(
        self, product_id: int, quantity: int = 1, method: str = "CARD", **options: Any
    ) -> Any:
        """Places an order of one product; returns its JSON."""
        body = {"productId": product_id, "quantity": quantity, "paymentMethod": method}
        answer = self.post("/orders", body, **options)
        assert answer.status == 201, answer.body
        return answer.json

    def paid_order(self, product_id: int, quantity: int = 1) -> Any:
        """Places an order and has it paid."""
        order = self.order(product_id, quantity)
        self.shop.deliver_all()
        order = self.get(f"/orders/{order['id']}").json
        assert order["status"] == "PAID", order
        return order


def _response(answer: HttpResponse) -> Response:
    return Response(answer.status, answer.body, {k.lower(): v for k, v in answer.headers.items()})
