"""manage_webhooks: administrators manage webhooks, and events are sent to them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from events.vocabulary import EVENTS
from shop import webhooks
from shop.runtime import webhook_client
from shop.runtime.config import Settings
from tests.harness import MakeShop, Person, Response, ShopHarness
from tests.waiting import wait_for
from tools.webhook_receiver import Behaviour, Receiver, running_receiver

ANY = {"if-match": "*"}
TYPES = ["order.cancelled"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as running:
        yield running


def create(admin: Person, url: str, types: list[str] | None = None) -> Any:
    answer = admin.post("/admin/webhooks", {"url": url, "eventTypes": types or TYPES})
    assert answer.status == 201, answer.body
    return answer.json


def cancel_orders(shop: ShopHarness, count: int = 1) -> list[str]:
    """Cancels new orders, each of which stores an event order.cancelled; returns their ids."""
    buyer, product = shop.person(), shop.product(stock=count)
    orders = [str(buyer.order(product)["id"]) for _ in range(count)]
    for order in orders:
        assert buyer.patch(f"/orders/{order}/cancel").status == 200
    return orders


def deliveries(shop: ShopHarness) -> list[tuple[str, int]]:
    rows = shop.sql(
        "select state, attempts from shop.webhook_deliveries order by event_id, webhook_id"
    )
    return [(row["state"], row["attempts"]) for row in rows]


def make_due(shop: ShopHarness) -> None:
    shop.sql("update shop.webhooks set next_run_at = now()")
    shop.sql("update shop.webhook_deliveries set next_try_at = now() where state = 'PENDING'")


def send(shop: ShopHarness) -> None:
    make_due(shop)
    assert shop.tick("manage_webhooks").status == 204


def attempts(admin: Person, webhook: Any) -> list[Any]:
    """The attempts of the newest delivery, newest first."""
    (newest, *_) = admin.get(f"/admin/webhooks/{webhook['id']}/deliveries").json
    found = admin.get(f"/admin/webhooks/{webhook['id']}/deliveries/{newest['eventId']}")
    assert found.status == 200
    log: list[Any] = found.json["log"]
    return log


def test_event_types_are_the_events_about_orders_but_for_requests_of_work() -> None:
    about_orders = {event.name for event in EVENTS if "order_id" in event.__annotations__}
    requests = {
        "order.placed",
        "payment.confirm-requested",
        "payment.retry-requested",
        "refund.requested",
    }

    assert set(webhooks.EVENT_TYPES) == about_orders - requests


def test_event_arrives_signed_with_the_order_and_without_its_customer(
    shop: ShopHarness, receiver: Receiver
) -> None:
    admin = shop.person("admin")
    webhook = create(admin, receiver.url("/shop?from=shop"))
    (order,) = cancel_orders(shop)
    (event,) = shop.sql("select * from shop.outbox where type = 'order.cancelled'")

    send(shop)

    (message,) = receiver.received()
    assert message.path == "/shop?from=shop" and message.is_signed_with(webhook["secret"])
    assert message.headers["content-type"] == "application/cloudevents+json"
    assert message.id == str(event["event_id"]) == message.json["id"]
    assert message.json["type"] == "com.msashop.order.cancelled.v1"
    data = message.json["data"]
    assert (data["orderId"], data["order"]["status"]) == (order, "CANCELLED")
    assert data["order"]["totalAmount"] == 1000
    assert not {"userId", "paymentMethod"} & set(data["order"])
    assert deliveries(shop) == [("DELIVERED", 1)]
    send(shop)
    assert len(receiver.received()) == 1


def test_log_has_the_heads_without_signature_and_cookies(
    shop: ShopHarness, receiver: Receiver
) -> None:
    admin = shop.person("admin")
    webhook = create(admin, receiver.url())
    cancel_orders(shop)
    send(shop)

    (attempt,) = attempts(admin, webhook)

    assert (attempt["number"], attempt["status"], attempt["error"]) == (1, 204, None)
    assert "webhook-id: " in attempt["requestHead"]
    assert "webhook-signature: v1,***" in attempt["requestHead"]
    assert attempt["responseHead"].startswith("HTTP 204")
    assert "receiver-session" not in attempt["responseHead"]


def test_event_is_delivered_to_each_active_webhook_of_its_type_once(
    shop: ShopHarness, receiver: Receiver
) -> None:
    admin = shop.person("admin")
    create(admin, receiver.url("/a"))
    create(admin, receiver.url("/b"), ["order.cancelled", "order.paid"])
    create(admin, receiver.url("/other"), ["order.paid"])
    disabled = create(admin, receiver.url("/disabled"))
    change = {"state": "DISABLED"}
    path = f"/admin/webhooks/{disabled['id']}"
    assert admin.patch(path, change, headers=ANY).json["disabledBy"] == "ADMINISTRATOR"
    deleted = create(admin, receiver.url("/deleted"))
    assert admin.delete(f"/admin/webhooks/{deleted['id']}").status == 204

    cancel_orders(shop, 3)
    send(shop)

    paths = sorted(message.path for message in receiver.received())
    assert paths == ["/a"] * 3 + ["/b"] * 3
    assert deliveries(shop) == [("DELIVERED", 1)] * 6


@pytest.mark.parametrize(
    ("behaviour", "status", "error"),
    [
        (Behaviour.ERROR, 500, None),
        (Behaviour.REDIRECT, 302, None),
        (Behaviour.NO_HTTP, None, "INVALID_RESPONSE"),
        (Behaviour.RESET, None, "CONNECTION_FAILED"),
    ],
)
def test_failed_attempt_is_logged_and_repeated_until_it_succeeds(
    shop: ShopHarness, receiver: Receiver, behaviour: Behaviour, status: int | None, error: str
) -> None:
    admin = shop.person("admin")
    webhook = create(admin, receiver.url())
    cancel_orders(shop)
    receiver.behaves(behaviour)
    send(shop)

    (failed,) = attempts(admin, webhook)
    receiver.behaves(Behaviour.ACCEPT)
    waits = admin.get(f"/admin/webhooks/{webhook['id']}").json["failingSince"]
    send(shop)

    assert (failed["status"], failed["error"]) == (status, error)
    assert waits is not None
    assert [a["number"] for a in attempts(admin, webhook)] == [2, 1]
    assert deliveries(shop) == [("DELIVERED", 2)]
    assert {message.id for message in receiver.received()} == receiver.accepted_ids()
    assert admin.get(f"/admin/webhooks/{webhook['id']}").json["failingSince"] is None


def test_receiver_that_does_not_respond_times_out_and_delays_no_other(
    shop: ShopHarness, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shop.runtime.webhook_client.SECONDS_MAX", 1.0)
    admin = shop.person("admin")
    create(admin, receiver.url("/slow"))
    create(admin, receiver.url("/well"))
    receiver.of_path["/slow"] = Behaviour.HANG
    receiver.behaviour = Behaviour.ACCEPT
    cancel_orders(shop, 20)

    with running_receiver() as hanging:
        hanging.behaves(Behaviour.HANG)
        create(admin, hanging.url())
        cancel_orders(shop, 20)
        send(shop)

        assert len(receiver.accepted_ids("/well")) == 40
        assert 0 < len(hanging.received()) <= 16


def test_receiver_gets_at_most_eight_requests_at_once(
    shop: ShopHarness, receiver: Receiver
) -> None:
    create(shop.person("admin"), receiver.url())
    cancel_orders(shop, 20)
    receiver.behaves(Behaviour.HANG)
    sending = threading.Thread(target=send, args=(shop,))
    sending.start()
    wait_for(lambda: len(receiver.received()) == 8, "eight requests are open")

    receiver.behaves(Behaviour.ACCEPT)
    sending.join()

    assert receiver.most_at_once == 8
    assert {state for state, _ in deliveries(shop)} <= {"DELIVERED", "PENDING"}


def test_receiver_that_works_again_gets_every_event_of_its_failure(
    shop: ShopHarness, receiver: Receiver
) -> None:
    admin = shop.person("admin")
    create(admin, receiver.url())
    receiver.behaves(Behaviour.ERROR)
    cancel_orders(shop, 30)
    send(shop)
    tried = len(receiver.received())
    send(shop)
    probed = len(receiver.received()) - tried
    receiver.behaves(Behaviour.ACCEPT)
    shop.sql("update shop.webhooks set next_run_at = now()")
    shop.sql(
        "update shop.webhook_deliveries set next_try_at = now() where event_id = "
        "(select event_id from shop.webhook_deliveries order by next_try_at limit 1)"
    )

    assert shop.tick("manage_webhooks").status == 204

    assert (tried, probed) == (16, 1)
    assert len(receiver.accepted_ids()) == 30
    assert {state for state, _ in deliveries(shop)} == {"DELIVERED"}


def test_delivery_is_given_up_after_three_days_and_can_be_repeated(
    shop: ShopHarness, receiver: Receiver
) -> None:
    admin = shop.person("admin")
    webhook = create(admin, receiver.url())
    cancel_orders(shop)
    receiver.behaves(Behaviour.ERROR)
    shop.sql("update shop.webhook_deliveries set scheduled_at = now() - interval '3 days'")
    send(shop)
    given_up = deliveries(shop)
    send(shop)
    (row,) = admin.get(f"/admin/webhooks/{webhook['id']}/deliveries?state=FAILED").json
    receiver.behaves(Behaviour.ACCEPT)

    path = f"/admin/webhooks/{webhook['id']}/deliveries/{row['eventId']}/redelivery"
    repeated = admin.post(path)
    send(shop)

    assert given_up == [("FAILED", 1)]
    assert (repeated.status, repeated.body) == (202, b"")
    assert deliveries(shop) == [("DELIVERED", 2)]


def test_delivery_of_a_deleted_event_is_given_up_without_an_attempt(
    shop: ShopHarness, receiver: Receiver
) -> None:
    create(shop.person("admin"), receiver.url())
    cancel_orders(shop)
    shop.sql("delete from shop.outbox where type = 'order.cancelled'")

    send(shop)

    assert deliveries(shop) == [("FAILED", 0)] and receiver.received() == []
    assert shop.sql("select id from shop.due_work where kind = 'webhook'") == []


def test_tries_are_repeated_at_growing_intervals_for_three_days() -> None:
    age, delays = 0, list[int]()
    while (delay := webhooks.retry_seconds(len(delays) + 1, age)) is not None:
        delays.append(delay)
        age += delay

    assert delays[:6] == [60, 300, 1800, 7200, 18_000, 36_000]
    assert delays == sorted(delays)
    assert 2.5 * 86_400 < age <= 3 * 86_400


def test_redelivery_of_a_time_has_failed_and_missed_events_and_delivered_ones_on_request(
    shop: ShopHarness, receiver: Receiver
) -> None:
    admin = shop.person("admin")
    cancel_orders(shop)  # before there is a webhook
    webhook = create(admin, receiver.url())
    cancel_orders(shop, 2)
    send(shop)
    body: dict[str, Any] = {"fromTime": "2020-01-01T00:00:00Z", "toTime": "2100-01-01T00:00:00Z"}
    path = f"/admin/webhooks/{webhook['id']}/redeliveries"

    missed = admin.post(path, body)
    send(shop)
    every = admin.post(path, body | {"includeDelivered": True})
    send(shop)

    assert (missed.status, missed.json["deliveries"], missed.json["complete"]) == (202, 1, True)
    assert every.json["deliveries"] == 3
    assert len(receiver.received()) == 6 and len(receiver.accepted_ids()) == 3


def test_receiver_that_is_gone_is_disabled_and_an_operator_alerted(
    shop: ShopHarness, receiver: Receiver
) -> None:
    admin = shop.person("admin")
    webhook = create(admin, receiver.url())
    receiver.behaves(Behaviour.GONE)
    cancel_orders(shop)

    send(shop)

    now = admin.get(f"/admin/webhooks/{webhook['id']}").json
    assert (now["state"], now["disabledBy"]) == ("DISABLED", "GONE")
    alerts = shop.sql("select kind, subject, resolved_at from shop.alarms")
    assert alerts == [{"kind": "webhook_disabled", "subject": webhook["id"], "resolved_at": None}]
    assert deliveries(shop) == [("FAILED", 1)]


@pytest.mark.parametrize("way", ["deleted", "changed"])
def test_alert_about_a_disabled_webhook_is_closed_when_an_administrator_decides(
    shop: ShopHarness, receiver: Receiver, way: str
) -> None:
    admin = shop.person("admin")
    receiver.behaves(Behaviour.GONE)
    webhook, other = create(admin, receiver.url()), create(admin, receiver.url("/other"))
    cancel_orders(shop)
    send(shop)
    path = f"/admin/webhooks/{webhook['id']}"

    if way == "deleted":
        assert admin.delete(path).status == 204
    else:
        assert admin.patch(path, {"state": "DISABLED"}, headers=ANY).status == 200

    still_open = shop.sql("select subject from shop.alarms where resolved_at is null")
    assert still_open == [{"subject": other["id"]}]


def test_receiver_that_fails_for_days_is_disabled_and_enabled_sends_what_waits(
    shop: ShopHarness, receiver: Receiver
) -> None:
    admin = shop.person("admin")
    webhook = create(admin, receiver.url())
    receiver.behaves(Behaviour.ERROR)
    cancel_orders(shop, 2)
    send(shop)
    shop.sql("update shop.webhooks set failing_since = now() - interval '73 hours'")
    send(shop)
    now = admin.get(f"/admin/webhooks/{webhook['id']}").json
    requests = len(receiver.received())
    send(shop)
    receiver.behaves(Behaviour.ACCEPT)

    change = {"state": "ACTIVE"}
    enabled = admin.patch(f"/admin/webhooks/{webhook['id']}", change, headers=ANY)
    ignored = len(receiver.received()) - requests
    assert shop.tick("manage_webhooks").status == 204

    assert (now["state"], now["disabledBy"], ignored) == ("DISABLED", "FAILING", 0)
    (alert,) = shop.sql("select kind, resolved_at is not null as is_closed from shop.alarms")
    assert alert == {"kind": "webhook_disabled", "is_closed": True}
    assert (enabled.json["state"], enabled.json["disabledBy"]) == ("ACTIVE", None)
    assert {state for state, _ in deliveries(shop)} == {"DELIVERED"}


def test_rotation_signs_with_both_secrets_until_the_first_one_ends(
    shop: ShopHarness, receiver: Receiver
) -> None:
    admin = shop.person("admin")
    webhook = create(admin, receiver.url())
    etag = admin.get(f"/admin/webhooks/{webhook['id']}").headers["etag"]
    path = f"/admin/webhooks/{webhook['id']}/secret"

    rotated = admin.post(path, headers={"if-match": etag})
    repeated = admin.post(path, headers={"if-match": etag})
    without = admin.post(path)
    cancel_orders(shop)
    send(shop)
    shop.sql("update shop.webhooks set previous_secret_until = now()")
    cancel_orders(shop)
    send(shop)

    assert (rotated.status, repeated.status, without.status) == (200, 412, 428)
    assert rotated.json["secret"] != webhook["secret"]
    both, one = receiver.received()
    assert both.is_signed_with(webhook["secret"]) and both.is_signed_with(rotated.json["secret"])
    assert one.is_signed_with(rotated.json["secret"])
    assert not one.is_signed_with(webhook["secret"])


def test_secret_is_in_no_row_and_no_second_response(shop: ShopHarness, receiver: Receiver) -> None:
    admin = shop.person("admin")
    key = uuid4().hex
    body = {"url": receiver.url(), "eventTypes": TYPES}
    secret = admin.post("/admin/webhooks", body, key=key).json["secret"]

    again = admin.post("/admin/webhooks", body, key=key)
    listed = admin.get("/admin/webhooks")

    assert (again.status, again.error) == (409, "URL_TAKEN")
    assert secret.encode() not in listed.body and b"whsec_" not in listed.body
    for table in ("webhooks", "idempotency", "audit_log", "webhook_attempts"):
        rows = shop.sql(f"select t::text as text from shop.{table} t")
        assert not [row for row in rows if secret in row["text"]], table


def test_test_message_is_sent_at_once_and_its_response_shown(
    shop: ShopHarness, receiver: Receiver
) -> None:
    admin = shop.person("admin")
    webhook = create(admin, receiver.url())
    path = f"/admin/webhooks/{webhook['id']}/test"

    delivered = admin.post(path).json
    receiver.behaves(Behaviour.ERROR)
    failed = admin.post(path).json

    (message, _) = receiver.received()
    assert message.is_signed_with(webhook["secret"])
    assert message.json["type"] == "com.msashop.webhook.test.v1"
    assert (delivered["delivered"], delivered["status"]) == (True, 204)
    assert (failed["delivered"], failed["status"]) == (False, 500)
    assert deliveries(shop) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://10.1.2.3/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:127.0.0.1]:80/",
        "http://[64:ff9b::127.0.0.1]/",
        "http://[2002:7f00:1::]/",
        "http://100.64.0.1/",
        "http://0.0.0.1/",
        "http://0x7f000001/",
    ],
)
def test_address_that_is_not_public_gets_no_request(
    make_shop: MakeShop, url: str, receiver: Receiver
) -> None:
    shop = make_shop(webhook_networks_allowed="")
    admin = shop.person("admin")
    inside = create(admin, receiver.url())
    webhook = create(admin, url)

    answers = [admin.post(f"/admin/webhooks/{each['id']}/test").json for each in (webhook, inside)]

    assert [answer["error"] for answer in answers] == ["ADDRESS_NOT_ALLOWED"] * 2
    assert receiver.received() == []


def test_name_that_changes_its_address_is_resolved_once_for_all_messages_of_a_run(
    shop: ShopHarness, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [["127.0.0.1"], ["10.0.0.1"]]

    def next_answer(_host: str, _port: int) -> list[str]:
        return answers.pop(0)

    monkeypatch.setattr(webhook_client, "_addresses", next_answer)
    create(shop.person("admin"), receiver.url().replace("127.0.0.1", "hooks.example.kr"))
    cancel_orders(shop, 3)

    send(shop)
    received = len(receiver.received())
    cancel_orders(shop)
    send(shop)

    assert (received, len(receiver.received()), answers) == (3, 3, [])
    (error,) = shop.sql("select error from shop.webhook_attempts where error is not null")
    assert error == {"error": "ADDRESS_NOT_ALLOWED"}


def test_redirect_is_not_followed(shop: ShopHarness, receiver: Receiver) -> None:
    receiver.behaves(Behaviour.REDIRECT)
    create(shop.person("admin"), receiver.url("/hook"))
    cancel_orders(shop)

    send(shop)

    assert [each.path for each in receiver.received()] == ["/hook"]
    assert deliveries(shop) == [("PENDING", 1)]


def test_http_is_rejected_outside_the_local_profile(make_shop: MakeShop) -> None:
    shop = make_shop(profile="prod")
    admin = shop.person("admin")
    body = {"url": "http://hooks.example.kr/", "eventTypes": TYPES}

    answer = admin.post("/admin/webhooks", body)

    assert (answer.status, answer.error) == (422, "INVALID")
    assert [error["field"] for error in answer.json["errors"]] == ["url"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"url": "ftp://hooks.example.kr/", "eventTypes": TYPES}, "url"),
        ({"url": "https://user:word@hooks.example.kr/", "eventTypes": TYPES}, "url"),
        ({"url": "https://hooks.example.kr/#top", "eventTypes": TYPES}, "url"),
        ({"url": "https://hooks.example.kr/a b", "eventTypes": TYPES}, "url"),
        ({"url": "https://hooks.example.kr/\r\nx: y", "eventTypes": TYPES}, "url"),
        ({"url": "https://h.kr/" + "a" * 500, "eventTypes": TYPES}, "url"),
        ({"url": "https://[9Ae1]/", "eventTypes": TYPES}, "url"),
        ({"url": "https://[fe80::1%25eth0]/", "eventTypes": TYPES}, "url"),
        ({"url": "https://hooks.example.kr:65536/", "eventTypes": TYPES}, "url"),
        ({"url": "https://hooks.example.kr/", "eventTypes": []}, "eventTypes"),
        ({"url": "https://hooks.example.kr/", "eventTypes": ["user.invited"]}, "eventTypes.0"),
        ({"url": "https://hooks.example.kr/", "eventTypes": TYPES * 2}, "eventTypes"),
        ({"url": "https://hooks.example.kr/", "eventTypes": TYPES, "a": 1}, "a"),
    ],
)
def test_invalid_webhook_is_422_and_the_field_named(
    shop: ShopHarness, body: dict[str, Any], field: str
) -> None:
    answer = shop.person("admin").post("/admin/webhooks", body)

    assert (answer.status, answer.error) == (422, "INVALID")
    assert [error["field"] for error in answer.json["errors"]] == [field]
    assert shop.sql("select url from shop.webhooks") == []


def test_change_needs_the_present_state_and_an_address_of_its_own(
    shop: ShopHarness, receiver: Receiver
) -> None:
    admin = shop.person("admin")
    first, second = create(admin, receiver.url("/a")), create(admin, receiver.url("/b"))
    path = f"/admin/webhooks/{second['id']}"
    etag = admin.get(path).headers["etag"]
    body = {"eventTypes": ["order.paid"]}

    def change(body: Any, **headers: str) -> Response:
        return admin.patch(path, body, headers=headers)

    assert change(body).status == 428
    changed = change(body, **{"if-match": etag})
    stale = change({"state": "DISABLED"}, **{"if-match": etag})
    taken = change({"url": first["url"]}, **{"if-match": changed.headers["etag"]})

    assert (changed.status, changed.json["eventTypes"]) == (200, ["order.paid"])
    assert stale.status == 412
    assert (taken.status, taken.error) == (409, "URL_TAKEN")
    assert admin.get(path).json == changed.json


def test_one_webhook_too_many_is_409(shop: ShopHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("functions.manage_webhooks.handler.WEBHOOKS_MAX", 2)
    admin = shop.person("admin")
    for number in range(2):
        create(admin, f"https://hooks.example.kr/{number}")

    answer = admin.post(
        "/admin/webhooks", {"url": "https://hooks.example.kr/2", "eventTypes": TYPES}
    )

    assert (answer.status, answer.error) == (409, "TOO_MANY_WEBHOOKS")
    assert len(admin.get("/admin/webhooks").json) == 2


def test_deleted_webhook_is_404_on_every_route(shop: ShopHarness) -> None:
    admin = shop.person("admin")
    webhook = create(admin, "https://hooks.example.kr/")
    path = f"/admin/webhooks/{webhook['id']}"
    assert admin.delete(path).status == 204

    answers = [
        admin.get(path),
        admin.patch(path, {"state": "ACTIVE"}, headers=ANY),
        admin.delete(path),
        admin.post(f"{path}/secret", headers=ANY),
        admin.post(f"{path}/test"),
        admin.get(f"{path}/deliveries"),
        admin.get(f"/admin/webhooks/{uuid4()}"),
        admin.get("/admin/webhooks/1"),
    ]

    assert {answer.status for answer in answers} == {404}
    assert create(admin, "https://hooks.example.kr/")["id"] != webhook["id"]


def test_pages_of_deliveries_have_each_event_once_newest_first(
    shop: ShopHarness, receiver: Receiver
) -> None:
    admin = shop.person("admin")
    webhook = create(admin, receiver.url())
    cancel_orders(shop, 3)

    first = admin.get(f"/admin/webhooks/{webhook['id']}/deliveries?limit=2&state=PENDING")
    second = admin.get(first.headers["link"].partition("<")[2].partition(">")[0])

    ids = [one["eventId"] for page in (first, second) for one in page.json]
    assert len(ids) == 3 and ids == sorted(ids, reverse=True)
    assert "link" not in second.headers


def test_every_write_has_an_entry_without_path_and_secret(shop: ShopHarness) -> None:
    admin = shop.person("admin")
    webhook = create(admin, "https://hooks.example.kr/a-secret-path")
    path = f"/admin/webhooks/{webhook['id']}"
    admin.patch(path, {"state": "DISABLED"}, headers=ANY)
    admin.post(f"{path}/secret", headers=ANY)
    admin.delete(path)

    rows = shop.sql(
        "select action, coalesce(before::text, '') || coalesce(after::text, '') as text "
        "from shop.audit_log where object_kind = 'webhook' and object_id = %s order by seq",
        webhook["id"],
    )

    actions = [row["action"].partition(".")[2] for row in rows]
    assert actions == ["created", "changed", "key_rotated", "deleted"]
    assert not [row for row in rows if "a-secret-path" in row["text"]]


def test_defaults_allow_no_network_that_is_not_public() -> None:
    assert Settings().webhook_networks_allowed == ""
