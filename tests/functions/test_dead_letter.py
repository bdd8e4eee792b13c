"""dead_letter: stores each event that ran out of retries once, unchanged, and alerts operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from events import envelope
from events.envelope import CloudEvent
from functions.dead_letter import handler
from shop.adapters.signatures import Signer
from shop.primitives.messages import DeadLetter
from shop.registry import spec_of
from shop.runtime.event_context import EventContext
from tests.harness import (
    PAID,
    FlowHarness,
    Message,
    Response,
    ShopHarness,
    assert_idle_and_consistent,
)

CHARGE = "http://shop-charge.shop.svc.cluster.local/events"
SOURCE = "/shop/place_order"
FAILURE = {
    "ce-knativeerrordest": CHARGE,
    "ce-knativeerrorcode": "422",
    "ce-knativeerrordata": "eyJlcnJvciI6IkJBRF9FVkVOVCJ9",
}


def poison(shop: ShopHarness, body: bytes = b"{", **changed: Any) -> Message:
    """An event that no consumer accepts, signed by the domain of its source, and its failure."""
    event = CloudEvent(
        id="poison-1",
        source=SOURCE,
        type="com.msashop.order.placed.v1",
        subject="no-uuid",
        time=datetime.now(UTC),
        datacontenttype="application/json",
        data=body,
    )
    signer = Signer("ordering", shop.secrets.event_keys["ordering"])
    headers, sent = envelope.to_binary(signer.sign(replace(event, **changed)))
    return headers | FAILURE, sent


def send(
    shop: ShopHarness, body: bytes = b"{", headers: Mapping[str, str] | None = None, **changed: Any
) -> Response:
    """Delivers a dead letter as the broker does, with some attributes or headers changed."""
    own, sent = poison(shop, body, **changed)
    return shop.post_event("dead_letter", own | dict(headers or {}), sent)


def letters(shop: ShopHarness) -> list[dict[str, Any]]:
    """All dead letters, in the order of arrival."""
    return shop.sql("select * from shop.dead_letters order by received_at, dead_letter_id")


def test_invalid_event_is_stored_byte_for_byte_with_an_operator_alert(shop: ShopHarness) -> None:
    body = b'{"orderId": \xff\x00 not json'
    headers, _ = poison(shop, body)

    answer = shop.post_event("dead_letter", headers, body)

    assert (answer.status, answer.body) == (204, b"")
    (letter,) = letters(shop)
    assert (letter["event_id"], letter["source"]) == ("poison-1", SOURCE)
    assert (letter["type"], letter["subject"]) == ("com.msashop.order.placed.v1", "no-uuid")
    assert (letter["destination"], letter["error_code"]) == (CHARGE, "422")
    assert letter["error_data"] == "eyJlcnJvciI6IkJBRF9FVkVOVCJ9"
    assert letter["headers"] == headers
    assert (bytes(letter["body"]), letter["replayed_at"]) == (body, None)
    alerts = shop.sql("select kind, subject, detail, resolved_at from shop.alarms")
    assert alerts == [
        {
            "kind": "dead_letter",
            "subject": f"{SOURCE} poison-1",
            "detail": f"'com.msashop.order.placed.v1' was not accepted by '{CHARGE}', status '422'",
            "resolved_at": None,
        }
    ]


def test_event_without_a_valid_signature_is_rejected_and_never_stored(shop: ShopHarness) -> None:
    headers, body = poison(shop)
    unsigned = {k: v for k, v in headers.items() if k not in ("ce-sig", "ce-sigkid")}
    foreign = Signer("payment", shop.secrets.event_keys["payment"])
    other, _ = envelope.to_binary(foreign.sign(envelope.parse(unsigned, body)))

    answers = [
        shop.post_event("dead_letter", unsigned, body),
        shop.post_event("dead_letter", headers, b"x" * 60_000),
        shop.post_event("dead_letter", {**headers, "ce-id": "other"}, body),
        shop.post_event("dead_letter", {**headers, "ce-sigkid": "unknown"}, body),
        shop.post_event("dead_letter", other, body),
    ]

    assert [answer.status for answer in answers] == [401, 401, 401, 401, 403]
    assert letters(shop) == []
    assert shop.sql("select count(*) as n from shop.alarms") == [{"n": 0}]


def test_dead_letter_of_any_age_is_stored(shop: ShopHarness) -> None:
    assert send(shop, time=datetime.now(UTC) - timedelta(days=30)).status == 204
    assert len(letters(shop)) == 1


def test_credentials_and_other_headers_of_the_sender_are_not_stored(shop: ShopHarness) -> None:
    sent = {"authorization": "Bearer x", "cookie": "a=b", "x-api-key": "k", "user-agent": "curl"}
    traceparent = {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"}

    assert send(shop, headers=sent | traceparent).status == 204

    (letter,) = letters(shop)
    assert letter["headers"].keys() & sent.keys() == set()
    assert letter["headers"].items() >= (FAILURE | traceparent).items()


def test_unsigned_failure_data_is_bounded_in_size_and_number(shop: ShopHarness) -> None:
    assert send(shop, headers={"ce-knativeerrordata": "A" * 4_097}).status == 400
    for number in range(40):
        answer = send(shop, headers={"ce-knativeerrordest": f"http://f{number}/events"})
        assert answer.status == 204

    assert len(letters(shop)) == 32
    assert shop.sql("select count(*) as n from shop.alarms") == [{"n": 1}]
    # one that was replayed and failed again is open again, although no more are stored
    shop.sql("update shop.dead_letters set replayed_at = now()")
    assert send(shop, headers={"ce-knativeerrordest": "http://f3/events"}).status == 204
    assert [row["destination"] for row in letters(shop) if row["replayed_at"] is None] == [
        "http://f3/events"
    ]


def test_repeated_dead_letter_changes_nothing(shop: ShopHarness) -> None:
    headers, body = poison(shop)
    shop.post_event("dead_letter", headers, body)

    answer = shop.post_event("dead_letter", {**headers, "ce-knativeerrorcode": "500"}, body)

    assert answer.status == 204
    assert [letter["error_code"] for letter in letters(shop)] == ["422"]
    assert shop.sql("select count(*) as n from shop.alarms") == [{"n": 1}]


def test_each_destination_has_its_own_dead_letter(shop: ShopHarness) -> None:
    send(shop)

    send(shop, headers={"ce-knativeerrordest": "http://shop-refund.shop.svc.cluster.local/events"})

    assert len(letters(shop)) == 2
    assert shop.sql("select count(*) as n from shop.alarms") == [{"n": 1}]


def test_dead_letter_that_fails_after_its_replay_is_open_again(shop: ShopHarness) -> None:
    send(shop)
    shop.sql("update shop.dead_letters set replayed_at = now()")

    answer = send(shop)

    assert answer.status == 204
    assert [letter["replayed_at"] for letter in letters(shop)] == [None]


def test_long_ids_that_differ_at_the_end_are_stored_separately(shop: ShopHarness) -> None:
    long = "가" * 1023

    first = send(shop, id=f"{long}a")
    second = send(shop, id=f"{long}b")

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
    context = EventContext(services, spec_of("dead_letter"))

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
    unsigned = {k: v for k, v in headers.items() if k != "ce-sig"}
    assert flow.shop.post_event("charge", unsigned, body).status == 401
    invalid, garbage = poison(flow.shop)
    assert flow.shop.post_event("charge", invalid, garbage).status == 422

    for _ in range(2):
        assert flow.shop.post_event("dead_letter", invalid, garbage).status == 204
        assert flow.shop.post_event("dead_letter", unsigned, body).status == 401

    flow.injected_poison.append(("poison-1", SOURCE))
    assert flow.operator_alerts() == ["dead_letter"]
    flow.deliver()
    assert flow.outcome(order) == PAID
    assert_idle_and_consistent(flow)


def test_dead_letter_is_closed_when_another_delivery_of_its_event_is_consumed(
    flow: FlowHarness,
) -> None:
    """One delivery ran out of retries while the database was away; another came through."""
    order = flow.shop.person().order(flow.shop.product())
    headers, body = flow.broker.all[0]
    assert flow.shop.post_event("dead_letter", headers | FAILURE, body).status == 204
    flow.shop.tick("sweep")
    assert [letter["replayed_at"] for letter in letters(flow.shop)] == [None]

    flow.deliver()
    assert flow.due_jobs() == ["dead_letter"]
    flow.shop.tick("sweep")

    assert [letter["replayed_at"] is None for letter in letters(flow.shop)] == [False]
    assert flow.shop.sql("select kind from shop.alarms where resolved_at is null") == []
    assert flow.outcome(order) == PAID
    assert_idle_and_consistent(flow)


def test_dropped_dead_letter_of_a_consumed_event_stays_dropped(flow: FlowHarness) -> None:
    flow.shop.person().order(flow.shop.product())
    headers, body = flow.broker.all[0]
    flow.deliver()
    assert flow.shop.post_event("dead_letter", headers | FAILURE, body).status == 204
    flow.shop.sql("update shop.dead_letters set dropped_at = now(), dropped_reason = 'known'")

    assert flow.due_jobs() == []
