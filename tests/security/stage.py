"""A request that works, for every route: what the security tests break one thing of at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from shop.primitives.spec import Route
from shop.registry import all_specs
from tests.harness import Person, Response, ShopUnderTest
from tests.tools.payment_simulator.simulator_process import API_KEY, SECRET

PASSWORD = "a long enough pass phrase"
COUNTED = ("orders", "users", "products", "outbox", "idempotency", "cart_items", "refunds")
COUNT_ROWS = "select " + ", ".join(f"(select count(*) from shop.{t}) as {t}" for t in COUNTED)

ROUTES: dict[tuple[str, str], Route] = {
    (route.method, route.path): route for spec in all_specs() for route in spec.routes
}


@dataclass
class Sent:
    """One request, apart from who sends it."""

    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@contextmanager
def database_of_a_module(postgres_url: str, template_url: str) -> Iterator[str]:
    """A database for many cases that leave each other alone; cloning one each would take longer."""
    server, template = template_url.rsplit("/", 1)
    name = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"create database {name} template {template}")
    yield f"{server}/{name}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)")


@contextmanager
def shop_of_a_module(request: pytest.FixtureRequest) -> Iterator[ShopUnderTest]:
    """The whole shop on such a database, with the usual settings of a test."""
    servers = (request.getfixturevalue("postgres_url"), request.getfixturevalue("template_url"))
    with database_of_a_module(*servers) as url:
        shop = ShopUnderTest(
            admin_url=url,
            redis_url=request.getfixturevalue("redis_url"),
            provider_url=request.getfixturevalue("simulator").url,
            provider_api_key=API_KEY,
            webhook_secret=SECRET,
            secrets=request.getfixturevalue("secrets"),
        )
        yield shop
        shop.close()


class Stage:
    """A shop with people and things in it; each sample makes what its request would use up."""

    def __init__(self, shop: ShopUnderTest) -> None:
        self.shop = shop
        self.email = f"{uuid4().hex}@test.kr"
        self.owner = shop.person()

    @cached_property
    def product(self) -> int:
        return self.shop.product(stock=100_000)

    @cached_property
    def paid(self) -> str:
        """An order of the owner's that may be refunded a thousand times."""
        expensive = self.shop.product(price=1_000_000)
        return str(self.owner.paid_order(expensive)["id"])

    def order(self) -> str:
        """A new order of the owner's."""
        return str(self.owner.order(self.product)["id"])

    def fill_cart(self, person: Person) -> None:
        self.shop.sql(
            "insert into shop.cart_items (user_id, product_id, qty) values (%s, %s, 1) "
            "on conflict do nothing",
            person.user_id,
            self.product,
        )

    @cached_property
    def account(self) -> dict[str, str]:
        """Credentials of an account that can log in."""
        body = {"email": self.email, "password": PASSWORD, "name": "Kim"}
        answer = self.shop.call("POST", "/users", json_body=body)
        assert answer.status == 201, answer.body
        return {"email": self.email, "password": PASSWORD}

    def refresh_token(self) -> str:
        answer = self.shop.call("POST", "/auth/login", json_body=self.account)
        assert answer.status == 200, answer.body
        return str(answer.json["refreshToken"])

    def rows(self) -> dict[str, int]:
        """How many rows there are, to prove that a refusal wrote nothing."""
        (counts,) = self.shop.sql(COUNT_ROWS)
        return counts

    def person_for(self, route: Route) -> Person | None:
        """Somebody who may use the route; None where a token is not asked for."""
        if route.auth in ("public", "provider"):
            return None
        if route.auth == "customer":
            return self.owner
        return self.people["finance" if route.auth == "settlements" else route.auth]

    @cached_property
    def people(self) -> dict[str, Person]:
        return {role: self.shop.person(role) for role in ("staff", "support", "finance")}

    def send(
        self, route: Route, sent: Sent, *, token: str | None = None, **options: Any
    ) -> Response:
        return self.shop.call(
            route.method,
            sent.path,
            json_body=sent.body,
            token=token,
            headers=sent.headers | options.pop("headers", {}),
            **options,
        )


Sample = Callable[[Stage, Person], Sent]


def _cart_line(stage: Stage, person: Person) -> str:
    stage.fill_cart(person)
    return f"/cart/items/{stage.product}"


def _from_cart(stage: Stage, person: Person) -> Sent:
    stage.fill_cart(person)
    return Sent("/orders/from-cart", {"paymentMethod": "CARD"})


