"""fulfil_orders: what carriers report of parcels, signed as in Standard Webhooks."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from shop.primitives import webhook_signatures
from shop.runtime.config import Secret
from tests.functions.test_fulfil_orders import DROPPED, SENT, Fulfilment
from tests.harness import (
    TRACKING,
    FlowHarness,
    MakeShop,
    Response,
    ShopHarness,
    assert_idle_and_consistent,
    assert_invariants,
    run_concurrently,
)

NUMBER = str(SENT["trackingNumber"])


@pytest.fixture
def fulfilment(flow: FlowHarness) -> Fulfilment:
    return Fulfilment(flow)


def report(status: str = "DELIVERED", **changes: Any) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    body = {"carrier": "cj", "trackingNumber": NUMBER, "status": status, "occurredAt": now}
    return body | changes


def send(shop: ShopHarness, body: dict[str, Any], message_id: str = "") -> Response:
    raw = json.dumps(body).encode()
    headers = shop.signed_by_carrier(raw, message_id)
    return shop.call("POST", TRACKING, raw=raw, headers=headers)


def under_way(fulfilment: Fulfilment) -> str:
    """A shipment with the number, which a carrier has."""
    shipment = fulfilment.packed()
    assert fulfilment.change(shipment, SENT).status == 200
    return shipment


def statuses(fulfilment: Fulfilment) -> list[str]:
    return [shipment["status"] for shipment in fulfilment.seen()["shipments"]]


def test_report_of_a_carrier_delivers_the_shipment_in_the_carriers_name(
    fulfilment: Fulfilment,
) -> None:
    shipment = under_way(fulfilment)

    answer = send(fulfilment.shop, report())

    assert (answer.status, answer.body) == (204, b"")
    assert statuses(fulfilment) == ["DELIVERED"]
    (change,) = fulfilment.shop.sql(
        "select from_status, to_status, actor from shop.transitions "
        "where entity = 'shipment' and entity_id = %s and to_status = 'DELIVERED'",
        shipment,
    )
    assert change == {"from_status": "SHIPPED", "to_status": "DELIVERED", "actor": "carrier:cj"}
    types = [row["type"] for row in fulfilment.shop.outbox(undone=False)]
    assert types.count("shipment.delivered") == 1
    fulfilment.flow.run_until_idle()
    assert_idle_and_consistent(fulfilment.flow)


def test_reports_in_any_order_and_number_lead_to_the_same_state(fulfilment: Fulfilment) -> None:
    """SHIPPED and DELIVERED twice and late, with the same id and with other ids."""
    under_way(fulfilment)
    shop, delivered = fulfilment.shop, report()
    sent: list[tuple[dict[str, Any], str]] = [
        (report("SHIPPED"), "msg_1"),
        (delivered, "msg_2"),
        (delivered, "msg_2"),
        (report("SHIPPED"), "msg_1"),
        (delivered, "msg_3"),
        (report("SHIPPED"), "msg_4"),
    ]

    answers = [send(shop, body, message_id).status for body, message_id in sent]

    assert answers == [204] * 6
    assert statuses(fulfilment) == ["DELIVERED"]
    types = [row["type"] for row in shop.outbox(undone=False)]
    assert types.count("shipment.delivered") == 1
    assert_invariants(fulfilment.flow)


def test_concurrent_reports_are_applied_once(fulfilment: Fulfilment) -> None:
    under_way(fulfilment)
    shop, body = fulfilment.shop, report()

    answers = run_concurrently(*[lambda n=n: send(shop, body, f"msg_{n % 2}") for n in range(6)])

    assert [answer.status for answer in answers] == [204] * 6
    types = [row["type"] for row in shop.outbox(undone=False)]
    assert types.count("shipment.delivered") == 1


def test_report_before_staff_sent_the_shipment_is_422_and_applied_when_it_comes_again(
    fulfilment: Fulfilment,
) -> None:
    shipment, body = fulfilment.packed(), report()

    early = send(fulfilment.shop, body, "msg_1")
    assert (early.status, early.error) == (422, "UNKNOWN_PARCEL")
    assert statuses(fulfilment) == ["PREPARING"]
    fulfilment.change(shipment, SENT)
    again = send(fulfilment.shop, body, "msg_1")

    assert again.status == 204
    assert statuses(fulfilment) == ["DELIVERED"]


def test_number_of_another_carrier_or_of_no_shipment_is_422(fulfilment: Fulfilment) -> None:
    under_way(fulfilment)

    for body in (report(carrier="hanjin"), report(trackingNumber="6892-0000-9999")):
        answer = send(fulfilment.shop, body)
        assert (answer.status, answer.error) == (422, "UNKNOWN_PARCEL")
    assert statuses(fulfilment) == ["SHIPPED"]
    assert fulfilment.shop.sql("select 1 from shop.inbox where consumer = 'fulfil_orders'") == []


def test_late_report_of_an_earlier_parcel_does_not_deliver_one_with_the_same_number(
    fulfilment: Fulfilment,
) -> None:
    first = fulfilment.packed((fulfilment.first, 1))
    fulfilment.change(first, SENT)
    body = report()
    send(fulfilment.shop, body)
    second = fulfilment.packed()
    assert fulfilment.change(second, SENT).status == 200

    assert send(fulfilment.shop, body, "msg_late").status == 204
    assert statuses(fulfilment) == ["DELIVERED", "SHIPPED"]
    assert send(fulfilment.shop, report()).status == 204
    assert statuses(fulfilment) == ["DELIVERED", "DELIVERED"]


def test_shipment_is_delivered_also_while_its_money_is_returned(fulfilment: Fulfilment) -> None:
    under_way(fulfilment)
    path = f"/orders/{fulfilment.order['id']}/refunds"
    refund = {"amount": fulfilment.order["totalAmount"], "reason": "SUPPORT"}
    assert fulfilment.support.post(path, refund).status in (201, 202)

    assert send(fulfilment.shop, report()).status == 204
    assert statuses(fulfilment) == ["DELIVERED"]


def test_dropped_shipment_has_no_number(fulfilment: Fulfilment) -> None:
    fulfilment.change(fulfilment.packed(), DROPPED)

    assert send(fulfilment.shop, report()).status == 422


def test_missing_stale_or_wrong_signature_is_401_before_the_body_is_parsed(
    fulfilment: Fulfilment,
) -> None:
    under_way(fulfilment)
    shop, raw = fulfilment.shop, json.dumps(report()).encode()
    key = webhook_signatures.read_secret(shop.secrets.carrier_secret)
    now = int(time.time())
    good = webhook_signatures.headers_of("msg_1", now, raw, [key])
    cases = {
        "other secret": webhook_signatures.headers_of("msg_1", now, raw, [b"k" * 32]),
        "other body": webhook_signatures.headers_of("msg_1", now, raw + b" ", [key]),
        "other id": good | {"webhook-id": "msg_2"},
        "other time": good | {"webhook-timestamp": str(now + 1)},
        "six minutes old": webhook_signatures.headers_of("msg_1", now - 360, raw, [key]),
        "six minutes ahead": webhook_signatures.headers_of("msg_1", now + 360, raw, [key]),
        "negative time": good | {"webhook-timestamp": f"-{now}"},
        "leading zero": good | {"webhook-timestamp": f"0{now}"},
        "no time": {**good, "webhook-timestamp": ""},
        "no id": {**good, "webhook-id": ""},
        "long id": webhook_signatures.headers_of("m" * 201, now, raw, [key]),
        "id not ASCII": webhook_signatures.headers_of("é", now, raw, [key]),
        "no signature": {**good, "webhook-signature": ""},
        "cut": good | {"webhook-signature": good["webhook-signature"][:-1]},
        "other scheme": good | {"webhook-signature": good["webhook-signature"].replace("v1", "v2")},
        "the ninth": good | {"webhook-signature": "v1,AAAA " * 8 + good["webhook-signature"]},
    }
    for name, headers in cases.items():
        answer = shop.call("POST", TRACKING, raw=raw, headers=headers)
        assert (answer.status, answer.error) == (401, "INVALID_SIGNATURE"), name
    unsigned = {"webhook-signature": ""}
    assert shop.call("POST", TRACKING, raw=b"{", headers=unsigned).status == 401
    token = {**unsigned, "authorization": f"Bearer {fulfilment.staff.token}"}
    assert shop.call("POST", TRACKING, raw=raw, headers=token).status == 401
    assert statuses(fulfilment) == ["SHIPPED"]
    assert shop.call("POST", TRACKING, raw=raw, headers=good).status == 204


def test_secret_is_replaced_while_both_are_accepted(make_shop: MakeShop) -> None:
    shop = make_shop()
    new = webhook_signatures.written(b"n" * 32)
    both = make_shop(carrier_webhook_secret=Secret(f"{new} {shop.secrets.carrier_secret}"))
    raw, now = json.dumps(report()).encode(), int(time.time())

    for secret in (new, shop.secrets.carrier_secret):
        key = webhook_signatures.read_secret(secret)
        headers = webhook_signatures.headers_of(uuid4().hex, now, raw, [key])
        answer = both.call("POST", TRACKING, raw=raw, headers=headers)
        assert (answer.status, answer.error) == (422, "UNKNOWN_PARCEL")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("carrier", "CJ"),
        ("carrier", None),
        ("trackingNumber", "1"),
        ("status", "CANCELLED"),
        ("status", "shipped"),
        ("occurredAt", "2026-11-29T10:00:00"),
        ("occurredAt", "yesterday"),
    ],
)
def test_unreadable_report_is_422_with_its_field(
    fulfilment: Fulfilment, field: str, value: object
) -> None:
    answer = send(fulfilment.shop, report() | {field: value})

    assert answer.status == 422
    assert [mistake["field"] for mistake in answer.json["errors"]] == [field]


def test_time_of_a_report_may_have_any_offset(fulfilment: Fulfilment) -> None:
    under_way(fulfilment)
    at = (datetime.now(UTC) + timedelta(hours=9)).replace(tzinfo=None).isoformat() + "+09:00"

    assert send(fulfilment.shop, report(occurredAt=at)).status == 204
    assert statuses(fulfilment) == ["DELIVERED"]
