"""Sends requests without the necessary rights (F-29), which must get documented client errors.

Under faults a missing response or a 5xx is inconclusive; any other response must be the expected
client error.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import b32decode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import LiteralString

import httpx

from chaos.environment import Environment
from chaos.faults.fault import Fault
from shop.one_time_links import token_of
from shop.primitives.ids import new_uuid
from shop.second_factors import STEP_SECONDS, code_at
from tools.seed import LOCAL_ACCOUNTS

CALL_SECONDS = 10.0
PASSWORD = "a long enough password"  # noqa: S105 (of accounts that exist during a run only)
# The attacker's account is new: every order is another customer's.
OTHERS_ORDER: LiteralString = """
select order_id::text, user_id::text from shop.orders order by created_at desc limit 1
"""
OPEN_PAYMENT: LiteralString = """
select p.provider_key, p.amount_minor, p.currency::text, p.order_id::text, p.payment_id::text
from shop.payments p where p.status in ('INTENT', 'UNKNOWN') order by p.created_at desc limit 1
"""


LINK_OF_ACCOUNT: LiteralString = """
select l.link_id from shop.one_time_links l join shop.users u using (user_id)
where u.email = %(email)s
"""


@dataclass(frozen=True)
class ProbeResult:
    """One request, the statuses that are allowed for it and the response."""

    name: str
    allowed: tuple[int, ...]
    response: httpx.Response

    @property
    def is_violation(self) -> bool:
        status = self.response.status_code
        return status not in self.allowed and status < 500


@dataclass(frozen=True)
class Attacker:
    """A logged-in customer: the client and its authorization header.

    The account is its own, since a fault or a kill may end the sessions of any other.
    """

    environment: Environment
    client: httpx.AsyncClient
    headers: dict[str, str]

    async def get(self, name: str, path: str, allowed: int, **headers: str) -> ProbeResult:
        response = await self.client.get(path, headers={**self.headers, **headers})
        return ProbeResult(name, (allowed,), response)

    async def post(self, name: str, path: str, body: object, allowed: int) -> ProbeResult:
        response = await self.client.post(path, json=body, headers=self.headers)
        return ProbeResult(name, (allowed,), response)


async def probe_authorization(environment: Environment) -> str:
    """Sends every probe once and reports each response that is not allowed."""
    async with httpx.AsyncClient(base_url=environment.edge_url, timeout=CALL_SECONDS) as client:
        token = await _log_in_with_new_account(client)
        if token is None:
            return "log-in failed"
        attacker = Attacker(environment, client, {"authorization": f"Bearer {token}"})
        results = [result for probe in PROBES for result in await probe(attacker)]
    for result in results:
        if result.is_violation:
            environment.report_violation(
                "probes", f"{result.name}: status {result.response.status_code}"
            )
    return f"{len(results)} requests"


async def _log_in_with_new_account(client: httpx.AsyncClient) -> str | None:
    """An access token of a new account; None when a fault prevents the registration or log-in."""
    account = {"email": f"{new_uuid()}@faults.example", "password": PASSWORD}
    registration = await client.post("/users", json={**account, "name": "누구나"})
    login = await client.post("/auth/login", json=account)
    if (registration.status_code, login.status_code) != (201, 200):
        return None
    return str(login.json()["accessToken"])


async def _forged_user_headers(attacker: Attacker) -> list[ProbeResult]:
    """Sends identity headers without a token."""
    forged = {"x-user-id": "1", "x-user-role": "staff", "x_user_id": "1"}
    body = {"productId": 1, "quantity": 1, "paymentMethod": "CARD"}
    client = attacker.client
    order = await client.post("/orders", json=body, headers=forged)
    return [
        ProbeResult("X-User-Id places an order", (401,), order),
        ProbeResult("X-User-Id reads a cart", (401,), await client.get("/cart", headers=forged)),
        ProbeResult(
            "X-User-Id lists orders", (401,), await client.get("/orders/me", headers=forged)
        ),
    ]


async def _forged_user_headers_past_the_edge(attacker: Attacker) -> list[ProbeResult]:
    """Sends identity headers to function processes directly: the edge would drop them."""
    results: list[ProbeResult] = []
    for name, function, path in (
        ("X-User-Id reads a cart past the edge", "cart", "/cart"),
        ("X-User-Id lists orders past the edge", "read_orders", "/orders/me"),
    ):
        process = attacker.environment.choose_process(function)
        if process is None:
            continue
        with suppress(httpx.TransportError):  # the process may exit during the request
            response = await attacker.client.get(
                f"http://127.0.0.1:{process.port}{path}", headers={"x-user-id": "1"}
            )
            results.append(ProbeResult(name, (401,), response))
    return results


async def _other_customers_orders(attacker: Attacker) -> list[ProbeResult]:
    """Reads another customer's order: 404 with the body of an order that does not exist."""
    async with attacker.environment.database() as database:
        row = await (await database.execute(OTHERS_ORDER)).fetchone()
    if row is None:
        return []
    order, owner = row
    read = await attacker.get("reading another's order", f"/orders/{order}", 404)
    missing = await attacker.get("reading a missing order", f"/orders/{new_uuid()}", 404)
    statuses = (read.response.status_code, missing.response.status_code)
    if statuses == (404, 404) and _without_instance(read) != _without_instance(missing):
        attacker.environment.report_violation(
            "probes", "another's order and a missing one have different bodies"
        )
    cancel = await attacker.client.patch(f"/orders/{order}/cancel", headers=attacker.headers)
    return [
        read,
        await attacker.get(
            "the same with X-User-Id", f"/orders/{order}", 404, **{"x-user-id": owner}
        ),
        ProbeResult("cancelling another's order", (404,), cancel),
        await attacker.get("another's timeline", f"/orders/{order}/timeline", 404),
    ]


