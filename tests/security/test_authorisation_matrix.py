"""Authorisation: the status of every route for every principal, in one table (OWASP API1, API5)."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from shop.adapters.tokens import TokenIssuer
from shop.primitives.ids import new_uuid
from shop.primitives.spec import SIGNED, WITHOUT_ACCOUNT, Route
from tests.harness import AUDIENCE, ISSUER, Person, ShopHarness
from tests.sample_requests import ROUTES, SAMPLES, Samples, sample_request

PRINCIPALS = (
    "anonymous", "owner", "other", "staff", "support", "finance", "admin",
    "expired", "revoked", "logged out", "disabled",
)  # fmt: skip


def open_to_all(status: int) -> tuple[int, ...]:
    return (status,) * len(PRINCIPALS)


def signed_in(
    owner: int, other: int, staff: int, support: int, finance: int, admin: int
) -> tuple[int, ...]:
    return (401, owner, other, staff, support, finance, admin, 401, 401, 401, 401)


EVERYBODY_200 = signed_in(200, 200, 200, 200, 200, 200)
EVERYBODY_202 = signed_in(202, 202, 202, 202, 202, 202)
EVERYBODY_201 = signed_in(201, 201, 201, 201, 201, 201)
OPERATORS_200 = signed_in(403, 403, 200, 200, 200, 403)
NOTED_201 = signed_in(403, 403, 201, 201, 201, 201)
ALERTS_200 = signed_in(403, 403, 200, 200, 200, 200)
ADMIN_200 = signed_in(403, 403, 403, 403, 403, 200)
EVERYBODY_204 = signed_in(204, 204, 204, 204, 204, 204)

MATRIX: dict[tuple[str, str], tuple[int, ...]] = {
    ("POST", "/users"): open_to_all(201),
    ("GET", "/users/me"): EVERYBODY_200,
    ("PATCH", "/users/me"): EVERYBODY_200,
    ("POST", "/users/me/email"): EVERYBODY_202,
    ("POST", "/users/me/email-verification"): EVERYBODY_202,
    ("POST", "/users/me/password"): EVERYBODY_204,
    ("POST", "/users/me/export"): EVERYBODY_200,
    # an administrator answers for the accounts of operators
    ("DELETE", "/users/me"): signed_in(204, 204, 409, 409, 409, 409),
    ("GET", "/users/me/sessions"): EVERYBODY_200,
    ("DELETE", "/users/me/sessions"): EVERYBODY_204,
    # the session is the owner's
    ("DELETE", "/users/me/sessions/{sessionId}"): signed_in(204, 404, 404, 404, 404, 404),
    ("GET", "/users/me/addresses"): EVERYBODY_200,
    ("POST", "/users/me/addresses"): EVERYBODY_201,
    # the address is the owner's
    ("GET", "/users/me/addresses/{addressId}"): signed_in(200, 404, 404, 404, 404, 404),
    ("PATCH", "/users/me/addresses/{addressId}"): signed_in(204, 404, 404, 404, 404, 404),
    ("DELETE", "/users/me/addresses/{addressId}"): signed_in(204, 404, 404, 404, 404, 404),
    ("POST", "/auth/password-reset"): open_to_all(202),
    ("POST", "/auth/password-reset/confirm"): open_to_all(204),
    ("POST", "/auth/email-verification/confirm"): open_to_all(204),
    ("POST", "/auth/login"): open_to_all(200),
    ("POST", "/auth/second-factor"): open_to_all(201),
    ("POST", "/auth/second-factor/confirm"): open_to_all(200),
    ("POST", "/auth/second-factor/remove"): open_to_all(204),
    ("POST", "/auth/second-factor/recovery-codes"): open_to_all(200),
    ("POST", "/auth/refresh"): open_to_all(200),
    # a session that is over already is over: 204 again
    ("POST", "/auth/logout"): (401, 204, 204, 204, 204, 204, 204, 401, 204, 204, 204),
    ("GET", "/.well-known/jwks.json"): open_to_all(200),
    ("GET", "/products"): open_to_all(200),
    ("GET", "/products/{productId}"): open_to_all(200),
    ("GET", "/categories"): open_to_all(200),
    ("POST", "/products"): signed_in(403, 403, 201, 403, 403, 403),
    ("PATCH", "/products/{productId}"): signed_in(403, 403, 200, 403, 403, 403),
    ("POST", "/products/{productId}/stock"): signed_in(403, 403, 200, 403, 403, 403),
    ("POST", "/categories"): signed_in(403, 403, 201, 403, 403, 403),
    ("GET", "/cart"): EVERYBODY_200,
    ("GET", "/cart/summary"): EVERYBODY_200,
    ("POST", "/cart/items"): EVERYBODY_201,
    ("PATCH", "/cart/items/{productId}"): EVERYBODY_200,
    ("DELETE", "/cart/items/{productId}"): EVERYBODY_204,
    ("DELETE", "/cart"): EVERYBODY_204,
    ("POST", "/orders"): EVERYBODY_201,
    ("POST", "/orders/from-cart"): EVERYBODY_201,
    # 409: it is the owner's to pay, but a payment is on its way already
    ("POST", "/orders/{orderId}/payments"): signed_in(409, 404, 404, 404, 404, 404),
    ("POST", "/orders/{orderId}/payments/{paymentId}/confirm"): signed_in(
        202, 404, 404, 404, 404, 404
    ),
    ("GET", "/orders/me"): EVERYBODY_200,
    ("GET", "/orders/{orderId}"): signed_in(200, 404, 404, 200, 404, 404),
    ("GET", "/orders/{orderId}/timeline"): signed_in(200, 404, 404, 200, 404, 404),
    ("GET", "/orders/{orderId}/receipt"): signed_in(200, 404, 404, 404, 404, 404),
    ("PATCH", "/orders/{orderId}/cancel"): signed_in(200, 404, 404, 404, 404, 404),
    ("POST", "/orders/{orderId}/cancellations"): signed_in(200, 404, 404, 404, 404, 404),
    ("POST", "/orders/{orderId}/returns"): signed_in(201, 404, 404, 404, 404, 404),
    ("POST", "/orders/{orderId}/refunds"): signed_in(403, 403, 403, 201, 403, 403),
    # a token does not replace the provider's signature
    ("POST", "/payments/webhook"): open_to_all(401),
    ("POST", "/shipments/webhook"): open_to_all(204),
    ("GET", "/settlements/daily"): signed_in(403, 403, 403, 403, 200, 403),
    ("GET", "/settlements/monthly"): signed_in(403, 403, 403, 403, 200, 403),
    ("GET", "/settlements/daily.csv"): signed_in(403, 403, 403, 403, 200, 403),
    ("GET", "/settlements/monthly.csv"): signed_in(403, 403, 403, 403, 200, 403),
    ("GET", "/admin/orders"): OPERATORS_200,
    ("GET", "/admin/products"): OPERATORS_200,
    ("GET", "/admin/products/{productId}"): OPERATORS_200,
    ("GET", "/admin/products/{productId}/stock-moves"): OPERATORS_200,
    ("GET", "/admin/orders.csv"): OPERATORS_200,
    ("GET", "/admin/orders/{orderId}"): OPERATORS_200,
    ("PATCH", "/admin/orders/{orderId}/cancel"): signed_in(403, 403, 403, 200, 403, 403),
    ("POST", "/admin/orders/{orderId}/shipments"): signed_in(403, 403, 201, 403, 403, 403),
    ("PATCH", "/admin/orders/{orderId}/shipments/{shipmentId}"): signed_in(
        403, 403, 200, 403, 403, 403
    ),
    ("PATCH", "/admin/orders/{orderId}/returns/{returnId}"): signed_in(
        403, 403, 403, 200, 403, 403
    ),
    ("POST", "/admin/orders/{orderId}/returns/{returnId}/receipt"): signed_in(
        403, 403, 200, 403, 403, 403
    ),
    ("POST", "/admin/orders/{orderId}/notes"): NOTED_201,
    ("GET", "/admin/customers/{userId}"): signed_in(403, 403, 403, 200, 403, 200),
    ("POST", "/admin/customers/{userId}/notes"): NOTED_201,
    ("GET", "/admin/alerts"): ALERTS_200,
    ("POST", "/admin/alerts/{alertId}/resolution"): ALERTS_200,
    ("GET", "/admin/dead-letters"): ADMIN_200,
    ("GET", "/admin/dead-letters/{deadLetterId}"): ADMIN_200,
    ("POST", "/admin/dead-letters/{deadLetterId}/drop"): ADMIN_200,
    ("GET", "/admin/products/{productId}/prices"): OPERATORS_200,
    ("POST", "/admin/products/{productId}/price-schedules"): signed_in(
        403, 403, 201, 403, 403, 403
    ),
    ("DELETE", "/admin/products/{productId}/price-schedules/{scheduleId}"): signed_in(
        403, 403, 200, 403, 403, 403
    ),
    ("POST", "/admin/product-groups"): signed_in(403, 403, 201, 403, 403, 403),
    ("GET", "/admin/product-groups"): OPERATORS_200,
    ("GET", "/admin/product-groups/{groupId}"): OPERATORS_200,
    ("PATCH", "/admin/product-groups/{groupId}"): signed_in(403, 403, 200, 403, 403, 403),
    ("POST", "/admin/shipping-fees"): signed_in(403, 403, 201, 403, 403, 403),
    ("GET", "/admin/shipping-fees"): OPERATORS_200,
    ("GET", "/admin/shipping-fees/{version}"): OPERATORS_200,
    ("POST", "/admin/coupons"): signed_in(403, 403, 201, 403, 403, 403),
    ("GET", "/admin/coupons"): OPERATORS_200,
    ("GET", "/admin/coupons/{code}"): OPERATORS_200,
    ("PATCH", "/admin/coupons/{code}"): signed_in(403, 403, 200, 403, 403, 403),
    ("DELETE", "/admin/coupons/{code}"): signed_in(403, 403, 200, 403, 403, 403),
    ("GET", "/admin/users"): ADMIN_200,
    ("POST", "/admin/users"): signed_in(403, 403, 403, 403, 403, 201),
    ("GET", "/admin/users/{userId}"): ADMIN_200,
    ("PATCH", "/admin/users/{userId}"): ADMIN_200,
    ("DELETE", "/admin/users/{userId}"): signed_in(403, 403, 403, 403, 403, 204),
    ("POST", "/admin/service-accounts"): signed_in(403, 403, 403, 403, 403, 201),
    ("GET", "/admin/users/{userId}/api-keys"): ADMIN_200,
    ("POST", "/admin/users/{userId}/api-keys"): signed_in(403, 403, 403, 403, 403, 201),
    ("POST", "/admin/users/{userId}/api-keys/{keyId}/rotate"): signed_in(
        403, 403, 403, 403, 403, 201
    ),
    ("DELETE", "/admin/users/{userId}/api-keys/{keyId}"): signed_in(403, 403, 403, 403, 403, 204),
    ("GET", "/admin/audit-log"): ADMIN_200,
    ("GET", "/admin/webhooks"): ADMIN_200,
    ("POST", "/admin/webhooks"): signed_in(403, 403, 403, 403, 403, 201),
    ("GET", "/admin/webhooks/{webhookId}"): ADMIN_200,
    ("PATCH", "/admin/webhooks/{webhookId}"): ADMIN_200,
    ("DELETE", "/admin/webhooks/{webhookId}"): signed_in(403, 403, 403, 403, 403, 204),
    ("POST", "/admin/webhooks/{webhookId}/secret"): ADMIN_200,
    ("POST", "/admin/webhooks/{webhookId}/test"): ADMIN_200,
    ("GET", "/admin/webhooks/{webhookId}/deliveries"): ADMIN_200,
    ("GET", "/admin/webhooks/{webhookId}/deliveries/{eventId}"): ADMIN_200,
    ("POST", "/admin/webhooks/{webhookId}/deliveries/{eventId}/redelivery"): signed_in(
        403, 403, 403, 403, 403, 202
    ),
    ("POST", "/admin/webhooks/{webhookId}/redeliveries"): signed_in(403, 403, 403, 403, 403, 202),
    ("GET", "/api-docs"): open_to_all(200),
    ("GET", "/swagger-ui.html"): open_to_all(302),
    ("GET", "/api-docs.html"): open_to_all(302),
    ("GET", "/api-docs/{asset}"): open_to_all(200),
    ("GET", "/v3/api-docs"): open_to_all(200),
    ("GET", "/v3/api-docs/{group}"): open_to_all(200),
    ("GET", "/asyncapi"): open_to_all(200),
    ("GET", "/"): open_to_all(200),
    ("GET", "/set-password"): open_to_all(200),
    ("GET", "/verify-email"): open_to_all(200),
    ("GET", "/admin"): open_to_all(200),
    ("GET", "/assets/{asset}"): open_to_all(200),
    ("GET", "/v3/asyncapi"): open_to_all(200),
    ("GET", "/schemas/{name}"): open_to_all(200),
}


def test_table_has_one_row_for_every_route() -> None:
    assert set(MATRIX) == set(ROUTES) >= set(SAMPLES)
    assert {len(row) for row in MATRIX.values()} == {len(PRINCIPALS)}


def expired(person: Person) -> Person:
    def an_hour_ago() -> datetime:
        return datetime.now(UTC) - timedelta(hours=1)

    shop = person.shop
    (session,) = shop.sql(
        "select session_id, role from shop.sessions join shop.users using (user_id) "
        "where user_id = %s",
        person.user_id,
    )
    issuer = TokenIssuer(shop.secrets.jwt_private_key, ISSUER, AUDIENCE, an_hour_ago)
    token = issuer.issue(person.user_id, session["role"], session["session_id"])[0]
    return Person(shop, person.user_id, token)


def revoked(person: Person) -> Person:
    person.shop.sql(
        "update shop.sessions set revoked_at = now() where user_id = %s", person.user_id
    )
    return person


def logged_out(person: Person) -> Person:
    assert person.post("/auth/logout").status == 204
    return person


def disabled(person: Person) -> Person:
    person.shop.sql(
        "update shop.users set active = false, state = 'DISABLED' where user_id = %s",
        person.user_id,
    )
    return person


# these would be let in, had they not lost their access
WITHOUT_ACCESS: dict[str, Callable[[Person], Person]] = {
    "expired": expired, "revoked": revoked, "logged out": logged_out, "disabled": disabled,
}  # fmt: skip
# of the account that the other samples need
ENDS_SESSIONS = ("/users/me/password", "/users/me/sessions", "/users/me")
ROLE_OF = {
    "staff": "staff", "support": "support", "operator": "support", "settlements": "finance",
    "admin": "admin", "operator_or_admin": "staff", "support_or_admin": "admin",
}  # fmt: skip


def principal(samples: Samples, name: str, route: Route) -> Person | None:
    """An account of that kind, with its own session."""
    if name == "anonymous":
        return None
    if name in WITHOUT_ACCESS:
        return WITHOUT_ACCESS[name](samples.shop.person(ROLE_OF.get(route.auth, "customer")))
    if name == "owner" and route.path in ENDS_SESSIONS:
        return samples.shop.person()
    if name == "owner":
        return Person(
            samples.shop, samples.owner.user_id, samples.shop.token(samples.owner.user_id)
        )
    return samples.shop.person("customer" if name == "other" else name)


@pytest.mark.parametrize("name", PRINCIPALS)
def test_every_route_responds_to_the_principal_as_the_table_states(
    samples: Samples, name: str
) -> None:
    column = PRINCIPALS.index(name)
    wrong: list[str] = []
    for (method, path), row in MATRIX.items():
        route = ROUTES[method, path]
        who = principal(samples, name, route)
        answer = samples.send(
            route, sample_request(samples, route, who), token=who.token if who else None
        )
        if answer.status != row[column]:
            wrong.append(f"{method} {path}: {answer.status} instead of {row[column]}")
        if answer.status == 401 and route.auth not in SIGNED:
            assert answer.headers["www-authenticate"].startswith("Bearer"), path
    assert wrong == []


@pytest.mark.parametrize("lost_by", WITHOUT_ACCESS)
def test_token_of_an_ended_session_gets_401_where_its_role_would_get_403(
    samples: Samples, lost_by: str
) -> None:
    routes = [ROUTES[key] for key in MATRIX if ROUTES[key].auth in ROLE_OF]
    assert len(routes) >= 7
    wrong: list[str] = []
    for route in routes:
        without_role = samples.shop.person("customer")
        body = sample_request(samples, route, without_role)
        who = WITHOUT_ACCESS[lost_by](without_role)
        answer = samples.send(route, body, token=who.token)
        if (answer.status, answer.error) != (401, "UNAUTHENTICATED"):
            wrong.append(f"{route.method} {route.path}: {answer.status} {answer.error}")
    assert wrong == []


@pytest.mark.parametrize(
    ("policy", "row"),
    [
        ("customer", (401, 200, 200, 200, 200, 200, 200, 401, 401, 401, 401)),
        ("public", (200,) * len(PRINCIPALS)),
    ],
)
def test_settlements_policy_changes_the_permitted_roles(
    make_shop: Callable[..., ShopHarness], policy: str, row: tuple[int, ...]
) -> None:
    samples = Samples(make_shop(settlements_auth=policy))

    answers: list[int] = []
    for name in PRINCIPALS:
        who = principal(samples, name, ROUTES["GET", "/settlements/daily"])
        token = who.token if who else None
        answers.append(samples.shop.call("GET", "/settlements/daily", token=token).status)

    assert tuple(answers) == row


OF_AN_ORDER = [route for route in ROUTES.values() if "{orderId}" in route.path]


@pytest.mark.parametrize("route", OF_AN_ORDER, ids=lambda r: f"{r.method} {r.path}")
def test_order_of_another_customer_gets_the_404_of_a_missing_order(
    samples: Samples, route: Route
) -> None:
    stranger = samples.shop.person()
    existing = sample_request(samples, route)
    order_id = existing.path.split("/")[route.path.split("/").index("{orderId}")]
    missing = str(new_uuid())

    theirs = samples.send(route, existing, token=stranger.token)
    existing.path = existing.path.replace(order_id, missing)
    none = samples.send(route, existing, token=stranger.token)

    assert theirs.status == none.status == (404 if route.auth == "customer" else 403)
    assert theirs.body.replace(order_id.encode(), b"") == none.body.replace(missing.encode(), b"")
    assert dict(theirs.headers) == dict(none.headers)


def test_invalid_order_id_gets_404(samples: Samples) -> None:
    order_id = samples.order()
    theirs = samples.shop.person().get(f"/orders/{order_id}").json

    for odd in ("1", "0", "-1", "me2", "null", order_id[:-1], f"{order_id}0", "a" * 150, "..."):
        answer = samples.owner.get(f"/orders/{odd}")
        assert answer.json == theirs | {"instance": f"/orders/{odd}"}, odd


def test_user_id_in_a_request_does_not_select_another_account(samples: Samples) -> None:
    other = samples.shop.person()
    samples.fill_cart(samples.owner)
    samples.order()

    assert other.get("/cart").json == []
    assert other.get("/orders/me").json == []
    assert other.get(f"/cart?userId={samples.owner.user_id}").status == 400
    assert other.get(f"/orders/me?userId={samples.owner.user_id}").status == 400
    assert len(samples.owner.get("/cart").json) == 1


def test_revoked_role_takes_effect_at_once(samples: Samples) -> None:
    staff = samples.shop.person("staff")
    samples.shop.sql("update shop.users set role = 'customer' where user_id = %s", staff.user_id)

    answer = staff.post("/categories", {"name": "새"})

    assert (answer.status, answer.error) == (401, "UNAUTHENTICATED")


def test_support_cannot_refund_their_own_order(samples: Samples) -> None:
    support = samples.shop.person("support")
    order = support.paid_order(samples.product)
    before = samples.rows()

    answer = support.post(f"/orders/{order['id']}/refunds", {"amount": 1})

    assert answer.status == 403
    assert samples.rows() == before


def test_user_id_header_without_a_token_gets_401(samples: Samples) -> None:
    """No spelling of an X-User-Id header replaces a token on a protected route."""
    before = samples.rows()
    for route in ROUTES.values():
        if route.auth in WITHOUT_ACCOUNT:
            continue
        path = re.sub(r"\{\w+\}", "1", route.path)
        for header in ("x-user-id", "X-User-ID", "x_user_id", "x-userid"):
            answer = samples.shop.call(route.method, path, headers={header: "1"})
            assert answer.status == 401, (route, header)
    assert samples.rows() == before


def test_database_roles_own_nothing_and_cannot_rewrite_history(samples: Samples) -> None:
    """Functions' database roles own nothing, create nothing, and rewrite no history."""
    roles = samples.shop.sql(
        "select rolname from pg_roles where rolname like 'shop\\_%' "
        "and (rolsuper or rolbypassrls or rolcreaterole or rolcreatedb)"
    )
    owned = samples.shop.sql(
        "select relname from pg_class c join pg_roles r on r.oid = c.relowner "
        "where r.rolname like 'shop\\_%' and c.relnamespace = 'shop'::regnamespace "
        "and r.rolname in (select usename from pg_user)"
    )
    rewriting = samples.shop.sql(
        "select grantee, table_name from information_schema.role_table_grants "
        "where table_schema = 'shop' and grantee like 'shop\\_%' "
        "and privilege_type in ('UPDATE', 'DELETE', 'TRUNCATE') "
        "and table_name in ('ledger', 'transitions', 'stock_moves')"
    )
    assert (roles, rewriting) == ([], [])
    assert [r for r in owned if r["relname"] in ("orders", "ledger")] == []
