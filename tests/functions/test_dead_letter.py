"""dead_letter: stores each event that ran out of retries once, unchanged, and alerts operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from functions.dead_letter import handler
from shop.primitives.messages import DeadLetter
from shop.runtime.event_context import EventContext
from tests.harness import PAID, FlowHarness, Response, ShopHarness, assert_idle_and_consistent

CHARGE = "http://shop-charge.shop.svc.cluster.local/events"
POISON = {
    "ce-specversion": "1.0",
    "ce-id": "poison-1",
    "ce-source": "/somewhere/else",
    "ce-type": "com.msashop.order.placed.v1",
    "ce-subject": "no-uuid",
    "ce-knativeerrordest": CHARGE,
    "ce-knativeerrorcode": "422",
    "ce-knativeerrordata": "eyJlcnJvciI6IkJBRF9FVkVOVCJ9",
    "content-type": "application/json",
}


def send(shop: ShopHarness, body: bytes = b"{", **changed: str) -> Response:
    """Delivers a dead letter as the broker does, with some attributes changed."""
    headers: Mapping[str, str] = POISON | {f"ce-{name}": text for name, text in changed.items()}
    return shop.post_event("dead_letter", headers, body)


def letters(shop: ShopHarness) -> list[dict[str, Any]]:
    """All dead letters, in the order of arrival."""
    return shop.sql("select * from shop.dead_letters order by received_at, dead_letter_id")


def test_unsigned_event_is_stored_byte_for_byte_with_an_operator_alert(shop: ShopHarness) -> None:
    body = b'{"orderId": \xff\x00 not json'

    answer = send(shop, body)

    assert (answer.status, answer.body) == (204, b"")
    (letter,) = letters(shop)
    assert (letter["event_id"], letter["source"]) == ("poison-1", "/somewhere/else")
    assert (letter["type"], letter["subject"]) == ("com.msashop.order.placed.v1", "no-uuid")
    assert (letter["destination"], letter["error_code"]) == (CHARGE, "422")
    assert letter["error_data"] == "eyJlcnJvciI6IkJBRF9FVkVOVCJ9"
    assert letter["headers"] == POISON
    assert (bytes(letter["body"]), letter["replayed_at"]) == (body, None)
    alerts = shop.sql("select kind, subject, detail, resolved_at from shop.alarms")
    assert alerts == [
        {
            "kind": "dead_letter",
            "subject": f"/somewhere/else poison-1 {CHARGE}",
            "detail": f"'com.msashop.order.placed.v1' was not accepted by '{CHARGE}', status '422'",
            "resolved_at": None,
        }
    ]


def test_repeated_dead_letter_changes_nothing(shop: ShopHarness) -> None:
    send(shop)

    answer = send(shop, b"other bytes")

    assert answer.status == 204
    assert [bytes(letter["body"]) for letter in letters(shop)] == [b"{"]
    assert shop.sql("select count(*) as n from shop.alarms") == [{"n": 1}]


def test_each_destination_has_its_own_dead_letter(shop: ShopHarness) -> None:
    send(shop)

    send(shop, knativeerrordest="http://shop-refund.shop.svc.cluster.local/events")

    assert len(letters(shop)) == 2
    assert shop.sql("select count(*) as n from shop.alarms") == [{"n": 2}]


def test_dead_letter_that_fails_after_its_replay_is_open_again(shop: ShopHarness) -> None:
    send(shop)
    shop.sql("update shop.dead_letters set replayed_at = now()")

    answer = send(shop)

    assert answer.status == 204
    assert [letter["replayed_at"] for letter in letters(shop)] == [None]


def test_long_ids_that_differ_at_the_end_are_stored_separately(shop: ShopHarness) -> None:
    long = "%EA%B0%80" * 1023

    first = send(shop, id=f"{long}a", source="/" + "s" * 1023)
    second = send(shop, id=f"{long}b", source="/" + "s" * 1023)

    assert (first.status, second.status) == (204, 204)
    ids = [letter["event_id"] for letter in letters(shop)]
    assert len(set(ids)) == 2
    assert all(text.startswith("가" * 100 + " sha256:") for text in ids)


@pytest.mark.parametrize("poison", ["a\x00b", "a\ud800b", "a\x1b[2Jb"])
def test_control_characters_are_stored_escaped(shop: ShopHarness, poison: str) -> None:
    letter = DeadLetter(
        event_id=poison,
        source=poison,
        type=poison,
        subject=poison,
        destination=poison,
        error_code=poison,
        error_data=poison,
        headers={poison: poison},
        body=b"\x00",
    )
    services = shop.apps["dead_letter"].services
    context = EventContext(services, traceparent="", actor="dead_letter")

    with context.transaction():
        handler.store(letter, context)

    (stored,) = letters(shop)
    assert stored["event_id"] == stored["headers"][stored["event_id"]]
    assert stored["event_id"][0] + stored["event_id"][-1] == "ab"
    (alert,) = shop.sql("select detail from shop.alarms")
    assert alert["detail"].isascii()
    assert alert["detail"].isprintable()


def test_invalid_cloudevent_gets_an_error_and_is_not_stored(shop: ShopHarness) -> None:
    answer = shop.post_event("dead_letter", {"content-type": "application/json"}, b"{}")

    assert answer.status == 400
    assert letters(shop) == []
    assert shop.sql("select count(*) as n from shop.alarms") == [{"n": 0}]


def test_repeated_poison_event_is_stored_once_beside_normal_traffic(flow: FlowHarness) -> None:
    order = flow.shop.person().order(flow.shop.product())
    headers, body = flow.broker.all[0]
    poison = {**headers, "ce-id": "poison", "ce-source": "/evil", "knativeerrorcode": "401"}
    assert flow.shop.post_event("charge", poison, body).status == 401

    for _ in range(2):
        assert flow.shop.post_event("dead_letter", poison, body).status == 204

    flow.injected_poison.append(("poison", "/evil"))
    assert flow.operator_alerts() == ["dead_letter"]
    flow.deliver()
    assert flow.outcome(order) == PAID
    assert_idle_and_consistent(flow)
