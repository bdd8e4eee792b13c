"""Invalid, forged, stale and repeated events, sent to every function that receives events."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from events import envelope
from events.envelope import CloudEvent
from events.event import properties_of
from events.vocabulary import class_of
from shop.adapters.signatures import Signer
from shop.primitives.ids import new_uuid
from shop.primitives.spec import FunctionSpec
from shop.registry import all_specs
from tests.harness import CLOCK, TICK, Response, ShopHarness, run_concurrently, shop_of_module
from tests.sample_requests import Samples

RECEIVERS = [spec for spec in all_specs() if spec.receives_events]
SUBSCRIBERS = [
    (spec.name, subscription.event) for spec in RECEIVERS for subscription in spec.subscriptions
]
TICKED = [spec.name for spec in RECEIVERS if spec.schedules]
# These accept events about rows that do not exist, which tests of their own expect.
ACCEPTING_MISSING_ROWS = ("list_products", "notify")
ABOUT_ORDERS = [pair for pair in SUBSCRIBERS if pair[0] not in ACCEPTING_MISSING_ROWS]
MAILED = [pair for pair in SUBSCRIBERS if pair[0] == "notify"]
PURPOSES = {
    "user.password-reset-requested": "SET_PASSWORD",
    "user.invited": "SET_PASSWORD",
    "user.email-verification-requested": "VERIFY_EMAIL",
    "user.email-change-requested": "CHANGE_EMAIL",
    "user.email-change-started": "CHANGE_EMAIL",
    "user.email-changed": "CHANGE_EMAIL",
}
EFFECTS = ("payments", "ledger", "inbox", "transitions", "outbox", "refunds", "mails", "alarms")
COUNT_EFFECTS = "select " + ", ".join(f"(select count(*) from shop.{t}) as {t}" for t in EFFECTS)


class Sender:
    """Makes events as the shop's own functions do, and sends them to one receiver."""

    def __init__(self, shop: ShopHarness, consumer: str, name: str) -> None:
        self.shop, self.consumer, self.name = shop, consumer, name
        self.samples = Samples(shop)
        (emitter,) = [spec for spec in all_specs() if name in spec.emits][:1]
        self.source, self.domain = emitter.source, str(emitter.database_role)
        self.order = self.samples.paid if name.startswith("refund.") else self.samples.order()

    def event(self, data: Any = None, **changes: Any) -> CloudEvent:
        values = self.data() if data is None else data
        wrapped = envelope.wrap(
            class_of(self.name).from_data(values),
            id=str(new_uuid()),
            source=self.source,
            time=datetime.now(UTC),
        )
        return replace(wrapped, **changes)

    def data(self) -> dict[str, Any]:
        """Data that refers to existing rows."""
        if self.name == "product.changed":
            return {"productId": self.samples.product, "productVersion": 1}
        if self.name.startswith("refund."):
            return self.refund
        if self.name == "payment.confirm-requested":
            return self.payment
        if self.name.startswith("user."):
            return self.account
        return {"orderId": self.order}

    def missing_data(self) -> dict[str, Any]:
        """Data that refers to rows that do not exist."""
        return {
            name: 2**62 if isinstance(value, int) else str(uuid4())
            for name, value in self.data().items()
        }

    @cached_property
    def account(self) -> dict[str, Any]:
        """The properties that the event has: an account, a link or both."""
        names = {name for _, name, _ in properties_of(class_of(self.name))}
        ids: dict[str, Any] = {"userId": self.samples.owner.user_id} if "userId" in names else {}
        if "linkId" in names:
            ids["linkId"] = str(self.samples.link(PURPOSES[self.name]))
        return ids

    @cached_property
    def payment(self) -> dict[str, Any]:
        """A payment whose customer has done what it required."""
        _, _, order_id, _, payment_id = self.samples.awaited_payment().split("/")
        due = "update shop.payments set next_try_at = now() where payment_id = %s"
        self.shop.sql(due, payment_id)
        return {"orderId": order_id, "paymentId": payment_id}

    @cached_property
    def refund(self) -> dict[str, Any]:
        assert self.samples.owner.patch(f"/orders/{self.order}/cancel").status == 200
        (row,) = self.shop.sql(
            "select r.refund_id, r.payment_id from shop.refunds r "
            "join shop.payments p using (payment_id) where p.order_id = %s",
            self.order,
        )
        ids = {"paymentId": str(row["payment_id"]), "refundId": str(row["refund_id"])}
        return {"orderId": self.order, **ids}

    def signed(self, event: CloudEvent, domain: str | None = None) -> CloudEvent:
        domain = domain or self.domain
        return Signer(domain, self.shop.secrets.event_keys[domain]).sign(event)

    def binary(self, event: CloudEvent, **headers: str) -> Response:
        sent, body = envelope.to_binary(event)
        return self.post(sent | {k.replace("_", "-"): v for k, v in headers.items()}, body)

    def post(self, headers: Mapping[str, str], body: bytes) -> Response:
        answer = self.shop.post_event(self.consumer, headers, body)
        if answer.status == 204:
            assert answer.body == b"" and "content-type" not in answer.headers
        assert answer.status not in (200, 201, 202, 404, 408, 409, 429), (
            "Knative reads it otherwise"
        )
        return answer

    def mail_of(self, event: CloudEvent) -> tuple[str, str | None]:
        """Status and failure of the only mail of the event."""
        query = "select status, failure from shop.mails where event_id = %s"
        (mail,) = self.shop.sql(query, event.id)
        return mail["status"], mail["failure"]

    def effects(self) -> dict[str, int]:
        (counts,) = self.shop.sql(COUNT_EFFECTS)
        return counts


