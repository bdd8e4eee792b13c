"""Transactions that lock rows of several tables lock them in one order, so that none deadlocks.

Each test runs two requests that wait for one row, in either order, and lets them go on at once.  A
deadlock is not retried here, so it would be a 503.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from shop import login_failures, webhooks
from shop.adapters import db
from tests.functions.test_email_addresses import change_token, confirm, new_address, registered
from tests.functions.test_manage_webhooks import cancel_orders, create
from tests.harness import PASSWORD, FlowHarness, Person, Response, ShopHarness
from tests.rows import rows_of
from tests.waiting import wait_for

Send = Callable[[], Response]
ROLES = ("identity", "ordering", "accounts", "back_office", "relay", "webhooks")
WAITING = """
select 1 from pg_stat_activity
where datname = current_database() and wait_event_type = 'Lock' and query not like '%pg_stat%'
"""
ACCOUNT: LiteralString = "select from shop.users where user_id = %s for update"
BOTH_ORDERS = pytest.mark.parametrize("is_reversed", [False, True])


@pytest.fixture(autouse=True)
def deadlocks_are_errors(shop: ShopHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlocks are not retried, and no statement waits too long on a busy machine."""
    monkeypatch.setattr(db, "RETRYABLE_ERRORS", ())
    with psycopg.connect(shop.admin_url, autocommit=True) as connection:
        database = Identifier(connection.info.dbname)
        for role in ROLES:
            for setting in ("lock_timeout", "statement_timeout"):
                connection.execute(
                    SQL("alter role {} in database {} set {} = '20s'").format(
                        Identifier(f"shop_{role}"), database, Identifier(setting)
                    )
                )


def waiting_for_one_row(
    shop: ShopHarness, lock: LiteralString, row_id: int, *calls: Send
) -> list[int]:
    """The statuses of requests that began in this order to wait for the row, when it is free."""
    with (
        psycopg.connect(shop.admin_url, autocommit=True) as observer,
        psycopg.connect(shop.admin_url) as blocking,
        ThreadPoolExecutor(len(calls)) as pool,
    ):
        blocking.execute(lock, (row_id,))
        futures: list[Future[Response]] = []
        for number, call in enumerate(calls, start=1):
            futures.append(pool.submit(call))
            wait_for(
                lambda n=number: len(rows_of(observer.execute(WAITING))) >= n,
                f"{number} requests that wait",
            )
        blocking.rollback()
        return [future.result(30).status for future in futures]


def close(person: Person) -> Response:
    return person.delete("/users/me", {"password": PASSWORD})


@BOTH_ORDERS
def test_closing_and_change_of_address_at_the_same_time_do_not_deadlock(
    shop: ShopHarness, *, is_reversed: bool
) -> None:
    person = registered(shop)
    token = change_token(person, new_address())
    calls: list[Send] = [lambda: close(person), lambda: confirm(shop, token)]

    statuses = waiting_for_one_row(
        shop, ACCOUNT, person.user_id, *calls[:: -1 if is_reversed else 1]
    )

    assert statuses == ([204, 204] if is_reversed else [204, 403])
    assert shop.sql("select 1 from shop.one_time_links") == []


@BOTH_ORDERS
def test_closing_and_order_of_the_cart_at_the_same_time_do_not_deadlock(
    shop: ShopHarness, *, is_reversed: bool
) -> None:
    person, product = registered(shop), shop.product()
    assert person.post("/cart/items", {"productId": product, "quantity": 1}).status == 201
    body = {"paymentMethod": "CARD"}
    calls: list[Send] = [lambda: close(person), lambda: person.post("/orders/from-cart", body)]

    statuses = waiting_for_one_row(
        shop, ACCOUNT, person.user_id, *calls[:: -1 if is_reversed else 1]
    )

    assert statuses == ([201, 409] if is_reversed else [204, 400])


@BOTH_ORDERS
def test_change_of_an_account_and_note_about_it_at_the_same_time_do_not_deadlock(
    shop: ShopHarness, *, is_reversed: bool
) -> None:
    """The note refers to both accounts, the change locks the administrators before the account."""
    admin, person = shop.person("admin"), shop.person()
    path = f"/admin/users/{person.user_id}"

    def change() -> Response:
        body, headers = {"state": "DISABLED"}, {"if-match": "*"}
        return admin.patch(path, body, headers=headers, key=uuid4().hex)

    def note() -> Response:
        path = f"/admin/customers/{person.user_id}/notes"
        return admin.post(path, {"text": "called twice"}, key=uuid4().hex)

    calls: list[Send] = [change, note]
    statuses = waiting_for_one_row(
        shop, ACCOUNT, admin.user_id, *calls[:: -1 if is_reversed else 1]
    )

    assert sorted(statuses) == [200, 201]


