"""Round trips to PostgreSQL per operation, counted by a proxy on the connection.

``docs/reference/round-trips.json`` holds the counts and ``docs/reference/functions.md`` shows them.
They are those of an open connection and a filled cache, without publishing the events to a broker.
After a change that is meant, ``UPDATE_ROUND_TRIPS=1 pytest tests/contract/test_round_trips.py`` and
``make render`` write both again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from shop.adapters.statements import Query, Row
from shop.one_time_links import token_of
from shop.registry import all_specs
from tests.counting_proxy import CountingProxy
from tests.functions.test_dead_letter import send as send_dead_letter
from tests.harness import PASSWORD, MakeShop, Response, ShopHarness, order_body
from tests.sample_requests import ROUTES, Samples, sample_request

COUNTS = Path(__file__).resolve().parents[2] / "docs" / "reference" / "round-trips.json"
RUNS = 3
# Routes that succeed only after a charge, which the sample requests do not wait for.
NEED_A_CHARGE = ("/orders/{orderId}/payments", "/payments/webhook")
SELECT_ONE = Query(Row, "select 1 as one")


@pytest.fixture
def proxy(database_url: str) -> Iterator[CountingProxy]:
    url = urlsplit(database_url)
    with CountingProxy(url.hostname or "", url.port or 0) as made:
        yield made


@pytest.fixture
def proxied_shop(
    make_shop: MakeShop, proxy: CountingProxy, database_url: str
) -> Iterator[ShopHarness]:
    """A shop whose functions reach PostgreSQL through the counting proxy."""
    direct: ShopHarness = make_shop()
    address = f"127.0.0.1:{proxy.port}{urlsplit(database_url).path}"
    shop = replace(direct, database_address=address, apps={})
    yield shop
    shop.close()


class Counter:
    """Runs operations and keeps the fewest round trips of each one's runs.

    The first run also opens connections.
    """

    def __init__(self, shop: ShopHarness, proxy: CountingProxy) -> None:
        self.shop, self._proxy = shop, proxy
        self.counts: dict[str, int] = {}

    def count(self, operation: str, run: Callable[[], Response]) -> Response:
        self._proxy.reset()
        response = run()
        before = self.counts.get(operation, self._proxy.round_trips)
        self.counts[operation] = min(before, self._proxy.round_trips)
        assert response.status < 400, (operation, response)
        return response

    def count_event(self, event_type: str, consumer: str) -> None:
        """Delivers the newest event of the type to the consumer."""
        row = [row for row in self.shop.outbox(undone=False) if row["type"] == event_type][-1]
        self.count(f"{consumer}: {event_type}", lambda: self.shop.deliver(row, consumer))

    def count_route(self, samples: Samples, method: str, path: str) -> None:
        """Counts the route's sample request."""
        route = ROUTES[method, path]
        for _ in range(RUNS):
            person = self.shop.person() if path == "/auth/logout" else samples.person_for(route)
            send = partial(
                samples.send,
                route,
                sample_request(samples, route),
                token=person.token if person else None,
                key=uuid4().hex if method != "GET" else None,
            )
            self.count(f"{method} {path}", send)


def count_events_and_ticks(counter: Counter) -> None:
    """Counts webhooks, events, ticks and dead letters along the life of an order."""
    shop = counter.shop
    buyer, staff, product = shop.person(), shop.person("staff"), shop.product(stock=100)
    for _ in range(RUNS):
        order = buyer.order(product, method="CARD_DECLINED")
        counter.count_event("order.placed", "charge")
        pay = partial(
            buyer.post,
            f"/orders/{order['id']}/payments",
            {"paymentMethod": "CARD"},
            key=uuid4().hex,
        )
        counter.count("POST /orders/{orderId}/payments", pay)
        counter.count_event("payment.retry-requested", "charge")
        waiting = buyer.order(product, method="CARD_WIDGET")
        counter.count_event("order.placed", "charge")
        (payment,) = shop.sql(
            "select payment_id, amount_minor from shop.payments where order_id = %s", waiting["id"]
        )
        buyer.post(
            f"/orders/{waiting['id']}/payments/{payment['payment_id']}/confirm",
            {"token": "a-token", "amount": payment["amount_minor"]},
        )
        counter.count_event("payment.confirm-requested", "charge")
        (payment,) = shop.sql(
            "select provider_key from shop.payments where order_id = %s and status = 'CAPTURED'",
            order["id"],
        )
        webhook = partial(shop.send_webhook, "charge.captured", payment["provider_key"], 1000)
        counter.count("POST /payments/webhook", webhook)
        counter.count_event("order.paid", "notify")
        buyer.patch(f"/orders/{order['id']}/cancel")
        counter.count_event("refund.requested", "refund")
        counter.count_event("order.cancelled", "notify")
        counter.count_event("refund.succeeded", "notify")
        count_mails_of_accounts(counter)
        staff.patch(f"/products/{product}", {"price": 1000}, headers={"if-match": "*"})
        counter.count_event("product.changed", "list_products")
        counter.count("dead_letter: dead letter", partial(send_dead_letter, shop))
        for spec in all_specs():
            for schedule in spec.schedules:
                shop.tick(spec.name)  # what is due
                counter.count(f"{spec.name}: {schedule.name}", partial(shop.tick, spec.name))