@pytest.fixture(scope="module")
def shop(request: pytest.FixtureRequest) -> Iterator[ShopHarness]:
    """One shop for all cases, each with its own accounts, orders and events."""
    with shop_of_module(request) as shop:
        yield shop


@pytest.fixture(params=SUBSCRIBERS, ids=[f"{c}-{n}" for c, n in SUBSCRIBERS])
def sender(request: pytest.FixtureRequest, shop: ShopHarness) -> Sender:
    return Sender(shop, *request.param)


def of_subscribers(subscribers: list[tuple[str, str]]) -> pytest.MarkDecorator:
    """Limits the senders of a test to these functions and events."""
    ids = [f"{consumer}-{name}" for consumer, name in subscribers]
    return pytest.mark.parametrize("sender", subscribers, ids=ids, indirect=True)


def test_valid_event_is_accepted_in_binary_and_structured_mode(sender: Sender) -> None:
    (earlier,) = sender.shop.sql(
        "select count(*) from shop.inbox where consumer = %s", sender.consumer
    )
    before = earlier["count"]
    assert sender.binary(sender.signed(sender.event())).status == 204
    assert sender.post(*envelope.to_structured(sender.signed(sender.event()))).status == 204
    (inbox,) = sender.shop.sql(
        "select count(*) from shop.inbox where consumer = %s", sender.consumer
    )
    assert inbox["count"] == before + 2


def test_repeated_event_has_one_effect(sender: Sender) -> None:
    event = sender.signed(sender.event())
    assert sender.binary(event).status == 204
    sender.shop.deliver_all()
    before = sender.effects()

    again = [sender.binary(event) for _ in range(3)]
    structured = sender.post(*envelope.to_structured(event))

    assert {a.status for a in [*again, structured]} == {204}
    assert sender.effects() == before


def test_malformed_event_gets_an_error_and_changes_nothing(sender: Sender) -> None:
    good = sender.signed(sender.event())
    headers, body = envelope.to_binary(good)
    structured = json.loads(envelope.to_structured(good)[1])
    before = sender.effects()
    for case, sent, raw, status in _malformed(headers, body, structured):
        answer = sender.post(sent, raw)
        assert answer.status == status, (case, answer.status, answer.body)
    assert sender.effects() == before


def _malformed(
    headers: dict[str, str], body: bytes, structured: dict[str, Any]
) -> Iterator[tuple[str, dict[str, str], bytes, int]]:
    """Name, headers, body and expected status of each case."""
    for name in ("ce-id", "ce-source", "ce-type", "ce-specversion"):
        yield f"no {name}", {k: v for k, v in headers.items() if k != name}, body, 400
        yield f"empty {name}", headers | {name: ""}, body, 400
    changed = {
        "specversion 0.3": {"ce-specversion": "0.3"},
        "specversion 2.0": {"ce-specversion": "2.0"},
        "source no reference": {"ce-source": "a b"},
        "source with a bracket": {"ce-source": "/shop/<x>"},
        "id of 1,025": {"ce-id": "x" * 1025},
        "id with a NUL": {"ce-id": "%00"},
        "id not UTF-8": {"ce-id": "%ff"},
        "time not RFC 3339": {"ce-time": "yesterday"},
        "time without a zone": {"ce-time": "2026-01-01T00:00:00"},
        "time a number": {"ce-time": "1767225600"},
        "name too long": {"ce-" + "a" * 21: "x"},
        "name with an underscore": {"ce-a_b": "x"},
        "dataschema relative": {"ce-dataschema": "x"},
        "datacontenttype twice": {"ce-datacontenttype": "application/json"},
        "both modes": {"content-type": "application/cloudevents+json"},
    }
    for case, change in changed.items():
        yield case, headers | change, body, 400
    for media_type in (
        "application/cloudevents-batch+json", "text/plain", "application/xml",
        "application/json; charset=utf-16", "application/avro",
    ):  # fmt: skip
        yield media_type, headers | {"content-type": media_type}, body, 415
    mode = {"content-type": "application/cloudevents+json"}
    for case, raw in {
        "structured: not JSON": b"{",
        "structured: a list": b"[]",
        "structured: doubled id": json.dumps(structured)[:-1].encode() + b',"id":"x"}',
        "structured: id a number": json.dumps({**structured, "id": 1}).encode(),
        "structured: data and base64": json.dumps({**structured, "data_base64": "e30="}).encode(),
        "structured: capital in a name": json.dumps({**structured, "Upper": "x"}).encode(),
        "structured: empty": b"",
        "structured: deep": b"[" * 5000,
    }.items():
        yield case, dict(mode), raw, 400
    batch = {"content-type": "application/cloudevents-batch+json"}
    yield "batch", batch, json.dumps([structured]).encode(), 415
    yield "too large", headers, b" " * 65_537, 413
    yield "compressed", headers | {"content-encoding": "gzip"}, body, 415