def _without_instance(result: ProbeResult) -> dict[str, object]:
    """The problem document without the member that names the request's own path."""
    document: dict[str, object] = result.response.json()
    return {name: value for name, value in document.items() if name != "instance"}


async def _staff_operations(attacker: Attacker) -> list[ProbeResult]:
    """Requests operations of staff, support and finance as a customer."""
    product = {"name": "x", "category": "식품", "price": 1, "stockQuantity": 1}
    refund = {"amount": 1, "reason": "please"}
    return [
        await attacker.post("adding a product", "/products", product, 403),
        await attacker.post("restocking", "/products/1/stock", {"quantity": 1}, 403),
        await attacker.post("refunding", f"/orders/{new_uuid()}/refunds", refund, 403),
        await attacker.get("reading revenue", "/settlements/daily", 403),
    ]


async def _reused_idempotency_key(attacker: Attacker) -> list[ProbeResult]:
    """Sends two different bodies with one idempotency key."""
    headers = {**attacker.headers, "idempotency-key": str(new_uuid())}
    body = {"productId": 1, "quantity": 1, "paymentMethod": "CARD"}
    first = await attacker.client.post("/orders", json=body, headers=headers)
    if first.status_code not in (201, 409):
        return []
    other = await attacker.client.post("/orders", json={**body, "quantity": 2}, headers=headers)
    return [ProbeResult("the same key for another order", (422, 409), other)]