def count_mails_of_accounts(counter: Counter) -> None:
    """Counts the mails of a new account and of links to set a password."""
    shop, email = counter.shop, f"{uuid4().hex}@test.kr"
    shop.register(email)
    counter.count_event("user.registered", "notify")
    shop.call("POST", "/auth/password-reset", {"email": email})
    counter.count_event("user.password-reset-requested", "notify")
    person, new = shop.person(), {"email": f"{uuid4().hex}@test.kr", "password": PASSWORD}
    person.post("/users/me/email-verification")
    counter.count_event("user.email-verification-requested", "notify")
    person.post("/users/me/email", new)
    counter.count_event("user.email-change-requested", "notify")
    counter.count_event("user.email-change-started", "notify")
    (link,) = shop.sql(
        "select link_id from shop.one_time_links where email is not null "
        "order by created_at desc limit 1"
    )
    token = {"token": token_of(link["link_id"], shop.secrets.link_key)}
    shop.call("POST", "/auth/email-verification/confirm", token)
    counter.count_event("user.email-changed", "notify")
    passwords = {"currentPassword": PASSWORD, "newPassword": f"{PASSWORD} replaced"}
    shop.person().post("/users/me/password", passwords)
    counter.count_event("user.password-changed", "notify")
    shop.call("POST", "/auth/second-factor/remove", Samples(shop).confirmed_factor())
    counter.count_event("user.second-factor-enabled", "notify")
    counter.count_event("user.second-factor-removed", "notify")
    counter.count_event("user.recovery-code-used", "notify")
    shop.call("POST", "/auth/second-factor/recovery-codes", Samples(shop).confirmed_factor())
    counter.count_event("user.recovery-codes-renewed", "notify")
    body = {"email": f"{uuid4().hex}@test.kr", "name": "Kim", "role": "staff"}
    shop.person("admin").post("/admin/users", body, key=uuid4().hex)
    counter.count_event("user.invited", "notify")


def operations() -> set[str]:
    """The name of every route, subscription, schedule and dead-letter receiver."""
    names = {f"{method} {path}" for method, path in ROUTES}
    for spec in all_specs():
        names |= {f"{spec.name}: {subscription.event}" for subscription in spec.subscriptions}
        names |= {f"{spec.name}: {schedule.name}" for schedule in spec.schedules}
        if spec.receives_dead_letters:
            names.add(f"{spec.name}: dead letter")
    return names


def test_every_operation_takes_the_documented_round_trips(
    proxied_shop: ShopHarness, proxy: CountingProxy
) -> None:
    samples, counter = Samples(proxied_shop), Counter(proxied_shop, proxy)

    for method, path in ROUTES:
        if path not in NEED_A_CHARGE:
            counter.count_route(samples, method, path)
    count_events_and_ticks(counter)

    assert counter.counts.keys() == operations()
    if os.environ.get("UPDATE_ROUND_TRIPS"):
        COUNTS.write_text(json.dumps(counter.counts, indent=2, sort_keys=True) + "\n")
    assert counter.counts == json.loads(COUNTS.read_text())


def test_twenty_lines_take_as_many_round_trips_as_one(
    proxied_shop: ShopHarness, proxy: CountingProxy
) -> None:
    buyer, counter = proxied_shop.person(), Counter(proxied_shop, proxy)
    items = [{"productId": proxied_shop.product(stock=90), "quantity": 1} for _ in range(20)]
    for name, lines in (("one line", items[:1]), ("twenty lines", items)) * RUNS:
        body = {"items": lines, "paymentMethod": "CARD"}
        counter.count(name, partial(buyer.post, "/orders", body, key=uuid4().hex))

    assert counter.counts["twenty lines"] == counter.counts["one line"]


def test_replayed_key_takes_at_most_two_round_trips(
    proxied_shop: ShopHarness, proxy: CountingProxy
) -> None:
    buyer, counter = proxied_shop.person(), Counter(proxied_shop, proxy)
    body = order_body(proxied_shop.product())
    for _ in range(RUNS):
        counter.count("replay", partial(buyer.post, "/orders", body, key="a-key-to-repeat-01"))

    assert 1 <= counter.counts["replay"] <= 2


def test_proxy_counts_each_statement(proxied_shop: ShopHarness, proxy: CountingProxy) -> None:
    database = proxied_shop.apps["place_order"].services.database
    with database.transaction() as session:
        session.tx.fetch_one(SELECT_ONE())
    proxy.reset()
    with database.transaction() as session:
        for _ in range(5):
            session.tx.fetch_one(SELECT_ONE())
        session.commit()
    assert proxy.round_trips == 7