def test_forged_event_gets_an_error_and_changes_nothing(sender: Sender) -> None:
    event = sender.event()
    good = sender.signed(event)
    stranger = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    stolen = {"sigkid": good.extensions["sigkid"], "sig": good.extensions["sig"]}
    other_domain = "settlement" if sender.domain != "settlement" else "payment"
    now = datetime.now(UTC)
    before = sender.effects()
    forged = {
        "unsigned": event,
        "wrong key": Signer(sender.domain, stranger.decode()).sign(event),
        "unknown key id": replace(good, extensions={**good.extensions, "sigkid": "unknown"}),
        "key id of another": replace(good, extensions={**good.extensions, "sigkid": "relay"}),
        "no signature": replace(good, extensions={"sigkid": sender.domain}),
        "signature no base64": replace(good, extensions={**stolen, "sig": "!!!"}),
        "signature cut": replace(good, extensions={**stolen, "sig": stolen["sig"][:-2]}),
        "signature of another id": replace(sender.event(), extensions=stolen),
        "signature of another source": replace(good, source="/shop/other"),
        "signature of another time": replace(good, time=now + timedelta(seconds=1)),
        "signature without time": replace(good, time=None),
        "signature of another subject": replace(good, subject="x"),
        "signature of other data": replace(good, data=b"{}"),
        "signature without dataschema": replace(good, dataschema=None),
        "a day and an hour old": sender.signed(sender.event(time=now - timedelta(hours=25))),
        "a day and an hour ahead": sender.signed(sender.event(time=now + timedelta(hours=25))),
    }
    for case, message in forged.items():
        answer = sender.binary(message)
        assert answer.status == 401, (case, answer.status, answer.body)
    bearer = f"Bearer {sender.samples.owner.token}"
    assert sender.binary(event, authorization=bearer).status == 401
    foreign = {
        "another domain's key": sender.signed(event, other_domain),
        "the clock's key": sender.signed(event, "clock"),
        "a source that announces no such thing": sender.signed(
            sender.event(source="/shop/settle"), "settlement"
        ),
        "the clock announcing": sender.signed(sender.event(source=CLOCK), "clock"),
        "the relay for an unknown function": sender.signed(
            sender.event(source="/shop/unknown"), "relay"
        ),
        "the relay for a path": sender.signed(sender.event(source="/shop/a/../b"), "relay"),
    }
    for case, message in foreign.items():
        answer = sender.binary(message)
        assert answer.status == 403, (case, answer.status, answer.body)
    assert sender.effects() == before


def test_unknown_event_gets_422(sender: Sender) -> None:
    good = sender.event()
    subject_of_another = str(uuid4())
    before = sender.effects()
    for case, event in {
        "newer type": replace(good, type=f"com.msashop.{sender.name}.v2"),
        "no type of ours": replace(good, type="com.example.thing"),
        "newer schema": replace(good, dataschema=f"{good.dataschema}2"),
        "data not JSON": replace(good, data=b"{"),
        "data doubled": replace(good, data=good.data[:-1] + b"," + good.data[1:]),
        "data a list": replace(good, data=b"[]"),
        "data null": replace(good, data=b"null"),
        "data empty": replace(good, data=b""),
        "data lacking": replace(good, data=b"{}"),
        "data with more": replace(good, data=good.data[:-1] + b',"status":"PAID"}'),
        "data of wrong types": replace(good, data=_all(sender, [])),
        "ids no ids": replace(good, data=_all(sender, "x")),
        "subject of another": replace(good, subject=subject_of_another),
        "id not of an outbox": replace(good, id="1"),
        "id long": replace(good, id="가" * 1024),
    }.items():
        answer = sender.binary(sender.signed(event))
        assert answer.status == 422, (case, answer.status, answer.body)
    no_functions = envelope.wrap(
        class_of("user.closed").from_data({"userId": 1}),
        id=str(new_uuid()),
        source="/shop/account",
        time=datetime.now(UTC),
    )
    assert sender.binary(sender.signed(no_functions, "identity")).error == "NOT_SUBSCRIBED"
    assert sender.effects() == before


