"""Signatures and bodies of provider webhooks."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from shop.adapters.payment_provider.webhook import WebhookNotice, verify
from shop.primitives.errors import ClientError

SECRET = "whsec_of_a_test"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STAMP = int(NOW.timestamp())
HEADERS = ["Webhook-Signature", "Stripe-Signature"]


def simulator_event(event_type: str = "charge.captured", **data: Any) -> dict[str, Any]:
    fields = {
        "key": "shop:1", "amount_minor": 10_000, "currency": "KRW", "provider_ref": "ch_1"
    }  # fmt: skip
    return {"id": "evt_1", "type": event_type, "created": STAMP, "data": {**fields, **data}}


def stripe_event(event_type: str = "payment_intent.succeeded", **item: Any) -> dict[str, Any]:
    fields = {
        "id": "pi_1", "amount": 10_000, "amount_received": 10_000, "currency": "krw",
        "status": "succeeded", "metadata": {"shop_key": "shop:1"},
    }  # fmt: skip
    return {"id": "evt_1", "type": event_type, "data": {"object": {**fields, **item}}}


def signature(body: bytes, stamp: int | str = STAMP, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()


def signed(event: object, name: str = "Webhook-Signature") -> tuple[dict[str, str], bytes]:
    body = json.dumps(event).encode()
    return {name: f"t={STAMP},v1={signature(body)}"}, body


def error_status(headers: dict[str, str], body: bytes, secret: str = SECRET) -> int:
    with pytest.raises(ClientError) as caught:
        verify(headers, body, secret, NOW)
    return caught.value.status


def test_simulator_capture_is_read() -> None:
    headers, body = signed(simulator_event())
    assert verify(headers, body, SECRET, NOW) == WebhookNotice(
        "evt_1", "captured", "shop:1", 10_000, "KRW", "ch_1"
    )


def test_stripe_capture_gives_the_same_notice() -> None:
    headers, body = signed(stripe_event(), "Stripe-Signature")
    assert verify(headers, body, SECRET, NOW) == WebhookNotice(
        "evt_1", "captured", "shop:1", 10_000, "KRW", "pi_1"
    )


@pytest.mark.parametrize(
    ("event_type", "kind"),
    [
        ("charge.captured", "captured"),
        ("charge.declined", "declined"),
        ("charge.voided", "voided"),
        ("refund.succeeded", "succeeded"),
        ("refund.rejected", "rejected"),
        ("dispute.opened", "dispute"),
        ("dispute.won", "dispute"),
        ("dispute.lost", "dispute"),
        ("payout.paid", "ignored"),
    ],
)
def test_simulator_event_type_maps_to_the_notice(event_type: str, kind: str) -> None:
    event = simulator_event(event_type, charge_key="shop:1", charge_ref="ch_1")
    event["data"] |= {"status": "open", "transactions": []}
    assert verify(*signed(event), SECRET, NOW).kind == kind


@pytest.mark.parametrize(
    ("event_type", "status", "kind"),
    [
        ("payment_intent.succeeded", "succeeded", "captured"),
        ("payment_intent.payment_failed", "requires_payment_method", "declined"),
        ("payment_intent.canceled", "canceled", "voided"),
        ("refund.created", "succeeded", "succeeded"),
        ("refund.updated", "failed", "rejected"),
        ("refund.failed", "failed", "rejected"),
        ("refund.updated", "canceled", "rejected"),
        ("charge.dispute.created", "needs_response", "dispute"),
        ("charge.dispute.closed", "won", "dispute"),
        ("charge.dispute.funds_reinstated", "won", "dispute"),
        ("payout.paid", "paid", "ignored"),
    ],
)
def test_stripe_event_type_and_status_map_to_the_notice(
    event_type: str, status: str, kind: str
) -> None:
    event = stripe_event(event_type, status=status, created=STAMP)
    assert verify(*signed(event, "Stripe-Signature"), SECRET, NOW).kind == kind


def test_stripe_refund_made_in_the_dashboard_has_its_own_id_as_key() -> None:
    event = stripe_event(
        "refund.created", id="re_1", payment_intent="pi_1", metadata={}, created=STAMP
    )

    notice = verify(*signed(event, "Stripe-Signature"), SECRET, NOW)

    assert (notice.kind, notice.key) == ("succeeded", "re_1")
    assert notice.entry is not None
    assert (notice.entry.charge_key, notice.entry.charge_ref) == ("", "pi_1")


def stripe_dispute(status: str, *balance: dict[str, Any], **changes: Any) -> dict[str, Any]:
    fields = {
        "id": "dp_1", "amount": 10_000, "currency": "krw", "charge": "ch_1",
        "payment_intent": "pi_1", "status": status, "created": STAMP,
        "balance_transactions": list(balance),
    }  # fmt: skip
    return {
        "id": "evt_1", "type": "charge.dispute.updated", "data": {"object": {**fields, **changes}}
    }  # fmt: skip


WITHDRAWN = {"amount": -10_000, "fee": 20_000, "currency": "krw", "created": STAMP + 1}
REINSTATED = {"amount": 10_000, "fee": -20_000, "currency": "krw", "created": STAMP + 2}


@pytest.mark.parametrize(
    ("event", "status", "moved"),
    [
        (stripe_dispute("warning_needs_response"), "OPEN", []),
        (stripe_dispute("warning_closed"), "WON", []),
        (
            stripe_dispute("needs_response", WITHDRAWN),
            "OPEN",
            [("DISPUTE", 10_000, "KRW"), ("DISPUTE_FEE", 20_000, "KRW")],
        ),
        (
            stripe_dispute("lost", {**WITHDRAWN, "fee": 0}),
            "LOST",
            [("DISPUTE", 10_000, "KRW")],
        ),
        (
            stripe_dispute("won", WITHDRAWN, REINSTATED),
            "WON",
            [
                ("DISPUTE", 10_000, "KRW"),
                ("DISPUTE_FEE", 20_000, "KRW"),
                ("DISPUTE_REVERSAL", 10_000, "KRW"),
                ("DISPUTE_FEE_REVERSAL", 20_000, "KRW"),
            ],
        ),
        (
            # the account's balance is in another currency than the charge
            stripe_dispute("lost", {**WITHDRAWN, "amount": -700, "fee": 1_500, "currency": "usd"}),
            "LOST",
            [("DISPUTE", 10_000, "KRW"), ("DISPUTE_FEE", 1_500, "USD")],
        ),
    ],
)
def test_stripe_dispute_has_the_money_that_it_moved(
    event: dict[str, Any], status: str, moved: list[tuple[str, int, str]]
) -> None:
    notice = verify(*signed(event, "Stripe-Signature"), SECRET, NOW)

    assert notice.entry is not None and notice.entry.dispute is not None
    assert (notice.key, notice.entry.charge_ref, notice.entry.dispute.status) == (
        "dp_1", "pi_1", status
    )  # fmt: skip
    assert [
        (each.kind, each.amount_minor, each.currency) for each in notice.entry.dispute.transactions
    ] == moved


def test_stripe_dispute_in_a_currency_that_the_shop_cannot_have_is_ignored() -> None:
    event = stripe_dispute("lost", WITHDRAWN, currency="mga")
    assert verify(*signed(event, "Stripe-Signature"), SECRET, NOW).kind == "ignored"


@pytest.mark.parametrize(
    "event",
    [
        stripe_event("payout.paid"),
        stripe_event("refund.created", status="pending"),
        stripe_event(metadata={}),
        stripe_event(metadata=None),
    ],
)
def test_authentic_event_that_is_not_relevant_is_ignored(event: dict[str, Any]) -> None:
    notice = verify(*signed(event, "Stripe-Signature"), SECRET, NOW)
    assert notice == WebhookNotice("evt_1", "ignored", "", 0, "", "")


def test_unknown_simulator_event_type_is_ignored() -> None:
    assert verify(*signed(simulator_event("charge.updated")), SECRET, NOW).kind == "ignored"


@pytest.mark.parametrize(
    "change",
    [
        {"status": "closed"},
        {"transactions": None},
        {"transactions": [{"kind": "withdrawn", "amount_minor": 0, "currency": "KRW", "at": 1}]},
        {"transactions": [{"kind": "other", "amount_minor": 1, "currency": "KRW", "at": 1}]},
        {"charge_ref": None},
        {"amount_minor": 0},
    ],
)
def test_invalid_simulator_dispute_is_400(change: dict[str, Any]) -> None:
    event = simulator_event("dispute.opened", charge_key="shop:1", charge_ref="ch_1")
    event["data"] |= {"status": "open", "transactions": []} | change
    assert error_status(*signed(event)) == 400


def test_stripe_amounts_become_minor_units() -> None:
    event = stripe_event(currency="isk", amount_received=50_000)
    notice = verify(*signed(event, "Stripe-Signature"), SECRET, NOW)
    assert (notice.amount_minor, notice.currency) == (500, "ISK")


def test_partial_capture_has_the_received_amount() -> None:
    notice = verify(*signed(stripe_event(amount_received=1), "Stripe-Signature"), SECRET, NOW)
    assert notice.amount_minor == 1


@pytest.mark.parametrize("name", [*HEADERS, "webhook-signature", "STRIPE-SIGNATURE"])
@pytest.mark.parametrize("offset", [-300, 0, 300])
def test_signature_is_valid_within_five_minutes(name: str, offset: int) -> None:
    is_stripe = name.lower().startswith("stripe")
    body = json.dumps(stripe_event() if is_stripe else simulator_event()).encode()
    stamp = STAMP + offset
    header = f"t={stamp},v1={signature(body, stamp)}"
    assert verify({name: header}, body, SECRET, NOW).kind == "captured"


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("offset", [-301, 301, -86_400, 86_400])
def test_signature_more_than_five_minutes_off_is_401(name: str, offset: int) -> None:
    body = json.dumps(simulator_event()).encode()
    stamp = STAMP + offset
    assert error_status({name: f"t={stamp},v1={signature(body, stamp)}"}, body) == 401


GOOD_BODY = json.dumps(simulator_event()).encode()
GOOD = signature(GOOD_BODY)


@pytest.mark.parametrize(
    "header",
    [
        "",
        ",",
        "v1=",
        f"t={STAMP}",
        f"v1={GOOD}",
        f"t={STAMP},v1=",
        f"t={STAMP},v0={GOOD}",
        f"t={STAMP},v1={GOOD[:-1]}",
        f"t={STAMP},v1={GOOD[:-1]}g",
        f"t={STAMP},v1={GOOD.upper()}",
        f"t={STAMP},v1={signature(GOOD_BODY, secret='another')}",
        f"t={STAMP},t={STAMP},v1={GOOD}",
        f"t={STAMP + 1},v1={GOOD}",
        f"t=0{STAMP},v1={GOOD}",
        f"t=-{STAMP},v1={GOOD}",
        f"t={'9' * 5000},v1={GOOD}",
        f"t=１{STAMP},v1={GOOD}",
        f"t={STAMP},v1=é{GOOD}",
        f"t={STAMP}," + ",".join(["v1=00"] * 8) + f",v1={GOOD}",
    ],
)
@pytest.mark.parametrize("name", HEADERS)
def test_missing_or_wrong_signature_is_401(name: str, header: str) -> None:
    assert error_status({name: header}, GOOD_BODY) == 401


def test_no_header_both_headers_or_no_secret_are_401() -> None:
    good = f"t={STAMP},v1={GOOD}"
    assert error_status({}, GOOD_BODY) == 401
    assert error_status(dict.fromkeys(HEADERS, good), GOOD_BODY) == 401
    unkeyed = f"t={STAMP},v1={signature(GOOD_BODY, secret='')}"
    assert error_status({"Webhook-Signature": unkeyed}, GOOD_BODY, secret="") == 401


def test_changed_body_is_401() -> None:
    headers, body = signed(simulator_event())
    assert error_status(headers, body.replace(b"10000", b"10001")) == 401
    assert error_status(headers, body + b" ") == 401


def test_one_valid_signature_during_a_rotation_is_accepted() -> None:
    header = f"t={STAMP}, v1={signature(GOOD_BODY, secret='new')}, v1={GOOD}"
    assert verify({"Webhook-Signature": header}, GOOD_BODY, SECRET, NOW).key == "shop:1"


def test_invalid_body_with_an_invalid_signature_is_401() -> None:
    assert error_status({"Webhook-Signature": f"t={STAMP},v1={GOOD}"}, b"{") == 401


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff", b'"evt"', b"[" * 100_000, b"{}", b'{"id":"e","type":"t"}'],
)
@pytest.mark.parametrize("name", HEADERS)
def test_malformed_authentic_body_is_400(name: str, body: bytes) -> None:
    assert error_status({name: f"t={STAMP},v1={signature(body)}"}, body) == 400


@pytest.mark.parametrize(
    "change",
    [
        {"key": None},
        {"key": ""},
        {"key": 7},
        {"key": "k" * 256},
        {"amount_minor": None},
        {"amount_minor": 0},
        {"amount_minor": -1},
        {"amount_minor": 1.0},
        {"amount_minor": True},
        {"amount_minor": "10000"},
        {"amount_minor": 10**13},
        {"currency": "WON!"},
        {"currency": None},
        {"provider_ref": None},
    ],
)
def test_invalid_simulator_field_is_400(change: dict[str, Any]) -> None:
    assert error_status(*signed(simulator_event(**change))) == 400


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"amount_received": None},
        {"amount_received": 0},
        {"currency": "mga"},
        {"currency": "isk", "amount_received": 10_050},
        {"currency": 1},
    ],
)
def test_invalid_stripe_field_is_400(change: dict[str, Any]) -> None:
    assert error_status(*signed(stripe_event(**change), "Stripe-Signature")) == 400