def _new_product(_stage: Stage, _person: Person) -> Sent:
    body = {"name": "물건", "category": "시험", "price": 100, "stockQuantity": 5}
    _stage.product  # noqa: B018 (brings the category with it)
    return Sent("/products", body)


SAMPLES: dict[tuple[str, str], Sample] = {
    ("POST", "/users"): lambda s, p: Sent(
        "/users", {"email": f"{uuid4().hex}@test.kr", "password": PASSWORD, "name": "Kim"}
    ),
    ("GET", "/users/me"): lambda s, p: Sent("/users/me"),
    ("POST", "/auth/login"): lambda s, p: Sent("/auth/login", s.account),
    ("POST", "/auth/refresh"): lambda s, p: Sent(
        "/auth/refresh", {"refreshToken": s.refresh_token()}
    ),
    ("POST", "/auth/logout"): lambda s, p: Sent("/auth/logout"),
    ("GET", "/.well-known/jwks.json"): lambda s, p: Sent("/.well-known/jwks.json"),
    ("GET", "/products"): lambda s, p: Sent("/products?limit=2"),
    ("GET", "/products/{productId}"): lambda s, p: Sent(f"/products/{s.product}"),
    ("GET", "/categories"): lambda s, p: Sent("/categories"),
    ("POST", "/products"): _new_product,
    ("PATCH", "/products/{productId}"): lambda s, p: Sent(
        f"/products/{s.product}", {"price": 1000}, {"if-match": "*"}
    ),
    ("POST", "/products/{productId}/stock"): lambda s, p: Sent(
        f"/products/{s.product}/stock", {"quantity": 1}
    ),
    ("POST", "/categories"): lambda s, p: Sent("/categories", {"name": uuid4().hex}),
    ("GET", "/cart"): lambda s, p: Sent("/cart"),
    ("POST", "/cart/items"): lambda s, p: Sent(
        "/cart/items", {"productId": s.product, "quantity": 1}
    ),
    ("PATCH", "/cart/items/{productId}"): lambda s, p: Sent(_cart_line(s, p), {"quantity": 2}),
    ("DELETE", "/cart/items/{productId}"): lambda s, p: Sent(_cart_line(s, p)),
    ("DELETE", "/cart"): lambda s, p: Sent("/cart"),
    ("POST", "/orders"): lambda s, p: Sent(
        "/orders", {"productId": s.product, "quantity": 1, "paymentMethod": "CARD"}
    ),
    ("POST", "/orders/from-cart"): _from_cart,
    ("POST", "/orders/{orderId}/payments"): lambda s, p: Sent(
        f"/orders/{s.order()}/payments", {"paymentMethod": "CARD"}
    ),
    ("GET", "/orders/me"): lambda s, p: Sent("/orders/me"),
    ("GET", "/orders/{orderId}"): lambda s, p: Sent(f"/orders/{s.order()}"),
    ("GET", "/orders/{orderId}/timeline"): lambda s, p: Sent(f"/orders/{s.order()}/timeline"),
    ("PATCH", "/orders/{orderId}/cancel"): lambda s, p: Sent(f"/orders/{s.order()}/cancel"),
    ("POST", "/orders/{orderId}/refunds"): lambda s, p: Sent(
        f"/orders/{s.paid}/refunds", {"amount": 1, "reason": "SUPPORT"}
    ),
    ("POST", "/payments/webhook"): lambda s, p: Sent("/payments/webhook", {"id": "evt"}),
    ("GET", "/settlements/daily"): lambda s, p: Sent("/settlements/daily"),
    ("GET", "/settlements/monthly"): lambda s, p: Sent("/settlements/monthly"),
    ("GET", "/api-docs"): lambda s, p: Sent("/api-docs"),
    ("GET", "/api-docs/{asset}"): lambda s, p: Sent("/api-docs/papers.css"),
    ("GET", "/v3/api-docs"): lambda s, p: Sent("/v3/api-docs"),
    ("GET", "/v3/api-docs/{group}"): lambda s, p: Sent("/v3/api-docs/auth"),
    ("GET", "/asyncapi"): lambda s, p: Sent("/asyncapi"),
    ("GET", "/v3/asyncapi"): lambda s, p: Sent("/v3/asyncapi"),
    ("GET", "/schemas/{name}"): lambda s, p: Sent("/schemas/order.placed.v1.json"),
}


def sample(stage: Stage, route: Route, person: Person | None = None) -> Sent:
    """A request to the route that is in order, for ``person`` or somebody who may."""
    who = person or stage.person_for(route) or stage.owner
    return SAMPLES[route.method, route.path](stage, who)
