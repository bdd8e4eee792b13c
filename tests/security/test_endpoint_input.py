"""Bad input, endpoint by endpoint: orders, payments, refunds, webhook, accounts (section 6d)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from shop.primitives.ids import new_uuid
from tests.harness import Response, ShopHarness
from tests.sample_requests import PASSWORD, Samples
from tools.payment_simulator.webhook_sender import sign

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def samples(shop: ShopHarness) -> Samples:
    return Samples(shop)


def at_once(count: int, act: Callable[[int], Response]) -> list[Response]:
    """Runs ``act`` in that many threads which start together."""
    start, answers = threading.Barrier(count), [None] * count

    def run(i: int) -> None:
        start.wait()
        answers[i] = act(i)  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert None not in answers
    return answers  # type: ignore[return-value]


# ---------------------------------------------------------------- orders


def test_order_bodies_outside_the_rules_write_nothing(samples: Samples) -> None:
    product, dear = samples.product, samples.shop.product(price=1_000_000_000, stock=1_000_000)
    inactive = samples.shop.product()
    samples.shop.sql("update shop.products set active = false where product_id = %s", inactive)
    line = {"productId": product, "quantity": 1}
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({}, 422, "INVALID"),
        ({"items": []}, 422, "INVALID"),
        ({"items": [{"productId": i, "quantity": 1} for i in range(1, 52)]}, 422, "INVALID"),
        ({"items": [line, line]}, 422, "INVALID"),
        ({"items": [line], **line}, 422, "INVALID"),
        ({"items": [line], "quantity": 1}, 422, "INVALID"),
        ({"productId": product}, 422, "INVALID"),
        ({"quantity": 1}, 422, "INVALID"),
        ({"items": [{**line, "unitPrice": 1}]}, 422, "INVALID"),
        ({"items": [{**line, "price": 0}]}, 422, "INVALID"),
        ({"items": [{"productId": product, "quantity": 0}]}, 422, "INVALID"),
        ({"items": [{"productId": product, "quantity": -1}]}, 422, "INVALID"),
        ({"items": [{"productId": product, "quantity": 1001}]}, 422, "INVALID"),
        ({"items": [{"productId": str(product), "quantity": 1}]}, 422, "INVALID"),
        ({"items": [None]}, 422, "INVALID"),
        ({"items": [[product, 1]]}, 422, "INVALID"),
        ({**line, "totalAmount": 1}, 422, "INVALID"),
        ({**line, "unitPrice": 1}, 422, "INVALID"),
        ({**line, "expectedTotalAmount": 0}, 422, "INVALID"),
        ({**line, "paymentMethod": ""}, 422, "INVALID"),
        ({**line, "paymentMethod": "4111 1111 1111 1111"}, 422, "INVALID"),
        ({**line, "paymentMethod": "CARD4111111111111111"}, 422, "INVALID"),
        ({**line, "cardNumber": "4111111111111111"}, 422, "INVALID"),
        ({"productId": 2**62, "quantity": 1}, 422, "UNKNOWN_PRODUCT"),
        ({"productId": inactive, "quantity": 1}, 422, "UNKNOWN_PRODUCT"),
        ({"items": [line, {"productId": 2**62, "quantity": 1}]}, 422, "UNKNOWN_PRODUCT"),
        ({"productId": dear, "quantity": 1000}, 422, "TOTAL_TOO_LARGE"),
        ({**line, "expectedTotalAmount": 999}, 409, "PRICE_CHANGED"),
        ({"productId": product, "quantity": 1000}, 409, "OUT_OF_STOCK"),
    ]
    samples.shop.sql("update shop.stock set on_hand = 999 where product_id = %s", product)
    before = samples.rows()
    for body, status, code in cases:
        answer = samples.owner.post("/orders", {"paymentMethod": "CARD", **body})
        assert (answer.status, answer.error) == (status, code), (body, answer.body)
    assert samples.rows() == before
    (stock,) = samples.shop.sql("select reserved from shop.stock where product_id = %s", product)
    assert stock["reserved"] == 0


def test_lines_of_two_currencies_are_no_order(samples: Samples) -> None:
    foreign = samples.shop.product()
    samples.shop.sql("update shop.products set currency = 'USD' where product_id = %s", foreign)
    items = [{"productId": p, "quantity": 1} for p in (samples.product, foreign)]

    answer = samples.owner.post("/orders", {"items": items, "paymentMethod": "CARD"})

    assert (answer.status, answer.error) == (422, "MIXED_CURRENCIES")


def test_a_card_number_is_refused_and_not_logged(
    samples: Samples, capsys: pytest.CaptureFixture[str]
) -> None:
    order = samples.order()
    number = "4111-1111-1111-1111"

    for path in ("/orders", "/orders/from-cart", f"/orders/{order}/payments"):
        body = {"productId": samples.product, "quantity": 1} if path == "/orders" else {}
        answer = samples.owner.post(path, {**body, "paymentMethod": number})
        assert answer.status == 422 and number.encode() not in answer.body

    assert number not in capsys.readouterr().out


def test_an_eleventh_open_order_is_too_many(make_shop: Callable[..., ShopHarness]) -> None:
    samples = Samples(make_shop(open_orders_max=10))
    for _ in range(10):
        samples.order()
    before = samples.rows()

    body = {"productId": samples.product, "quantity": 1, "paymentMethod": "CARD"}
    answer = samples.owner.post("/orders", body)

    assert (answer.status, answer.error) == (429, "TOO_MANY_OPEN_ORDERS")
    assert answer.headers["retry-after"]
    assert samples.rows() == before


def test_reading_a_thousand_foreign_ids_finds_nothing(samples: Samples) -> None:
    answers = {samples.owner.get(f"/orders/{new_uuid()}").status for _ in range(200)}

    assert answers == {404}


def test_cancelling_refuses_a_body_and_a_second_time(samples: Samples) -> None:
    order = samples.order()
    path = f"/orders/{order}/cancel"

    for body in ({"refundAmount": 1}, {"status": "PAID"}, [], 1):
        assert samples.owner.patch(path, body).status == 422, body
    assert samples.owner.get(f"/orders/{order}").json["status"] == "PENDING"

    assert samples.owner.patch(path, {}).json["status"] == "CANCELLED"
    again = samples.owner.patch(path)
    assert (again.status, again.error) == (409, "NOT_CANCELLABLE")


# ---------------------------------------------------------------- paying again, refunds


def test_paying_again_is_refused_while_live_and_after_the_end(samples: Samples) -> None:
    pay = {"paymentMethod": "CARD"}
    pending, cancelled = samples.order(), samples.order()
    samples.owner.patch(f"/orders/{cancelled}/cancel")
    before = samples.rows()

    codes = [
        samples.owner.post(f"/orders/{order}/payments", pay).error
        for order in (pending, cancelled, str(new_uuid()))
    ]

    assert codes == ["PAYMENT_IN_PROGRESS", "NOT_PAYABLE", "NOT_FOUND"]
    assert samples.rows() == before
    assert samples.owner.post(f"/orders/{samples.paid}/payments", pay).error == "NOT_PAYABLE"


def test_refunds_outside_the_rules_write_nothing(samples: Samples) -> None:
    support, path = samples.people["support"], f"/orders/{samples.paid}/refunds"
    pending = samples.order()
    samples.shop.deliver_all()
    pending = samples.order()
    before = samples.rows()
    cases: list[tuple[str, dict[str, Any], int, str]] = [
        (path, {"amount": 0}, 422, "INVALID"),
        (path, {"amount": -1}, 422, "INVALID"),
        (path, {"amount": 1.5}, 422, "INVALID"),
        (path, {"amount": 10**10}, 422, "INVALID"),
        (path, {"amount": 1_000_001}, 409, "EXCEEDS_CAPTURE"),
        (path, {"amount": 1, "currency": "USD"}, 422, "OTHER_CURRENCY"),
        (path, {"amount": 1, "currency": "krw"}, 422, "INVALID"),
        (path, {"amount": 1, "reason": ""}, 422, "INVALID"),
        (path, {"amount": 1, "reason": "a\nb"}, 422, "INVALID"),
        (path, {"amount": 1, "reason": "x" * 201}, 422, "INVALID"),
        (path, {"amount": 1, "status": "SUCCEEDED"}, 422, "INVALID"),
        (path, {}, 422, "INVALID"),
        (f"/orders/{pending}/refunds", {"amount": 1}, 409, "NOT_REFUNDABLE"),
        (f"/orders/{new_uuid()}/refunds", {"amount": 1}, 404, "NOT_FOUND"),
        ("/orders/1/refunds", {"amount": 1}, 404, "NOT_FOUND"),
    ]
    for where, body, status, code in cases:
        answer = support.post(where, body)
        assert (answer.status, answer.error) == (status, code), (where, body, answer.body)
    assert samples.rows() == before


def test_ten_refunds_of_the_rest_at_once_are_one(samples: Samples) -> None:
    support, order = samples.people["support"], samples.paid

    answers = at_once(10, lambda _: support.post(f"/orders/{order}/refunds", {"amount": 1_000_000}))

    assert sorted(a.status for a in answers) == [201] + [409] * 9
    (given,) = samples.shop.sql("select sum(amount_minor)::bigint as total from shop.refunds")
    assert given["total"] == 1_000_000


# ---------------------------------------------------------------- the provider's webhook


@pytest.fixture
def unpaid(make_shop: Callable[..., ShopHarness]) -> tuple[Samples, str, dict[str, Any]]:
    """An order whose payment nobody knows the outcome of: the provider could not be reached."""
    samples = Samples(make_shop(payment_provider_url=NOWHERE))
    order = samples.order()
    (placed,) = [row for row in samples.shop.outbox() if row["type"] == "order.placed"]
    assert samples.shop.deliver(placed, "charge").status == 204
    (payment,) = samples.shop.sql("select * from shop.payments where order_id = %s", order)
    return samples, order, payment


def notice(payment: dict[str, Any], **changes: Any) -> bytes:
    data = {
        "key": payment["provider_key"],
        "amount_minor": payment["amount_minor"],
        "currency": "KRW",
        "provider_ref": f"ch_{uuid4().hex}",
    }
    event = {"id": f"evt_{uuid4().hex}", "type": changes.pop("type", "charge.captured")}
    return json.dumps({**event, "data": data | changes}).encode()


def post_notice(
    samples: Samples, body: bytes, *, at: float | None = None, **headers: str
) -> Response:
    signature = sign(body, samples.shop.webhook_secret, int(time.time() if at is None else at))
    sent = {"webhook-signature": signature} | {k.replace("_", "-"): v for k, v in headers.items()}
    return samples.shop.call("POST", "/payments/webhook", raw=body, headers=sent)


def test_a_webhook_without_a_fresh_and_right_signature_is_not_believed(
    unpaid: tuple[Samples, str, dict[str, Any]],
) -> None:
    samples, order, payment = unpaid
    body, now = notice(payment), int(time.time())
    good = sign(body, samples.shop.webhook_secret, now)
    stamp, _, mac = good.partition(",")
    before = samples.rows()
    cases = {
        "other secret": sign(body, "other", now),
        "other body": sign(body + b" ", samples.shop.webhook_secret, now),
        "six minutes old": sign(body, samples.shop.webhook_secret, now - 360),
        "six minutes ahead": sign(body, samples.shop.webhook_secret, now + 360),
        "time changed": f"t={now - 1},{mac}",
        "time missing": mac,
        "time twice": f"{stamp},{stamp},{mac}",
        "signature missing": stamp,
        "signature empty": f"{stamp},v1=",
        "signature cut": good[:-1],
        "signature in another scheme": good.replace("v1=", "v0="),
        "signature not ASCII": f"{stamp},v1=é",
        "negative time": f"t=-1,{mac}",
        "empty": "",
    }
    for case, header in cases.items():
        headers = {"webhook-signature": header}
        answer = samples.shop.call("POST", "/payments/webhook", raw=body, headers=headers)
        assert answer.status == 401, (case, answer.body)
    assert samples.shop.call("POST", "/payments/webhook", raw=body).status == 401
    assert post_notice(samples, body, stripe_signature=good).status == 401
    token = {"authorization": f"Bearer {samples.owner.token}"}
    assert samples.shop.call("POST", "/payments/webhook", raw=body, headers=token).status == 401
    assert samples.rows() == before
    assert samples.owner.get(f"/orders/{order}").json["status"] == "PENDING"


def test_a_webhook_counts_once_however_often_it_comes(
    unpaid: tuple[Samples, str, dict[str, Any]],
) -> None:
    samples, order, payment = unpaid
    body = notice(payment)

    answers = at_once(8, lambda _: post_notice(samples, body))
    again = post_notice(samples, body)

    assert {a.status for a in [*answers, again]} <= {204, 503} and again.status == 204
    assert samples.owner.get(f"/orders/{order}").json["status"] == "PAID"
    (ledger,) = samples.shop.sql("select count(*) from shop.ledger where kind = 'CAPTURE'")
    assert ledger["count"] == 1


def test_a_webhook_of_another_amount_or_currency_alarms_and_pays_nothing(
    unpaid: tuple[Samples, str, dict[str, Any]],
) -> None:
    samples, order, payment = unpaid

    answers = [
        post_notice(samples, notice(payment, **change)).status
        for change in ({"amount_minor": payment["amount_minor"] - 1}, {"currency": "USD"})
    ]

    assert answers == [202, 202]
    assert samples.owner.get(f"/orders/{order}").json["status"] == "PENDING"
    assert samples.shop.sql("select kind from shop.alarms") == [{"kind": "amount_mismatch"}]
    assert samples.shop.sql("select kind from shop.ledger") == []


def test_a_webhook_about_a_key_that_is_not_ours_is_422_and_may_come_again(
    unpaid: tuple[Samples, str, dict[str, Any]],
) -> None:
    samples, _, payment = unpaid
    before = samples.rows()
    for key in ("shop:unknown", "' or 1=1--", str(uuid4()), "x" * 255):
        for kind in ("charge.captured", "refund.succeeded"):
            body = notice(payment, key=key, type=kind)
            answers = [post_notice(samples, body) for _ in range(2)]
            assert [(a.status, a.error) for a in answers] == [(422, "UNKNOWN_KEY")] * 2
    assert samples.rows() == before
    assert (
        samples.shop.sql("select consumer from shop.inbox where consumer = 'payment_webhook'") == []
    )


def test_an_authentic_webhook_that_makes_no_sense_is_400(
    unpaid: tuple[Samples, str, dict[str, Any]],
) -> None:
    samples, order, payment = unpaid
    for change in (
        {"amount_minor": 0}, {"amount_minor": -1}, {"amount_minor": "1000"}, {"amount_minor": True},
        {"amount_minor": 1e3}, {"amount_minor": 10**30}, {"currency": "KR"}, {"currency": None},
        {"key": ""}, {"key": "a\x00b"}, {"key": None}, {"key": "x" * 256}, {"provider_ref": None},
        {"key": "\ud800"}, {"provider_ref": "a\nb"},
    ):  # fmt: skip
        answer = post_notice(samples, notice(payment, **change))
        assert answer.status == 400, (change, answer.status)
    for body in (
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"id":1}',
        b"\xff",
        b"[" * 10_000,
        b"9" * 9999,
    ):
        assert post_notice(samples, body).status == 400, body[:10]
    assert post_notice(samples, b" " * 65_537).status == 413
    assert samples.owner.get(f"/orders/{order}").json["status"] == "PENDING"


def test_a_capture_of_an_order_that_was_cancelled_is_given_back(
    unpaid: tuple[Samples, str, dict[str, Any]],
) -> None:
    samples, order, payment = unpaid
    assert post_notice(samples, notice(payment, type="charge.declined")).status == 204
    assert samples.owner.patch(f"/orders/{order}/cancel").json["status"] == "CANCELLED"

    late = post_notice(samples, notice(payment))

    assert late.status in (202, 204)
    assert samples.owner.get(f"/orders/{order}").json["status"] == "CANCELLED"
    refunds = samples.shop.sql("select amount_minor, status from shop.refunds")
    assert refunds == [{"amount_minor": payment["amount_minor"], "status": "INTENT"}]


# ---------------------------------------------------------------- accounts


def test_registrations_outside_the_rules_write_nothing(samples: Samples) -> None:
    good = {"email": "kim@test.kr", "password": PASSWORD, "name": "Kim"}
    before = samples.rows()
    bad: dict[str, tuple[Any, ...]] = {
        "email": (
            "a", "a@", "@x.kr", "a@x", "a@@x.kr", "a@x.kr\n", " a@x.kr", "a b@x.kr", '"a"@x.kr',
            "a@x..kr", "a@-x.kr", "a@x.kr.", "김@x.kr", "a@김.kr", "a@[127.0.0.1]",
            "a" * 65 + "@x.kr",
            "a@" + "x" * 250 + ".kr", "a@x.kr\u200b", "a@x.kr,b@x.kr", "a\r\nBcc: b@x.kr",
        ),
        "password": ("1234567", "x" * 129, "password", "12345678", "kim@test.kr", "qwertyuiop"),
        "name": ("", "x" * 101, "a\nb", "\u202eKim", "a\u200bb", "\x00"),
    }  # fmt: skip
    for name, values in bad.items():
        for value in values:
            answer = samples.shop.call("POST", "/users", json_body={**good, name: value})
            assert answer.status == 422, (name, value, answer.status)
            assert PASSWORD.encode() not in answer.body
    for extra in ("role", "isAdmin", "active", "id", "userId"):
        body = {**good, extra: "staff"}
        assert samples.shop.call("POST", "/users", json_body=body).status == 422, extra
    assert samples.rows() == before


def test_one_address_is_one_account_however_it_is_spelled_and_when(samples: Samples) -> None:
    name = uuid4().hex
    spellings = [f"{name}@test.kr", f"{name.upper()}@TEST.kr", f"{name}@Test.Kr"] * 2

    answers = at_once(
        6,
        lambda i: samples.shop.call(
            "POST",
            "/users",
            json_body={"email": spellings[i], "password": PASSWORD, "name": "Kim"},
        ),
    )

    assert sorted(a.status for a in answers) == [201] + [409] * 5
    (users,) = samples.shop.sql(
        "select count(*) from shop.users where email_key = %s", f"{name}@test.kr"
    )
    assert users["count"] == 1


def test_the_seventy_third_byte_of_a_password_matters(samples: Samples) -> None:
    long_one = "가나다라" * 7 + "x"  # 85 bytes: bcrypt would have read 72 of them
    body = {"email": samples.email, "password": long_one, "name": "Kim"}
    assert samples.shop.call("POST", "/users", json_body=body).status == 201

    for password, status in ((long_one[:-1] + "y", 401), (long_one[:-1], 401), (long_one, 200)):
        login = {"email": samples.email, "password": password}
        assert samples.shop.call("POST", "/auth/login", json_body=login).status == status


def test_an_unknown_mail_and_a_wrong_password_are_one_answer(samples: Samples) -> None:
    known = samples.account["email"]

    answers = [
        samples.shop.call("POST", "/auth/login", json_body={"email": e, "password": "wrong one"})
        for e in (known, "nobody@test.kr")
    ]

    assert [a.status for a in answers] == [401, 401]
    assert answers[0].body == answers[1].body
    assert dict(answers[0].headers) == dict(answers[1].headers)


# ---------------------------------------------------------------- catalogue and cart


def test_cart_input_outside_the_rules_writes_nothing(samples: Samples) -> None:
    line, before = f"/cart/items/{samples.product}", samples.rows()
    assert samples.owner.patch(line, {"quantity": 1}).status == 404
    for quantity in (0, -1, 1001, 1.5, "1", True, None):
        body = {"productId": samples.product, "quantity": quantity}
        assert samples.owner.post("/cart/items", body).status == 422, quantity
    for product_id in (0, -1, 2**63, "1", 1.0, None):
        body = {"productId": product_id, "quantity": 1}
        assert samples.owner.post("/cart/items", body).status == 422, product_id
    unknown = samples.owner.post("/cart/items", {"productId": 2**62, "quantity": 1})
    assert (unknown.status, samples.rows()) == (404, before)
    full = {"productId": samples.product, "quantity": 1000}
    assert samples.owner.post("/cart/items", full).status == 201
    assert samples.owner.post("/cart/items", {**full, "quantity": 1}).status == 422


def test_a_fifty_first_line_does_not_fit_into_a_cart(samples: Samples) -> None:
    products = [samples.shop.product() for _ in range(51)]

    answers = [samples.owner.post("/cart/items", {"productId": p, "quantity": 1}) for p in products]

    assert [a.status for a in answers] == [201] * 50 + [422]


def test_a_search_takes_every_character_literally(samples: Samples) -> None:
    samples.shop.product(name=r"100%_\ wool")
    for text, found in (("%", 1), ("_", 1), ("\\", 1), ("0%_", 1), ("%%", 0), ("__", 0), ("0_", 0)):
        answer = samples.shop.call("GET", f"/products?name={quote(text)}&limit=100")
        names = [p["name"] for p in answer.json]
        assert names.count(r"100%_\ wool") == found, text
    assert samples.shop.call("GET", "/products?minPrice=2&maxPrice=1").status == 422