def _all(sender: Sender, value: Any) -> bytes:
    return json.dumps(dict.fromkeys(sender.data(), value)).encode()


@of_subscribers(ABOUT_ORDERS)
def test_event_about_a_missing_order_gets_422_and_is_not_recorded(sender: Sender) -> None:
    event = sender.signed(sender.event(sender.missing_data()))
    before = sender.effects()

    assert [sender.binary(event).status for _ in range(2)] == [422, 422]
    assert sender.effects() == before


@of_subscribers([("list_products", "product.changed")])
def test_event_about_a_missing_product_is_accepted(sender: Sender) -> None:
    """It only invalidates lists."""
    event = sender.signed(sender.event(sender.missing_data()))

    assert sender.binary(event).status == 204


@of_subscribers(MAILED)
def test_event_about_nothing_to_mail_is_accepted_and_its_mail_is_obsolete(sender: Sender) -> None:
    """A mail reads what it is about when it is sent (ADR 48).

    By then links have expired and accounts have been closed: that is no fault, so the event does
    not become a dead letter and no operator is alerted.
    """
    event = sender.signed(sender.event(sender.missing_data()))
    before = sender.effects()

    assert [sender.binary(event).status for _ in range(2)] == [204, 204]

    assert sender.mail_of(event) == ("FAILED", "OBSOLETE")
    added = {"inbox": before["inbox"] + 1, "mails": before["mails"] + 1}
    assert sender.effects() == before | added


@of_subscribers(MAILED)
def test_event_about_existing_rows_is_mailed(sender: Sender) -> None:
    event = sender.signed(sender.event())

    assert sender.binary(event).status == 204

    assert sender.mail_of(event) == ("SENT", None)


def test_old_event_is_accepted_when_it_is_in_the_outbox(shop: ShopHarness) -> None:
    samples = Samples(shop)
    order = samples.order()
    old = "update shop.outbox set created_at = now() - interval '3 days' where order_id = %s"
    shop.sql(old, order)
    (row,) = [row for row in shop.outbox() if row["subject"] == order]

    assert shop.deliver(row, "charge").status == 204
    assert samples.owner.get(f"/orders/{order}").json["status"] == "PAID"


def test_event_above_64_kib_gets_413(shop: ShopHarness) -> None:
    sender = Sender(shop, "charge", "order.placed")
    event = sender.event()
    padded = replace(event, data=event.data.ljust(65_536))

    assert sender.binary(sender.signed(padded)).status == 204
    assert sender.binary(sender.signed(replace(padded, data=padded.data + b" "))).status == 413


def test_same_id_from_another_source_is_another_event(shop: ShopHarness) -> None:
    sender = Sender(shop, "refund", "refund.requested")
    first = sender.event(source="/shop/cancel_order")
    duplicate = replace(first, source="/shop/charge")

    assert sender.binary(sender.signed(first, "ordering")).status == 204
    assert sender.binary(sender.signed(duplicate, "payment")).status == 204

    rows = shop.sql("select source from shop.inbox where event_id = %s order by 1", first.id)
    assert [row["source"] for row in rows] == ["/shop/cancel_order", "/shop/charge"]


def test_hundred_concurrent_copies_have_one_effect(shop: ShopHarness) -> None:
    sender = Sender(shop, "charge", "order.placed")
    event = sender.signed(sender.event())

    answers = [
        answer
        for _ in range(5)
        for answer in run_concurrently(*[lambda: sender.binary(event)] * 20)
    ]

    assert len(answers) == 100
    assert {a.status for a in answers[:20]} <= {204, 503}
    assert {a.status for a in answers[-20:]} == {204}
    assert sender.samples.owner.get(f"/orders/{sender.order}").json["status"] == "PAID"
    (counted,) = shop.sql(
        "select (select count(*) from shop.payments where order_id = %s) as payments, "
        "(select count(*) from shop.ledger where order_id = %s) as postings",
        sender.order,
        sender.order,
    )
    assert counted == {"payments": 1, "postings": 1}


