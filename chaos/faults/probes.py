"""What somebody tries who may not: other names, other people's orders, other roles, false notices.

An answer that is missing or 5xx says nothing under faults; any other must be the refusal.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from contextlib import suppress
from typing import Any, LiteralString

import httpx

from chaos.environment import Environment
from chaos.faults.fault import Kind
from shop.primitives.ids import new_uuid

CALL_SECONDS = 10.0
STRANGER = {"email": "customer@shop.local", "password": "local-only-customer"}
OTHERS_ORDER: LiteralString = """
select order_id::text, user_id::text from shop.orders o
where user_id <> (select user_id from shop.users where email = 'customer@shop.local')
order by created_at desc limit 1
"""
OPEN_PAYMENT: LiteralString = """
select p.provider_key, p.amount_minor, p.currency::text, p.order_id::text, p.payment_id::text
from shop.payments p where p.status in ('INTENT', 'UNKNOWN') order by p.created_at desc limit 1
"""


async def probe(scene: Environment) -> str:
    """Tries every door once; whatever opens is noted as broken."""
    async with httpx.AsyncClient(base_url=scene.edge_url, timeout=CALL_SECONDS) as client:
        login = await client.post("/auth/login", json=STRANGER)
        if login.status_code != 200:
            return "nobody could log in"
        token = {"authorization": f"Bearer {login.json()['accessToken']}"}
        tried = 0
        for door in DOORS:
            for name, expected, answer in await door(scene, client, token):
                tried += 1
                if answer.status_code not in expected and answer.status_code < 500:
                    scene.notice("probes", f"{name}: answered {answer.status_code}")
    return f"{tried} doors tried"


Tried = tuple[str, tuple[int, ...], httpx.Response]
Token = dict[str, str]


async def _as_somebody(scene: Environment, client: httpx.AsyncClient, _: Token) -> list[Tried]:
    """A header says who it is, and nothing proves it."""
    claimed = {"x-user-id": "1", "x-user-role": "staff", "x_user_id": "1"}
    body = {"productId": 1, "quantity": 1, "paymentMethod": "CARD"}
    return [
        ("X-User-Id orders", (401,), await client.post("/orders", json=body, headers=claimed)),
        ("X-User-Id reads a cart", (401,), await client.get("/cart", headers=claimed)),
        ("X-User-Id lists orders", (401,), await client.get("/orders/me", headers=claimed)),
    ]


async def _past_the_edge(scene: Environment, client: httpx.AsyncClient, _: Token) -> list[Tried]:
    """The edge takes such headers away; a function at its own address believes none either."""
    tried: list[Tried] = []
    for name, function, path in (
        ("X-User-Id reads a cart past the edge", "cart", "/cart"),
        ("X-User-Id lists orders past the edge", "read_orders", "/orders/me"),
    ):
        process = scene.choose(function)
        if process is None:
            continue
        with suppress(httpx.TransportError):  # it may leave, or be killed, as it is asked
            answer = await client.get(
                f"http://127.0.0.1:{process.port}{path}", headers={"x-user-id": "1"}
            )
            tried.append((name, (401,), answer))
    return tried


async def _at_others_orders(
    scene: Environment, client: httpx.AsyncClient, token: Token
) -> list[Tried]:
    """An order that is somebody else's is not there: 404, with the bytes of a missing one."""
    async with scene.database() as database:
        row = await (await database.execute(OTHERS_ORDER)).fetchone()
    if row is None:
        return []
    order, owner = row
    claimed = {**token, "x-user-id": owner}
    tried: list[Tried] = [
        ("reading another's order", (404,), await client.get(f"/orders/{order}", headers=token)),
        ("the same with X-User-Id", (404,), await client.get(f"/orders/{order}", headers=claimed)),
        (
            "cancelling another's order",
            (404,),
            await client.patch(f"/orders/{order}/cancel", headers=token),
        ),
        (
            "another's timeline",
            (404,),
            await client.get(f"/orders/{order}/timeline", headers=token),
        ),
    ]
    missing = await client.get(f"/orders/{new_uuid()}", headers=token)
    there = tried[0][2]
    if (there.status_code, missing.status_code) == (404, 404):
        differs = _without_instance(there) != _without_instance(missing)
        if differs:
            scene.notice("probes", "another's order answers other bytes than a missing one")
    return tried


def _without_instance(answer: httpx.Response) -> Any:
    return {name: text for name, text in answer.json().items() if name != "instance"}


async def _as_staff(scene: Environment, client: httpx.AsyncClient, token: Token) -> list[Tried]:
    """A customer is no staff, no support, no finance."""
    product = {"name": "x", "category": "식품", "price": 1, "stockQuantity": 1}
    refund = {"amount": 1, "reason": "please"}
    stock = {"quantity": 1}
    return [
        ("making a product", (403,), await client.post("/products", json=product, headers=token)),
        (
            "restocking",
            (403,),
            await client.post("/products/1/stock", json=stock, headers=token),
        ),
        (
            "refunding",
            (403,),
            await client.post(f"/orders/{new_uuid()}/refunds", json=refund, headers=token),
        ),
        ("reading revenue", (403,), await client.get("/settlements/daily", headers=token)),
    ]


async def _with_an_old_key(
    scene: Environment, client: httpx.AsyncClient, token: Token
) -> list[Tried]:
    """A key belongs to one request: with another body it is refused."""
    headers = {**token, "idempotency-key": str(new_uuid())}
    body = {"productId": 1, "quantity": 1, "paymentMethod": "CARD"}
    first = await client.post("/orders", json=body, headers=headers)
    if first.status_code not in (201, 409):
        return []
    other = await client.post("/orders", json={**body, "quantity": 2}, headers=headers)
    return [("the same key for another order", (422, 409), other)]


async def _as_provider(scene: Environment, client: httpx.AsyncClient, _: Token) -> list[Tried]:
    """A notice of a capture that nobody signed, or somebody else."""
    async with scene.database() as database:
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
    notice = {
        "id": f"evt_{new_uuid().hex}",
        "type": "charge.captured",
        "created": int(time.time()),
        "data": data,
    }
    body = json.dumps(notice).encode()
    plain = {"content-type": "application/json"}
    signed = {**plain, "webhook-signature": _forged(body)}
    unsigned = await client.post("/payments/webhook", content=body, headers=plain)
    forged = await client.post("/payments/webhook", content=body, headers=signed)
    return [
        ("an unsigned notice", (400, 401), unsigned),
        ("a forged notice", (400, 401), forged),
    ]


def _forged(body: bytes) -> str:
    at = int(time.time())
    digest = hmac.new(b"not the secret", b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


DOORS = (
    _as_somebody,
    _past_the_edge,
    _at_others_orders,
    _as_staff,
    _with_an_old_key,
    _as_provider,
)
KINDS = (Kind(id="F-29", what="strangers at every door", lane="messages", inject=probe),)
