"""The provider's notices: believed only when signed, and then only as far as the books agree."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import uuid

import httpx

from tools.e2e.client import Call
from tools.e2e.harness import Stage, expect
from tools.e2e.scenario import Scenario

PATH = "/payments/webhook"
SIGNATURE = "Webhook-Signature"
OLD_SECONDS = 301


def refuse_what_is_not_signed(stage: Stage) -> None:
    """Without the provider's secret nobody announces money."""
    body = _notice(f"shop:{uuid.uuid4()}")
    now = int(time.time())
    signatures = {
        "no signature": None,
        "an empty signature": "",
        "a word": "nonsense",
        "a signature without time": f"v1={'0' * 64}",
        "a wrong signature": f"t={now},v1={'0' * 64}",
        "a signature by another secret": sign(body, "not the secret of anyone", now),
        "an old signature": sign(body, "not the secret of anyone", now - OLD_SECONDS),
    }
    for name, signature in signatures.items():
        answer = _deliver(stage, body, signature)
        stage.check.problem(f"{name}: 401", answer, 401)
    signed_in = _deliver(stage, body, None, token=stage.customer(1).token())
    stage.check.problem("a customer's token is no signature: 401", signed_in, 401)


def judge_what_is_signed(stage: Stage) -> None:
    """A signed notice is refused when it is old, altered, or about no payment of ours."""
    secret = stage.cast.webhook_secret
    assert secret is not None, "the runner leaves this scenario out without the secret"
    body, now = _notice(f"shop:{uuid.uuid4()}"), int(time.time())
    old = _deliver(stage, body, sign(body, secret, now - OLD_SECONDS))
    stage.check.problem("signed more than 5 minutes ago: 401", old, 401)
    early = _deliver(stage, body, sign(body, secret, now + 2 * OLD_SECONDS))
    stage.check.problem("signed in the future: 401", early, 401)
    altered = _deliver(stage, _notice(f"shop:{uuid.uuid4()}"), sign(body, secret, now))
    stage.check.problem("the signature of another body: 401", altered, 401)
    unknown = _deliver(stage, body, sign(body, secret, now))
    stage.check.problem("about an unknown payment: 422", unknown, 422)
    odd = b"{"
    malformed = _deliver(stage, odd, sign(odd, secret, now))
    stage.check.problem("signed, but no JSON: 400", malformed, 400)


def change_nothing_at_rest(stage: Stage) -> None:
    """The truth told again, late or the other way round, leaves a paid order as it is."""
    secret = stage.cast.webhook_secret
    assert secret is not None, "the runner leaves this scenario out without the secret"
    buyer, product = stage.customer(1), stage.product(price=1000, stock=5)
    order = stage.paid(buyer, (product["id"], 1))
    timeline = expect(stage.get(f"/orders/{order['id']}/timeline", buyer), 200).json()
    payment_id = next(move["id"] for move in timeline if move["entity"] == "payment")
    for name, kind in (("captured", "charge.captured"), ("declined", "charge.declined")):
        body = _notice(f"shop:{payment_id}", kind)
        for times in ("once", "again"):
            answer = _deliver(stage, body, sign(body, secret, int(time.time())))
            stage.check.status(f"{name} told {times} about a paid order: 204", answer, 204)
    seen = stage.look_up(buyer, order["id"])
    stage.check.equal("the order is as it was", seen, order)
    stage.check.equal("so is the stock", stage.stock(product["id"]), 4)


def sign(body: bytes, secret: str, at: int) -> str:
    """The provider's signature: ``t=<unix seconds>,v1=<hex HMAC-SHA256 of "t.body">``."""
    digest = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def _notice(key: str, kind: str = "charge.captured") -> bytes:
    data = {
        "key": key,
        "provider_ref": f"ch_{uuid.uuid4().hex}",
        "status": kind.partition(".")[2],
        "amount_minor": 1000,
        "currency": "KRW",
        "order_id": str(uuid.uuid4()),
        "payment_id": str(uuid.uuid4()),
        "reason": None,
    }
    notice = {
        "id": f"evt_{uuid.uuid4().hex}",
        "type": kind,
        "created": int(time.time()),
        "data": data,
    }
    return json.dumps(notice).encode()


def _deliver(
    stage: Stage, body: bytes, signature: str | None, token: str | None = None
) -> httpx.Response:
    headers = {"Content-Type": "application/json"}
    if signature is not None:
        headers[SIGNATURE] = signature
    call = Call("POST", PATH, content=body, headers=headers, token=token, repeats=True)
    return stage.send(call)


SCENARIOS = (
    Scenario(refuse_what_is_not_signed),
    Scenario(judge_what_is_signed, needs=("webhook secret",)),
    Scenario(change_nothing_at_rest, needs=("webhook secret", "staff")),
)
