"""Transactions that lock rows of several tables lock them in one order, so that none deadlocks.

Each test runs two requests that wait for one row, in either order, and lets them go on at once.  A
deadlock is not retried here, so it would be a 503.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from shop.adapters import db
from tests.functions.test_email_addresses import change_token, confirm, new_address, registered
from tests.harness import PASSWORD, Person, Response, ShopHarness
from tests.rows import rows_of
from tests.waiting import wait_for

Send = Callable[[], Response]
ROLES = ("identity", "ordering", "accounts", "back_office")
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
