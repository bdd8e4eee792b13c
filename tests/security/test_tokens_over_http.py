"""Forged and expired tokens, sent to every protected route of the shop."""

# redis-py does not type its keyword arguments.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import re
import socket
import time
from uuid import UUID

import pytest
import redis

from shop.primitives.ids import new_uuid
from shop.primitives.spec import ROLES, WITHOUT_ACCOUNT, Route
from tests.harness import AUDIENCE, ISSUER, ShopHarness
from tests.sample_requests import ROLE_OF, ROUTES, Samples, sample_request
from tests.security.test_token_corpus import ATTACKS, SESSION_ATTACKS, TokenFactory

PROTECTED = [route for route in ROUTES.values() if route.auth not in WITHOUT_ACCOUNT]


def path_of(route: Route) -> str:
    path = route.path.replace("{orderId}", str(new_uuid()))
    return re.sub(r"\{\w+\}", "1", path)


def factory_of(shop: ShopHarness, role: str) -> TokenFactory:
    """Signs with the running shop's own key, for an account with an open session."""
    person = shop.person(role)
    (session,) = shop.sql("select session_id from shop.sessions where user_id = %s", person.user_id)
    session_id: UUID = session["session_id"]
    now = int(time.time())
    return TokenFactory(shop.token_key(), ISSUER, AUDIENCE, person.user_id, session_id, now, role)


def status_of(shop: ShopHarness, route: Route, header: str | None) -> int:
    headers = {} if header is None else {"authorization": header}
    body: dict[str, object] | None = {} if route.body else None
    answer = shop.call(route.method, path_of(route), json_body=body, headers=headers)
    if answer.status == 401:
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        assert answer.headers["cache-control"] == "no-store"
        assert answer.error == "UNAUTHENTICATED"
    return answer.status


def test_every_forged_token_gets_401_on_every_protected_route(shop: ShopHarness) -> None:
    samples = Samples(shop)
    before = samples.rows()
    accepted: list[str] = []
    sent = 0
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0)
        for role in ROLES:
            factory = factory_of(shop, role)
            factory.elsewhere = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/jwks.json"
            routes = [r for r in PROTECTED if ROLE_OF.get(r.auth, r.auth) == role]
            headers = [(name, make(factory)) for name, make in ATTACKS]
            for route in routes:
                assert status_of(shop, route, f"Bearer {factory.good()}") != 401, route
                for name, header in headers:
                    sent += 1
                    status = status_of(shop, route, header)
                    if status != 401:
                        accepted.append(f"{route.method} {route.path}, {name}: {status}")
        with pytest.raises(BlockingIOError):
            elsewhere.accept()

    assert accepted == []
    assert sent >= 800
    assert samples.rows()["orders"] == before["orders"]


def test_valid_token_without_an_open_session_gets_401_everywhere(shop: ShopHarness) -> None:
    samples = Samples(shop)
    accepted: list[str] = []
    for route in PROTECTED:
        factory = factory_of(shop, ROLE_OF.get(route.auth, route.auth))
        for name, make in SESSION_ATTACKS:
            sent = sample_request(samples, route)
            before = samples.rows()
            sent.headers["authorization"] = make(factory) or ""
            answer = samples.send(route, sent)
            if answer.status != 401 or samples.rows() != before:
                accepted.append(f"{route.method} {route.path}, {name}: {answer.status}")

    assert accepted == []


def test_token_in_the_query_is_ignored(shop: ShopHarness) -> None:
    person = shop.person()

    for name in ("access_token", "token", "authorization", "jwt"):
        assert shop.call("GET", f"/users/me?{name}={person.token}").status == 401


def test_ended_session_stays_ended_after_redis_is_flushed(
    shop: ShopHarness, redis_url: str
) -> None:
    person = shop.person()
    assert person.get("/users/me").status == 200
    assert person.post("/auth/logout").status == 204

    redis.Redis.from_url(redis_url).flushall()

    assert [person.get(p).status for p in ("/users/me", "/cart", "/orders/me")] == [401] * 3


def test_refresh_token_used_after_its_successor_ends_the_session(shop: ShopHarness) -> None:
    samples = Samples(shop)
    pairs = [shop.call("POST", "/auth/login", json_body=samples.account).json]
    for _ in range(2):
        used = {"refreshToken": pairs[-1]["refreshToken"]}
        pairs.append(shop.call("POST", "/auth/refresh", json_body=used).json)
    assert shop.call("GET", "/users/me", token=pairs[-1]["accessToken"]).status == 200

    for pair in (pairs[0], pairs[-1]):
        refresh = {"refreshToken": pair["refreshToken"]}
        assert shop.call("POST", "/auth/refresh", json_body=refresh).status == 401

    for pair in pairs:
        assert shop.call("GET", "/users/me", token=pair["accessToken"]).status == 401


def test_access_and_refresh_tokens_are_not_interchangeable(shop: ShopHarness) -> None:
    samples = Samples(shop)
    pair = shop.call("POST", "/auth/login", json_body=samples.account).json

    answer = shop.call("POST", "/auth/refresh", json_body={"refreshToken": pair["accessToken"]})

    assert answer.status == 401
    assert shop.call("GET", "/users/me", token=pair["refreshToken"]).status == 401