# ---------------------------------------------------------------- the clock


def tick_of(spec: FunctionSpec, **changes: Any) -> CloudEvent:
    event = CloudEvent(
        id=str(uuid4()),
        source=CLOCK,
        type=TICK,
        subject=spec.schedules[0].name,
        time=datetime.now(UTC),
        data=b"{}",
    )
    return replace(event, **changes)


@pytest.mark.parametrize("consumer", TICKED)
def test_forged_or_stale_tick_gets_an_error(shop: ShopHarness, consumer: str) -> None:
    spec = next(s for s in RECEIVERS if s.name == consumer)

    def send(event: CloudEvent, domain: str | None) -> int:
        if domain:
            event = Signer(domain, shop.secrets.event_keys[domain]).sign(event)
        return shop.post_event(consumer, *envelope.to_binary(event)).status

    now = datetime.now(UTC)
    assert send(tick_of(spec), "clock") == 204
    assert send(tick_of(spec), None) == 401
    assert send(tick_of(spec), "ordering") == 403
    assert send(tick_of(spec, source="/shop/sweep"), "relay") == 403
    assert send(tick_of(spec, source="/shop/place_order"), "ordering") == 403
    assert send(tick_of(spec, time=now - timedelta(minutes=11)), "clock") == 401
    assert send(tick_of(spec, time=now + timedelta(minutes=11)), "clock") == 401
    assert send(tick_of(spec, subject="no-such-schedule"), "clock") == 422
    assert send(tick_of(spec, subject=None), "clock") == 422
    assert send(tick_of(spec, type="com.msashop.clock.ticked.v2"), "clock") in (403, 422)
    for token in (shop.person().token, shop.person("staff").token):
        headers, body = envelope.to_binary(tick_of(spec))
        headers["authorization"] = f"Bearer {token}"
        assert shop.post_event(consumer, headers, body).status == 401


@pytest.mark.parametrize("consumer", TICKED)
def test_repeated_tick_changes_nothing(shop: ShopHarness, consumer: str) -> None:
    Samples(shop).paid  # noqa: B018 (something to sweep and to settle)
    assert shop.tick(consumer).status == 204
    (before,) = shop.sql(COUNT_EFFECTS)

    assert [shop.tick(consumer).status for _ in range(3)] == [204] * 3

    assert shop.sql(COUNT_EFFECTS) == [before]


# ---------------------------------------------------------------- all receivers, dead letters


@pytest.mark.parametrize("consumer", [spec.name for spec in RECEIVERS])
def test_events_path_accepts_post_only(shop: ShopHarness, consumer: str) -> None:
    for method in ("GET", "PUT", "PATCH", "DELETE", "TRACE", "HEAD"):
        answer = shop.call(method, "/events", function=consumer)
        assert (answer.status, answer.headers["allow"]) == (405, "OPTIONS, POST")
    options = shop.call("OPTIONS", "/events", function=consumer)
    assert (options.status, options.headers["allow"]) == (204, "OPTIONS, POST")
    assert shop.call("POST", "/events/", function=consumer).status == 404
    assert shop.call("POST", "/", function=consumer).status == 404


def test_functions_without_subscriptions_have_no_events_path(shop: ShopHarness) -> None:
    for spec in all_specs():
        if not spec.receives_events:
            assert shop.call("POST", "/events", function=spec.name).status == 404


def test_dead_letter_is_stored_once_with_escaped_text(shop: ShopHarness) -> None:
    poison = CloudEvent(
        id="' or 1=1--",
        source="/shop/place_order",
        type="x\u202ey" * 100,
        time=datetime.now(UTC),
        data=b"\xff{",
    )
    signer = Signer("ordering", shop.secrets.event_keys["ordering"])
    headers, body = envelope.to_binary(signer.sign(poison))
    headers |= {"ce-knativeerrordest": "http://charge", "ce-knativeerrorcode": "422"}
    headers["ce-knativeerrordata"] = base64.b64encode(b"\x00" * 100).decode()

    answers = [shop.post_event("dead_letter", headers, body) for _ in range(3)]

    assert [(a.status, a.body) for a in answers] == [(204, b"")] * 3
    (letter,) = shop.sql(
        "select event_id, body from shop.dead_letters"
    )  # the only one of this database
    assert (letter["event_id"], bytes(letter["body"])) == ("' or 1=1--", b"\xff{")
    (alert,) = shop.sql("select detail from shop.alarms where kind = 'dead_letter'")
    assert alert["detail"].isascii()
