"""Requests that reach every failpoint of the functions that customers use rarely (F-01).

A function needs several of them when no single request has an idempotency key, an event and a
response with a body.
"""

from __future__ import annotations

import asyncio
import random
import time
from base64 import b32decode
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial

import httpx

from shop.primitives.ids import new_uuid
from shop.second_factors import STEP_SECONDS, code_at
from tools.seed import LOCAL_ACCOUNTS

ATTEMPTS_MAX = 5
PASSWORDS = {role: (email, password) for role, email, password in LOCAL_ACCOUNTS}
PASSWORD = "a long enough password"  # noqa: S105 (of accounts that exist during a run only)
RECEIVER_PATH = "/events"  # of the webhook whose deliveries the run counts

Send = Callable[[], Awaitable[object]]


def requests_by_function(client: httpx.AsyncClient) -> Mapping[str, Send]:
    """For each of these functions, what sends it the requests that reach all its failpoints."""
    senders = {
        "account": _change_account,
        "fulfil_orders": _pack,
        "login": _set_up_factor,
        "manage_accounts": _invite,
        "manage_orders": _add_note,
        "manage_webhooks": _change_webhook,
        "register": _register,
    }
    return {function: partial(send, client) for function, send in senders.items()}


async def _register(client: httpx.AsyncClient) -> None:
    """Registers a new account, with retries under the same idempotency key."""
    body = {"email": _new_address(), "password": PASSWORD, "name": "누구나"}
    headers = {"idempotency-key": str(new_uuid())}
    for _ in range(ATTEMPTS_MAX):
        with suppress(httpx.HTTPError):
            response = await client.post("/users", json=body, headers=headers)
            if response.status_code < 500:
                return
        await asyncio.sleep(0.2)


async def _set_up_factor(client: httpx.AsyncClient) -> None:
    """Gives a new account a role and a second factor, and refreshes its session."""
    admin = await _log_in(client, "admin")
    account = {"email": _new_address(), "password": PASSWORD}
    registered = await client.post("/users", json={**account, "name": "누구나"})
    if admin is None or registered.status_code != 201:
        return
    path, headers = f"/admin/users/{registered.json()['id']}", {**_headers(admin), "if-match": "*"}
    changed = await client.patch(path, json={"role": "staff"}, headers=headers)
    begun = await client.post("/auth/second-factor", json=account)
    if changed.status_code != 200 or begun.status_code != 201:
        return
    secret = b32decode(begun.json()["secret"])
    proof = {**account, "code": code_at(int(time.time()) // STEP_SECONDS, secret)}
    confirmed = await client.post("/auth/second-factor/confirm", json=proof)
    if confirmed.status_code == 200:
        body = {"refreshToken": confirmed.json()["refreshToken"]}
        await client.post("/auth/refresh", json=body)


async def _change_account(client: httpx.AsyncClient) -> None:
    """Replaces the name and the password by the same ones; the other sessions end."""
    session = await _log_in(client, "customer")
    if session is None:
        return
    me = await client.get("/users/me", headers=_headers(session))
    if me.status_code == 200:
        headers = {**_headers(session), "if-match": me.headers["etag"]}
        await client.patch("/users/me", json={"name": me.json()["name"]}, headers=headers)
    _, password = PASSWORDS["customer"]
    body = {"currentPassword": password, "newPassword": password}
    await client.post("/users/me/password", json=body, headers=_headers(session))


async def _invite(client: httpx.AsyncClient) -> None:
    """Makes an account of an address that has none."""
    if session := await _log_in(client, "admin"):
        body = {"email": _new_address(), "name": "Invited", "role": "staff"}
        await client.post("/admin/users", json=body, headers=_headers(session))


async def _add_note(client: httpx.AsyncClient) -> None:
    """Adds a note about the account of support itself."""
    session = await _log_in(client, "support")
    if session is None:
        return
    me = await client.get("/users/me", headers=_headers(session))
    if me.status_code == 200:
        path, body = f"/admin/customers/{me.json()['id']}/notes", {"text": "by a fault run"}
        await client.post(path, json=body, headers=_headers(session))


async def _pack(client: httpx.AsyncClient) -> None:
    """Begins to pack a recent paid order, and stops, so that its customer may still cancel it."""
    session = await _log_in(client, "staff")
    if session is None:
        return
    listed = await client.get("/admin/orders?status=PAID&limit=50", headers=_headers(session))
    if listed.status_code != 200 or not listed.json()["orders"]:
        return
    order = random.choice(listed.json()["orders"])  # noqa: S311 (not a secret)
    path = f"/admin/orders/{order['id']}/shipments"
    packed = await client.post(path, json={}, headers=_headers(session))
    if packed.status_code == 201:
        path, body = f"{path}/{packed.json()['id']}", {"status": "CANCELLED"}
        await client.patch(path, json=body, headers=_headers(session))


async def _change_webhook(client: httpx.AsyncClient) -> None:
    """Gives a webhook whose deliveries are not counted the other of two event types."""
    session = await _log_in(client, "admin")
    if session is None:
        return
    listed = await client.get("/admin/webhooks", headers=_headers(session))
    if listed.status_code != 200:
        return
    uncounted = (w for w in listed.json() if not w["url"].endswith(RECEIVER_PATH))
    path = f"/admin/webhooks/{next(uncounted)['id']}"
    seen = await client.get(path, headers=_headers(session))
    if seen.status_code == 200:
        is_first = seen.json()["eventTypes"] == ["refund.rejected"]
        body = {"eventTypes": ["payment.declined" if is_first else "refund.rejected"]}
        headers = {**_headers(session), "if-match": seen.headers["etag"]}
        await client.patch(path, json=body, headers=headers)


async def _log_in(client: httpx.AsyncClient, role: str) -> Mapping[str, str] | None:
    """Opens a session of the seeded account; None if the log-in failed."""
    email, password = PASSWORDS[role]
    response = await client.post("/auth/login", json={"email": email, "password": password})
    return response.json() if response.status_code == 200 else None


def _headers(session: Mapping[str, str]) -> dict[str, str]:
    """The access token of the session, and a new idempotency key."""
    return {
        "authorization": f"Bearer {session['accessToken']}",
        "idempotency-key": str(new_uuid()),
    }


def _new_address() -> str:
    return f"{new_uuid()}@faults.example"
