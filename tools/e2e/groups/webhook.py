"""Webhooks of the provider: signature, age, and verification against the provider's records."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import uuid

import httpx

from tools.e2e.client import Call
from tools.e2e.context import ScenarioContext, expect
from tools.e2e.scenario import Scenario

PATH = "/payments/webhook"
SIGNATURE = "Webhook-Signature"
OLD_SECONDS = 301


def unsigned_webhooks_answer_401(context: ScenarioContext) -> None:
    """Without a valid signature a webhook answers 401."""
    body = _webhook_body(f"shop:{uuid.uuid4()}")
    now = int(time.time())
    signatures = {
        "no signature": None,
        "an empty signature": "",
        "a malformed signature": "nonsense",
        "a signature without time": f"v1={'0' * 64}",
        "a wrong signature": f"t={now},v1={'0' * 64}",
        "a signature with another secret": sign(body, "another secret", now),
        "an old signature": sign(body, "another secret", now - OLD_SECONDS),
    }
    for name, signature in signatures.items():
        response = _deliver(context, body, signature)
        context.check.problem(f"{name}: 401", response, 401)
    with_token = _deliver(context, body, None, token=context.customer(1).token())
    context.check.problem("a customer's token without a signature: 401", with_token, 401)


def invalid_signed_webhooks_are_rejected(context: ScenarioContext) -> None:
    """A signed webhook is rejected when old, altered, malformed or for an unknown payment."""
    secret = context.run.webhook_secret
    assert secret is not None, "the runner skips this scenario without the secret"
    body, now = _webhook_body(f"shop:{uuid.uuid4()}"), int(time.time())
    old = _deliver(context, body, sign(body, secret, now - OLD_SECONDS))
    context.check.problem("signed more than 5 minutes ago: 401", old, 401)
    early = _deliver(context, body, sign(body, secret, now + 2 * OLD_SECONDS))
    context.check.problem("signed in the future: 401", early, 401)
    altered = _deliver(context, _webhook_body(f"shop:{uuid.uuid4()}"), sign(body, secret, now))
    context.check.problem("the signature of another body: 401", altered, 401)
    unknown = _deliver(context, body, sign(body, secret, now))
    context.check.problem("for an unknown payment: 422", unknown, 422)
    invalid = b"{"
    malformed = _deliver(context, invalid, sign(invalid, secret, now))
    context.check.problem("signed, but not JSON: 400", malformed, 400)


def duplicate_and_late_webhooks_change_nothing(context: ScenarioContext) -> None:
    """Duplicate, late and contradictory webhooks do not change a paid order."""
    secret = context.run.webhook_secret
    assert secret is not None, "the runner skips this scenario without the secret"
    customer, product = context.customer(1), context.create_product(price=1000, stock=5)
    order = context.place_paid_order(customer, (product["id"], 1))
    timeline = expect(context.get(f"/orders/{order['id']}/timeline", customer), 200).json()
    payment_id = next(move["id"] for move in timeline if move["entity"] == "payment")
    for name, event_type in (("captured", "charge.captured"), ("declined", "charge.declined")):
        body = _webhook_body(f"shop:{payment_id}", event_type, product["currency"])
        for delivery in ("first", "second"):
            response = _deliver(context, body, sign(body, secret, int(time.time())))
            context.check.status(
                f"{name}, {delivery} delivery for a paid order: 204", response, 204
            )
    seen = context.read_order(customer, order["id"])
    context.check.equal("the order is unchanged", seen, order)
    context.check.equal("the stock is unchanged", context.stock(product["id"]), 4)


def sign(body: bytes, secret: str, at: int) -> str:
    """The provider's signature: ``t=<unix seconds>,v1=<hex HMAC-SHA256 of "t.body">``."""
    digest = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def _webhook_body(key: str, event_type: str = "charge.captured", currency: str = "KRW") -> bytes:
    data = {
        "key": key,
        "provider_ref": f"ch_{uuid.uuid4().hex}",
        "status": event_type.partition(".")[2],
        "amount_minor": 1000,
        "currency": currency,
        "order_id": str(uuid.uuid4()),
        "payment_id": str(uuid.uuid4()),
        "reason": None,
    }
    webhook = {
        "id": f"evt_{uuid.uuid4().hex}",
        "type": event_type,
        "created": int(time.time()),
        "data": data,
    }
    return json.dumps(webhook).encode()


def _deliver(
    context: ScenarioContext, body: bytes, signature: str | None, token: str | None = None
) -> httpx.Response:
    headers = {"Content-Type": "application/json"}
    if signature is not None:
        headers[SIGNATURE] = signature
    call = Call("POST", PATH, content=body, headers=headers, token=token, repeats=True)
    return context.send(call)


SCENARIOS = (
    Scenario(unsigned_webhooks_answer_401),
    Scenario(invalid_signed_webhooks_are_rejected, needs=("webhook secret",)),
    Scenario(duplicate_and_late_webhooks_change_nothing, needs=("webhook secret", "staff")),
)
