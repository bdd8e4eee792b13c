"""Several functions in one process: each event goes to those that subscribe, dead letters aside."""

from __future__ import annotations

from shop.registry import spec_of
from shop.runtime.app import App
from tests.harness import ShopHarness


def test_a_process_that_also_keeps_dead_letters_still_takes_events(shop: ShopHarness) -> None:
    specs = (spec_of("dead_letter"), spec_of("charge"), spec_of("refund"))
    shop.apps["charge"] = App(specs, shop.apps["charge"].services)
    buyer = shop.person()

    order = buyer.order(shop.product())
    shop.deliver_all()

    assert buyer.get(f"/orders/{order['id']}").json["status"] == "PAID"
    assert shop.sql("select 1 from shop.dead_letters") == []
