"""Round trips to PostgreSQL, counted on the wire: latency is paid for each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from shop.adapters.statements import Query, Row
from shop.runtime.config import Secret
from tests.counting_proxy import CountingProxy
from tests.harness import ShopHarness

PLACE_ORDER_MAX = 3
SELECT_ONE = Query(Row, "select 1 as one")


@pytest.fixture
def proxy(database_url: str) -> Iterator[CountingProxy]:
    url = urlsplit(database_url)
    with CountingProxy(url.hostname or "", url.port or 0) as made:
        yield made


@pytest.fixture
def far_shop(
    make_shop: Callable[..., ShopHarness], proxy: CountingProxy, database_url: str
) -> ShopHarness:
    """A shop whose order functions reach PostgreSQL through the counting proxy."""
    path = urlsplit(database_url).path
    url = f"postgresql://shop_ordering@127.0.0.1:{proxy.port}{path}"
    return make_shop(database_url=Secret(url))


def test_a_warm_order_takes_at_most_three_round_trips(
    far_shop: ShopHarness, proxy: CountingProxy
) -> None:
    buyer, product = far_shop.person(), far_shop.product(stock=100)
    buyer.order(product, key="the-first-order-01")
    assert proxy.connections == 1
    proxy.forget()
    for number in range(10):
        buyer.order(product, key=f"a-round-trip-key-{number:04}")
    assert 10 <= proxy.round_trips <= 10 * PLACE_ORDER_MAX


def test_many_lines_take_no_more(far_shop: ShopHarness, proxy: CountingProxy) -> None:
    buyer = far_shop.person()
    items = [{"productId": far_shop.product(stock=9), "quantity": 1} for _ in range(20)]
    body = {"items": items, "paymentMethod": "CARD"}
    assert buyer.post("/orders", body, key="twenty-lines-first").status == 201
    proxy.forget()
    assert buyer.post("/orders", body, key="twenty-lines-again").status == 201
    assert 1 <= proxy.round_trips <= PLACE_ORDER_MAX


def test_a_repeated_key_takes_one(far_shop: ShopHarness, proxy: CountingProxy) -> None:
    buyer, product = far_shop.person(), far_shop.product()
    buyer.order(product, key="a-key-to-repeat-01")
    proxy.forget()
    buyer.order(product, key="a-key-to-repeat-01")
    assert 1 <= proxy.round_trips <= 2  # BEGIN with the stored answer, then the end


def test_the_proxy_counts_what_goes_through_it(far_shop: ShopHarness, proxy: CountingProxy) -> None:
    """One statement more is one round trip more: the count above can fail."""
    database = far_shop.apps["place_order"].services.database
    with database.transaction() as session:
        session.tx.fetch_one(SELECT_ONE())
    proxy.forget()
    with database.transaction() as session:
        for _ in range(5):
            session.tx.fetch_one(SELECT_ONE())
        session.commit()
    assert proxy.round_trips == 7
