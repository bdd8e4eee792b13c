"""Event classes: names, types, subjects, data, and strict parsing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace
from datetime import UTC, date, datetime
from typing import ClassVar
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events import vocabulary
from events.envelope import parse, to_binary, to_structured, wrap
from events.errors import Malformed, UnknownEvent
from events.event import BIGINT_MAX, Currency, ShopEvent
from events.orders import OrderPlaced
from events.payments import PaymentCaptured
from events.records import frozen
from events.settlements import SettlementClosed

ORDER = UUID("01920000-0000-7000-8000-00000000000a")
PAYMENT = UUID("01920000-0000-7000-8000-00000000000b")
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)

VALUES: dict[object, st.SearchStrategy[object]] = {
    UUID: st.uuids(),
    int: st.integers(1, BIGINT_MAX),
    date: st.dates(),
    Currency: st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=3, max_size=3),
}
EVENTS = st.sampled_from(vocabulary.EVENTS).flatmap(
    lambda c: st.builds(c, **{f.name: VALUES[f.type] for f in fields(c)})
)

# name, whether it is external, the properties of its data
CATALOGUE = [
    ("order.placed", False, ["orderId"]),
    ("order.paid", False, ["orderId"]),
    ("order.refunded", True, ["orderId"]),
    ("order.cancelling", True, ["orderId"]),
    ("order.cancelled", False, ["orderId"]),
    ("payment.captured", True, ["orderId", "paymentId"]),
    ("payment.declined", True, ["orderId", "paymentId"]),
    ("payment.confirm-requested", False, ["orderId", "paymentId"]),
    ("payment.retry-requested", False, ["orderId"]),
    ("refund.requested", False, ["orderId", "paymentId", "refundId"]),
    ("refund.succeeded", False, ["orderId", "paymentId", "refundId"]),
    ("refund.rejected", True, ["orderId", "paymentId", "refundId"]),
    ("shipment.created", True, ["orderId", "shipmentId"]),
    ("shipment.shipped", True, ["orderId", "shipmentId"]),
    ("shipment.delivered", True, ["orderId", "shipmentId"]),
    ("return.requested", True, ["orderId", "returnId"]),
    ("return.approved", True, ["orderId", "returnId"]),
    ("return.rejected", True, ["orderId", "returnId"]),
    ("return.received", True, ["orderId", "returnId"]),
    ("product.changed", False, ["productId", "productVersion"]),
    ("user.registered", False, ["userId"]),
    ("user.password-changed", False, ["userId"]),
    ("user.password-reset-requested", False, ["linkId"]),
    ("user.closed", True, ["userId"]),
    ("user.email-verification-requested", False, ["linkId"]),
    ("user.email-change-requested", False, ["linkId", "userId"]),
    ("user.email-change-started", False, ["userId", "linkId"]),
    ("user.email-changed", False, ["userId", "linkId"]),
    ("user.second-factor-enabled", False, ["userId"]),
    ("user.second-factor-removed", False, ["userId"]),
    ("user.recovery-codes-renewed", False, ["userId"]),
    ("user.recovery-code-used", False, ["userId"]),
    ("user.invited", False, ["linkId"]),
    ("settlement.closed", True, ["settlementDate", "currency"]),
]
EXAMPLES: dict[object, object] = {UUID: ORDER, int: 7, date: date(2026, 1, 31), Currency: "KRW"}


def test_events_are_those_of_the_product() -> None:
    seen = [
        (c.name, c.external, list(c(**{f.name: EXAMPLES[f.type] for f in fields(c)}).data()))
        for c in vocabulary.EVENTS
    ]
    assert seen == CATALOGUE


def test_an_event_has_type_subject_and_data() -> None:
    event = PaymentCaptured(order_id=ORDER, payment_id=PAYMENT)
    assert event.type == "com.msashop.payment.captured.v1"
    assert event.subject == str(ORDER)
    assert event.data() == {"orderId": str(ORDER), "paymentId": str(PAYMENT)}
    assert event.dataschema == "https://msashop.example/schemas/payment.captured.v1.json"


def test_the_subject_of_a_settlement_is_its_day() -> None:
    event = SettlementClosed(settlement_date=date(2026, 1, 31), currency=Currency("KRW"))
    assert event.subject == "2026-01-31"
    assert event.data() == {"settlementDate": "2026-01-31", "currency": "KRW"}


def test_an_event_is_frozen_and_named_by_keyword() -> None:
    event = OrderPlaced(order_id=ORDER)
    with pytest.raises(FrozenInstanceError):
        event.order_id = PAYMENT  # type: ignore[misc]
    with pytest.raises(TypeError):
        OrderPlaced(ORDER)  # type: ignore[misc]


@pytest.mark.parametrize("wrong", [str(ORDER), None, 7, b"x"])
def test_a_value_of_the_wrong_type_raises_type_error(wrong: object) -> None:
    with pytest.raises(TypeError):
        OrderPlaced(order_id=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "values", "error"),
    [
        ("user.registered", {"user_id": True}, TypeError),
        ("user.registered", {"user_id": 0}, ValueError),
        ("user.registered", {"user_id": 2**63}, ValueError),
        ("product.changed", {"product_id": 1, "product_version": -1}, ValueError),
        ("settlement.closed", {"settlement_date": NOW, "currency": "KRW"}, TypeError),
        ("settlement.closed", {"settlement_date": date(2026, 1, 1), "currency": "krw"}, ValueError),
    ],
)
def test_a_wrong_value_raises_an_error(
    name: str, values: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        vocabulary.class_of(name)(**values)


@given(EVENTS)
def test_an_event_is_unchanged_by_writing_and_reading(event: ShopEvent) -> None:
    assert vocabulary.read(event.type, event.data()) == event
    envelope = wrap(event, id="1", source="/shop/charge", time=NOW, traceparent="00-a-b-01")
    assert vocabulary.unwrap(parse(*to_binary(envelope))) == event
    assert vocabulary.unwrap(parse(*to_structured(envelope))) == event


def test_an_envelope_has_partition_key_and_trace() -> None:
    envelope = wrap(OrderPlaced(order_id=ORDER), id="7", source="/shop/place_order", time=NOW)
    assert envelope.subject == str(ORDER)
    assert dict(envelope.extensions) == {"partitionkey": str(ORDER)}
    traced = wrap(
        OrderPlaced(order_id=ORDER), id="7", source="/shop/x", time=NOW, traceparent="00-a-b-01"
    )
    assert traced.extensions["traceparent"] == "00-a-b-01"


@pytest.mark.parametrize(
    "event_type",
    [
        "com.msashop.order.placed.v2",
        "com.msashop.order.placed.v01",
        "com.msashop.order.placed",
        "com.msashop.order.shipped.v1",
        "com.msashop.warehouse.moved.v1",
        "com.msashop.clock.ticked.v1",
        "order.placed",
        "com.example.order.placed.v1",
        "com.msashop.order.placed.v1\n",
        "",
    ],
)
def test_an_unknown_type_or_version_is_rejected(event_type: str) -> None:
    with pytest.raises(UnknownEvent) as raised:
        vocabulary.read(event_type, {"orderId": str(ORDER)})
    assert raised.value.status == 422


def test_an_unknown_name_raises_unknown_event() -> None:
    for name in ("order.shipped", "order", "", "placed.order"):
        with pytest.raises(UnknownEvent):
            vocabulary.class_of(name)
    assert vocabulary.class_of("order.placed") is OrderPlaced


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "x",
        {},
        {"orderId": str(ORDER), "status": "PAID"},
        {"order_id": str(ORDER)},
        {"orderId": None},
        {"orderId": 7},
        {"orderId": "7"},
        {"orderId": ORDER.hex},
        {"orderId": str(ORDER).upper()},
        {"orderId": "{" + str(ORDER) + "}"},
        {"orderId": f"urn:uuid:{ORDER}"},
        {"orderId": str(ORDER) + "\n"},
    ],
)
def test_missing_unknown_or_wrong_properties_are_rejected(data: object) -> None:
    with pytest.raises(Malformed) as raised:
        vocabulary.read("com.msashop.order.placed.v1", data)
    assert raised.value.status == 422


@pytest.mark.parametrize("wrong", [True, 1.0, "1", 0, -1, 2**63, None, [1]])
def test_a_number_that_is_not_an_id_is_rejected(wrong: object) -> None:
    with pytest.raises(Malformed) as raised:
        vocabulary.read("com.msashop.user.registered.v1", {"userId": wrong})
    assert raised.value.status == 422


@pytest.mark.parametrize("wrong", ["2026-02-30", "20260131", "2026-W05-6", "2026-1-31", 20260131])
def test_a_day_that_is_not_a_date_is_rejected(wrong: object) -> None:
    with pytest.raises(Malformed) as raised:
        vocabulary.read(
            "com.msashop.settlement.closed.v1", {"settlementDate": wrong, "currency": "KRW"}
        )
    assert raised.value.status == 422


@pytest.mark.parametrize(
    "changes",
    [
        {"data": b"not json"},
        {"data": b""},
        {"data": b"{}"},
        {"data": b'{"orderId":"a","orderId":"b"}'},
        {"subject": str(PAYMENT)},
        {"dataschema": "https://msashop.example/schemas/order.placed.v2.json"},
        {"type": "com.msashop.order.placed.v2"},
        {"type": "com.msashop.payment.captured.v1"},
    ],
    ids=str,
)
def test_an_envelope_that_contradicts_its_event_is_rejected(changes: dict[str, object]) -> None:
    envelope = wrap(OrderPlaced(order_id=ORDER), id="7", source="/shop/place_order", time=NOW)
    with pytest.raises(Malformed) as raised:
        vocabulary.unwrap(replace(envelope, **changes))
    assert raised.value.status == 422


def test_two_versions_of_an_event_are_both_read(monkeypatch: pytest.MonkeyPatch) -> None:
    @frozen(kw_only=True)
    class UserRegisteredAgain(ShopEvent):
        name: ClassVar[str] = "user.registered"
        version: ClassVar[int] = 2
        user_id: int

    first = vocabulary.class_of("user.registered")
    both = (UserRegisteredAgain, first)

    def classes_about(noun: str) -> tuple[type[ShopEvent], ...]:
        return both if noun == "user" else ()

    monkeypatch.setattr(vocabulary, "_classes_about", classes_about)
    assert vocabulary.class_of("user.registered") is UserRegisteredAgain
    assert vocabulary.class_of_type("com.msashop.user.registered.v1") is first
    assert vocabulary.class_of_type("com.msashop.user.registered.v2") is UserRegisteredAgain


def test_only_the_modules_of_requested_events_are_imported() -> None:
    program = (
        "import sys; from events.vocabulary import class_of; class_of('order.placed');"
        "third = [m for m in sys.modules if m.partition('.')[0] not in"
        " {*sys.stdlib_module_names, 'events', '__main__'} and not m.startswith('_')];"
        "print(sorted(m for m in sys.modules if m.startswith('events.')), third)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True
    )
    expected = ["errors", "event", "orders", "records", "strict_json", "vocabulary"]
    assert done.stdout.strip() == f"{[f'events.{m}' for m in expected]} []"