STOCK: LiteralString = "select from shop.stock where product_id = %s for update"


def expired_cart_order(shop: ShopHarness, product: int) -> tuple[Person, str]:
    """A customer with an expired order from the cart, and the order."""
    person = shop.person()
    assert person.post("/cart/items", {"productId": product, "quantity": 1}).status == 201
    order = person.post("/orders/from-cart", {"paymentMethod": "CARD"})
    assert order.status == 201, order.body
    shop.sql(
        "update shop.orders set charge_at = null, expires_at = now() - interval '1 s', "
        "hard_expires_at = now() - interval '1 s' where order_id = %s",
        order.json["id"],
    )
    return person, order.json["id"]


@BOTH_ORDERS
def test_expiry_and_order_of_the_same_cart_at_the_same_time_do_not_deadlock(
    flow: FlowHarness, *, is_reversed: bool
) -> None:
    """The expired order's lines return to the cart whose present lines are being ordered."""
    shop = flow.shop
    product = shop.product(stock=2)
    person, order_id = expired_cart_order(shop, product)
    assert person.post("/cart/items", {"productId": product, "quantity": 1}).status == 201

    def expire() -> Response:
        return shop.tick("sweep")

    def order() -> Response:
        return person.post("/orders/from-cart", {"paymentMethod": "CARD"})

    calls: list[Send] = [expire, order]
    statuses = waiting_for_one_row(shop, STOCK, product, *calls[:: -1 if is_reversed else 1])

    assert sorted(statuses) == [201, 204]
    assert flow.order_state(order_id)["reason"] == "EXPIRED"


@BOTH_ORDERS
def test_two_orders_that_expire_each_others_do_not_deadlock(
    flow: FlowHarness, *, is_reversed: bool
) -> None:
    """Each empties an own cart, to which the other one would return lines."""
    shop = flow.shop
    product = shop.product(stock=2)
    buyers = [expired_cart_order(shop, product)[0] for _ in range(2)]
    assert buyers[1].post("/cart/items", {"productId": product, "quantity": 1}).status == 201
    body = {"paymentMethod": "CARD"}
    calls: list[Send] = [
        lambda: buyers[0].post("/orders", {"productId": product, "quantity": 2, **body}),
        lambda: buyers[1].post("/orders/from-cart", body),
    ]

    statuses = waiting_for_one_row(shop, STOCK, product, *calls[:: -1 if is_reversed else 1])

    assert set(statuses) <= {201, 409} and 201 in statuses


def test_deletion_of_old_failures_skips_those_that_a_log_in_forgets(shop: ShopHarness) -> None:
    for account in (b"a" * 32, b"b" * 32):
        shop.sql(
            "insert into shop.login_failures (account, source, is_known_device, failed_at) "
            "values (%s, %s, false, now() - interval '1 day')",
            account,
            b"s" * 32,
        )
    with psycopg.connect(shop.admin_url) as log_in:
        log_in.execute("delete from shop.login_failures where account = %s", (b"a" * 32,))
        with psycopg.connect(shop.role_url("relay")) as sweep:
            deleted = sweep.execute(login_failures.DELETE_OLD.sql, {"batch": 10}).rowcount

    assert deleted == 1


def test_results_of_deliveries_are_locked_in_the_order_of_events(shop: ShopHarness) -> None:
    """As by a redelivery, also when they are given in another order."""
    webhook_id = UUID(create(shop.person("admin"), "https://hooks.example.kr/")["id"])
    cancel_orders(shop, 2)
    rows = shop.sql("select event_id from shop.webhook_deliveries order by event_id")
    events: list[UUID] = [row["event_id"] for row in rows]
    outcome = {"state": "FAILED", "retry_seconds": 0, "milliseconds": 1}
    outcome |= {"request_head": "POST / HTTP/1.1", "response_head": ""}
    outcomes = [{"event_id": str(event), **outcome} for event in reversed(events)]
    lock: LiteralString = "select from shop.webhook_deliveries where event_id = %s for update"

    def record() -> None:
        statement = webhooks.record(webhook_id, outcomes)
        with psycopg.connect(shop.role_url("webhooks")) as connection:
            connection.execute(statement.sql, statement.parameters)

    with (
        psycopg.connect(shop.admin_url, autocommit=True) as observer,
        psycopg.connect(shop.admin_url) as blocking,
        ThreadPoolExecutor(1) as pool,
    ):
        blocking.execute(lock, (events[0],))
        recorded = pool.submit(record)
        wait_for(lambda: rows_of(observer.execute(WAITING)), "results that wait")
        assert observer.execute(lock + " nowait", (events[-1],)).rowcount == 1
        blocking.rollback()
        recorded.result(30)

    states = shop.sql("select distinct state from shop.webhook_deliveries")
    assert states == [{"state": "FAILED"}]
