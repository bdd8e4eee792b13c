"""Orders are found by every criterion alone and by all of them together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from shop.orders import search
from shop.orders.search import Criteria
from shop.primitives.statuses import OrderStatus
from tests.harness import ShopHarness


def found(shop: ShopHarness, *, before: UUID | None = None, limit: int = 10, **given: Any) -> Any:
    """The ids of the orders that meet the criteria, in their order."""
    statement = search.page(Criteria(**given), before=before, limit=limit)
    with psycopg.connect(shop.admin_url) as connection:
        rows = connection.execute(statement.sql, statement.parameters).fetchall()
    return [str(row[0]) for row in rows]


def test_orders_are_found_by_each_criterion_and_by_all(shop: ShopHarness) -> None:
    cheap, dear = shop.product(price=100), shop.product(price=9_000)
    first, second = shop.person(), shop.person()
    paid = first.paid_order(cheap)["id"]
    pending = first.order(dear)["id"]
    other = second.order(cheap, 2)["id"]
    (account,) = shop.sql("select email from shop.users where user_id = %s", second.user_id)
    now, hour = datetime.now(UTC), timedelta(hours=1)

    assert found(shop) == [other, pending, paid]
    assert found(shop, user_id=first.user_id) == [pending, paid]
    assert found(shop, email=account["email"].upper()) == [other]
    assert found(shop, email="absent@shop.local") == []
    assert found(shop, product_id=cheap) == [other, paid]
    assert found(shop, status=OrderStatus.PAID) == [paid]
    assert found(shop, total_min=200) == [other, pending]
    assert found(shop, total_min=200, total_max=200) == [other]
    assert found(shop, total_max=100) == [paid]
    assert found(shop, placed_from=now + hour) == found(shop, placed_before=now - hour) == []
    assert found(
        shop,
        user_id=first.user_id,
        product_id=cheap,
        status=OrderStatus.PAID,
        placed_from=now - hour,
        placed_before=now + hour,
        total_min=100,
        total_max=100,
    ) == [paid]


def test_pages_of_orders_continue_after_the_last_one(shop: ShopHarness) -> None:
    product, person = shop.product(), shop.person()
    newest, middle, oldest = reversed([person.order(product)["id"] for _ in range(3)])

    page = found(shop, product_id=product, limit=2)

    assert page == [newest, middle]
    assert found(shop, product_id=product, before=UUID(middle), limit=2) == [oldest]