async def _used_link(attacker: Attacker) -> list[ProbeResult]:
    """Uses a link twice to reset a password, and then the session from before."""
    client, key = attacker.client, attacker.environment.secrets.link_key
    email, password = f"{new_uuid()}@faults.example", str(new_uuid())
    new_account = {"email": email, "password": password, "name": "Reset"}
    registered = await client.post("/users", json=new_account)
    opened = await client.post("/auth/login", json={"email": email, "password": password})
    await client.post("/auth/password-reset", json={"email": email})
    async with attacker.environment.database() as database:
        row = await (await database.execute(LINK_OF_ACCOUNT, {"email": email})).fetchone()
    if (registered.status_code, opened.status_code) != (201, 200) or row is None:
        return []
    body = {"token": token_of(row[0], key), "newPassword": str(new_uuid())}
    confirm = "/auth/password-reset/confirm"
    used = await client.post(confirm, json=body)
    if used.status_code != 204:
        # 403: an attempt whose response was lost has used it
        return [ProbeResult("a link", (403,), used)]
    session = {"authorization": f"Bearer {opened.json()['accessToken']}"}
    return [
        ProbeResult("a used link", (403,), await client.post(confirm, json=body)),
        ProbeResult("an ended session", (401,), await client.get("/users/me", headers=session)),
    ]


async def _missing_code(attacker: Attacker) -> list[ProbeResult]:
    """Logs in to an operator's account with a second factor, without a code and with a used one."""
    client = attacker.client
    credentials = {"email": f"{new_uuid()}@faults.example", "password": str(new_uuid())}
    registered = await client.post("/users", json={**credentials, "name": "Operator"})
    (admin,) = [
        {"email": email, "password": password}
        for role, email, password in LOCAL_ACCOUNTS
        if role == "admin"
    ]
    opened = await client.post("/auth/login", json=admin)
    if (registered.status_code, opened.status_code) != (201, 200):
        return []
    path = f"/admin/users/{registered.json()['id']}"
    headers = {"authorization": f"Bearer {opened.json()['accessToken']}", "if-match": "*"}
    await client.patch(path, json={"role": "staff"}, headers=headers)
    begun = await client.post("/auth/second-factor", json=credentials)
    if begun.status_code != 201:
        return []
    code = code_at(int(time.time()) // STEP_SECONDS, b32decode(begun.json()["secret"]))
    body = {**credentials, "code": code}
    confirmed = await client.post("/auth/second-factor/confirm", json=body)
    if confirmed.status_code != 200:
        return []
    without = await client.post("/auth/login", json=credentials)
    used = await client.post("/auth/login", json=body)
    return [
        ProbeResult("the password without a code", (401,), without),
        ProbeResult("a used code", (401, 429), used),
    ]


async def _forged_webhooks(attacker: Attacker) -> list[ProbeResult]:
    """Sends a capture webhook for an open payment, unsigned and with a wrong signature."""
    async with attacker.environment.database() as database:
        row = await (await database.execute(OPEN_PAYMENT)).fetchone()
    if row is None:
        return []
    key, amount, currency, order, payment = row
    data = {
        "key": key,
        "status": "captured",
        "amount_minor": amount,
        "currency": currency,
        "order_id": order,
        "payment_id": payment,
        "provider_ref": "ch_forged",
    }
    webhook = {
        "id": f"evt_{new_uuid().hex}",
        "type": "charge.captured",
        "created": int(time.time()),
        "data": data,
    }
    body = json.dumps(webhook).encode()
    plain = {"content-type": "application/json"}
    signed = {**plain, "webhook-signature": _forged_signature(body)}
    post, path = attacker.client.post, "/payments/webhook"
    return [
        ProbeResult(
            "an unsigned webhook", (400, 401), await post(path, content=body, headers=plain)
        ),
        ProbeResult("a forged webhook", (400, 401), await post(path, content=body, headers=signed)),
    ]


def _forged_signature(body: bytes) -> str:
    at = int(time.time())
    digest = hmac.new(b"not the secret", b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


PROBES: tuple[Callable[[Attacker], Awaitable[list[ProbeResult]]], ...] = (
    _forged_user_headers,
    _forged_user_headers_past_the_edge,
    _other_customers_orders,
    _staff_operations,
    _reused_idempotency_key,
    _used_link,
    _missing_code,
    _forged_webhooks,
)
FAULTS = (
    Fault(id="F-29", title="unauthorized requests", group="messages", inject=probe_authorization),
)
